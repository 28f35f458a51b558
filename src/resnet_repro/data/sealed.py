"""Caches of what was worked out from data: arrays of any type with a description, checked on load.

Unlike CIFAR-10, whose digests are published, these files carry their own: the SHA-256 of each array
stands in the description inside the same file, so that a damaged cache is noticed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnet_repro.data.arrays import digest
from resnet_repro.data.cache import load_arrays, store_arrays, told
from resnet_repro.data.errors import DataError

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
