"""What every training of the paper takes on this device: ``python -m benchmarks.cost``.

An update and an evaluation of each net are timed on random images, as ``make study`` does to plan
(:mod:`resnet_repro.training.estimate`), and multiplied by how often a run has them. Pictures of
ImageNet are not decoded: :mod:`benchmarks.pictures` measures that. It is a projection: the README's
runs say how long they took.
"""

import os
from collections.abc import Sequence

import torch

from benchmarks.measured import seconds
from benchmarks.record import Row, Scope, command
from resnet_repro.compose import compose_run
from resnet_repro.conf import load_item
from resnet_repro.training import estimate

CIFAR = load_item("fig6").experiments  # and of Table 6
IMAGENET = tuple(
    name
    for name in dict.fromkeys((*load_item("fig4").drawn, *load_item("table3").drawn))
    if name.startswith("imagenet_")
)
TOO_LARGE = "cifar10_resnet1202"  # its batch of 128 takes more memory than most hosts have
ROUNDS = 10  # other programs slow some of them down
SCOPES = {
    "cpu": Scope((*(name for name in CIFAR if name != TOO_LARGE), *IMAGENET), ROUNDS, 1),
    "cuda": Scope((*CIFAR, *IMAGENET), ROUNDS, estimate.CALLS_PER_SYNC),
}


def measure(scope: Scope, overrides: Sequence[str]) -> Row:
    """Project the run of every experiment of ``scope``; a note names those that do not fit."""
    rows, notes = [], []
    for experiment in scope.experiments:
        try:
            rows.append(project(experiment, scope.rounds, overrides))
            print(f"{experiment}: {seconds(rows[-1]['run_seconds'])}", flush=True)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            notes.append(f"{experiment}: does not fit in memory")
            print(notes[-1], flush=True)
    return {"rows": rows, "notes": notes}


def project(experiment: str, rounds: int, overrides: Sequence[str]) -> Row:
    """Seconds of a run of one net, and of its parts."""
    config = compose_run(f"experiment={experiment}", f"data.root={os.devnull}", *overrides)
    pace = estimate.measure(config, rounds)
    return {
        "net": config.model.label,
        "experiment": experiment,
        "depth": config.model.depth,
        "iterations": config.recipe.max_iters,
        "batch_size": config.recipe.batch_size,
        "start_seconds": round(pace.start, 3),
        "step_seconds": pace.per_update,
        "evaluation_seconds": pace.per_eval_image * pace.sizes.test,
        "run_seconds": round(pace.seconds(config), 2),
    }


if __name__ == "__main__":
    command("cost", measure, SCOPES)
