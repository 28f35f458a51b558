"""Counting the errors of a run's net on its data sets, each image once over all workers."""

from __future__ import annotations

import math
from itertools import islice

from resnet_repro.data.batches import DeviceDataset
from resnet_repro.evaluation.counting import count_errors
from resnet_repro.training.parts import Clock, Log, Parts
from resnet_repro.training.state import TrainState


def evaluate(parts: Parts, state: TrainState, log: Log, clock: Clock) -> None:
    """Count the errors on every held-out set, each image once, in its single view."""
    clock.tick()
    for kind, images in parts.held_out.items():
        count_and_log(parts, state, log, clock, kind, images)


def count_clean_training_error(parts: Parts, state: TrainState, log: Log) -> None:
    """Count the final net's errors on training images without augmentation (``train_clean``).

    Of a part of them evenly spaced ones: Tiny ImageNet lies class by class.
    """
    images = parts.train_set
    images = images.sample(parts.config.evaluation.clean_train_images or len(images))
    count_and_log(parts, state, log, Clock(state), "train_clean", images)


def count_and_log(
    parts: Parts,
    state: TrainState,
    log: Log,
    clock: Clock,
    kind: str,
    images: DeviceDataset,
) -> None:
    """Evaluate the net on ``images`` and write the record.

    With several workers each takes every N-th batch, all with rank 0's batch-norm statistics.
    """
    world, count = parts.world, len(images)
    world.share_statistics(state.model)
    state.model.eval()
    size = even_batch_size(count, parts.config.evaluation.batch_size, world.size)
    batches = islice(images.eval_batches(size), world.rank, None, world.size)
    with parts.setup.autocast():
        found = count_errors(state.model, batches, count, world.sum)
    log.write(
        kind,
        iter=state.iteration,
        epoch=parts.order.epoch_of(state.iteration),
        loss=found.loss,
        top1_err=found.top1_err,
        top5_err=found.top5_err,
        num_samples=found.seen,
        protocol="1-crop",
        bn="running",
        time=clock.tick(training=False),
    )


def even_batch_size(count: int, largest: int, workers: int) -> int:
    """Batch size up to ``largest`` that keeps all workers busy; ``largest`` for a single one."""
    if workers == 1:
        return largest
    rounds = math.ceil(count / (largest * workers))
    return math.ceil(count / (rounds * workers))
