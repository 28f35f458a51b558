"""Whether a folder may hold a run, and a checkpoint be resumed: refusals, each in one line."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from resnet_repro.config import Config
from resnet_repro.data import MODIFIED
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
    changed.pop("name", None)  # of a folder that was renamed
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


def refuse_made_otherwise(
    folder: RunFolder, saved: Mapping[str, Any], now: Mapping[str, Any]
) -> None:
    """Raise where a checkpoint's configuration, precision, workers or data are not the run's.

    Raises:
        CheckpointError: names what differs, and how to resume where there is a way.
    """
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
        listed = "; ".join(f"{key} was {old}, now {new}" for key, (old, new) in changed.items())
        raise CheckpointError(f"{folder.checkpoints}: made by another run ({listed})")
    others = [name for name in changed_data(saved["data"], now["data"]) if name != MODIFIED]
    if others:
        raise CheckpointError(
            f"{folder.checkpoints}: made on other data ({', '.join(others)} changed since)"
        )


def changed_data(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Which digests of the data differ from a checkpoint's, which may be older than one of them."""
    return [name for name, digest in now.items() if before.get(name, digest) != digest]


def refuse_another_net(
    folder: RunFolder, before: Mapping[str, list[int]], now: Mapping[str, list[int]]
) -> None:
    """Raise where names or shapes of a checkpoint's weights are not those of the net.

    Raises:
        CheckpointError: names how many differ, and the first.
    """
    names = sorted(name for name in {**before, **now} if before.get(name) != now.get(name))
    if names:
        first = f"{names[0]} is {before.get(names[0])} there and {now.get(names[0])} in the net"
        raise CheckpointError(
            f"{folder.checkpoints}: made by another net ({len(names)} weights differ; {first})"
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
