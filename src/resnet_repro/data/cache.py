"""Prepared arrays in one file, written atomically and verified; one writer at a time.

CIFAR-10's digests are published, so its file is verified by them. Whatever else is computed from
data carries its own: the SHA-256 of each array is in a description inside the same file.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from resnet_repro.data import DataError, StoppedError, UnwritableError, brief, digest, note
from resnet_repro.data.files import open_regular
from resnet_repro.runs.atomic import FULL, write_atomic
from resnet_repro.runs.lock import take
from resnet_repro.runs.provenance import usable_cores
from resnet_repro.runs.signals import stop_noted

T = TypeVar("T")
Task = TypeVar("Task")
Result = TypeVar("Result")

_UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)
_UNUSABLE = (errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG, errno.EIO)
_DESCRIPTION = "about"

# Arrays, their description, SHA-256 of each array's bytes.
Checksummed: TypeAlias = tuple[dict[str, NDArray[Any]], dict[str, Any], dict[str, str]]


def load_arrays(path: Path, digests: Mapping[str, str]) -> dict[str, NDArray[np.uint8]] | None:
    """The arrays ``digests`` names, verified; ``None``: no such file; DataError: it is damaged."""
    return _read(path, lambda arrays: _verified(arrays, digests))


def load_checksummed(path: Path) -> Checksummed | None:
    """Like :func:`load_arrays`, of what :func:`store_checksummed` wrote with its digests."""

    def parse(arrays: dict[str, NDArray[np.uint8]]) -> Checksummed:
        description = json.loads(arrays[_DESCRIPTION].tobytes())
        flat = _verified(arrays, description["digests"])
        shaped = {
            name: flat[name].view(np.dtype(kind)).reshape(shape)
            for name, (kind, shape) in description["forms"].items()
        }
        return shaped, description["about"], description["digests"]

    return _read(path, parse)


def _read(path: Path, parse: Callable[[dict[str, NDArray[np.uint8]]], T]) -> T | None:
    try:
        with open_regular(path) as raw, np.load(raw, allow_pickle=False) as file:
            return parse(dict(file))
    except DataError as error:
        if isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
            return None
        raise
    except Exception as error:  # a damaged file can end in any error of zip, JSON and NumPy
        raise DataError(
            f"{path} is damaged ({brief(error)}); delete it, and the next run makes it again"
        ) from error


def _verified(
    arrays: Mapping[str, NDArray[np.uint8]], digests: Mapping[str, str]
) -> dict[str, NDArray[np.uint8]]:
    for name, expected in digests.items():
        if (found := digest(arrays[name])) != expected:
            raise ValueError(f"{name} has SHA-256 {found}, not {expected}")
    return {name: arrays[name] for name in digests}


def store_arrays(path: Path, arrays: Mapping[str, NDArray[np.uint8]]) -> None:
    """Write the arrays to one file atomically; its folder is made where it is missing."""
    needed = sum(array.nbytes for array in arrays.values())
    with explained_refusals(path.parent, needed):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, lambda file: np.savez(file, allow_pickle=False, **arrays))


def store_checksummed(
    path: Path, arrays: Mapping[str, NDArray[Any]], about: Mapping[str, Any]
) -> None:
    """Like :func:`store_arrays`, of arrays of any type, their digests and a JSON description."""
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


def map_tasks(
    function: Callable[[Task], Result], tasks: Sequence[Task], label: str
) -> Iterator[Result]:
    """Yield ``function(task)`` in the order of ``tasks``, or StoppedError on a stop signal."""
    from tqdm import tqdm  # here: a host with torch alone has none, and no pictures to prepare

    # Threads suffice: Pillow and NumPy let others run while they decode and add up.
    pool = ThreadPoolExecutor(usable_cores())
    interval = 0.2 if sys.stderr.isatty() else 10
    try:
        with tqdm(total=len(tasks), desc=label, mininterval=interval) as bar:
            for future in [pool.submit(function, task) for task in tasks]:
                yield future.result()
                bar.update()
                if stop_noted():
                    raise StoppedError(f"{label}: stopped by a signal; run it again")
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def locked(root: Path, *leftovers: str) -> Iterator[None]:
    """Make ``root`` and hold its lock, waiting for another holder; it ends with the process.

    ``leftovers`` are patterns of what killed holders left, which is removed.

    Raises:
        UnwritableError: the folder may not be written.
        DataError: the folder cannot be made or used.
        StoppedError: a stop signal came while another process held the lock.
    """
    with explained_refusals(root, 0):
        root.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(root / ".lock", os.O_RDWR | os.O_CREAT | os.O_NONBLOCK, 0o666)
    try:
        is_ours = take(descriptor, root)
        if not is_ours:
            note(f"another process prepares data in {root}; waiting for it")
        while not is_ours:
            if stop_noted():
                raise StoppedError(f"waiting for the lock of {root} was stopped by a signal")
            time.sleep(0.1)
            is_ours = take(descriptor, root)
        for left in (path for pattern in leftovers for path in root.glob(pattern)):
            with suppress(OSError):
                shutil.rmtree(left) if left.is_dir() else left.unlink()
        yield
    finally:
        os.close(descriptor)


@contextmanager
def explained_refusals(root: Path, needed: int) -> Iterator[None]:
    """Re-raise OS errors of the block, which needs ``needed`` bytes, in one line.

    Raises:
        UnwritableError: ``root`` may not be written.
        DataError: no space in ``root``, before the block or in it, or ``root`` refuses otherwise.
    """
    if needed and root.is_dir() and _free(root) < needed:
        raise _no_space(root, needed)
    try:
        yield
    except Exception as error:
        # What is missing below the root is another error; a root that cannot be made is a refusal.
        others = () if root.is_dir() else (errno.ENOENT,)
        refusal = _refusal(error, (*FULL, *_UNWRITABLE, *_UNUSABLE, *others))
        if refusal is not None and refusal.errno in FULL:
            raise _no_space(root, needed) from error
        if refusal is None or isinstance(error, DataError):  # the latter has a better message
            raise
        kind = UnwritableError if refusal.errno in _UNWRITABLE else DataError
        raise kind(
            f"{root} cannot be used for data ({refusal.strerror}); "
            "make it writable or name another folder with data.root=..."
        ) from error


def _refusal(error: BaseException | None, numbers: Sequence[int]) -> OSError | None:
    """Return the file system's refusal behind an error: libraries wrap it in their own."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in numbers:
            return error
        error = error.__cause__ or error.__context__
    return None


def _no_space(root: Path, needed: int) -> DataError:
    megabytes = f"{-(-needed // 10**6)} MB needed, {_free(root) // 10**6} MB free"
    return DataError(
        f"no space in {root}: {megabytes} (or a quota or a limit on file sizes is reached); "
        "make room or name another folder with data.root=..."
    )


def _free(root: Path) -> int:
    """Bytes free on the file system of ``root``, or of the nearest folder above it that exists."""
    return shutil.disk_usage(next(p for p in (root, *root.absolute().parents) if p.exists())).free
