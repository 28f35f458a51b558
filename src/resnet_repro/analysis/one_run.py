"""One logged run as data frames, checked as it is read.

A folder that lacks something is refused in one line that names the file and what is missing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from resnet_repro.conf import changed_from_experiment
from resnet_repro.exits import notify
from resnet_repro.paths import given
from resnet_repro.runs.folder import RunFolder, RunFolderError
from resnet_repro.same_run import filled

_NUMBERS = ("iter", "top1_err", "loss", "num_samples")


@dataclass(frozen=True)
class Run:
    """One logged run.

    Attributes:
        metrics: one row per record of ``metrics.jsonl``; errors in percent.
    """

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

    @property
    def place(self) -> str:
        """``profile/name/seed<k>``, the same wherever the results lie."""
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
    def max_iters(self) -> int:
        """Updates of the schedule."""
        return int(self.config["recipe"]["max_iters"])

    def table(self, name: str) -> pd.DataFrame | None:
        """Return what the run wrote as ``<name>.csv``, not to be changed; None without the file.

        A damaged file counts as missing; stderr names it once.
        """
        if name not in self._tables:
            self._tables[name] = _numbers(RunFolder(self.path), name)
        return self._tables[name]

    def curve(self, kind: str, column: str = "top1_err") -> pd.Series[float]:
        """One column of one kind of record over the iterations; nulls are left out.

        Held-out records are those of the single view (1-crop) under the batch-norm statistics
        the run was configured for. Empty where nothing of the kind was logged.
        """
        table = self.metrics
        if table.empty or column not in table:
            return pd.Series(np.empty(0), index=pd.Index([], name="iter"), name=column)
        table = table[table["kind"] == kind]
        wanted = {
            "protocol": "1-crop",
            "bn": self.config.get("evaluation", {}).get("bn", "running"),
        }
        for key, value in wanted.items():
            if kind != "train" and key in table and (table[key] == value).any():
                table = table[table[key] == value]
        table = table.dropna(subset=[column]).drop_duplicates("iter", keep="last")
        values: np.ndarray[Any, Any] = table[column].to_numpy(float)
        index = pd.Index(table["iter"].to_numpy(int), name="iter")
        return pd.Series(values, index=index, name=column).sort_index()


def _numbers(folder: RunFolder, name: str) -> pd.DataFrame | None:
    """Return the columns of ``<name>.csv`` that hold numbers; None where there are none."""
    try:
        rows = folder.table(name)
        if not rows:
            return None
        table = pd.DataFrame(rows).drop(columns="name", errors="ignore")
        return pd.DataFrame({name: pd.to_numeric(table[name]) for name in table})
    except RunFolderError as error:
        notify(f"left out: {error}")
    except ValueError:
        notify(f"left out: {folder.path / name}.csv: not a table of numbers")
    return None


def load_run(path: Path) -> Run:
    """Load the run in one folder, whatever its state and wherever it lies.

    Raises:
        RunFolderError: there is no run in it, or one of its files lacks what every run has; one
            line names the file and what is missing.
    """
    folder = RunFolder(given(str(path)).absolute())
    try:
        config, meta, status = folder.config(), folder.trained_meta(), folder.status()
        metrics = _metrics(folder)
    except (OSError, ValueError) as error:
        where = "" if str(folder.path) in str(error) else f"{folder.path}: "
        cause = getattr(error, "strerror", None) or str(error)
        raise RunFolderError(f"{where}{cause}") from error
    if status.get("state") == "finished":
        kinds = set(metrics["kind"]) if len(metrics) else set()
        if missing := [kind for kind in ("train", "test") if kind not in kinds]:
            raise RunFolderError(f"{folder.metrics_path}: has no {' and no '.join(missing)} record")
    return Run(
        path=folder.path,
        experiment=config["experiment"],
        name=config["name"],
        profile=config["profile"],
        seed=config["seed"],
        config=filled(config),
        meta=meta,
        status=status,
        metrics=metrics,
    )


def _metrics(folder: RunFolder) -> pd.DataFrame:
    table = pd.DataFrame.from_records(folder.metrics())
    for name in _NUMBERS:
        if name in table and table[name].dtype == object:
            try:
                pd.to_numeric(table[name].dropna())
            except (ValueError, TypeError) as error:
                raise RunFolderError(f"{folder.metrics_path}: {name}: {error}") from error
    return table
