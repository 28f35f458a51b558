"""Project how long the paper's runs take here: ``python -m benchmarks.schedule``.

An update and an evaluation of each net are timed, and multiplied by how often a run of 64,000
iterations has them; compiling, capturing and first iterations count once. It is a projection: the
README's runs say how long they took.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from benchmarks.record import Row, Scope, command
from benchmarks.timing import Training, seconds_each
from resnet_repro.training.records import Log, evaluate

PLAIN = tuple(f"cifar10_plain{depth}" for depth in (20, 56, 110))
RESIDUAL = tuple(f"cifar10_resnet{depth}" for depth in (20, 56, 110, 1202))
SCOPES = {
    "cpu": Scope(experiments=(*PLAIN[:2], *RESIDUAL[:3]), rounds=3),
    "cuda": Scope(experiments=(*PLAIN, *RESIDUAL), rounds=5, iterations=50),
}
EVALUATIONS = 2  # timed


def measure(scope: Scope, overrides: Sequence[str]) -> Row:
    """Project the run of every experiment of ``scope``."""
    return {"rows": [project(name, scope, overrides) for name in scope.experiments]}


def project(experiment: str, scope: Scope, overrides: Sequence[str]) -> Row:
    """Seconds of a run of one net, and of its parts."""
    training = Training.of(experiment, overrides)
    context, state, config = training.context, training.state, training.config
    step = training.seconds(scope.iterations, scope.rounds)

    def count() -> None:
        evaluate(context, state, Log(state))

    count()
    evaluation = seconds_each(count, EVALUATIONS, training.setup.device)
    clean_images = config.evaluation.clean_train_images or context.images.order.num_images
    clean = evaluation * clean_images / len(context.images.held_out["test"])
    iterations = config.recipe.max_iters
    evaluations = math.ceil(iterations / config.evaluation.every_iters)
    run = training.ready_seconds + iterations * step + evaluations * evaluation + clean
    return {
        **training.facts(),
        "depth": config.model.depth,
        "iterations": iterations,
        "step_seconds": step,
        "evaluation_seconds": evaluation,
        "ready_seconds": round(training.ready_seconds, 3),
        "run_seconds": round(run, 2),
    }


if __name__ == "__main__":
    command("schedule", measure, SCOPES)
