"""Logged runs as data frames: which are there and which of them count."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from resnet_repro.config_groups import PROFILES
from resnet_repro.runs.folder import RunFolder, RunFolderError, find_runs
from resnet_repro.runs.metrics import MetricsError

PROFILE_ORDER = ("paper", "short", "quick")


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
        """What the run wrote as ``<name>.csv``, not to be changed; None if it did not write it."""
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
    """Return the columns of ``<name>.csv`` that hold numbers; None where it was not written.

    Raises:
        RunFolderError: it cannot be read, or something else than a number is there.
    """
    rows = folder.table(name)
    if not rows:
        return None
    table = pd.DataFrame(rows).drop(columns="name", errors="ignore")
    try:
        return pd.DataFrame({name: pd.to_numeric(table[name]) for name in table})
    except ValueError as error:
        raise RunFolderError(f"{folder.path / name}.csv: not a table of numbers") from error


_told: set[str] = set()


def tell_once(reason: str) -> None:
    """Name a folder that is skipped and the cause on standard error, once."""
    if reason not in _told:
        _told.add(reason)
        print(f"skipped: {reason}", file=sys.stderr)


def load_runs(
    root: Path,
    *,
    profile: str | None = None,
    experiments: Sequence[str] | None = None,
    finished_only: bool = True,
    skip: Callable[[str], object] = tell_once,
) -> list[Run]:
    """Load the runs below ``root``, sorted by profile, experiment and seed.

    A run whose name is not its experiment is a variant and is left out; so is one that diverged
    or failed, whatever else is asked. So is a folder that cannot be read or is not where its
    configuration belongs: ``skip`` gets its path and the cause in one line.
    """
    runs = []
    for folder in find_runs(Path(root)):
        if profile is not None and folder.path.parent.parent.name != profile:
            continue
        if experiments is not None and folder.path.parent.name not in experiments:
            continue
        try:
            state = folder.status().get("state")
            if state in ("diverged", "failed") or (finished_only and state != "finished"):
                continue
            run = load_run(folder.path)
            check_place(run)
        except (RunFolderError, MetricsError) as error:
            skip(str(error))
            continue
        if run.name == run.experiment:
            runs.append(run)
    return sorted(runs, key=lambda run: (run.profile, run.experiment, run.seed))


def check_place(run: Run) -> None:
    """Check that a run lies where its configuration says: a copy would count as another seed.

    Raises:
        RunFolderError: it does not.
    """
    place, written = run.path.parts[-3:], (run.profile, run.name, f"seed{run.seed}")
    if place != written:
        raise RunFolderError(
            f"{run.path}: the folder says {'/'.join(place)}, its config.yaml "
            f"{'/'.join(written)}; move it back to where its configuration belongs"
        )


def load_run(path: Path) -> Run:
    """Load the run in one folder, whatever its state and wherever it lies.

    Raises:
        RunFolderError: there is no run in it, or one of its files lacks what every run has.
        MetricsError: its log is damaged.
    """
    folder = RunFolder(Path(path))
    config = folder.config()
    return Run(
        path=folder.path,
        experiment=config["experiment"],
        name=config["name"],
        profile=config["profile"],
        seed=config["seed"],
        config=config,
        meta=folder.trained_meta(),
        status=folder.status(),
        metrics=pd.DataFrame.from_records(folder.metrics()),
    )


def most_telling_profile(logged: Sequence[Run]) -> str | None:
    """Return the profile with most nets logged; of equals, the longest schedule; None without runs.

    A net counts once, however many of its seeds are there.
    """
    nets = {profile: set[str]() for profile in PROFILES}
    for run in logged:
        nets[run.profile].add(run.experiment)
    best = max(PROFILES, key=lambda profile: len(nets[profile]))  # the first of equals
    return best if nets[best] else None
