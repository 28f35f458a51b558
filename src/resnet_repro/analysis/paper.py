"""The paper's own numbers (``results/paper``), typed: table rows, curves, pooled public runs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from resnet_repro.paths import REPOSITORY

PAPER_DIR = REPOSITORY / "results" / "paper"
READ_OFF = "read off Fig. 6"


@dataclass(frozen=True)
class PaperValue:
    """A test error of the paper, percent.

    Attributes:
        value: the mean over ``runs`` runs.
        runs: how many runs stand behind it; 1 but for ResNet-110.
        sd: standard deviation over those runs, where the paper gives it.
        best: the best of the runs, where it differs from the mean.
        source: where it is printed, or that it was read off a curve.
    """

    value: float
    source: str
    runs: int = 1
    sd: float | None = None
    best: float | None = None

    @property
    def is_read_off(self) -> bool:
        """Whether the value is a reading of a curve, not a printed number."""
        return self.source.startswith(READ_OFF)


@dataclass(frozen=True)
class PublicRuns:
    """Test errors of public reproductions of one net, pooled, percent; None is not known."""

    median: float | None
    low: float | None
    high: float | None
    runs: int | None
    seed_sd: float | None


@dataclass(frozen=True)
class Noise:
    """How runs of one net scatter over seeds, points.

    Attributes:
        sd: standard deviation of one run; ``df`` degrees of freedom of the figure.
    """

    sd: float
    df: float


class Paper:
    """Access to the CSV files of the paper's numbers.

    Raises:
        FileNotFoundError: the folder has no such file; the message names it.
    """

    def __init__(self, root: Path | str | None = None):
        self.root = Path(root) if root is not None else PAPER_DIR

    def read(self, stem: str) -> pd.DataFrame:
        """Read one file of the folder, without its ending."""
        return pd.read_csv(self.root / f"{stem}.csv")

    @cached_property
    def _figures(self) -> dict[int, pd.DataFrame]:
        return {}

    def figure(self, number: int) -> pd.DataFrame:
        """All digitised points of Fig. 1, 4, 6 or 7."""
        if number not in self._figures:
            self._figures[number] = self.read(f"fig{number}_digitised")
        return self._figures[number]

    def curve(
        self, number: int, net: str, curve: str, *, panel: str | None = None, clipped: bool = False
    ) -> pd.Series[float]:
        """One curve of Fig. 1, 4 or 6: error in percent over iterations.

        Args:
            number: of the figure.
            net: as the paper calls it.
            curve: ``train``, ``test`` or, in Fig. 4, ``val_center_crop``.
            panel: ``left``, ``middle`` or ``right`` where a net is drawn twice; default the first.
            clipped: also give the points where the curve leaves the axes, which are points of the
                drawing and no measurements.

        Returns:
            A series over ``iter``; empty where the paper draws no such curve.
        """
        table = self.figure(number)
        table = table[(table["net"] == net) & (table["curve"] == curve)]
        panels = list(dict.fromkeys(table["panel"]))
        if panels:
            table = table[table["panel"] == (f"{number} {panel}" if panel else panels[0])]
        if not clipped:
            table = table[table["at_axis_clip"] == 0]
        iters = (table["iteration_1e4"] * 1e4).round().astype(int)
        return pd.Series(
            table["error_pct"].to_numpy(float), index=pd.Index(iters, name="iter"), name="top1_err"
        ).sort_index()

    def responses(self, net: str, *, ordered: bool = False) -> pd.Series[float]:
        """Fig. 7: standard deviation of the responses over the layer index (1-based).

        Args:
            net: as the paper calls it.
            ordered: the lower panel, in descending order.
        """
        table = self.figure(7)
        order = "sorted descending" if ordered else "original order"
        table = table[(table["net"] == net) & (table["order"] == order)]
        layers = pd.Index(table["layer_index"].astype(int), name="layer")
        return pd.Series(table["response_std"].to_numpy(float), index=layers, name="std")

    @cached_property
    def _public(self) -> pd.DataFrame:
        return self.read("public_runs").set_index("net")

    def test_error(self, net: str) -> PaperValue | None:
        """Test error of a CIFAR net: Table 6, or for a plain net a reading of Fig. 6."""
        table = self.read("table6")
        rows = table[("ResNet-" + table["layers"].fillna(0).astype(int).astype(str)) == net]
        rows = rows[rows["method"] == "ResNet"]
        if rows.empty:
            value = self._public_number(net, "paper_test_err_pct")
            source = str(self._public["paper_source"].get(net))
            return None if value is None else PaperValue(value, source)
        row = rows.iloc[0]
        printed = float(row["cifar10_test_err_pct"])
        if pd.isna(row["mean_err_pct_over_runs"]):
            return PaperValue(printed, "Table 6")
        mean, sd = float(row["mean_err_pct_over_runs"]), float(row["std_err_pct_over_runs"])
        return PaperValue(mean, "Table 6, mean of 5", runs=5, sd=sd, best=printed)

    def public(self, net: str) -> PublicRuns:
        """Public reproductions of a CIFAR net; all unknown where there are none."""
        runs = self._public_number(net, "runs")
        return PublicRuns(
            self._public_number(net, "median_test_err_pct"),
            self._public_number(net, "min_test_err_pct"),
            self._public_number(net, "max_test_err_pct"),
            None if runs is None else int(runs),
            self._public_number(net, "seed_sd_pct"),
        )

    def _public_number(self, net: str, column: str) -> float | None:
        value = self._public[column].astype(float).get(net)
        return None if value is None or pd.isna(value) else float(value)

    def seed_noise(self) -> Noise:
        """Scatter of the test error of a CIFAR net of the paper, pooled from public figures.

        Those of four nets in ``public_runs.csv`` and the paper's own of ResNet-110 (Table 6), of
        five runs each.
        """
        sds = [*self._public["seed_sd_pct"].dropna()]
        best = self.test_error("ResNet-110")
        sds += [best.sd] if best is not None and best.sd is not None else []
        return Noise((sum(sd**2 for sd in sds) / len(sds)) ** 0.5, 4 * len(sds))

    def quoted(self) -> pd.DataFrame:
        """The rows of Table 6 that the paper quotes from others."""
        table = self.read("table6")
        return table[table["method"] != "ResNet"].reset_index(drop=True)
