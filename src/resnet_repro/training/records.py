"""What a run writes while it trains: its log, errors on held-out images, skipped images."""

import math
import time
from typing import Any

from resnet_repro.data import EvalImages
from resnet_repro.evaluation.count import count_errors
from resnet_repro.runs.folder import RunFolder
from resnet_repro.runs.metrics import MetricsWriter
from resnet_repro.training import checkpoint
from resnet_repro.training.build import RunContext
from resnet_repro.training.state import TrainState, current_lr, watch_plateau

SKIPPED = "left_out"  # name of the event in ``metrics.jsonl``


class Log:
    """Records and checkpoints of a run, and its times; without a folder, as on ranks > 0, no files.

    ``metrics.jsonl`` is cut to the ``metrics_bytes`` that the checkpoint remembers.
    """

    def __init__(self, state: TrainState, folder: RunFolder | None = None, metrics_bytes: int = 0):
        self.folder, self._state, self._last = folder, state, time.perf_counter()
        self._file = MetricsWriter(folder.metrics_path, metrics_bytes) if folder else None

    def tick(self, *, training: bool = True) -> None:
        """Add the seconds since the last tick to the run's, and to those spent on training."""
        now = time.perf_counter()
        passed, self._last = now - self._last, now
        self._state.time += passed
        self._state.train_time += passed if training else 0.0

    def write(self, kind: str, *, at: int | None = None, **values: Any) -> None:
        """Append one record with the run's time; ``at``: its iteration, if not the state's."""
        if self._file is not None:
            iteration, seconds = self._state.iteration if at is None else at, self._state.time
            self._file.write(kind, iter=iteration, **values, time=round(seconds, 3))

    def save(self, content: dict[str, Any]) -> None:
        """Save a checkpoint, then report in ``status.json`` that the run can resume there."""
        if self.folder is not None and self._file is not None:
            content = content | {"metrics_bytes": self._file.sync()}
            checkpoint.save(self.folder.checkpoint(content["iteration"]), content)
            self.folder.write_status("running", iter=content["iteration"])

    def sync(self) -> None:
        """Force all records to the disk."""
        if self._file is not None:
            self._file.sync()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def log_training(context: RunContext, state: TrainState, log: Log, lr: float) -> float:
    """Write the mean over the iterations since the last training record; return its error."""
    every = context.config.trainer.log_every_iters
    count = state.iteration % every or min(every, state.iteration)
    means = state.window.means(state.iteration, count)
    log.tick()
    epoch = context.images.order.epoch_of(state.iteration)
    log.write("train", epoch=epoch, **means._asdict(), lr=lr)
    return means.top1_err


def evaluate(context: RunContext, state: TrainState, log: Log) -> None:
    """Count the errors on every held-out set, each image once, in its single view.

    With ``recipe.schedule=plateau`` the rate may drop with it: by the validation images where there
    are some, else by the test images. All workers count the same, so all drop alike.
    """
    log.tick()
    errors = {
        kind: count_and_log(context, state, log, kind, images)
        for kind, images in context.images.held_out.items()
    }
    recipe = context.config.recipe
    last = state.iteration == recipe.max_iters
    if not last and watch_plateau(state, recipe, errors.get("val", errors["test"])):
        log.tick()
        log.write("event", event="lr_drop", value=current_lr(state, recipe))


def count_clean_training_error(context: RunContext, state: TrainState, log: Log) -> None:
    """Count the final net's errors on training images without augmentation (``train_clean``)."""
    total = context.images.order.num_images
    count = min(context.config.evaluation.clean_train_images or total, total)
    count_and_log(context, state, log, "train_clean", context.images.clean(count))


def count_and_log(
    context: RunContext, state: TrainState, log: Log, kind: str, images: EvalImages
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
    log.tick(training=False)
    log.write(
        kind,
        epoch=context.images.order.epoch_of(state.iteration),
        loss=found.loss,
        top1_err=found.top1_err,
        top5_err=found.top5_err,
        num_samples=found.seen,
        protocol="1-crop",
        bn="running",
    )
    return found.top1_err


def even_batch_size(count: int, largest: int, workers: int) -> int:
    """Batch size up to ``largest`` that keeps all workers busy; ``largest`` for a single one."""
    if workers == 1:
        return largest
    rounds = math.ceil(count / (largest * workers))
    return math.ceil(count / (rounds * workers))


def log_skipped(
    context: RunContext, state: TrainState, log: Log, held_out: EvalImages | None = None
) -> None:
    """Write an event for each image skipped since the last call, in order; all workers call it.

    Called before the state is saved, so that a resumed run too names each use once. The event's
    iteration is that of the update that lacked the image, for ``held_out`` images the state's.
    """
    images = held_out or context.images
    skipped = context.world.gather(images.skipped)
    images.skipped.clear()
    for batch, row in sorted(skipped):
        at = state.iteration if held_out else batch + 1
        log.write("event", at=at, event=SKIPPED, value=images.name_of(row))
