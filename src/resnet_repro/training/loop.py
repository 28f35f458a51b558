"""The training loop: everything it does, on one screen."""

from __future__ import annotations

from collections.abc import Callable

from resnet_repro.training.errors import DivergedError
from resnet_repro.training.evaluate import evaluate
from resnet_repro.training.lanes import Turns
from resnet_repro.training.left_out import tell_left_out
from resnet_repro.training.parts import Clock, Log, Parts, Watcher
from resnet_repro.training.probes import GradientLog
from resnet_repro.training.state import (
    TrainState,
    current_lr,
    in_warmup,
    is_finite,
    leave_warmup,
)
from resnet_repro.training.stepper import Stepper

LOOK_EVERY = 8  # iterations after which the workers of several GPUs ask each other whether to stop


def train(
    parts: Parts,
    state: TrainState,
    stepper: Stepper,
    log: Log,
    save: Callable[[], None],
    gradients: GradientLog,
    watcher: Watcher,
    stop_asked: Callable[[], bool],
) -> Turns[bool]:
    """Train from ``state`` to the last iteration or until a stop is asked for.

    ``gradients`` measures those of a few updates; ``save`` keeps the state.
    With several workers all of them are here, at the same iteration, and leave together. Pauses
    after each iteration, so that other runs can have a turn (:mod:`resnet_repro.training.lanes`).
    Returns whether the run was trained to its end.

    Raises:
        DivergedError: the loss or its gradient is not finite; names iteration, lr and images.
    """
    config, recipe = parts.config, parts.config.recipe
    err: float | None = None
    clock = Clock(state)
    while state.iteration < recipe.max_iters:
        lr = current_lr(state, recipe)
        gradients.before()
        stepper.step(lr)
        done = state.iteration
        last = done == recipe.max_iters
        logs = last or done % config.trainer.log_every_iters == 0
        saves = last or done % config.trainer.checkpoint_every_iters == 0
        stopping = look(parts, state, stop_asked, reads=logs or saves)
        if logs or saves or stopping:
            tell_left_out(parts, state, log)
        gradients.after()
        if in_warmup(state, recipe) and (below := leave_warmup(state)) is not None:
            log.write("event", iter=done, event="warmup_end", value=below, time=clock.tick())
        if logs:
            err = log_training(parts, state, log, lr, clock)
        if last or done % config.evaluation.every_iters == 0:
            evaluate(parts, state, log, clock)
        if stopping or saves:
            clock.tick()
            save()
        watcher.update(done, err, lr)
        if stopping and not last:
            return False
        yield
    return True


def look(parts: Parts, state: TrainState, stop_asked: Callable[[], bool], *, reads: bool) -> bool:
    """Whether all workers are to stop here.

    On the CPU loss and gradient are looked at after every update. A GPU would have to wait for its
    host, so there only where something is logged or saved, and the workers ask each other only
    every few iterations.

    Raises:
        DivergedError: on all workers, if the run diverged on any.
    """
    reads = reads or parts.setup.device.type == "cpu"
    if not (reads or parts.world.size == 1 or state.iteration % LOOK_EVERY == 0):
        return False
    stopping, bad = parts.world.any(stop_asked(), reads and not is_finite(state))
    if stopping and not reads:  # the state will be saved
        (bad,) = parts.world.any(not is_finite(state))
    if bad:
        raise diverged(parts, state)
    return stopping


def diverged(parts: Parts, state: TrainState) -> DivergedError:
    """Name the first bad iteration, its learning rate and its images."""
    bad = state.window.first_bad(state.iteration)
    what = "the loss" if bad is not None else "the norm of the gradient"
    if bad is None:
        bad = state.iteration - 1
    lr = current_lr(state, parts.config.recipe, bad)
    images = parts.order.batch(bad).indices[:8].tolist()
    return DivergedError(
        f"{what} is not finite at iteration {bad + 1} (lr {lr:g}, images {images}, ...)"
    )


def log_training(parts: Parts, state: TrainState, log: Log, lr: float, clock: Clock) -> float:
    """Write the mean over the iterations since the last training record; return its error."""
    every = parts.config.trainer.log_every_iters
    count = state.iteration % every or min(every, state.iteration)
    means = state.window.means(state.iteration, count)
    log.write(
        "train",
        iter=state.iteration,
        epoch=parts.order.epoch_of(state.iteration),
        loss=means.loss,
        top1_err=means.top1_err,
        top5_err=means.top5_err,
        lr=lr,
        num_samples=means.seen,
        time=clock.tick(),
    )
    return means.top1_err
