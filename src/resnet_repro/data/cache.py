"""Prepared arrays in one file that is whole and verified, or not there; one writer at a time.

CIFAR-10's digests are published, so its file is verified by them. Whatever else is worked out from
data carries its own: the SHA-256 of each array stands in a description inside the same file.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from resnet_repro.data import DataError, StoppedError, UnwritableError, brief, digest, note
from resnet_repro.data.files import open_regular
from resnet_repro.data.workers import stop_signals_noted
from resnet_repro.runs.atomic import write_atomic
from resnet_repro.runs.lock import take

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)
_UNUSABLE = (errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG, errno.EIO)
_REFUSED = (*_NO_SPACE, *_UNWRITABLE, *_UNUSABLE)
_DESCRIPTION = "about"

# Arrays, their description, SHA-256 of each array's bytes.
Checksummed: TypeAlias = tuple[dict[str, NDArray[Any]], dict[str, Any], dict[str, str]]


def load_arrays(path: Path, digests: Mapping[str, str]) -> dict[str, NDArray[np.uint8]] | None:
    """Read the arrays that ``digests`` names and verify each; ``None`` without such a file.

    Raises:
        DataError: the file is damaged, altered, unreadable or not a regular one.
    """
    arrays = _read(path, tuple(digests))
    if arrays is not None:
        _verify(path, arrays, digests)
    return arrays


def store_arrays(path: Path, arrays: Mapping[str, NDArray[np.uint8]]) -> None:
    """Write the arrays to one file, whole or not at all; its folder is made where it is missing.

    Raises:
        DataError: no space (says how much is needed and free), or the folder refuses.
    """
    needed = sum(array.nbytes for array in arrays.values())
    with explained_refusals(path.parent, needed):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, lambda file: np.savez(file, allow_pickle=False, **arrays))


def store_checksummed(
    path: Path, arrays: Mapping[str, NDArray[Any]], about: Mapping[str, Any]
) -> None:
    """Write arrays of any type, their digests and a JSON description to one file.

    Raises:
        DataError: no space, or the folder refuses.
    """
    flat = {
        name: np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        for name, array in arrays.items()
    }
    description = {
        "about": dict(about),
        "digests": {name: digest(array) for name, array in flat.items()},
        "forms": {name: [array.dtype.str, list(array.shape)] for name, array in arrays.items()},
    }
    text = np.frombuffer(json.dumps(description).encode(), np.uint8)
    store_arrays(path, flat | {_DESCRIPTION: text})


def load_checksummed(path: Path) -> Checksummed | None:
    """Read arrays, description and digests; ``None`` without such a file.

    Raises:
        DataError: the file is damaged, altered, unreadable or not a regular one.
    """
    flat = _read(path, None)
    if flat is None:
        return None
    try:
        description = json.loads(flat[_DESCRIPTION].tobytes())
        about, digests = description["about"], description["digests"]
        arrays = {
            name: flat[name].view(np.dtype(kind)).reshape(shape)
            for name, (kind, shape) in description["forms"].items()
        }
    except Exception as error:  # of a description that is damaged
        raise _damaged(path, error) from error
    _verify(path, flat, digests)
    return arrays, about, digests


def _read(path: Path, names: tuple[str, ...] | None) -> dict[str, NDArray[np.uint8]] | None:
    """Read the named arrays of a file, or all."""
    try:
        if not path.exists():
            return None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from error
    with open_regular(path) as raw:
        try:
            with np.load(raw, allow_pickle=False) as file:
                return {name: file[name] for name in names or file.files}
        except Exception as error:  # a damaged file can end in any error of zip and NumPy
            raise _damaged(path, error) from error


def _verify(
    path: Path, arrays: Mapping[str, NDArray[np.uint8]], digests: Mapping[str, str]
) -> None:
    for name, expected in digests.items():
        try:
            found = digest(arrays[name])
        except (KeyError, TypeError) as error:
            raise _damaged(path, error) from error
        if found != expected:
            raise _damaged(path, f"{name} has SHA-256 {found}, not {expected}")


def _damaged(path: Path, why: Exception | str) -> DataError:
    reason = why if isinstance(why, str) else brief(why)
    return DataError(f"{path} is damaged ({reason}); delete it, and the next run makes it again")


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Make ``root`` and hold its lock, waiting for another holder; it goes with the process.

    Where the file system has no locks the block runs all the same: every file is written whole.

    Raises:
        UnwritableError: the folder may not be written.
        DataError: the folder cannot be made or used.
        StoppedError: a stop signal came while another process held the lock.
    """
    with explained_refusals(root, 0):
        root.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(root / ".lock", os.O_RDWR | os.O_CREAT | os.O_NONBLOCK, 0o666)
    try:
        with stop_signals_noted() as stopped:
            waits = False
            while not take(descriptor, root):
                if not waits:
                    note(f"another process prepares data in {root}; waiting for it")
                waits = True
                if stopped:
                    raise StoppedError(f"waiting for the lock of {root} was stopped by a signal")
                time.sleep(0.1)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def explained_refusals(root: Path, needed: int) -> Iterator[None]:
    """Re-raise OS errors of the block, which needs ``needed`` bytes, as a one-line DataError.

    Libraries wrap the refusal in errors of their own, so the causes of an error are searched too.

    Raises:
        UnwritableError: ``root`` may not be written.
        DataError: no space in ``root``, before the block or in it, or ``root`` refuses otherwise.
    """
    if needed and root.is_dir() and _free(root) < needed:
        raise DataError(_no_space(root, needed))
    try:
        yield
    except Exception as error:
        # What is missing below the root is another error; a root that cannot be made is a refusal.
        refusal = _refusal(error, _REFUSED if root.is_dir() else (*_REFUSED, errno.ENOENT))
        if refusal is not None and refusal.errno in _NO_SPACE:
            raise DataError(_no_space(root, needed)) from error
        if refusal is None or isinstance(error, DataError):  # the latter says it better itself
            raise
        kind = UnwritableError if refusal.errno in _UNWRITABLE else DataError
        raise kind(
            f"{root} cannot be used for data ({refusal.strerror}); "
            "allow it or name another folder with data.root=..."
        ) from error


def _refusal(error: BaseException | None, numbers: Sequence[int]) -> OSError | None:
    """The refusal of the file system behind an error."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in numbers:
            return error
        error = error.__cause__ or error.__context__
    return None


def _no_space(root: Path, needed: int) -> str:
    megabytes = f"{-(-needed // 10**6)} MB needed, {_free(root) // 10**6} MB free"
    return (
        f"no space in {root}: {megabytes} (or a quota or a limit on file sizes is reached); "
        "make room or name another folder with data.root=..."
    )


def _free(root: Path) -> int:
    """Bytes free on the file system of ``root``, or of the nearest folder above it that exists."""
    return shutil.disk_usage(next(p for p in (root, *root.absolute().parents) if p.exists())).free
