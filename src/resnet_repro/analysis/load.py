"""Load the runs below a folder: which stand for their nets, which are left out, and why."""

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from resnet_repro.analysis.logged_run import Run, load_run, warn
from resnet_repro.conf import ItemRuns, names, protocol
from resnet_repro.config import PROFILES, Config
from resnet_repro.options import WHAT, shown
from resnet_repro.paths import expand
from resnet_repro.runs.folder import RunFolder, RunFolderError
from resnet_repro.same_run import differences

GIVEN_UP = ("diverged", "failed")
_BY_NET = ("table2", "table3", "table4", "table6")  # items whose rows may be of several profiles
Value = TypeVar("Value")
Key = TypeVar("Key")


def grouped(values: Iterable[Value], key: Callable[[Value], Key]) -> dict[Key, list[Value]]:
    """Group values by a key, keys in the order of their first value."""
    groups: dict[Key, list[Value]] = {}
    for value in values:
        groups.setdefault(key(value), []).append(value)
    return groups


class Logged:
    """The run folders below a root, of some or all profiles and experiments with their variants.

    ``folders``: all of them, in whatever state; ``runs``: those that can be read; ``problems``: a
    line for each that cannot be, or is a copy in another place.
    """

    def __init__(
        self, root: Path, profiles: Collection[str] = (), experiments: Collection[str] = ()
    ):
        self.root, self.runs, self.problems = root, list[Run](), list[str]()
        begins = tuple(f"{name}-" for name in experiments)  # as the name of a variant
        self.folders = [
            RunFolder(path)
            for path in sorted(expand(str(root)).glob("*/*/seed*"))
            if (not profiles or path.parts[-3] in profiles)
            and (not begins or f"{path.parts[-2]}-".startswith(begins))
            and _looks_like_a_run(path)
        ]
        for folder in self.folders:
            try:
                run = load_run(folder.path)
                written = f"{run.profile}/{run.name}/seed{run.seed}"
                if run.place != written:
                    copy = f"its config.yaml says {written}; a copy stands for no net"
                    raise RunFolderError(f"{run.path}: {copy}")
                self.runs.append(run)
            except RunFolderError as error:
                self.problems.append(str(error))
        self.runs.sort(key=lambda run: (run.profile, run.experiment, run.seed, run.is_variant))

    @cached_property
    def _standing(self) -> tuple[list[Run], list[str]]:
        return standing(run for run in self.runs if run.status.get("state") not in GIVEN_UP)

    @property
    def begun(self) -> list[Run]:
        """Runs that stand for their experiments, finished or not; not those given up."""
        return self._standing[0]

    @property
    def finished(self) -> list[Run]:
        """Those that were trained to their end: what figures, tables and claims are made of."""
        return [run for run in self.begun if run.is_finished]

    @property
    def standing_for_none(self) -> list[str]:
        """A line for each run, or seeds of one, that could be taken for a net's and is not."""
        return self._standing[1]

    @property
    def left_out(self) -> list[str]:
        """A line for each run that cannot be read, was given up, or stands for no net."""
        states = [(run, run.status.get("state")) for run in self.runs if not run.is_variant]
        given_up = [f"{run.place}: {state}" for run, state in states if state in GIVEN_UP]
        return self.problems + given_up + self.standing_for_none

    def of(self, experiments: Collection[str], profile: str | None = None) -> list[Run]:
        """Return finished runs of experiments, of one profile: given, or ``profile_to_show``."""
        runs = [run for run in self.finished if run.experiment in experiments]
        profile = profile or profile_to_show(runs)
        return [run for run in runs if run.profile == profile]

    def of_item(self, item: ItemRuns, profile: str | None = None) -> list[Run]:
        """Return the finished runs that an item is drawn from.

        They are of one profile: given, or ``profile_to_show``. Without one given, a table of nets
        takes the longest schedule that each finished, and the claims choose among all themselves.
        """
        if profile is None and item.name == "claims":
            return [run for run in self.finished if run.experiment in item.drawn]
        if profile is None and item.name in _BY_NET:
            return [run for experiment in item.drawn for run in self.of({experiment})]
        return self.of(item.drawn, profile)


def _looks_like_a_run(path: Path) -> bool:
    """Whether a folder has a file of a run, or cannot be read."""
    files = (path / name for name in ("config.yaml", "meta.json", "metrics.jsonl"))
    return path.is_dir() and (not os.access(path, os.X_OK) or any(file.exists() for file in files))


def standing(runs: Iterable[Run]) -> tuple[list[Run], list[str]]:
    """Return the runs that stand for their experiments, and a line on the others.

    Those have the experiment's name and compute what it does at their profile. Of runs that still
    differ, those stand that agree with most others.
    """
    runs = list(runs)
    nets = grouped(
        (run for run in runs if not run.is_variant), lambda run: (run.profile, run.experiment)
    )
    kept = list[Run]()
    others = [(run, _named(run.changes)) for run in runs if run.is_variant and run.changes]
    for group in nets.values():
        agreeing = averageable(group)
        kept += agreeing
        for run in [run for run in group if run not in agreeing]:
            reason = _named(changed_keys(agreeing[0], run), f" as seed {agreeing[0].seed}")
            others.append((run, reason or f"seed {run.seed} is there twice"))
    alike = grouped(others, lambda pair: (f"{pair[0].profile}/{pair[0].name}", pair[1]))
    lines = [
        f"{place} {seeds_text([run.seed for run, _ in left])}: {reason}; stands for no net"
        for (place, reason), left in alike.items()
    ]
    return kept, lines


