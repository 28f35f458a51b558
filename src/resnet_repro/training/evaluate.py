"""Counting the errors of a run's net on its data sets, each image once over all workers."""

from __future__ import annotations

import math

from resnet_repro.data import EvalImages
from resnet_repro.evaluation.count import count_errors
from resnet_repro.training.assemble import RunContext
from resnet_repro.training.log import Clock, Log, log_skipped
from resnet_repro.training.state import TrainState, current_lr, watch_plateau


def evaluate(context: RunContext, state: TrainState, log: Log, clock: Clock) -> None:
    """Count the errors on every held-out set, each image once, in its single view.

    With ``recipe.schedule=plateau`` the rate may drop with it: by the validation images where there
    are some, else by the test images. All workers count the same, so all drop alike.
    """
    clock.tick()
    errors = {
        kind: count_and_log(context, state, log, clock, kind, images)
        for kind, images in context.images.held_out.items()
    }
    recipe = context.config.recipe
    last = state.iteration == recipe.max_iters
    if not last and watch_plateau(state, recipe, errors.get("val", errors["test"])):
        lr = current_lr(state, recipe)
        log.write("event", iter=state.iteration, event="lr_drop", value=lr, time=clock.tick())


def count_clean_training_error(context: RunContext, state: TrainState, log: Log) -> None:
    """Count the final net's errors on training images without augmentation (``train_clean``)."""
    there = context.order.num_images
    images = context.images.clean(min(context.config.evaluation.clean_train_images or there, there))
    count_and_log(context, state, log, Clock(state), "train_clean", images)


def count_and_log(
    context: RunContext,
    state: TrainState,
    log: Log,
    clock: Clock,
    kind: str,
    images: EvalImages,
) -> float:
    """Evaluate the net on ``images``, write the record, return the top-1 error in percent.

    With several workers each takes every N-th batch, all with rank 0's batch-norm statistics.
    """
    world, count = context.world, len(images)
    world.share_statistics(state.model)
    state.model.eval()
    size = even_batch_size(count, context.config.evaluation.batch_size, world.size)
    batches = images.eval_batches(size, first=world.rank, every=world.size)
    with context.setup.autocast():
        forward = state.graphed_eval or state.model
        found = count_errors(forward, batches, count, world.sum, lambda: len(images.skipped))
    log_skipped(context, state, log, images)
    log.write(
        kind,
        iter=state.iteration,
        epoch=context.order.epoch_of(state.iteration),
        loss=found.loss,
        top1_err=found.top1_err,
        top5_err=found.top5_err,
        num_samples=found.seen,
        protocol="1-crop",
        bn="running",
        time=clock.tick(training=False),
    )
    return found.top1_err


def even_batch_size(count: int, largest: int, workers: int) -> int:
    """Batch size up to ``largest`` that keeps all workers busy; ``largest`` for a single one."""
    if workers == 1:
        return largest
    rounds = math.ceil(count / (largest * workers))
    return math.ceil(count / (rounds * workers))
