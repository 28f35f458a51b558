"""One logged run: what its folder says of it, its curves and its tables."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from resnet_repro.conf import changed_from_experiment
from resnet_repro.exits import notify
from resnet_repro.paths import expand
from resnet_repro.runs.folder import RunFolder, RunFolderError
from resnet_repro.runs.metrics import MetricsError
from resnet_repro.same_run import filled


@dataclass(frozen=True)
class Run:
    """One logged run; ``metrics`` has one row per record, errors in percent."""

    path: Path
    experiment: str
    name: str
    profile: str
    seed: int
    config: dict[str, Any] = field(repr=False)
    meta: dict[str, Any] = field(repr=False)
    status: dict[str, Any] = field(repr=False)
    metrics: pd.DataFrame = field(repr=False, compare=False)
    _tables: dict[str, pd.DataFrame | None] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    _curves: dict[tuple[str, str], pd.Series[float]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def place(self) -> str:
        """``profile/name/seed<k>``, the same wherever the results are."""
        return "/".join(self.path.parts[-3:])

    @cached_property
    def changes(self) -> dict[str, tuple[Any, Any]]:
        """Computed keys in which it differs from its experiment: the experiment's value, its own.

        Empty for an experiment that ``conf/`` does not have.
        """
        return changed_from_experiment(self.config) or {}

    @property
    def is_variant(self) -> bool:
        """Whether it does not stand for its experiment: by its name or by what it computes."""
        return self.name != self.experiment or bool(self.changes)

    @property
    def is_finished(self) -> bool:
        """Whether it was trained to its end."""
        return bool(self.status.get("state") == "finished")

    @property
    def label(self) -> str:
        """The net as figures call it: plain-20, ResNet-56."""
        return str(self.meta["net"]["label"])

    @property
    def depth(self) -> int:
        """Number of weighted layers."""
        return int(self.config["model"]["depth"])

    @property
    def is_plain(self) -> bool:
        """Whether the net has no shortcuts."""
        return bool(self.config["model"]["shortcut"] == "none")

    @property
    def family(self) -> str:
        """Whether it is a net for ``cifar`` or ``imagenet``."""
        return str(self.config["model"]["family"])

    @property
    def data(self) -> str:
        """Name of the data set, as in the configuration."""
        return str(self.config["data"]["name"])

    @property
    def max_iters(self) -> int:
        """Updates of the schedule."""
        return int(self.config["recipe"]["max_iters"])

    @property
    def drops(self) -> list[int]:
        """Updates after which the learning rate drops: as planned or, on a plateau, as logged."""
        if self.config["recipe"]["schedule"] == "milestones":
            return [*self.config["recipe"]["milestones"]]
        events = self.metrics.get("event")
        return [] if events is None else [*map(int, self.metrics["iter"][events == "lr_drop"])]

    @property
    def hardware(self) -> str:
        """What it was trained on: ``1x NVIDIA H100, then 1x NVIDIA H200``; of many the first."""
        parts = [*self.meta.get("earlier", ()), self.meta]
        labels = [part.get("hardware", {}).get("label", "unknown hardware") for part in parts]
        first, *others = dict.fromkeys(labels)
        others = [f"{len(others)} other kinds"] if len(others) > 1 else others
        return ", then ".join([first, *others])

    @property
    def precision(self) -> str:
        """In which it multiplied: fp32, tf32 or bf16."""
        return str(self.meta.get("precision", "unknown precision"))

    @property
    def device(self) -> str:
        """What it was trained on and in which precision: ``1x NVIDIA H200, tf32``."""
        return f"{self.hardware}, {self.precision}"

    def table(self, name: str) -> pd.DataFrame | None:
        """Return the numbers of the run's ``<name>.csv``, not to be changed; None without any.

        A damaged file counts as missing; stderr names it once.
        """
        if name not in self._tables:
            self._tables[name] = None
            try:
                rows = pd.DataFrame(RunFolder(self.path).table(name))
                if len(rows):
                    numbers = rows.drop(columns="name", errors="ignore").apply(pd.to_numeric)
                    self._tables[name] = numbers
            except RunFolderError as error:
                warn(str(error))
            except ValueError:
                warn(f"{self.path / name}.csv: not a table of numbers")
        return self._tables[name]

    def by_layer(self, name: str, column: str) -> pd.Series[float] | None:
        """Return a column of the run's ``<name>.csv`` by 1-based layer; None without any."""
        table = self.table(name)
        if table is None:
            return None
        return table.set_index("layer")[column].astype(float).sort_index()

    def curve(self, kind: str, column: str = "top1_err") -> pd.Series[float]:
        """One column of one kind of record over the iterations; nulls are left out.

        Held-out records are those of the single view (1-crop) under running batch-norm statistics.
        Empty where nothing of the kind was logged.
        """
        if (kind, column) not in self._curves:
            self._curves[kind, column] = self._select(kind, column)
        return self._curves[kind, column].copy()

    def _select(self, kind: str, column: str) -> pd.Series[float]:
        table = self.metrics
        if column not in table:
            return pd.Series(np.empty(0), pd.Index([], name="iter"), name=column)
        table = table[table["kind"] == kind]
        for key, value in (("protocol", "1-crop"), ("bn", "running")):
            if kind != "train" and key in table and (table[key] == value).any():
                table = table[table[key] == value]
        table = table.dropna(subset=[column]).drop_duplicates("iter", keep="last")
        return table.astype({"iter": int}).set_index("iter")[column].astype(float).sort_index()


def load_run(path: Path) -> Run:
    """Load a run in any state; RunFolderError: a file is missing or lacks what every run has."""
    folder = RunFolder(expand(str(path)).absolute())
    config, meta, status = folder.config(), folder.meta(trained=True), folder.status()
    try:
        metrics = pd.DataFrame.from_records(folder.metrics())
    except MetricsError as error:
        raise RunFolderError(str(error)) from error
    for column in ("iter", "top1_err", "loss", "num_samples"):
        try:
            pd.to_numeric(metrics.get(column, ()))
        except (ValueError, TypeError) as error:
            raise RunFolderError(f"{folder.metrics_path}: {column}: {error}") from error
    if status.get("state") == "finished":
        missing = [kind for kind in ("train", "test") if kind not in {*metrics.get("kind", ())}]
        if missing:
            raise RunFolderError(f"{folder.metrics_path}: has no {' and no '.join(missing)} record")
    identity = {key: config[key] for key in ("experiment", "name", "profile", "seed")}
    return Run(
        folder.path, **identity, config=filled(config), meta=meta, status=status, metrics=metrics
    )


def warn(line: str) -> None:
    """Print on stderr what is left out and why."""
    notify(f"left out: {line}")