def averageable(runs: Sequence[Run]) -> list[Run]:
    """Return the runs that may be averaged: the largest group that computes the same.

    Finished runs count before others, runs of experiments before variants; of one seed the first.
    """
    changed = variants_of(run.experiment for run in runs)
    return max(
        alike(runs),
        key=lambda group: (
            not group[0].is_variant,
            group[0].experiment not in changed,
            sum(run.is_finished for run in group),
            len(group),
            -min(run.seed for run in group),
        ),
    )


def alike(runs: Iterable[Run]) -> list[list[Run]]:
    """Group runs of one profile that compute the same; of one seed only the first is kept."""
    groups: list[list[Run]] = []
    for run in runs:
        same = (g for g in groups if g[0].profile == run.profile and not changed_keys(g[0], run))
        group = next(same, None)
        if group is None:
            groups.append([run])
        elif run.seed not in [other.seed for other in group]:
            group.append(run)
    return groups


def variants_of(experiments: Iterable[str]) -> set[str]:
    """Return experiments with one choice changed: another's name and a word more (``..._45k``)."""
    known = set(experiments)
    return {name for name in known if name.rpartition("_")[0] in known}


def can_draw(experiments: Iterable[str], logged: Collection[str]) -> bool:
    """Whether these show an item; a variant needs the net beside it that its name begins with."""
    changed = variants_of(experiments)
    pairs = [name for name in changed.intersection(logged) if name.rpartition("_")[0] in logged]
    return bool(pairs if changed else logged)


def without_variants(runs: Sequence[Run]) -> list[Run]:
    """Return the runs of the nets themselves.

    A variant's experiment bears its net's label, and so may any other experiment: it stands for no
    net that ``conf/`` has under the net's own name.
    """
    changed = variants_of({*names("experiment"), *(run.experiment for run in runs)})

    def stands(run: Run) -> bool:
        net = paper_net(run, run.data)
        return net is None or run.experiment == net.experiment or run.label != net.model.label

    return [run for run in runs if run.experiment not in changed and stands(run)]


def paper_net(run: Run, data: str) -> Config | None:
    """The paper's experiment on a data set for a net of this kind and depth; None without any."""
    # Experiments on Tiny ImageNet are named tiny_...
    name = f"{data.partition('_')[0]}_{'plain' if run.is_plain else 'resnet'}{run.depth}"
    return protocol(name) or protocol(f"{name}_{run.config['model']['shortcut']}")


def changed_keys(first: Run, second: Run) -> dict[str, tuple[Any, Any]]:
    """Return the keys of what is computed in which two runs differ, with both values.

    A precision spelt out on one machine and found by ``auto`` on another is the same.
    """
    changed = differences(first.config, second.config, (WHAT,))
    if first.meta.get("precision") == second.meta.get("precision"):
        changed.pop("trainer.precision", None)
    return changed


def _named(changed: dict[str, tuple[Any, Any]], ending: str = "") -> str:
    return ", ".join(
        f"{key}={shown(value)}, not {shown(own)}{ending}" for key, (own, value) in changed.items()
    )


def seeds_text(seeds: Sequence[int]) -> str:
    """Return ``seed 0``, ``seeds 0, 4`` or ``seeds 0-2``."""
    if len(seeds) == 1:
        return f"seed {seeds[0]}"
    if len(seeds) > 2 and list(seeds) == list(range(seeds[0], seeds[-1] + 1)):
        return f"seeds {seeds[0]}-{seeds[-1]}"
    return "seeds " + ", ".join(map(str, seeds))


def load_runs(
    root: Path,
    *,
    profile: str | None = None,
    experiments: Collection[str] = (),
    finished_only: bool = True,
) -> list[Run]:
    """Load the runs below ``root`` that stand for their experiments.

    They are sorted by profile, experiment and seed. Runs that diverged or failed, variants and
    folders that cannot be read are left out; stderr names those that could be taken for a net's.
    """
    logged = Logged(root, [profile] if profile else (), experiments)
    for line in logged.left_out:
        warn(line)
    return logged.finished if finished_only else logged.begun


def profile_to_show(logged: Sequence[Run]) -> str | None:
    """Return the paper's profile as soon as it has two nets, else that with most, or None.

    Seeds do not count; of equals it is the longest.
    """
    nets = {(run.profile, run.experiment) for run in logged}
    count = Counter(profile for profile, _ in nets)
    if count["paper"] > 1:
        return "paper"
    best = max(PROFILES, key=count.__getitem__)  # the first of equals
    return best if count[best] else None
