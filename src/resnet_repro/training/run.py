"""One worker's share of a run: build, resume, train, and what is kept of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from typing import Any

import torch

from resnet_repro.config import Config
from resnet_repro.data import MODIFIED, StoppedError
from resnet_repro.exits import notify
from resnet_repro.mirror import Mirror
from resnet_repro.options import ConfigError
from resnet_repro.progress import Watcher
from resnet_repro.runs.atomic import remove_left_overs
from resnet_repro.runs.folder import RunFolder, now
from resnet_repro.runs.lock import WORK, run_lock
from resnet_repro.training import checkpoint, note_failure
from resnet_repro.training.assemble import RunContext, assemble, describe, load_images
from resnet_repro.training.checkpoint import resume
from resnet_repro.training.device import sees_cuda, set_up
from resnet_repro.training.distributed import SOLO, World, join
from resnet_repro.training.evaluate import count_clean_training_error
from resnet_repro.training.log import Log, NullLog, RunLog, count_skipped
from resnet_repro.training.loop import Loop
from resnet_repro.training.memory import return_freed_memory
from resnet_repro.training.probes import (
    Rows,
    forward_signal,
    gradient_precision,
    layer_responses,
)
from resnet_repro.training.refuse import changed_data, refuse_lost_checkpoints
from resnet_repro.training.state import TrainState, settle_ddp_buckets
from resnet_repro.training.stepper import Stepper, make


class Run:
    """The run of a folder, on this worker. Rank 0 alone writes, and keeps ``status.json`` true.

    On CUDA everything is launched on a stream of the run's own: graphs can be captured there, and
    what several runs have launched is computed at the same time.

    Args:
        folder: of the run, its configuration written.
        watcher: notified of every iteration and phase.
        stop_asked: whether to stop after this iteration.
        world: this worker's place.

    Raises:
        ConfigError: there are not as many workers as asked for.
    """

    def __init__(
        self,
        folder: RunFolder,
        watcher: Watcher,
        stop_asked: Callable[[], bool],
        world: World = SOLO,
    ):
        self.folder, self._stop_asked, self._world = folder, stop_asked, world
        self._watcher = watcher if world.rank == 0 else NullLog()
        self._config = Config.from_mapping(folder.config())
        devices = self._config.trainer.devices
        if world.size != devices:
            raise ConfigError(f"trainer.devices={devices}: but {world.size} workers were started")
        self.resources = ExitStack()  # released when the run ends, however it does
        self._loop: Loop | None = None
        on_cuda = world.size == 1 and sees_cuda(self._config.trainer)
        self.stream = torch.cuda.Stream() if on_cuda else None  # type: ignore[no-untyped-call]

    def finish(self) -> str:
        """Do all of the run: ``finished`` or ``preempted``."""
        while (state := self.advance()) is None:
            pass
        return state

    def advance(self) -> str | None:
        """Do one iteration and all that is due in it; the first call builds and resumes the run.

        Returns ``None`` while the run goes on, then ``finished`` or ``preempted``. The device may
        still be at work then.

        Raises:
            Exception: what stopped the run; its status then says ``failed`` or ``diverged``.
        """
        with self._on_stream(), ExitStack() as unless_it_goes_on:
            unless_it_goes_on.push(self.resources)
            state = self._advance()
            if state is None:
                unless_it_goes_on.pop_all()
            elif self._world.rank == 0:
                self.folder.update_status(state)
            return state

    def _advance(self) -> str | None:
        loop = self._loop
        try:
            if loop is None:
                self._loop = self._start()
            elif loop.is_done:
                self._complete(loop)
                return "finished"
            elif loop.advance():
                return "preempted"
        except StoppedError:  # in a wait for data: nothing of an update is done
            if self._world.size > 1:
                raise
            if loop is not None and loop.state.iteration:
                loop.save()
            return "preempted"
        return None

    def close(self) -> None:
        """Leave the run where it is and release what it holds."""
        with self._on_stream():
            self.resources.close()

    def _on_stream(self) -> AbstractContextManager[object]:
        return torch.cuda.stream(self.stream) if self.stream is not None else nullcontext()

    def _start(self) -> Loop:
        """Build the run and resume from its newest checkpoint."""
        folder, hold, config = self.folder, self.resources.enter_context, self._config
        leads = self._world.rank == 0
        if leads:
            mirror = hold(closing(Mirror(folder)))
            hold(run_lock(folder.path, WORK, patience=20))
            remove_left_overs(folder.path, folder.checkpoints)
            self.resources.push(self._note_failure)
        refuse_lost_checkpoints(folder)
        setup = set_up(config.trainer, self._world.local_rank, self._world.local_size)
        world = join(self._world, setup.device, config.trainer.timeout_seconds)
        found = world.rank0_first(lambda: load_images(config))
        context, state = assemble(config, setup, found, world)
        hold(closing(context.images))
        settle_ddp_buckets(state, setup, context.share_shape)
        self._watcher.enter("load", 0)
        saved = resume(folder, context, state)
        tables = tables_at_start(context, state)
        return_freed_memory()  # the gradients in float64 took much more than training will
        stepper = make(context, state)
        log: Log = NullLog()
        if leads:
            self._write_start(context, state, stepper, tables)
            log = hold(closing(RunLog(folder, saved["metrics_bytes"] if saved else 0)))
            mirror.start()
            time = round(state.time, 3)
            for event, value in changes_since(saved or {}, context).items():
                log.write("event", iter=state.iteration, event=event, value=value, time=time)
        self._watcher.enter("train", state.iteration)
        return Loop(context, state, stepper, log, self._watcher, self._stop_asked)

    def _write_start(
        self, context: RunContext, state: TrainState, stepper: Stepper, tables: dict[str, Rows]
    ) -> None:
        """Write what the folder holds of a run before its next iteration."""
        folder = self.folder
        for name, rows in tables.items():
            folder.write_table(name, rows)
        meta = folder.meta() | describe(context, state) | {"engine": stepper.engine}
        if state.iteration == 0 or "started" not in meta:
            meta["started"] = now()
        folder.write_meta(meta)
        checkpoint.prune(folder.checkpoints)
        folder.update_status("running", iter=state.iteration)

    def _complete(self, loop: Loop) -> None:
        """Measure the final net; write that and the run's speed."""
        context, state, folder = loop.context, loop.state, loop.log.folder
        self._watcher.enter("evaluate", state.iteration)
        count_clean_training_error(context, state, loop.log)
        loop.log.sync()
        if folder is not None:
            keep_responses(folder, context, state)
            meta = folder.meta() | speed(context, state)
            meta["data"]["left_out"] = count_skipped(folder.metrics())
            folder.write_meta(meta)
        self._watcher.enter("end", state.iteration)

    def _note_failure(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, Exception):
            note_failure(self.folder, error)


