"""The paper's own numbers (``results/paper``), typed: table rows, curves, pooled public runs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import pandas as pd

from resnet_repro.paths import REPOSITORY

PAPER_DIR = REPOSITORY / "results" / "paper"
READ_OFF = "read off Fig. 6"
CENTRE_CROP = "val_center_crop"  # what the held-out curves of Fig. 4 are called


@dataclass(frozen=True)
class PaperValue:
    """A test error of the paper, percent, and where it is printed or that it was read off.

    ``value`` is the mean over ``runs``: several for ResNet-110 alone, with ``sd`` and ``best``.
    """

    value: float
    source: str
    runs: int = 1
    sd: float | None = None
    best: float | None = None


@dataclass(frozen=True)
class Noise:
    """How runs of one net scatter over seeds: standard deviation (points), degrees of freedom."""

    sd: float
    df: float


@cache
def read(stem: str) -> pd.DataFrame:
    """Read one file of the paper's numbers, named without its ending."""
    return pd.read_csv(PAPER_DIR / f"{stem}.csv")


def figure(number: int) -> pd.DataFrame:
    """All digitised points of Fig. 1, 4, 6 or 7."""
    return read(f"fig{number}_digitised")


def curve(
    number: int, net: str, kind: str, *, panel: str | None = None, clipped: bool = False
) -> pd.Series[float]:
    """One curve of Fig. 1, 4 or 6: error in percent over iterations.

    Empty where the paper draws no such curve. ``kind``: ``train`` or ``test``, which in Fig. 4 is
    the validation error of the centre crop; ``panel``: ``left``, ``middle`` or ``right`` where a
    net is drawn twice, default the first; ``clipped``: also the points where the curve leaves the
    axes, which are no measurements.
    """
    table = figure(number)
    name = CENTRE_CROP if (number, kind) == (4, "test") else kind
    table = table[(table["net"] == net) & (table["curve"] == name)]
    panels = list(dict.fromkeys(table["panel"]))
    if panels:
        table = table[table["panel"] == (f"{number} {panel}" if panel else panels[0])]
    if not clipped:
        table = table[table["at_axis_clip"] == 0]
    iters = (table["iteration_1e4"] * 1e4).round().astype(int)
    return pd.Series(
        table["error_pct"].to_numpy(float), index=pd.Index(iters, name="iter"), name="top1_err"
    ).sort_index()


def responses(net: str, *, ordered: bool = False) -> pd.Series[float]:
    """Fig. 7: std of a net's responses by layer from 1 on; ``ordered``: descending, as below."""
    table = figure(7)
    order = "sorted descending" if ordered else "original order"
    table = table[(table["net"] == net) & (table["order"] == order)]
    layers = pd.Index(table["layer_index"].astype(int), name="layer")
    return pd.Series(table["response_std"].to_numpy(float), index=layers, name="std")


def test_error(net: str) -> PaperValue | None:
    """Test error of a CIFAR net: Table 6, or for a plain net a reading of Fig. 6."""
    table = read("table6")
    ours = table[table["method"] == "ResNet"]
    rows = ours[("ResNet-" + ours["layers"].astype(int).astype(str)) == net]
    if rows.empty:
        read_off = read("public_runs").set_index("net").reindex([net]).iloc[0]
        value, source = read_off["paper_test_err_pct"], str(read_off["paper_source"])
        return None if pd.isna(value) else PaperValue(float(value), source)
    row = rows.iloc[0]
    printed = float(row["cifar10_test_err_pct"])
    if pd.isna(row["mean_err_pct_over_runs"]):
        return PaperValue(printed, "Table 6")
    mean, sd = float(row["mean_err_pct_over_runs"]), float(row["std_err_pct_over_runs"])
    return PaperValue(mean, "Table 6, mean of 5", runs=5, sd=sd, best=printed)


def public_runs(net: str) -> pd.Series[float]:
    """Public reproductions of a CIFAR net: ``median``, ``min`` and ``max`` error, ``runs``.

    Errors in percent; NaN where it is not known.
    """
    columns = {f"{name}_test_err_pct": name for name in ("median", "min", "max")} | {"runs": "runs"}
    table = read("public_runs").set_index("net")[[*columns]].rename(columns=columns)
    return table.reindex([net]).astype(float).iloc[0]


@cache
def seed_noise() -> Noise:
    """Scatter of the test error of a CIFAR net of the paper, pooled from public figures.

    Those of four nets in ``public_runs.csv`` and the paper's own of ResNet-110 (Table 6), of
    five runs each.
    """
    sds = [*read("public_runs")["seed_sd_pct"].dropna()]
    sds += [five.sd] if (five := test_error("ResNet-110")) and five.sd else []
    return Noise((sum(sd**2 for sd in sds) / len(sds)) ** 0.5, 4 * len(sds))
