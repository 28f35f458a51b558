"""Which runs are there, which stand for their nets, and which are left out, and why.

Figures, tables, claims, pages and notebooks all select their runs here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from resnet_repro.analysis.one_run import Run as Run
from resnet_repro.analysis.one_run import load_run as load_run
from resnet_repro.conf import names
from resnet_repro.config import PROFILES
from resnet_repro.exits import notify
from resnet_repro.options import WHAT, shown
from resnet_repro.paths import given
from resnet_repro.runs.folder import RunFolder, RunFolderError
from resnet_repro.same_run import differences

PROFILE_ORDER = ("paper", "short", "quick")
GIVEN_UP = ("diverged", "failed")
SHOWN_SEEDS = 4


@dataclass(frozen=True)
class Logged:
    """The run folders below a root.

    Attributes:
        folders: all of them, in whatever state.
        runs: those that can be read.
        problems: a line for each that cannot be.
    """

    folders: list[RunFolder]
    runs: list[Run]
    problems: list[str]

    @classmethod
    def read(
        cls,
        root: Path,
        profiles: Sequence[str] | None = None,
        wanted: Callable[[str], bool] = bool,
    ) -> Logged:
        """Read the runs below ``root`` of some profiles and of the names that are wanted."""
        folders = [
            path
            for path in sorted(given(str(root)).glob("*/*/seed*"))
            if wanted(path.parts[-2])
            and (profiles is None or path.parts[-3] in profiles)
            and _looks_like_a_run(path)
        ]
        return cls.of_folders(folders)

    @classmethod
    def of_folders(cls, paths: Iterable[Path], *, in_place: bool = True) -> Logged:
        """Read the runs in some folders; ``in_place``: a copy counts as a problem."""
        folders = [RunFolder(path) for path in paths]
        runs, problems = [], []
        for folder in folders:
            try:
                run = load_run(folder.path)
                written = f"{run.profile}/{run.name}/seed{run.seed}"
                if in_place and run.place != written:
                    raise RunFolderError(
                        f"{run.path}: its config.yaml says {written}; a copy stands for no net"
                    )
                runs.append(run)
            except RunFolderError as error:
                problems.append(str(error))
        runs.sort(key=lambda run: (run.profile, run.experiment, run.seed, run.is_variant))
        return cls(folders, runs, problems)

    @cached_property
    def _split(self) -> tuple[list[Run], list[str]]:
        return standing([run for run in self.runs if run.status.get("state") not in GIVEN_UP])

    @property
    def begun(self) -> list[Run]:
        """Runs that stand for their experiments, finished or not; not those given up."""
        return self._split[0]

    @property
    def finished(self) -> list[Run]:
        """Those that were trained to their end: what figures, tables and claims are made of."""
        return [run for run in self.begun if run.is_finished]

    def of(self, experiments: Collection[str], profile: str | None = None) -> list[Run]:
        """Return finished runs of some experiments, of one profile: given, or the best covered."""
        runs = [run for run in self.finished if run.experiment in experiments]
        profile = profile or best_covered_profile(runs)
        return [run for run in runs if run.profile == profile]

    @property
    def left_out(self) -> list[str]:
        """A line for each run, or seeds of one, that could be taken for a net's and is not."""
        return self.problems + self._split[1]


def _looks_like_a_run(path: Path) -> bool:
    """Whether a folder has a file of a run, or cannot be looked into."""
    if not path.is_dir():
        return False
    files = ("config.yaml", "meta.json", "metrics.jsonl")
    return not os.access(path, os.X_OK) or any((path / name).exists() for name in files)


def standing(runs: Iterable[Run]) -> tuple[list[Run], list[str]]:
    """Return the runs that stand for their experiments, and a line on the others.

    A run stands for its experiment if it has its name and computes what the experiment does at
    the same profile. Runs of one experiment that still differ are not averaged either: those that
    agree with most others stand.
    """
    groups: dict[tuple[str, str], list[Run]] = {}
    why: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        if not run.is_variant:
            groups.setdefault((run.profile, run.experiment), []).append(run)
        elif run.changes:
            why.setdefault((f"{run.profile}/{run.name}", _changes(run.changes)), []).append(run)
    kept = []
    for group in groups.values():
        agreeing = agree(group)
        kept += agreeing
        for run in group:
            if run not in agreeing:
                reason = why_not(agreeing[0], run)
                why.setdefault((f"{run.profile}/{run.name}", reason), []).append(run)
    lines = [
        f"{place} {_seeds(left)}: {reason}; stands for no net"
        for (place, reason), left in why.items()
    ]
    return kept, lines


