"""Project how long the paper's runs take here: ``python -m benchmarks.schedule``.

An update and an evaluation of each net are timed, and multiplied by how often a run of 64,000
iterations has them; compiling, capturing and first iterations count once. It is a projection: the
README's runs say how long they took.

``make cost`` takes an iteration of a handful of nets, of ImageNet too, from :func:`measure_few`.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.measured import Measured
from benchmarks.record import Row, Scope, command, provenance, write
from benchmarks.timing import Training
from resnet_repro.compose import compose_run
from resnet_repro.exits import notify
from resnet_repro.training import estimate
from resnet_repro.training.device import set_up

PLAIN = tuple(f"cifar10_plain{depth}" for depth in (20, 56, 110))
RESIDUAL = tuple(f"cifar10_resnet{depth}" for depth in (20, 56, 110, 1202))
SCOPES = {
    "cpu": Scope(experiments=(*PLAIN[:2], *RESIDUAL[:3]), rounds=3),
    "cuda": Scope(experiments=(*PLAIN, *RESIDUAL), rounds=5, iterations=50),
}
EVALUATIONS = 2  # timed
FEW = ("cifar10_resnet20", "cifar10_resnet110", "imagenet_resnet34_A", "imagenet_resnet50")
SMALLEST_BATCH = 8


def measure(scope: Scope, overrides: Sequence[str]) -> Row:
    """Project the run of every experiment of ``scope``."""
    return {"rows": [project(name, scope, overrides) for name in scope.experiments]}


def project(experiment: str, scope: Scope, overrides: Sequence[str]) -> Row:
    """Seconds of a run of one net, and of its parts."""
    training = Training(compose_run(f"experiment={experiment}", *overrides))
    step = training.seconds(scope.iterations, scope.rounds)
    training.seconds_each(training.evaluate, 1)  # the first call may prepare things
    evaluation = training.seconds_each(training.evaluate, EVALUATIONS)
    config = training.config
    sizes = estimate.SETS[config.data.name]
    pace = estimate.RunPace(step, evaluation / sizes.test, sizes)
    return {
        **training.facts(),
        "depth": config.model.depth,
        "iterations": config.recipe.max_iters,
        "step_seconds": step,
        "evaluation_seconds": evaluation,
        "ready_seconds": round(training.ready_seconds, 3),
        "run_seconds": round(training.ready_seconds + pace.seconds(config), 2),
    }


def measure_few(folder: Path, nets: Sequence[str] = FEW, overrides: Sequence[str] = ()) -> Measured:
    """Measure an iteration of each net; return what was written.

    The file is named after the hardware: what another machine measured stays beside it.
    """
    notify(f"measuring {len(nets)} nets on this device, once")
    setup = set_up(compose_run(f"experiment={nets[0]}", *overrides).trainer)
    result = provenance("cost", setup)
    result["rows"] = [measure_one(net, overrides) for net in nets]
    write(folder, result, re.sub(r"\W+", "_", result["hardware"]["label"]))
    return Measured("cost", setup.device.type, result)


def measure_one(experiment: str, overrides: Sequence[str] = ()) -> Row:
    """Measure an iteration of the experiment's batch, halved until it fits in memory; seconds."""
    # Without pictures: decoding is measured separately.
    overrides = [f"experiment={experiment}", f"data.root={os.devnull}", *overrides]
    batch = full = compose_run(*overrides).recipe.batch_size
    while True:
        try:
            pace = estimate.measure(compose_run(*overrides, f"recipe.batch_size={batch}"))
            break
        except torch.OutOfMemoryError:
            if batch <= SMALLEST_BATCH:
                raise
            batch //= 2
            torch.cuda.empty_cache()
    seconds = pace.per_update * full / batch
    return {"experiment": experiment, "seconds": seconds, "batch_size": full, "measured": batch}


if __name__ == "__main__":
    command("schedule", measure, SCOPES)
