"""Logged runs as data frames: which are there and which of them count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from resnet_repro.config_groups import PROFILES
from resnet_repro.runs.folder import RunFolder, find_runs

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
            self._tables[name] = _numbers(RunFolder(self.path).table(name))
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


def _numbers(rows: Sequence[Mapping[str, str]]) -> pd.DataFrame | None:
    """The columns that hold numbers, as such; None without rows."""
    if not rows:
        return None
    table = pd.DataFrame(rows).drop(columns="name")
    return pd.DataFrame({name: pd.to_numeric(table[name]) for name in table})


def load_runs(
    root: Path,
    *,
    profile: str | None = None,
    experiments: Sequence[str] | None = None,
    finished_only: bool = True,
) -> list[Run]:
    """Load the runs below ``root``, sorted by profile, experiment and seed.

    A run whose name is not its experiment is a variant and is left out; so is one that diverged
    or failed, whatever else is asked.

    Raises:
        ValueError: a folder whose place contradicts the configuration in it.
    """
    runs = []
    for folder in find_runs(Path(root)):
        if profile is not None and folder.path.parent.parent.name != profile:
            continue
        if experiments is not None and folder.path.parent.name not in experiments:
            continue
        state = folder.status().get("state")
        if state in ("diverged", "failed") or (finished_only and state != "finished"):
            continue
        run = _load(folder)
        if run.name == run.experiment:
            runs.append(run)
    return sorted(runs, key=lambda run: (run.profile, run.experiment, run.seed))


def load_run(path: Path) -> Run:
    """Load the run in one folder, whatever its state.

    Raises:
        ValueError: a folder whose place contradicts the configuration in it.
        RunFolderError: there is no run in it.
    """
    return _load(RunFolder(Path(path).resolve()))


def _load(folder: RunFolder) -> Run:
    config = folder.config()
    place = folder.path.parts[-3:]
    written = (config["profile"], config["name"], f"seed{config['seed']}")
    if place != written:
        raise ValueError(
            f"{folder.path}: the folder says {'/'.join(place)}, its config.yaml "
            f"{'/'.join(written)}; move it back to where its configuration belongs"
        )
    return Run(
        path=folder.path,
        experiment=config["experiment"],
        name=config["name"],
        profile=config["profile"],
        seed=int(config["seed"]),
        config=config,
        meta=folder.meta(),
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
