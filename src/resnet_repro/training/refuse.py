"""Whether a folder may hold a run: refusals, each in one line, before anything is written."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from resnet_repro.config import Config
from resnet_repro.options import ConfigError
from resnet_repro.runs.folder import RunFolder, RunFolderError
from resnet_repro.same_run import differences
from resnet_repro.training import CheckpointError, DivergedError


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
    """Raise where the run was begun and its checkpoints are missing: a clone, a copy, another disk.

    Training from the start would delete what is logged. Damaged checkpoints that were set aside
    count as there: loading names them.

    Raises:
        CheckpointError: names the folder, what is logged, what is missing, and the ways out.
    """
    status, pattern = folder.status(), ("iter_*.pt", "iter_*.corrupt")
    if any(found for kind in pattern for found in folder.checkpoints.glob(kind)):
        return
    if reached := status.get("iter", 0):
        logged = f"{reached} iterations are logged"
    elif not status and folder.metrics_path.exists() and folder.metrics_path.stat().st_size:
        logged = "records are logged without a status.json"
    else:
        return
    raise CheckpointError(
        f"{folder.path}: {logged}, but checkpoints/ has no checkpoint to resume from; copy it "
        "there, give this run a name=... of its own, or remove the folder"
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
