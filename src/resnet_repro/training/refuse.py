"""Refuse, in one line each, folders that cannot hold a run and checkpoints of other runs."""

import contextlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from resnet_repro.config import Config
from resnet_repro.data import MODIFIED
from resnet_repro.exits import notify
from resnet_repro.options import ConfigError
from resnet_repro.runs.folder import RunFolder, RunFolderError
from resnet_repro.same_run import differences
from resnet_repro.training import CheckpointError, DivergedError


def check_same_run(folder: RunFolder, config: Config) -> None:
    """Raise RunFolderError, with keys and both values, where a folder holds another run."""
    try:
        if not folder.config_path.exists():
            return
    except OSError as error:
        raise RunFolderError(f"{folder.path}: cannot be used ({error.strerror})") from error
    changed = differences(folder.config(), config.as_mapping())
    changed.pop("name", None)  # of a folder that was renamed
    became = {"auto", folder.meta().get("precision")}  # what "auto" became is the same run
    if became.issuperset(changed.get("trainer.precision", ())):
        changed.pop("trainer.precision", None)
    if config.trainer.allow_new_world_size:
        changed.pop("trainer.devices", None)
    if changed:
        raise RunFolderError(
            f"{folder.path} holds another run ({_listed(changed)}); give this one a name=... of "
            "its own, or remove the folder"
        )


def _listed(changed: Mapping[str, tuple[Any, Any]]) -> str:
    return "; ".join(f"{key} was {old}, now {new}" for key, (old, new) in changed.items())


def refuse_diverged(folder: RunFolder) -> None:
    """Raise DivergedError for a run that is known to diverge: the same bits would again."""
    status = folder.status()
    if status.get("state") == "diverged":
        raise DivergedError(
            f"{status.get('reason', 'the run diverged')}; it did so when it was last tried: give a "
            f"changed run a name=... of its own, or remove {folder.path} to try again"
        )


def refuse_lost_checkpoints(folder: RunFolder) -> None:
    """Raise CheckpointError where a run has records and no checkpoint: a clone, another disk."""
    status, kinds = folder.status(), ("iter_*.pt", "iter_*.corrupt")  # loading names the latter
    if any(found for kind in kinds for found in folder.checkpoints.glob(kind)):
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


def refuse_other_checkpoint(
    folder: RunFolder, saved: Mapping[str, Any], now: Mapping[str, Any]
) -> None:
    """Raise CheckpointError where a checkpoint differs from the run, and say what resumes it."""
    before = saved["precision"]
    if before != now["precision"]:
        raise CheckpointError(
            f"{folder.path}: begun in {before}, this machine would continue in {now['precision']}; "
            f"add trainer.precision={before} to continue as it began"
        )
    workers = saved["world_size"], now["world_size"]
    if workers[0] != workers[1] and not now["config"]["trainer"]["allow_new_world_size"]:
        raise CheckpointError(
            f"{folder.path}: begun with trainer.devices={workers[0]}, now {workers[1]}; "
            "add trainer.allow_new_world_size=true to split the same batches among the new number"
        )
    changed = differences(saved["config"], now["config"])
    for expected in ("trainer.devices", "trainer.precision", "name"):  # above; a folder renamed
        changed.pop(expected, None)
    if changed:
        raise CheckpointError(f"{folder.checkpoints}: made by another run ({_listed(changed)})")
    others = [name for name in _changed_data(saved["data"], now["data"]) if name != MODIFIED]
    if others:
        raise CheckpointError(
            f"{folder.checkpoints}: made on other data ({', '.join(others)} changed since)"
        )
    old, new = (
        {name: list(value.shape) for name, value in each["model"].items()} for each in (saved, now)
    )
    if names := sorted(name for name in {**old, **new} if old.get(name) != new.get(name)):
        first = f"{names[0]} is {old.get(names[0])} there and {new.get(names[0])} in the net"
        raise CheckpointError(
            f"{folder.checkpoints}: made by another net ({len(names)} weights differ; {first})"
        )


def _changed_data(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """List the digests that differ from a checkpoint's, which may lack some."""
    return [name for name, digest in now.items() if before.get(name, digest) != digest]


def changes_since(
    saved: Mapping[str, Any], digests: Mapping[str, str], workers: int
) -> dict[str, Any]:
    """Return the allowed changes since a checkpoint was saved: event -> its value."""
    events: dict[str, Any] = {}
    if _changed_data(saved.get("data", {}), digests):  # times of files; others are refused
        notify("files of the data were copied or touched since the checkpoint was saved")
        events["data_modified"] = digests[MODIFIED]
    if saved.get("world_size", workers) != workers:
        events["world_size"] = workers
    return events


@contextlib.contextmanager
def remove_if_refused(created: Sequence[Path]) -> Iterator[None]:
    """Remove the folders ``created`` for a run that only the worker can refuse."""
    try:
        yield
    except ConfigError:
        if created:
            shutil.rmtree(created[-1], ignore_errors=True)
        _remove(created[:-1])
        raise


def make_folder(path: Path) -> list[Path]:
    """Make a run folder; return the folders made, itself last. RunFolderError: none is made."""
    created: list[Path] = []
    try:
        created = [folder for folder in (*reversed(path.parents), path) if not folder.is_dir()]
        path.mkdir(parents=True, exist_ok=True)  # another command may be doing the same
    except OSError as error:
        _remove(created)
        raise RunFolderError(
            f"runs_dir: no run folder {path} can be made ({error.strerror}: {error.filename})"
        ) from error
    return created


def _remove(folders: Sequence[Path]) -> None:
    for folder in reversed(folders):
        with contextlib.suppress(OSError):  # others may have come to use it
            folder.rmdir()
