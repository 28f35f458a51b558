"""Checkpoints: written atomically, verified before every load, two generations kept."""

import hashlib
import io
import pickle
import warnings
from pathlib import Path
from typing import Any, BinaryIO

import torch

from resnet_repro.runs.atomic import (
    crash_point,
    is_regular_or_free,
    write_atomic,
    write_text_atomic,
)
from resnet_repro.runs.folder import RunFolder
from resnet_repro.training import CheckpointError
from resnet_repro.training.build import RunContext
from resnet_repro.training.refuse import refuse_other_checkpoint
from resnet_repro.training.state import TrainState

SCHEMA = 2
KEEP = 2


def contents(context: RunContext, state: TrainState) -> dict[str, Any]:
    """Return the content of a checkpoint without the metrics' length; all workers call it."""
    return state.state_dict() | {
        "config": context.config.as_mapping(),
        "precision": context.setup.precision,
        "world_size": context.world.size,
        "data": context.images.digests,
    }


def resume(folder: RunFolder, context: RunContext, state: TrainState) -> dict[str, Any] | None:
    """Load the newest intact checkpoint into ``state`` and return it; ``None`` without any.

    CheckpointError: none is intact, or it was made by another run or in another way.
    """
    # Rank 0 reads first: it sets damaged files aside.
    saved = context.world.rank0_first(lambda: load_newest(folder.checkpoints))
    if saved is not None:
        refuse_other_checkpoint(folder, saved, contents(context, state))
        state.load_state_dict(saved)
    return saved


def save(path: Path, content: dict[str, Any]) -> None:
    """Write ``content`` as the newest checkpoint, then drop the oldest beyond two.

    Its SHA-256 is written beside it, and first: a checkpoint never lacks its digest, and a digest
    without its checkpoint is harmless. DiskFullError: there is no room; earlier checkpoints stay as
    they were. OSError: the folder cannot be written; likewise.
    """
    folder = path.parent
    folder.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    torch.save({"schema": SCHEMA} | content, buffer)
    data = buffer.getbuffer()
    write_text_atomic(_digest_path(path), hashlib.sha256(data).hexdigest() + "\n")
    crash_point("after-digest.pt")

    def write(file: BinaryIO) -> None:
        file.write(data[: len(data) // 2])
        file.flush()
        crash_point("mid-write.pt")
        file.write(data[len(data) // 2 :])

    write_atomic(path, write)
    crash_point("before-prune")
    prune(folder)
    crash_point("after-prune")


def prune(folder: Path) -> None:
    """Drop all but the newest two checkpoints, and what a crash left of others."""
    for old in _newest_first(folder)[KEEP:]:
        old.unlink(missing_ok=True)
    for digest in folder.glob("*.sha256"):  # also those whose checkpoint was never written
        if not digest.with_suffix("").exists():
            digest.unlink(missing_ok=True)


def load_newest(folder: Path) -> dict[str, Any] | None:
    """Load the newest intact checkpoint; ``None`` where none was ever written.

    A damaged one is renamed to ``*.corrupt`` with a warning, and the one before it is used.
    CheckpointError: none is intact; training never restarts silently.
    """
    found = _newest_first(folder)
    for path in found:
        reason = damage(path)
        if reason is None:
            return _load(path)
        aside = path.with_name(path.name + ".corrupt")
        path.rename(aside)
        warnings.warn(f"{path}: {reason}; set aside as {aside.name}", stacklevel=2)
    if found or any(folder.glob("*.corrupt")):
        raise CheckpointError(
            f"{folder}: no checkpoint is whole; remove the run folder to start again"
        )
    return None


def _load(path: Path) -> dict[str, Any]:
    """Load data alone: code in the file is never run, whatever its digest."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path}: holds more than data and is refused") from error
    except (RuntimeError, ValueError, EOFError, KeyError):
        content = None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: has its digest, but is not a checkpoint")
    if (schema := content.get("schema")) != SCHEMA:
        raise CheckpointError(f"{path}: schema {schema}, this version reads {SCHEMA}")
    crash_point("mid-load")
    return content


def damage(path: Path) -> str | None:
    """Return why a checkpoint cannot be trusted; torch.load accepts flipped bits."""
    digest = _digest_path(path)
    try:
        if not (is_regular_or_free(path) and is_regular_or_free(digest)):
            return "is not a regular file"  # reading a pipe would never end
        expected = digest.read_text(encoding="utf-8").strip()
        with path.open("rb") as file:
            actual = hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError) as error:
        return f"cannot be verified ({error})"
    return None if actual == expected else "does not have the digest it was written with"


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("iter_*.pt"), reverse=True)


def _digest_path(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")