def changes_since(saved: Mapping[str, Any], context: RunContext) -> dict[str, Any]:
    """What is different from when a checkpoint was saved and may be: event -> its value."""
    events: dict[str, Any] = {}
    digests, workers = context.images.digests, context.world.size
    if changed_data(saved.get("data", digests), digests):  # times of files; others are refused
        notify("files of the data were copied or touched since the checkpoint was saved")
        events["data_modified"] = digests[MODIFIED]
    if saved.get("world_size", workers) != workers:
        events["world_size"] = workers
    return events


def tables_at_start(context: RunContext, state: TrainState) -> dict[str, Rows]:
    """What the first batch, whole, shows of the untrained net, on every worker alike."""
    if not context.config.probes.signals or state.iteration > 0:
        return {}
    images, labels = context.images.whole_batch(0)
    return {
        "signal": forward_signal(state.model, context.setup, images),
        "gradient_precision": gradient_precision(state.model, context.setup, images, labels),
    }


def keep_responses(folder: RunFolder, context: RunContext, state: TrainState) -> None:
    """Write the layer responses of the final net on the first test images (Fig. 7)."""
    config, test = context.config, context.images.held_out["test"]
    count = min(config.probes.response_images, len(test))
    if count:
        batches = test.eval_batches(config.evaluation.batch_size, count)
        folder.write_table("responses", layer_responses(state.model, context.setup, batches))


def speed(context: RunContext, state: TrainState) -> dict[str, Any]:
    """What ``meta.json`` says of a finished run."""
    images = state.iteration * context.config.recipe.batch_size
    return {
        "finished": now(),
        "wall_time_s": round(state.time, 1),
        "train_time_s": round(state.train_time, 1),
        "images_per_second": round(images / state.train_time, 1),
        "warmup_exit_iter": state.warmup_exit,
    }
