"""One worker's share of a run: build, resume, train, and what is kept of it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Any

from resnet_repro.config import Config
from resnet_repro.options import ConfigError
from resnet_repro.runs.folder import RunFolder, now
from resnet_repro.runs.metrics import MetricsWriter
from resnet_repro.training import checkpoint
from resnet_repro.training.assemble import assemble, describe, load_images
from resnet_repro.training.device import set_up
from resnet_repro.training.distributed import World, join
from resnet_repro.training.evaluate import count_clean_training_error
from resnet_repro.training.lanes import Turns
from resnet_repro.training.left_out import count_left_out
from resnet_repro.training.loop import train
from resnet_repro.training.parts import Log, Parts, Unheard, Watcher
from resnet_repro.training.probes import (
    GradientLog,
    Rows,
    forward_signal,
    gradient_precision,
    layer_responses,
)
from resnet_repro.training.resume import contents, resume
from resnet_repro.training.state import TrainState, settle_ddp_buckets
from resnet_repro.training.stepper import Stepper, make


def run(
    folder: RunFolder,
    world: World,
    watcher: Watcher,
    running: Callable[[int], None],
    stop_asked: Callable[[], bool],
    beside: Callable[[MetricsWriter], Log] = lambda log: log,
) -> Turns[bool]:
    """Train the run of ``folder`` from where it stands; return whether it came to its end.

    ``running`` is told of each iteration that the run can go on from; ``beside`` may put something
    beside the log that sees the records too.

    Raises:
        ConfigError: at once: the workers are not as many as asked for; later: the machine cannot do
            what the configuration asks.
        DataError: the data cannot be had or are not what they should be.
        CheckpointError: checkpoints exist and none can be trusted.
        DivergedError: the loss is no longer finite.
    """
    config = Config.from_mapping(folder.config())
    if world.size != config.trainer.devices:
        raise ConfigError(
            f"trainer.devices={config.trainer.devices}: but {world.size} workers were started"
        )
    return begin(config, folder, world, watcher, running, stop_asked, beside)


def begin(
    config: Config,
    folder: RunFolder,
    world: World,
    watcher: Watcher,
    running: Callable[[int], None],
    stop_asked: Callable[[], bool],
    beside: Callable[[MetricsWriter], Log],
) -> Turns[bool]:
    """Set up device, images and net, and train."""
    setup = set_up(config.trainer, world.local_rank, world.local_size)
    world = join(world, setup.device, config.trainer.timeout_seconds)
    found = world.rank0_first(lambda: load_images(config))
    parts, state = assemble(config, setup, found, world)
    with closing(parts.images):
        return (yield from proceed(folder, parts, state, watcher, running, stop_asked, beside))


def proceed(
    folder: RunFolder,
    parts: Parts,
    state: TrainState,
    watcher: Watcher,
    running: Callable[[int], None],
    stop_asked: Callable[[], bool],
    beside: Callable[[MetricsWriter], Log],
) -> Turns[bool]:
    """Go on from the newest checkpoint, or begin; on rank 0 also keep what the folder holds."""
    settle_ddp_buckets(state, parts.setup, parts.share_shape)
    saved = resume(folder, parts, state)
    tables = tables_at_start(parts, state)
    stepper = make(parts, state)
    if parts.world.rank != 0:
        return (yield from follow(parts, state, stepper, stop_asked))
    for name, rows in tables.items():
        folder.write_table(name, rows)
    meta = folder.meta() | describe(parts, state) | {"engine": stepper.engine}
    if saved is None or "started" not in meta:
        meta["started"] = now()
    folder.write_meta(meta)
    checkpoint.prune(folder.checkpoints)
    running(state.iteration)
    done = yield from lead(
        folder, parts, state, stepper, saved, watcher, running, stop_asked, beside
    )
    if not done:
        return False
    keep_responses(folder, parts, state)
    meta["data"]["left_out"] = count_left_out(folder.metrics())
    folder.write_meta(meta | speed(parts, state))
    return True


def lead(
    folder: RunFolder,
    parts: Parts,
    state: TrainState,
    stepper: Stepper,
    saved: dict[str, Any] | None,
    watcher: Watcher,
    running: Callable[[int], None],
    stop_asked: Callable[[], bool],
    beside: Callable[[MetricsWriter], Log],
) -> Turns[bool]:
    """Train and write, as rank 0 alone does, from ``saved`` or from the start."""
    with MetricsWriter(folder.metrics_path, saved["metrics_bytes"] if saved else 0) as file:
        log = beside(file)
        if saved and saved["world_size"] != parts.world.size:
            values: dict[str, Any] = {"event": "world_size", "value": parts.world.size}
            log.write("event", iter=state.iteration, **values, time=round(state.time, 3))

        def save() -> None:
            content = contents(parts, state) | {"metrics_bytes": file.sync()}
            checkpoint.save(folder.checkpoints, state.iteration, content)
            running(state.iteration)

        gradients = GradientLog(folder, parts, state)
        turns = train(parts, state, stepper, log, save, gradients, watcher, stop_asked)
        if not (yield from turns):
            return False
        count_clean_training_error(parts, state, log)
        file.sync()
    return True


def follow(
    parts: Parts, state: TrainState, stepper: Stepper, stop_asked: Callable[[], bool]
) -> Turns[bool]:
    """Train as the other workers do: the same collectives in the same order, nothing written."""
    quiet = Unheard()

    def save() -> None:
        contents(parts, state)  # rank 0's sums need those of this worker

    gradients = GradientLog(None, parts, state)
    turns = train(parts, state, stepper, quiet, save, gradients, quiet, stop_asked)
    if not (yield from turns):
        return False
    count_clean_training_error(parts, state, quiet)
    return True


def tables_at_start(parts: Parts, state: TrainState) -> dict[str, Rows]:
    """What the first batch, whole, shows of the untrained net, on every worker alike."""
    if not parts.config.probes.signals or state.iteration > 0:
        return {}
    images, labels = parts.images.whole_batch(0)
    return {
        "signal": forward_signal(state.model, parts.setup, images),
        "gradient_precision": gradient_precision(state.model, parts.setup, images, labels),
    }


def keep_responses(folder: RunFolder, parts: Parts, state: TrainState) -> None:
    """Write the layer responses of the final net on the first test images (Fig. 7)."""
    config, test = parts.config, parts.images.held_out["test"]
    count = min(config.probes.response_images, len(test))
    if count:
        batches = test.eval_batches(config.evaluation.batch_size, count)
        folder.write_table("responses", layer_responses(state.model, parts.setup, batches))


def speed(parts: Parts, state: TrainState) -> dict[str, Any]:
    """What ``meta.json`` says of a run that came to its end."""
    images = state.iteration * parts.config.recipe.batch_size
    return {
        "finished": now(),
        "wall_time_s": round(state.time, 1),
        "train_time_s": round(state.train_time, 1),
        "images_per_second": round(images / state.train_time, 1),
        "warmup_exit_iter": state.warmup_exit,
    }
