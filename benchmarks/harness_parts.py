"""The parts of the harness, each as the training loop calls it, with the counts of a whole run."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.harness_run import Training
from resnet_repro.progress import Progress, RunProgress
from resnet_repro.runs.folder import RunFolder
from resnet_repro.training.checkpoint import contents
from resnet_repro.training.loop import check_stop_and_finite
from resnet_repro.training.probes import (
    bn_output_gradient_norms,
    forward_signal,
    gradient_iterations,
    gradient_precision,
    layer_responses,
    write_gradients,
)
from resnet_repro.training.records import Log, evaluate, log_training
from resnet_repro.training.state import current_lr

# What a part is for: the harness itself, the protocol's own counting of errors, or asked for.
HARNESS, EVALUATION, OPTIONAL = "harness", "evaluation", "optional"


@dataclass(frozen=True)
class Part:
    """Something beside the steps.

    Attributes:
        times: how often a whole run has it.
        work: does it once.
        repeats: how often it is timed.
        unit: how many times ``work`` one time is.
    """

    name: str
    kind: str
    times: int
    work: Callable[[], object]
    repeats: int = 20
    unit: float = 1.0


class Terminal(io.StringIO):
    """A terminal that nobody looks at: progress is drawn as on a real one."""

    def isatty(self) -> bool:
        """Say so."""
        return True


def progress_of(training: Training) -> RunProgress:
    """The line of progress of a run, as at a terminal."""
    return Progress(stream=Terminal()).begin(training.label, training.config.recipe.max_iters)


def parts_of(training: Training, folder: RunFolder, log: Log) -> list[Part]:
    """The parts of a run's harness; an iteration has been done and its gradients are there."""
    parts, state, config = training.parts, training.state, training.config
    recipe, held_out = config.recipe, parts.images.held_out["test"]
    total, lr = recipe.max_iters, current_lr(state, recipe)
    logs = math.ceil(total / config.trainer.log_every_iters)
    saves = math.ceil(total / config.trainer.checkpoint_every_iters)
    evaluations = math.ceil(total / config.evaluation.every_iters)
    clean = (config.evaluation.clean_train_images or parts.images.order.num_images) / len(held_out)
    quiet, progress = Log(state), progress_of(training)

    def count() -> None:
        evaluate(parts, state, quiet)

    def look() -> None:
        check_stop_and_finite(parts, state, lambda: False, reads=False)

    def measure_gradients() -> None:
        write_gradients(folder, state, bn_output_gradient_norms(parts, state))

    return [
        Part("looking", HARNESS, total, look),
        Part("progress", HARNESS, total, lambda: progress.update(state.iteration, 50.0, lr)),
        Part("logging", HARNESS, logs, lambda: log_training(parts, state, log, lr)),
        Part("checkpoints", HARNESS, saves, saving(training, log), repeats=5),
        Part(
            "probes: gradients",
            HARNESS,
            len(gradient_iterations(total)),
            measure_gradients,
        ),
        Part("probes: signal, responses", HARNESS, 1, lambda: look_inside(training), repeats=1),
        Part("evaluation", EVALUATION, evaluations, count, repeats=3),
        Part("clean training error", EVALUATION, 1, count, repeats=1, unit=clean),
    ]


def saving(training: Training, log: Log) -> Callable[[], None]:
    """What a run does so that it can be resumed from where it stands."""
    return lambda: log.save(contents(training.parts, training.state))


def look_inside(training: Training) -> None:
    """The probes of a run's begin and end: forward signal and layer responses."""
    parts, config = training.parts, training.config
    images, labels = parts.images.batch(0)
    forward_signal(training.state.model, training.setup, images)
    gradient_precision(training.state.model, training.setup, images, labels)
    count = min(config.probes.response_images, len(parts.images.held_out["test"]))
    batches = parts.images.held_out["test"].eval_batches(config.evaluation.batch_size, count)
    layer_responses(training.state.model, training.setup, batches)
