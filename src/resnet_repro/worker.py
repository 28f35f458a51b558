"""One worker's share of a run: build, resume, train. Reads the run folder, never Hydra."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from resnet_repro.config import Config
from resnet_repro.runs.folder import RunFolder, now
from resnet_repro.runs.metrics import MetricsWriter
from resnet_repro.training import checkpoint
from resnet_repro.training.assemble import assemble, describe, load_data
from resnet_repro.training.device import Setup, set_up
from resnet_repro.training.loop import Parts, Watcher, count_clean_training_error, train
from resnet_repro.training.probes import GradientLog, forward_signal, layer_responses
from resnet_repro.training.state import TrainState


def run(
    folder: RunFolder, about: dict[str, Any], watcher: Watcher, stop_asked: Callable[[], bool]
) -> bool:
    """Train the run of ``folder`` from where it stands; return whether it came to its end.

    ``about`` goes into ``meta.json`` beside what is known here.

    Raises:
        ConfigError: the machine cannot do what the configuration asks.
        DataError: the data cannot be had or are not what they should be.
        CheckpointError: checkpoints exist and none can be trusted.
        DivergedError: the loss is no longer finite.
    """
    config = Config.from_mapping(folder.config())
    setup = set_up(config.trainer)
    arrays = load_data(config)
    parts, state = assemble(config, setup, arrays)
    meta = describe(config, setup, arrays, state) | about | {"started": now()}
    metrics_bytes = resume(folder, setup, state)
    if metrics_bytes:
        meta["started"] = folder.meta().get("started", meta["started"])
    folder.write_meta(meta)
    folder.write_status("running", iter=state.iteration, max_iters=config.recipe.max_iters)
    with MetricsWriter(folder.metrics_path, metrics_bytes) as log:

        def save() -> None:
            about = {"metrics_bytes": log.sync(), "precision": setup.precision}
            checkpoint.save(folder.checkpoints, state.iteration, state.state_dict() | about)
            folder.write_status("running", iter=state.iteration, max_iters=config.recipe.max_iters)

        probe = look_inside(folder, parts, state)
        if not train(parts, state, log, save, probe, watcher, stop_asked):
            return False
        count_clean_training_error(parts, state, log)
        log.sync()
    keep_responses(folder, parts, state)
    images = state.iteration * config.recipe.batch_size
    folder.write_meta(
        meta
        | {
            "finished": now(),
            "wall_time_s": round(state.time, 1),
            "train_time_s": round(state.train_time, 1),
            "images_per_second": round(images / state.train_time, 1),
            "warmup_exit_iter": state.warmup_exit,
        }
    )
    return True


def look_inside(folder: RunFolder, parts: Parts, state: TrainState) -> GradientLog:
    """Keep the forward signal at initialisation; return what keeps gradient norms on the way."""
    config = parts.config
    if config.probes.signals and state.iteration == 0:
        images, _ = parts.train_set.train_batch(parts.order.batch(0))
        folder.write_table("signal", forward_signal(state.model, parts.setup, images))
    return GradientLog(folder, config.recipe.max_iters if config.probes.signals else None)


def keep_responses(folder: RunFolder, parts: Parts, state: TrainState) -> None:
    """Write the layer responses of the final net on the first test images (Fig. 7)."""
    config, test = parts.config, parts.held_out["test"]
    count = min(config.probes.response_images, len(test))
    if count:
        batches = test.eval_batches(config.evaluation.batch_size, count)
        folder.write_table("responses", layer_responses(state.model, parts.setup, batches))


def resume(folder: RunFolder, setup: Setup, state: TrainState) -> int:
    """Bring ``state`` to the newest good checkpoint, if any; return the metrics' length there.

    Raises:
        CheckpointError: none can be trusted, or it was made in another precision.
    """
    saved = checkpoint.load_newest(folder.checkpoints)
    if saved is None:
        return 0
    if saved["precision"] != setup.precision:
        raise checkpoint.CheckpointError(
            f"{folder.path}: begun in {saved['precision']}, this machine would go on in "
            f"{setup.precision}; add trainer.precision={saved['precision']} to go on as it began"
        )
    state.load_state_dict(saved)
    return int(saved["metrics_bytes"])
