"""Which runs may be averaged, which may be compared, and what must be said when they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from resnet_repro.analysis.load import Run
from resnet_repro.config import filled
from resnet_repro.runs.keys import flatten

# Keys that say who a run is, or where and by what hands it was done. All others change numbers.
_IDENTITY = (
    "seed",
    "name",
    "runs_dir",
    "data.root",
    "data.source",
    "logger",
    "evaluation.batch_size",
)
_HANDS = ("trainer.device", "trainer.threads", "trainer.checkpoint_every_iters")
# What a run must share with the paper before its error is held against the paper's, by family.
_PAPER_PROTOCOL: Mapping[str, Mapping[str, Any]] = {
    "cifar": {
        "data.name": "cifar10",
        "data.train_split": "all",
        "recipe.batch_size": 128,
        "recipe.max_iters": 64_000,
    },
    "imagenet": {
        "data.name": "imagenet",
        "recipe.batch_size": 256,
        "recipe.max_iters": 600_000,
    },
}


def by_net(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """Group runs by net label, plain before residual, shallow before deep; seeds in order.

    Raises:
        ValueError: runs of one net that must not be averaged (:func:`check_same_protocol`).
    """
    groups: dict[str, list[Run]] = {}
    for run in sorted(runs, key=lambda run: (not run.is_plain, run.depth, run.label, run.seed)):
        groups.setdefault(run.label, []).append(run)
    for group in groups.values():
        check_same_protocol(group)
    return groups


def check_same_protocol(runs: Sequence[Run]) -> None:
    """Refuse runs that differ in anything but the seed and the place they were run.

    Raises:
        ValueError: naming the seeds, the key and the values.
    """
    first, *others = runs
    settings = _settings(first.config)
    same_precision = len({run.meta.get("precision") for run in runs}) == 1
    for other in others:
        theirs = _settings(other.config)
        for key in sorted(settings.keys() | theirs.keys()):
            if key == "trainer.precision" and same_precision:
                continue  # "auto" on one machine and its outcome spelt out on another
            if settings.get(key) != theirs.get(key):
                raise ValueError(
                    f"{first.label}: will not average seed {first.seed} with {key}="
                    f"{settings.get(key)} and seed {other.seed} with {key}={theirs.get(key)} "
                    f"({first.path}, {other.path})"
                )
        if other.seed == first.seed:
            raise ValueError(f"{first.label}: seed {first.seed} twice ({first.path}, {other.path})")


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    flat = flatten(filled(config))
    return {
        key: value
        for key, value in flat.items()
        if key not in _IDENTITY + _HANDS and key.split(".")[0] not in _IDENTITY
    }


def the_profile(runs: Sequence[Run]) -> str:
    """Return the profile of all the runs.

    Raises:
        ValueError: no runs, or runs of several profiles.
    """
    profiles = sorted({run.profile for run in runs})
    if len(profiles) != 1:
        raise ValueError(f"runs of one profile are needed, not of {', '.join(profiles) or 'none'}")
    return profiles[0]


def why_not_comparable(runs: Iterable[Run]) -> str:
    """Say why the runs may not be held against the paper's numbers; empty where they may."""
    for run in runs:
        if run.profile != "paper":
            return f"{run.profile} profile"
        flat = flatten(run.config)
        for key, value in _PAPER_PROTOCOL[run.config["model"]["family"]].items():
            if flat.get(key) != value:
                return f"{key}={flat.get(key)}, the paper's is {value}"
    return ""


_MIXABLE: Mapping[str, Callable[[Run], object]] = {
    "precision": lambda run: run.meta.get("precision"),
    "hardware": lambda run: run.meta.get("hardware", {}).get("label"),
    "data set": lambda run: run.config["data"]["name"],
    "length of the schedule": lambda run: f"{run.max_iters:,} iterations",
    "batch-norm statistics at test": lambda run: run.config["evaluation"].get("bn", "running"),
}


def comparison_notes(runs: Sequence[Run]) -> list[str]:
    """Sentences to print under a figure of these runs: what was mixed in the comparison."""
    notes = []
    for what, value_of in _MIXABLE.items():
        held: dict[str, list[str]] = {}
        for run in runs:
            held.setdefault(str(value_of(run)), []).append(f"{run.label} seed {run.seed}")
        if len(held) > 1:
            parts = [f"{value} ({_some(names)})" for value, names in sorted(held.items())]
            notes.append(f"Mixed {what}: {'; '.join(parts)}.")
    return notes


def _some(names: Sequence[str], at_most: int = 4) -> str:
    more = len(names) - at_most
    return ", ".join(names[:at_most]) + (f" and {more} more" if more > 0 else "")
