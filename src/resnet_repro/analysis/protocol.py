"""Which runs may be averaged, which may be compared, and what a comparison mixes."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from operator import attrgetter
from typing import Any

from resnet_repro.analysis.load import averageable, grouped, paper_net
from resnet_repro.analysis.logged_run import Run
from resnet_repro.conf import changed
from resnet_repro.options import shown
from resnet_repro.same_run import changes_training, flatten

# The paper's training by family (Sec. 4.2; the ImageNet drops as Fig. 4 shows them).
_MILESTONES = {"cifar": (32_000, 48_000), "imagenet": (150_000, 300_000)}
SCHEDULES = {"cifar": (64_000, 128), "imagenet": (600_000, 256)}  # iterations, images of a batch
_DATA = {
    "cifar": {"data.name": "cifar10", "data.train_split": "all"},
    "imagenet": {"data.name": "imagenet"},
}
_RATE = {"recipe.lr": 0.1, "recipe.gamma": 0.1}
_PAPER: Mapping[str, Mapping[str, Any]] = {
    family: {**_DATA[family], "recipe.batch_size": batch, "recipe.max_iters": iterations, **_RATE}
    for family, (iterations, batch) in SCHEDULES.items()
}
_LENGTH = ("recipe.max_iters", "recipe.milestones")  # only say how long the training is
DATA_SETS = ("imagenet", "tiny_imagenet")  # on which claims about ImageNet nets are tested
Nets = Mapping[str, Sequence[Run]]


def by_net(runs: Iterable[Run], by: str = "label") -> dict[str, list[Run]]:
    """Group runs by net (or ``experiment``), plain before residual, shallow before deep, by seed.

    Of the runs of one net only those that compute the same are kept, the experiment's own first
    (:func:`resnet_repro.analysis.load.averageable`).
    """
    ordered = sorted(runs, key=lambda run: (not run.is_plain, run.depth, run.label, run.seed))
    groups = grouped(ordered, attrgetter(by))
    return {label: averageable(group) for label, group in groups.items()}


def cifar_nets(runs: Iterable[Run], kind: str) -> dict[str, list[Run]]:
    """CIFAR nets of the paper by label, by depth; ``kind``: ``plain`` or ``ResNet`` (option A)."""
    cifar = [run for run in runs if run.family == "cifar"]  # ImageNet has a ResNet-50 too
    return {k: g for k, g in by_net(cifar).items() if k == f"{kind}-{g[0].depth}"}


def nets_by_data(runs: Iterable[Run]) -> dict[str, dict[str, list[Run]]]:
    """ImageNet nets by data set and label; those of ``DATA_SETS`` are there without runs, too."""
    family = [run for run in runs if run.family == "imagenet"]
    names = dict.fromkeys([*DATA_SETS, *(run.data for run in family)])
    return {data: by_net(run for run in family if run.data == data) for data in names}


def deviations(runs: Sequence[Run]) -> list[tuple[str, str, str, list[str]]]:
    """Return keys that runs say they changed: the paper's value, theirs, their experiments."""
    found: dict[tuple[str, str, str], dict[str, None]] = {}
    for run in runs:
        for key, (paper_value, value) in run.meta.get("deviations", {}).items():
            found.setdefault((key, _value(paper_value), _value(value)), {})[run.experiment] = None
    return [(*what, list(names)) for what, names in sorted(found.items())]


def _value(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_value, value))
    return f"{value:,}" if type(value) is int else shown(value)


def why_not_comparable(runs: Iterable[Run]) -> str:
    """Why the runs may not be compared with the paper's numbers; empty where they may."""
    for run in runs:
        reason = _changed(run) if run.profile == "paper" else f"{run.profile} profile"
        if reason:
            return reason
    return ""


def _changed(run: Run, ignored: Sequence[str] = ()) -> str:
    """The first key in which a run is not trained by the paper's protocol; empty if there is none.

    Compared is the experiment of the paper's net, too, whatever the run's own experiment is, and
    what the run recorded as its deviations.
    """
    flat = flatten(run.config)
    paper = _PAPER[run.family]
    found = {key: (expected, flat.get(key)) for key, expected in paper.items()}
    experiment = paper_net(run, paper["data.name"])
    others = changed(experiment, run.config) if experiment else {}
    others |= run.meta.get("deviations", {})
    found |= {key: pair for key, pair in others.items() if changes_training(key)}
    for key, (expected, actual) in found.items():
        if key not in ignored and actual != expected:
            return f"{key}={actual}, the paper's is {expected}"
    return ""


def paper_rates(run: Run) -> list[tuple[float, int, int]]:
    """The paper's learning rates for nets of this family: rate, after and up to which update."""
    family = run.family
    lr, gamma, end = (_PAPER[family][f"recipe.{key}"] for key in ("lr", "gamma", "max_iters"))
    edges = pairwise((0, *_MILESTONES[family], end))
    return [(lr * gamma**number, *edge) for number, edge in enumerate(edges)]


def paper_horizon(run: Run) -> tuple[int, str]:
    """Up to which update a run followed the paper's protocol, and why not at all where that is 0.

    Whatever its profile: a shorter schedule is the paper's until its first drop. Any other change
    counts from the start.
    """
    reason = _changed(run, _LENGTH)
    if reason:
        return 0, reason
    end = _PAPER[run.family]["recipe.max_iters"]
    moved = {*_MILESTONES[run.family]} ^ {*run.config["recipe"]["milestones"]}
    return min([*moved, end, run.max_iters]), ""


LISTED = 4  # runs in a note
_MIXABLE: Mapping[str, Callable[[Run], str]] = {
    "precision": lambda run: run.precision,
    "hardware": lambda run: run.hardware,
    "data set": lambda run: run.data,
    "length of the schedule": lambda run: f"{run.max_iters:,} iterations",
}


def comparison_notes(runs: Sequence[Run]) -> list[str]:
    """Sentences under a figure of these runs that name what the comparison mixes."""
    notes = []
    for what, value_of in _MIXABLE.items():
        by_value = grouped(runs, value_of)
        if len(by_value) > 1:
            parts = [f"{value} ({_some(same)})" for value, same in sorted(by_value.items())]
            notes.append(f"Mixed {what}: {'; '.join(parts)}.")
    return notes


def _some(runs: Sequence[Run]) -> str:
    more = len(runs) - LISTED
    names = ", ".join(f"{run.label} seed {run.seed}" for run in runs[:LISTED])
    return f"{names} and {more} more" if more > 0 else names
