"""From a checked configuration to a run that is done, once; torch is imported only to train."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shlex
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnet_repro import paths
from resnet_repro.config import Config
from resnet_repro.options import ConfigError
from resnet_repro.progress import Watcher
from resnet_repro.runs.folder import RunFolder, RunFolderError
from resnet_repro.runs.lock import owned
from resnet_repro.same_run import differences
from resnet_repro.training import CheckpointError, DivergedError

if TYPE_CHECKING:
    from resnet_repro.training.run import Run


@dataclass(frozen=True)
class Job:
    """A run to be done.

    ``words`` are the command-line words that gave the configuration; ``deviations`` the keys in
    which it differs from the paper's protocol for the same net: key -> [paper, this run].
    """

    config: Config
    words: tuple[str, ...]
    deviations: dict[str, list[Any]]

    @property
    def folder(self) -> RunFolder:
        """Where the run lies or will lie."""
        return RunFolder.at(paths.runs(self.config.runs_dir), self.config.as_mapping())

    @property
    def label(self) -> str:
        """How progress and messages call the run."""
        return f"{self.config.name} {self.config.profile} seed {self.config.seed}"

    @property
    def command(self) -> str:
        """The command that does this run alone."""
        return shlex.join(["python", "-m", "resnet_repro.train", *self.words])

    def is_done(self) -> bool:
        """Whether the run is finished under this very configuration.

        Raises:
            RunFolderError: the folder holds a run of another configuration.
        """
        check_same_run(self.folder, self.config)
        return self.folder.is_finished


def job_of(config: Config, words: Sequence[str], paper: Config) -> Job:
    """Make a job, and note how its protocol differs from the ``paper``'s for the same net."""
    before = dataclasses.replace(paper, seed=config.seed).as_mapping()
    changed = differences(before, config.as_mapping())
    return Job(config, tuple(words), {key: list(pair) for key, pair in changed.items()})


def check_same_run(folder: RunFolder, config: Config) -> None:
    """Refuse to mix two configurations in one folder.

    Raises:
        RunFolderError: names the keys that differ, with both values.
    """
    try:
        if not folder.config_path.exists():
            refuse_former_name(folder, config)
            return
    except OSError as error:
        raise RunFolderError(f"{folder.path}: cannot be used ({error.strerror})") from error
    before, after = folder.config(), config.as_mapping()
    used = folder.meta().get("precision")
    for values in (before, after):  # asking for what "auto" became is asking for the same run
        trainer = values["trainer"]
        if used and trainer.get("precision") in ("auto", used):
            values["trainer"] = trainer | {"precision": used}
    changed = differences(before, after)
    if config.trainer.allow_new_world_size:
        changed.pop("trainer.devices", None)
    if changed:
        listed = "; ".join(f"{key} was {old}, now {new}" for key, (old, new) in changed.items())
        raise RunFolderError(
            f"{folder.path} holds another run ({listed}); give this one a name=... of its own, "
            "or remove the folder"
        )


def refuse_former_name(folder: RunFolder, config: Config) -> None:
    """Raise where a variant without a folder of its own was begun under its experiment's name.

    Raises:
        RunFolderError: says where it is and how to keep it.
    """
    former = folder.path.parent.with_name(config.experiment) / folder.path.name
    before = RunFolder(former)
    if former == folder.path or not before.config_path.exists():
        return
    if differences(before.config(), config.as_mapping()).keys() <= {"name"}:
        raise RunFolderError(
            f"{former} holds this run under its experiment's name, which a variant no longer has; "
            f"move it to {folder.path} and set name: {config.name} in its config.yaml to keep it, "
            "or remove it"
        )


def launch(job: Job, watcher: Watcher, stop_asked: Callable[[], bool]) -> str:
    """Do the run unless it is done: ``skipped``, ``finished`` or ``preempted``.

    With ``trainer.launcher=external`` only the folder is made and named on standard output:
    ``created``.

    Raises:
        ConfigError: this machine cannot do what the configuration asks; nothing was written.
        RunFolderError: the folder cannot be used, or another configuration or process holds it.
        DivergedError: the run diverged, now or when it was tried before.
        CheckpointError: the run was begun and its checkpoints are missing; nothing was written.
        Exception: whatever stopped the run; its status then says ``failed``.
    """
    run = begin(job, watcher, stop_asked)
    return run if isinstance(run, str) else run.finish()


