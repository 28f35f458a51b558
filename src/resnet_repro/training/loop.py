"""The training loop: everything it does, on one screen."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import nn

from resnet_repro.config import Config
from resnet_repro.data.batches import DeviceDataset
from resnet_repro.data.order import BatchOrder
from resnet_repro.evaluation.counting import count_errors
from resnet_repro.runs.metrics import MetricsWriter
from resnet_repro.training.device import Setup
from resnet_repro.training.state import TrainState, current_lr, in_warmup, leave_warmup, step


class DivergedError(RuntimeError):
    """The loss is no longer a number."""


class Watcher(Protocol):
    """Whoever wants to see a run go by."""

    def update(self, iteration: int, top1_err: float | None, lr: float) -> None:
        """Take note of an iteration; ``top1_err`` is the last logged training error, percent."""


@dataclass(frozen=True)
class Parts:
    """What a run is made of besides its state."""

    config: Config
    setup: Setup
    train_set: DeviceDataset
    order: BatchOrder
    held_out: dict[str, DeviceDataset]  # kind of record -> images: test, val


def train(
    parts: Parts,
    state: TrainState,
    log: MetricsWriter,
    save: Callable[[], None],
    probe: Callable[[nn.Module, int], None],
    watcher: Watcher,
    stop_asked: Callable[[], bool],
) -> bool:
    """Train from ``state`` to the last iteration or until a stop is asked for.

    ``probe`` may look at the net and its gradients after each update; ``save`` keeps the state.

    Returns:
        Whether the run was trained to its end.

    Raises:
        DivergedError: at the first loss that is not finite; names iteration, lr and images.
    """
    config, recipe = parts.config, parts.config.recipe
    err: float | None = None
    clock = Clock(state)
    while state.iteration < recipe.max_iters:
        lr = current_lr(state, recipe)
        images, labels = parts.train_set.train_batch(parts.order.batch(state.iteration))
        step(state, parts.setup, images, labels, lr)
        done = state.iteration
        probe(state.model, done)
        last = done == recipe.max_iters
        logs = last or done % config.trainer.log_every_iters == 0
        if logs or parts.setup.device.type == "cpu":  # reading a GPU's loss would make it wait
            check_finite(parts, state, config.trainer.log_every_iters if logs else 1)
        if in_warmup(state, recipe) and (below := leave_warmup(state)) is not None:
            log.write("event", iter=done, event="warmup_end", value=below, time=clock.tick())
        if logs:
            err = log_training(parts, state, log, lr, clock)
        if last or done % config.evaluation.every_iters == 0:
            evaluate(parts, state, log, clock)
        stopping = stop_asked()
        if stopping or last or done % config.trainer.checkpoint_every_iters == 0:
            clock.tick()
            save()
        watcher.update(done, err, lr)
        if stopping and not last:
            return False
    return True


class Clock:
    """Adds the seconds since it was last asked to the state's running time."""

    def __init__(self, state: TrainState):
        self._state, self._last = state, time.perf_counter()

    def tick(self, *, training: bool = True) -> float:
        """Count the time since the last tick; return the run's total so far, rounded."""
        now = time.perf_counter()
        passed, self._last = now - self._last, now
        self._state.time += passed
        self._state.train_time += passed if training else 0.0
        return round(self._state.time, 3)


def check_finite(parts: Parts, state: TrainState, count: int) -> None:
    """Stop at the first of the last ``count`` iterations whose loss is not a number."""
    bad = state.window.first_bad(state.iteration, min(count, state.iteration))
    if bad is None:
        return
    batch = parts.order.batch(bad)
    raise DivergedError(
        f"the loss is not finite at iteration {bad + 1} "
        f"(lr {state.optimizer.param_groups[0]['lr']:g}, images {batch.indices[:8].tolist()}, ...)"
    )


def log_training(
    parts: Parts, state: TrainState, log: MetricsWriter, lr: float, clock: Clock
) -> float:
    """Write the mean over the iterations since the last training record; return its error."""
    every = parts.config.trainer.log_every_iters
    count = state.iteration % every or min(every, state.iteration)
    loss, top1, top5 = state.window.means(state.iteration, count)
    log.write(
        "train",
        iter=state.iteration,
        epoch=parts.order.epoch_of(state.iteration),
        loss=loss,
        top1_err=top1,
        top5_err=top5,
        lr=lr,
        num_samples=count * parts.config.recipe.batch_size,
        time=clock.tick(),
    )
    return top1


def evaluate(parts: Parts, state: TrainState, log: MetricsWriter, clock: Clock) -> None:
    """Count the errors on every held-out set, each image once, in its single view."""
    clock.tick()
    for kind, images in parts.held_out.items():
        count_and_log(parts, state, log, clock, kind, images)


def count_clean_training_error(parts: Parts, state: TrainState, log: MetricsWriter) -> None:
    """Count the final net's errors on training images without augmentation (``train_clean``)."""
    images = parts.train_set
    limit = min(parts.config.evaluation.clean_train_images or len(images), len(images))
    count_and_log(parts, state, log, Clock(state), "train_clean", images, limit)


def count_and_log(
    parts: Parts,
    state: TrainState,
    log: MetricsWriter,
    clock: Clock,
    kind: str,
    images: DeviceDataset,
    limit: int | None = None,
) -> None:
    """Evaluate the net on ``images`` (the first ``limit``) and write the record."""
    state.model.eval()
    with parts.setup.autocast():
        batches = images.eval_batches(parts.config.evaluation.batch_size, limit)
        count = count_errors(state.model, batches, limit or len(images))
    log.write(
        kind,
        iter=state.iteration,
        epoch=parts.order.epoch_of(state.iteration),
        loss=count.loss,
        top1_err=count.top1_err,
        top5_err=count.top5_err,
        num_samples=count.seen,
        protocol="1-crop",
        bn="running",
        time=clock.tick(training=False),
    )
