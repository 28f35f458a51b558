"""The training loop: everything it does, on one screen."""

from collections.abc import Callable
from dataclasses import dataclass, field

from resnet_repro.progress import Watcher
from resnet_repro.training import DivergedError
from resnet_repro.training.build import RunContext
from resnet_repro.training.checkpoint import contents
from resnet_repro.training.probes import (
    bn_output_gradient_norms,
    gradient_iterations,
    write_gradients,
)
from resnet_repro.training.records import Log, evaluate, log_skipped, log_training
from resnet_repro.training.state import TrainState, current_lr, in_warmup, is_finite, leave_warmup
from resnet_repro.training.stepper import Step

CHECK_EVERY = 8  # iterations after which the workers of several GPUs ask each other whether to stop


@dataclass
class Loop:
    """The updates of a run, and all that is due between them.

    With several workers each has one, at the same iteration, and all leave it together.
    """

    context: RunContext
    state: TrainState
    step: Step
    log: Log
    watcher: Watcher
    _err: float | None = field(default=None, init=False)  # training error logged last

    @property
    def is_done(self) -> bool:
        """Whether the last iteration is done."""
        return self.state.iteration >= self.context.config.recipe.max_iters

    def advance(self, stop_asked: Callable[[], bool]) -> bool:
        """Do one update and all that is due after it.

        Returns whether the run was stopped before its end; its state is then saved. DivergedError:
        the loss or its gradient is not finite; names iteration, lr and images.
        """
        context, state, log = self.context, self.state, self.log
        config, recipe = context.config, context.config.recipe
        lr, probed = current_lr(state, recipe), gradient_iterations(recipe.max_iters)
        probes = config.probes.signals and state.iteration + 1 in probed
        at_outputs = bn_output_gradient_norms(context, state) if probes else []
        self.step(lr)
        done, last = state.iteration, self.is_done
        logs = last or done % config.trainer.log_every_iters == 0
        saves = last or done % config.trainer.checkpoint_every_iters == 0
        stopping = check_stop_and_finite(context, state, stop_asked, reads=logs or saves)
        if logs or saves or stopping:
            log_skipped(context, state, log)
        if probes and log.folder is not None:
            write_gradients(log.folder, state, at_outputs)
        if in_warmup(state, recipe) and (below := leave_warmup(state)) is not None:
            log.tick()
            log.write("event", event="warmup_end", value=below)
        if logs:
            self._err = log_training(context, state, log, lr)
        if last or done % config.evaluation.every_iters == 0:
            self.watcher.enter("evaluate", done)
            evaluate(context, state, log)
            self.watcher.enter("train", done)
        if stopping or saves:
            self.watcher.enter("save", done)
            self.save()
            self.watcher.enter("train", done)
        self.watcher.update(done, self._err, lr)
        return stopping and not last

    def save(self) -> None:
        """Save a checkpoint, after events for the images that were skipped before it."""
        log_skipped(self.context, self.state, self.log)
        self.log.tick()
        self.log.save(contents(self.context, self.state))


def check_stop_and_finite(
    context: RunContext, state: TrainState, stop_asked: Callable[[], bool], *, reads: bool
) -> bool:
    """Return whether all workers stop here.

    On the CPU loss and gradient are checked after every update. A GPU would have to wait for its
    host, so there only where something is logged or saved, and the workers ask each other only
    every few iterations. DivergedError: on all workers, if the run diverged on any.
    """
    reads = reads or context.setup.device.type == "cpu"
    if not (reads or context.world.size == 1 or state.iteration % CHECK_EVERY == 0):
        return False
    stopping, bad = context.world.any(stop_asked(), reads and not is_finite(state))
    if stopping and not reads:  # the state will be saved
        (bad,) = context.world.any(not is_finite(state))
    if bad:
        raise diverged(context, state)
    return stopping


def diverged(context: RunContext, state: TrainState) -> DivergedError:
    """Name the first bad iteration, its learning rate and its images."""
    bad = state.window.first_bad(state.iteration)
    what = "the loss" if bad is not None else "the norm of the gradient"
    if bad is None:
        bad = state.iteration - 1
    lr = current_lr(state, context.config.recipe, bad)
    images = context.images.order.batch(bad).indices[:8].tolist()
    return DivergedError(
        f"{what} is not finite at iteration {bad + 1} (lr {lr:g}, images {images}, ...)"
    )
