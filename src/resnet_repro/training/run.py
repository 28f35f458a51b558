"""One worker's share of a run: build, resume, train, record."""

from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext

import torch

from resnet_repro.config import Config
from resnet_repro.data import StoppedError
from resnet_repro.mirror import Mirror
from resnet_repro.options import ConfigError
from resnet_repro.progress import Watcher
from resnet_repro.runs.atomic import remove_leftovers
from resnet_repro.runs.folder import RunFolder, now
from resnet_repro.runs.lock import WORK, run_lock
from resnet_repro.training import checkpoint, failure_noted
from resnet_repro.training.build import assemble, describe, load_images
from resnet_repro.training.device import return_freed_memory, sees_cuda, set_up
from resnet_repro.training.distributed import SOLO, World, join
from resnet_repro.training.loop import Loop
from resnet_repro.training.probes import keep_responses, tables_at_start
from resnet_repro.training.records import SKIPPED, Log, count_clean_training_error
from resnet_repro.training.refuse import changes_since, refuse_lost_checkpoints
from resnet_repro.training.state import settle_ddp_buckets
from resnet_repro.training.stepper import make


class TrainingRun:
    """The run of a folder, on this worker. Rank 0 alone writes, ``status.json`` included.

    On CUDA everything is launched on a stream of the run's own: graphs can be captured there, and
    what several runs have launched is computed at the same time. ``stop_asked`` says whether to
    stop after this iteration. ConfigError: the number of workers is not ``trainer.devices``.
    """

    def __init__(
        self,
        folder: RunFolder,
        watcher: Watcher,
        stop_asked: Callable[[], bool],
        world: World = SOLO,
    ):
        self.folder, self._stop_asked, self._world = folder, stop_asked, world
        self._watcher = watcher if world.rank == 0 else Watcher()
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

        Returns ``None`` until the run ends, then ``finished`` or ``preempted``; the device may
        still be busy. An error stops the run: its status then says ``failed`` or ``diverged``.
        """
        with self._on_stream(), ExitStack() as at_the_end:
            at_the_end.push(self.resources)
            state = self._advance()
            if state is None:
                at_the_end.pop_all()
            elif self._world.rank == 0:
                self.folder.write_status(state)
            return state

    def _advance(self) -> str | None:
        loop = self._loop
        begun = loop.state.iteration if loop is not None else 0
        try:
            if loop is None:
                self._loop = self._start()
            elif loop.is_done:
                if any(self._world.any(self._stop_asked())):  # its state is saved
                    return "preempted"
                self._complete(loop)
                return "finished"
            elif loop.advance(self._stop_asked):
                return "preempted"
        except StoppedError:  # in a wait for data
            if self._world.size > 1:  # the others may be in the middle of an update
                raise
            # An evaluation that was stopped would be missing after what is saved here: it is done
            # again from the checkpoint before it, as is all that follows the last one.
            if loop is not None and self.folder.resumes_at < begun == loop.state.iteration:
                loop.save()
            return "preempted"
        return None

    def close(self) -> None:
        """Abandon the run and release its resources."""
        with self._on_stream():
            self.resources.close()

    def _on_stream(self) -> AbstractContextManager[object]:
        return torch.cuda.stream(self.stream) if self.stream is not None else nullcontext()

    def _start(self) -> Loop:
        """Build the run and resume from its newest checkpoint."""
        folder, enter, config = self.folder, self.resources.enter_context, self._config
        leads = self._world.rank == 0
        if leads:
            mirror = enter(closing(Mirror(folder)))
            enter(run_lock(folder.path, WORK, patience=20))
            remove_leftovers(folder.path, folder.checkpoints)
            enter(failure_noted(folder))
        refuse_lost_checkpoints(folder)
        setup = set_up(config.trainer, self._world.local_rank, self._world.local_size)
        world = join(self._world, setup.device, config.trainer.timeout_seconds)
        found = world.rank0_first(lambda: load_images(config))
        context, state = assemble(config, setup, found, world)
        enter(closing(context.images))
        settle_ddp_buckets(state, setup, context.images.share_shape)
        self._watcher.enter("load", 0)
        saved = checkpoint.resume(folder, context, state) or {}
        tables = tables_at_start(context, state)
        return_freed_memory()  # the gradients in float64 took much more than training will
        step, engine = make(context, state)
        if leads:
            for name, rows in tables.items():
                folder.write_table(name, rows)
            meta = folder.meta()
            meta |= describe(context, state, engine, meta)
            if state.iteration == 0 or "started" not in meta:
                meta["started"] = now()
            folder.write_meta(meta)
            checkpoint.prune(folder.checkpoints)
            folder.write_status("running", iter=state.iteration)
            log = enter(closing(Log(state, folder, saved.get("metrics_bytes", 0))))
            mirror.start()
            for event, value in changes_since(saved, context.images.digests, world.size).items():
                log.write("event", event=event, value=value)
        else:
            log = Log(state)
        self._watcher.enter("train", state.iteration)
        return Loop(context, state, step, log, self._watcher)

    def _complete(self, loop: Loop) -> None:
        """Measure the final net; write that and the run's speed."""
        context, state, folder = loop.context, loop.state, loop.log.folder
        self._watcher.enter("evaluate", state.iteration)
        count_clean_training_error(context, state, loop.log)
        loop.log.sync()
        if folder is not None:
            keep_responses(folder, context, state)
            images = state.iteration * self._config.recipe.batch_size
            meta = folder.meta() | {
                "finished": now(),
                "wall_time_s": round(state.time, 1),
                "train_time_s": round(state.train_time, 1),
                "images_per_second": round(images / state.train_time, 1),
                "warmup_exit_iter": state.warmup_exit,
            }
            skipped = [str(r["value"]) for r in folder.metrics() if r.get("event") == SKIPPED]
            meta["data"]["left_out"] = dict(sorted(Counter(skipped).items()))  # how often each
            folder.write_meta(meta)
        self._watcher.enter("end", state.iteration)
