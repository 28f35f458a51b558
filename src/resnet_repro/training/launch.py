"""Do the run of a checked configuration, once; torch is imported only to train."""

import dataclasses
import shlex
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from resnet_repro import paths
from resnet_repro.config import Config
from resnet_repro.progress import Watcher
from resnet_repro.runs.folder import RunFolder
from resnet_repro.runs.lock import run_lock
from resnet_repro.same_run import differences
from resnet_repro.training.refuse import (
    check_same_run,
    make_folder,
    refuse_diverged,
    refuse_lost_checkpoints,
    remove_if_refused,
)

if TYPE_CHECKING:
    from resnet_repro.training.run import TrainingRun


@dataclass(frozen=True)
class Job:
    """A run to do."""

    config: Config
    words: tuple[str, ...]  # overrides of the command line
    deviations: dict[str, list[Any]]  # from its experiment at profile paper: [there, here]

    @property
    def folder(self) -> RunFolder:
        """The folder of the run, which may not exist yet."""
        return RunFolder.at(paths.runs(self.config.runs_dir), self.config.as_mapping())

    def is_done(self) -> bool:
        """Whether the run is finished; RunFolderError: under another configuration."""
        check_same_run(self.folder, self.config)
        return self.folder.is_finished


def job_of(config: Config, overrides: Sequence[str], paper: Config) -> Job:
    """Make a job, and note how its protocol differs from its experiment's at profile ``paper``."""
    before = dataclasses.replace(paper, seed=config.seed).as_mapping()
    changed = differences(before, config.as_mapping())
    return Job(config, tuple(overrides), {key: list(pair) for key, pair in changed.items()})


def launch(job: Job, watcher: Watcher, stop_asked: Callable[[], bool]) -> str:
    """Do the run as :func:`begin` says."""
    run = begin(job, watcher, stop_asked)
    return run if isinstance(run, str) else run.finish()


def begin(job: Job, watcher: Watcher, stop_asked: Callable[[], bool]) -> "TrainingRun | str":
    """Do the run unless it is done: ``skipped``, ``finished`` or ``preempted``.

    A run in this process is returned before its first iteration. With ``trainer.launcher=external``
    only the folder is made and named on standard output: ``created``. ConfigError: this machine
    cannot do what the configuration asks; nothing was written. RunFolderError: the folder cannot be
    used, or another configuration or process holds it. DivergedError: the run diverged, now or when
    it was tried before. CheckpointError: the run was begun and its checkpoints are missing; nothing
    was written. Exception: whatever stopped the run; its status then says ``failed``.
    """
    from resnet_repro.training.device import choose

    folder, trainer = job.folder, job.config.trainer
    if not is_to_do(job):
        return "skipped"
    if trainer.launcher == "local":
        choose(trainer, local_size=trainer.devices)
    created = make_folder(folder.path)
    with ExitStack() as resources:
        resources.enter_context(run_lock(folder.path))
        resources.enter_context(remove_if_refused(created))
        if not is_to_do(job):  # the previous owner of the folder has done it
            return "skipped"
        prepare(job)
        if trainer.launcher == "external":
            print(folder.path)
            return "created"
        if trainer.devices > 1:
            from resnet_repro.training.workers import run_workers

            return run_workers(folder, trainer, watcher, stop_asked)
        from resnet_repro.training.run import TrainingRun

        run = TrainingRun(folder, watcher, stop_asked)
        run.resources = resources.pop_all()
        return run


def is_to_do(job: Job) -> bool:
    """Whether the run is not done; raises where it is known to diverge or lacks checkpoints."""
    if job.is_done():
        return False
    refuse_diverged(job.folder)
    refuse_lost_checkpoints(job.folder)
    return True


def prepare(job: Job) -> None:
    """Write what the worker reads: configuration, status, and in ``meta.json`` its command."""
    folder = job.folder
    folder.write_config(job.config.as_mapping())
    command = shlex.join(["python", "-m", "resnet_repro.train", *job.words])
    folder.write_meta(folder.meta() | {"command": command, "deviations": job.deviations})
    restarts = folder.status().get("restarts", -1) + 1
    folder.write_status("created", max_iters=job.config.recipe.max_iters, restarts=restarts)
