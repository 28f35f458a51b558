"""Captions of figures: data set, profile, seeds, hardware, precision, and what is mixed."""

from collections.abc import Iterable, Sequence

from resnet_repro.analysis.load import seeds_text
from resnet_repro.analysis.logged_run import Run
from resnet_repro.analysis.protocol import by_net, comparison_notes

DATA_NAMES = {
    "cifar10": "CIFAR-10",
    "tiny_imagenet": "Tiny ImageNet",
    "imagenet": "ImageNet",
    "folder": "own pictures",
    "synthetic": "synthetic images (no real data)",
}
TITLES = DATA_NAMES | {"tiny_imagenet": "Tiny ImageNet, 64x64, 200 classes"}


def data_name(data: str) -> str:
    """Return the name of a data set: ``CIFAR-10``."""
    return DATA_NAMES.get(data, data)


def data_of(runs: Iterable[Run]) -> str:
    """Return the names of the runs' data sets: ``CIFAR-10``."""
    return " and ".join(sorted({data_name(run.data) for run in runs}))


def devices_of(runs: Sequence[Run]) -> str:
    """Return hardware and precision, each where all runs share it; the notes name what is mixed."""
    values = ({run.hardware for run in runs}, {run.precision for run in runs})
    return ", ".join(value for shared in values if len(shared) == 1 for value in shared)


def clauses(*parts: str) -> str:
    """Join what is not empty to a sentence."""
    return "; ".join(filter(None, parts)) + "."


def run_sentences(runs: Sequence[Run]) -> list[str]:
    """Describe the runs of a figure; empty where there are none."""
    if not runs:
        return []
    schedules = {
        f"{run.profile} profile ({run.max_iters:,} iterations of "
        f"{run.config['recipe']['batch_size']})"
        for run in runs
    }
    what = f"{data_of(runs)}, {' and '.join(sorted(schedules))}"
    summary = clauses(what, seeds_of(runs), devices_of(runs))
    unfinished = [
        f"{run.label} seed {run.seed} is not finished (iteration {run.status.get('iter', 0):,})."
        for run in runs
        if not run.is_finished
    ]
    return [summary, *comparison_notes(runs), *unfinished]


def seeds_of(runs: Sequence[Run]) -> str:
    """Return ``seeds 0-2`` where all nets have the same, else the seeds of each net."""
    seeds_by_net = {label: [run.seed for run in group] for label, group in by_net(runs).items()}
    if len({tuple(seeds) for seeds in seeds_by_net.values()}) == 1:
        return seeds_text(next(iter(seeds_by_net.values())))
    return ", ".join(f"{label} {seeds_text(seeds)}" for label, seeds in seeds_by_net.items())
