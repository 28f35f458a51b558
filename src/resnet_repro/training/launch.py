"""From a checked configuration to a run that is done, once; torch is imported only to train."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnet_repro.config import Config, differences
from resnet_repro.runs.folder import RunFolder, RunFolderError
from resnet_repro.runs.lock import owned

if TYPE_CHECKING:
    from resnet_repro.training.loop import Watcher


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
        return RunFolder.at(Path(self.config.runs_dir), self.config.as_mapping())

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


def check_same_run(folder: RunFolder, config: Config) -> None:
    """Refuse to mix two configurations in one folder.

    Raises:
        RunFolderError: names the keys that differ, with both values.
    """
    if not folder.config_path.exists():
        return
    before, after = folder.config(), config.as_mapping()
    used = folder.meta().get("precision")
    for values in (before, after):  # asking for what "auto" became is asking for the same run
        trainer = values["trainer"]
        if used and trainer.get("precision") in ("auto", used):
            values["trainer"] = trainer | {"precision": used}
    changed = differences(before, after)
    if changed:
        listed = "; ".join(f"{key} was {old}, now {new}" for key, (old, new) in changed.items())
        raise RunFolderError(
            f"{folder.path} holds another run ({listed}); give this one a name=... of its own, "
            "or remove the folder"
        )


def launch(job: Job, watcher: Watcher, stop_asked: Callable[[], bool]) -> str:
    """Do the run unless it is done: ``skipped``, ``finished`` or ``preempted``.

    Raises:
        RunFolderError: another configuration or another process holds the folder.
        Exception: whatever stopped the run; its status then says ``failed`` or ``diverged``.
    """
    folder = job.folder
    if job.is_done():
        return "skipped"
    folder.path.mkdir(parents=True, exist_ok=True)
    with owned(folder.path):
        if job.is_done():  # by the process that held the folder a moment ago
            return "skipped"
        folder.write_config(job.config.as_mapping())
        return _work(job, folder, watcher, stop_asked)


def _work(job: Job, folder: RunFolder, watcher: Watcher, stop_asked: Callable[[], bool]) -> str:
    from resnet_repro.training.loop import DivergedError
    from resnet_repro.worker import run

    length: dict[str, Any] = {"max_iters": job.config.recipe.max_iters}
    try:
        about = {"command": job.command, "deviations": job.deviations}
        finished = run(folder, about, watcher, stop_asked)
    except DivergedError as error:
        folder.write_status("diverged", reason=str(error), **length)
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        folder.write_status("failed", reason=reason, iter=folder.status().get("iter", 0), **length)
        raise
    iteration = length["max_iters"] if finished else folder.status()["iter"]
    state = "finished" if finished else "preempted"
    folder.write_status(state, iter=iteration, **length)
    return state
