"""Prepared arrays in one file, written atomically and verified; one writer at a time.

CIFAR-10's digests are published, so its file is verified by them. Whatever else is computed from
data carries its own: the SHA-256 of each array is in a description inside the same file.
"""

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
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from resnet_repro.data import DataError, StoppedError, UnwritableError, brief, digest, note
from resnet_repro.data.files import open_regular
from resnet_repro.runs.atomic import FULL, write_atomic
from resnet_repro.runs.lock import take
from resnet_repro.runs.provenance import usable_cores
from resnet_repro.runs.signals import stop_noted

Task = TypeVar("Task")
Result = TypeVar("Result")

_UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)
_DESCRIPTION = "about"


class Stored(NamedTuple):
    """What a file holds."""

    arrays: dict[str, NDArray[Any]]
    about: dict[str, Any]
    digests: Mapping[str, str]  # SHA-256 of each array's bytes


def load_arrays(path: Path, published: Mapping[str, str] | None = None) -> Stored | None:
    """The verified arrays of a file: those that digests are ``published`` of, or its own.

    ``None``: there is no such file. DataError: it is damaged.
    """
    try:
        with open_regular(path) as raw, np.load(raw, allow_pickle=False) as file:
            arrays = dict(file)
        description: dict[str, Any] = {"about": {}, "digests": published, "forms": {}}
        if published is None:
            description = json.loads(arrays[_DESCRIPTION].tobytes())
        for name, expected in description["digests"].items():
            if (found := digest(arrays[name])) != expected:
                raise ValueError(f"{name} has SHA-256 {found}, not {expected}")
        for name, (kind, shape) in description["forms"].items():
            arrays[name] = arrays[name].view(np.dtype(kind)).reshape(shape)
        verified = {name: arrays[name] for name in description["digests"]}
        return Stored(verified, description["about"], description["digests"])
    except DataError as error:
        if isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
            return None
        raise
    except Exception as error:  # a damaged file can end in any error of zip, JSON and NumPy
        raise DataError(
            f"{path} is damaged ({brief(error)}); delete it, and the next run makes it again"
        ) from error


def store_arrays(
    path: Path, arrays: Mapping[str, NDArray[Any]], about: Mapping[str, Any] | None = None
) -> None:
    """Write uint8 arrays to one file atomically; its folder is made where it is missing.

    With ``about``, a description in JSON, arrays of any type, and their digests beside them.
    """
    if about is not None:
        forms = {name: [array.dtype.str, list(array.shape)] for name, array in arrays.items()}
        arrays = {
            name: np.ascontiguousarray(array).reshape(-1).view(np.uint8)
            for name, array in arrays.items()
        }
        digests = {name: digest(array) for name, array in arrays.items()}
        description = {"about": dict(about), "digests": digests, "forms": forms}
        text = np.frombuffer(json.dumps(description).encode(), np.uint8)
        arrays = {**arrays, _DESCRIPTION: text}
    needed = sum(array.nbytes for array in arrays.values())
    with explained_refusals(path.parent, needed):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, lambda file: np.savez(file, allow_pickle=False, **arrays))


def map_tasks(
    function: Callable[[Task], Result], tasks: Sequence[Task], label: str
) -> Iterator[Result]:
    """Yield ``function(task)`` in the order of ``tasks``, or StoppedError on a stop signal."""
    from tqdm import tqdm  # here: a host with torch alone has none, and no pictures to prepare

    # Threads suffice: Pillow and NumPy let others run while they decode and add up.
    pool = ThreadPoolExecutor(usable_cores())
    interval = 0.2 if sys.stderr.isatty() else 10
    try:
        results = pool.map(function, tasks)
        for result in tqdm(results, desc=label, total=len(tasks), mininterval=interval):
            yield result
            if stop_noted():
                raise StoppedError(f"{label}: stopped by a signal; run it again")
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def locked(root: Path, *leftovers: str) -> Iterator[None]:
    """Make ``root`` and hold its lock, waiting for another holder; it ends with the process.

    ``leftovers`` are patterns of what killed holders left, which is removed. UnwritableError: the
    folder may not be written; DataError: it cannot be made or used; StoppedError: a stop signal
    came while another process held the lock.
    """
    with explained_refusals(root, 0):
        root.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(root / ".lock", os.O_RDWR | os.O_CREAT | os.O_NONBLOCK, 0o666)
    try:
        if not take(descriptor, root):
            note(f"another process prepares data in {root}; waiting for it")
            while not take(descriptor, root):
                if stop_noted():
                    raise StoppedError(f"waiting for the lock of {root} was stopped by a signal")
                time.sleep(0.1)
        for left in (path for pattern in leftovers for path in root.glob(pattern)):
            with suppress(OSError):
                shutil.rmtree(left) if left.is_dir() else left.unlink()
        yield
    finally:
        os.close(descriptor)


@contextmanager
def explained_refusals(root: Path, needed: int) -> Iterator[None]:
    """Re-raise OS errors of the block, which needs ``needed`` bytes, in one line.

    UnwritableError: ``root`` may not be written; DataError: it has no space, before the block or in
    it, or refuses otherwise.
    """
    try:
        if needed > _free(root):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        yield
    except Exception as error:
        refusal: BaseException | None = error
        while not isinstance(refusal, OSError | None):  # libraries wrap it in their own
            refusal = refusal.__cause__ or refusal.__context__
        if refusal is not None and refusal.errno in FULL:
            megabytes = f"{-(-needed // 10**6)} MB needed, {_free(root) // 10**6} MB free"
            raise DataError(
                f"no space in {root}: {megabytes} (or a quota or a limit on file sizes is "
                "reached); make room or name another folder with data.root=..."
            ) from error
        if refusal is None or isinstance(error, DataError):  # the latter has a better message
            raise
        kind = UnwritableError if refusal.errno in _UNWRITABLE else DataError
        raise kind(
            f"{root} cannot be used for data ({refusal.strerror}); "
            "make it writable or name another folder with data.root=..."
        ) from error


def _free(root: Path) -> int:
    """Bytes free on the file system of ``root``, or of the nearest folder above it that exists."""
    return shutil.disk_usage(next(p for p in (root, *root.absolute().parents) if p.exists())).free
