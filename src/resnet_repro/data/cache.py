"""Prepared arrays in one file that is whole and verified, or not there; one writer at a time."""

from __future__ import annotations

import errno
import json
import os
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnet_repro.data import DataError, UnwritableError, digest
from resnet_repro.runs.atomic import write_atomic
from resnet_repro.runs.lock import take

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)
_UNUSABLE = (
    *_UNWRITABLE,
    errno.ENOTDIR,
    errno.EEXIST,
    errno.EISDIR,
    errno.ENAMETOOLONG,
    errno.EIO,
)


def load_arrays(path: Path, digests: Mapping[str, str]) -> dict[str, NDArray[np.uint8]] | None:
    """Read the arrays ``digests`` names and verify each; ``None`` where there is no such file.

    Raises:
        DataError: the file is damaged, altered or unreadable.
    """
    advice = "delete it, and the next run gets the data again"
    try:
        if not path.exists():
            return None
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in digests}
        found = {name: digest(array) for name, array in arrays.items()}
    except PermissionError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); allow it") from error
    except (
        *(OSError, ValueError, TypeError, KeyError, EOFError, SyntaxError),
        *(RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error),  # of a broken header
    ) as error:
        said = " ".join(str(error).split())[:200]
        raise DataError(f"{path} is damaged ({said}); {advice}") from error
    for name, expected in digests.items():
        if found[name] != expected:
            raise DataError(
                f"{path} is damaged: {name} has SHA-256 {found[name]}, not {expected}; {advice}"
            )
    return arrays


def store_arrays(path: Path, arrays: Mapping[str, NDArray[np.uint8]]) -> None:
    """Write the arrays to one file, whole or not at all.

    Raises:
        DataError: no space (says how much is needed and free), or the folder refuses.
    """
    needed = sum(array.nbytes for array in arrays.values())
    with told(path.parent, needed):
        write_atomic(path, lambda file: np.savez(file, allow_pickle=False, **arrays))


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Make ``root`` and hold its lock, waiting for another holder; it goes with the process.

    Where the file system has no locks the block runs all the same: every file is written whole.

    Raises:
        UnwritableError: the folder may not be written.
        DataError: the folder cannot be made or used.
    """
    with told(root, 0):
        root.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(root / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        take(descriptor, root, wait=True)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def told(root: Path, needed: int) -> Iterator[None]:
    """Tell in one line what the file system refuses in the block, which needs ``needed`` bytes.

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
        refusal = _refusal(error)
        if refusal is not None and refusal.errno in _NO_SPACE:
            raise DataError(_no_space(root, needed)) from error
        if refusal is None or isinstance(error, DataError):  # the latter says it better itself
            raise
        kind = UnwritableError if refusal.errno in _UNWRITABLE else DataError
        raise kind(
            f"{root} cannot be used for data ({refusal.strerror}); "
            "allow it or name another folder with data.root=..."
        ) from error


def _refusal(error: BaseException | None) -> OSError | None:
    """Find what the file system said behind an error."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (*_NO_SPACE, *_UNUSABLE):
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


_ABOUT = "about"
_ADVICE = "delete it, and the next run makes it again"


def store_sealed(
    path: Path, arrays: Mapping[str, NDArray[Any]], about: Mapping[str, Any]
) -> dict[str, str]:
    """Write arrays and a JSON description to one file, whole or not at all; return the digests.

    Its folder is made where it is missing.

    Raises:
        DataError: no space, or the folder refuses.
    """
    flat = {name: _bytes(array) for name, array in arrays.items()}
    digests = {name: digest(array) for name, array in flat.items()}
    forms = {name: [array.dtype.str, list(array.shape)] for name, array in arrays.items()}
    text = json.dumps({"about": dict(about), "digests": digests, "forms": forms})
    with told(path.parent, 0):
        path.parent.mkdir(parents=True, exist_ok=True)
    store_arrays(path, flat | {_ABOUT: np.frombuffer(text.encode(), np.uint8)})
    return digests


def load_sealed(
    path: Path,
) -> tuple[dict[str, NDArray[Any]], dict[str, Any], dict[str, str]] | None:
    """Read arrays, description and digests; ``None`` where there is no such file.

    Raises:
        DataError: the file is damaged, altered or unreadable.
    """
    seal = _seal(path)
    if seal is None:
        return None
    digests: dict[str, str] = seal["digests"]
    flat = load_arrays(path, digests)
    if flat is None:
        return None
    try:
        arrays = {
            name: flat[name].view(np.dtype(kind)).reshape(shape)
            for name, (kind, shape) in seal["forms"].items()
        }
    except (TypeError, ValueError, KeyError) as error:
        raise DataError(f"{path} is damaged ({error}); {_ADVICE}") from error
    return arrays, seal["about"], digests


def read_about(path: Path) -> dict[str, Any] | None:
    """Read only the description; ``None`` where there is no such file or none that can be read."""
    try:
        seal = _seal(path)
    except DataError:
        return None
    return None if seal is None else dict(seal["about"])


def _seal(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            seal: dict[str, Any] = json.loads(file[_ABOUT].tobytes())
        complete = isinstance(seal, dict) and {"about", "digests", "forms"} <= seal.keys()
    except PermissionError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); allow it") from error
    except Exception as error:  # a damaged file can end in any error of zip, NumPy or JSON
        raise DataError(f"{path} is damaged ({error}); {_ADVICE}") from error
    if not complete:
        raise DataError(f"{path} is damaged (its description is not one); {_ADVICE}")
    return seal


def _bytes(array: NDArray[Any]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)