def begin(job: Job, watcher: Watcher, stop_asked: Callable[[], bool]) -> Run | str:
    """As :func:`launch`, but return a run in this process before its first iteration."""
    from resnet_repro.training.device import choose

    folder, trainer = job.folder, job.config.trainer
    if job.is_done():
        return "skipped"
    refuse_diverged(folder)
    refuse_lost_checkpoints(folder)
    local = trainer.launcher == "local"
    if local:
        choose(trainer, local_size=trainer.devices)
    made = make_folder(folder.path)
    with ExitStack() as resources:
        resources.enter_context(owned(folder.path))
        resources.enter_context(nothing_left_if_refused(made))
        if job.is_done():  # by the process that held the folder a moment ago
            return "skipped"
        refuse_diverged(folder)
        refuse_lost_checkpoints(folder)
        prepare(job)
        if not local:
            print(folder.path)
            return "created"
        if trainer.devices > 1:
            from resnet_repro.training.workers import run_workers

            return run_workers(folder, trainer, watcher, stop_asked)
        from resnet_repro.training.run import Run

        run = Run(folder, watcher, stop_asked)
        run.resources = resources.pop_all()
        return run


def prepare(job: Job) -> None:
    """Write what the worker reads: configuration, status, and in ``meta.json`` who asked for it."""
    folder, before = job.folder, job.folder.status()
    folder.write_config(job.config.as_mapping())
    asked = {"command": job.command, "deviations": job.deviations}
    folder.write_meta(folder.meta() | asked)
    folder.write_status(
        "created",
        iter=before.get("iter", 0),
        max_iters=job.config.recipe.max_iters,
        restarts=before.get("restarts", -1) + 1,
    )


def refuse_diverged(folder: RunFolder) -> None:
    """Raise where the run is known to diverge: the same bits would do it again.

    Raises:
        DivergedError: with what was found then.
    """
    status = folder.status()
    if status.get("state") == "diverged":
        raise DivergedError(
            f"{status.get('reason', 'the run diverged')}; it did so when it was last tried: give a "
            f"changed run a name=... of its own, or remove {folder.path} to try again"
        )


def refuse_lost_checkpoints(folder: RunFolder) -> None:
    """Raise where a checkpoint was saved and none is there: a clone, a copy, another disk.

    Training from the start would delete what is logged.

    Raises:
        CheckpointError: names the folder, what is logged, what is missing, and the ways out.
    """
    reached = folder.status().get("iter", 0)
    if reached and not any(folder.checkpoints.glob("iter_*")):
        raise CheckpointError(
            f"{folder.path}: {reached} iterations are logged, but checkpoints/ has no checkpoint "
            "to resume from; copy it there, give this run a name=... of its own, or remove the "
            "folder"
        )


def refuse_torchrun() -> None:
    """Raise where torch's launcher started this command: each of its copies would do the run.

    Raises:
        ConfigError: it did.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        raise ConfigError(
            "torchrun starts resnet_repro.worker, not resnet_repro.train: say trainer.devices=N "
            "without torchrun; for several machines see docs/CLUSTER.md"
        )


@contextlib.contextmanager
def nothing_left_if_refused(made: Sequence[Path]) -> Iterator[None]:
    """Remove the folders ``made`` for a run that only the worker could tell to be impossible."""
    try:
        yield
    except ConfigError:
        if made:
            shutil.rmtree(made[-1], ignore_errors=True)
        for folder in reversed(made[:-1]):
            with contextlib.suppress(OSError):  # others may have come to use it
                folder.rmdir()
        raise


def make_folder(path: Path) -> list[Path]:
    """Make a run folder, or nothing at all; returns what was made, the folder itself last.

    Raises:
        RunFolderError: it cannot be made; names path and cause.
    """
    made: list[Path] = []
    try:
        for folder in (*reversed(path.parents), path):
            if not folder.is_dir():
                folder.mkdir(exist_ok=True)  # another command may be doing the same
                made.append(folder)
    except OSError as error:
        for folder in reversed(made):
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise RunFolderError(
            f"runs_dir: no run folder {path} can be made ({error.strerror}: {error.filename})"
        ) from error
    return made