def agree(runs: Sequence[Run]) -> list[Run]:
    """Return the runs that may be averaged: the largest group that computes the same.

    Finished runs count before others, runs of experiments before variants; of one seed the first.
    """
    groups: list[list[Run]] = []
    for run in runs:
        fitting = next((group for group in groups if not changed_keys(group[0], run)), None)
        if fitting is None:
            groups.append([run])
        elif run.seed not in [other.seed for other in fitting]:
            fitting.append(run)
    return max(
        groups,
        key=lambda group: (
            not group[0].is_variant,
            not _is_changed(group[0].experiment, runs),
            sum(run.is_finished for run in group),
            len(group),
            -min(run.seed for run in group),
        ),
    )


def _is_changed(experiment: str, runs: Iterable[Run]) -> bool:
    """Whether it is another experiment of these runs and a word more (``cifar10_resnet56_45k``)."""
    return experiment in variants_of({run.experiment for run in runs})


def variants_of(experiments: Iterable[str]) -> set[str]:
    """Experiments with exactly one choice changed: another one's name and a word more."""
    known = set(experiments)
    return {name for name in known if name.rpartition("_")[0] in known}


def without_variants(runs: Sequence[Run]) -> list[Run]:
    """Return the runs of the nets themselves; a variant's experiment bears its net's label."""
    changed = variants_of({*names("experiment"), *(run.experiment for run in runs)})
    return [run for run in runs if run.experiment not in changed]


def changed_keys(first: Run, second: Run) -> dict[str, tuple[Any, Any]]:
    """Return the keys of what is computed in which two runs differ, with both values.

    A precision spelt out on one machine and found by ``auto`` on another is the same.
    """
    changed = differences(first.config, second.config, (WHAT,))
    if first.meta.get("precision") == second.meta.get("precision"):
        changed.pop("trainer.precision", None)
    return changed


def why_not(first: Run, other: Run) -> str:
    """Say why a run is not averaged with another of its net."""
    changed = changed_keys(first, other)
    if not changed:
        return f"seed {other.seed} is there twice"
    return ", ".join(
        f"{key}={shown(theirs)}, not {shown(value)} as seed {first.seed}"
        for key, (value, theirs) in changed.items()
    )


def _changes(changed: dict[str, tuple[Any, Any]]) -> str:
    return ", ".join(
        f"{key}={shown(here)}, not {shown(own)}" for key, (own, here) in changed.items()
    )


def _seeds(runs: Sequence[Run]) -> str:
    seeds = [str(run.seed) for run in runs]
    more = f" and {len(seeds) - SHOWN_SEEDS} more" if len(seeds) > SHOWN_SEEDS else ""
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds[:SHOWN_SEEDS])}{more}"


def tell(line: str) -> None:
    """Print on stderr what is left out and why."""
    notify(f"left out: {line}")


def load_runs(
    root: Path,
    *,
    profile: str | None = None,
    experiments: Sequence[str] | None = None,
    finished_only: bool = True,
    skip: Callable[[str], object] = tell,
) -> list[Run]:
    """Load the runs below ``root`` that stand for their experiments.

    They are sorted by profile, experiment and seed. Runs that diverged or failed are left out,
    whatever else is asked; so are variants and folders that cannot be read, where ``skip`` gets a
    line of each that could be taken for a net's.
    """
    logged = Logged.read(
        root,
        None if profile is None else [profile],
        lambda name: experiments is None or name in experiments,
    )
    for line in logged.left_out:
        skip(line)
    return logged.finished if finished_only else logged.begun


def best_covered_profile(logged: Sequence[Run]) -> str | None:
    """Return the profile with most nets logged; of equals, the longest schedule; None without runs.

    A net counts once, however many of its seeds are there.
    """
    nets = {
        profile: {run.experiment for run in logged if run.profile == profile}
        for profile in PROFILES
    }
    best = max(PROFILES, key=lambda profile: len(nets[profile]))  # the first of equals
    return best if nets[best] else None
