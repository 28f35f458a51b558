"""A data set as four arrays, and the digests that say it is the right one."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PARTS = ("train_images", "train_labels", "test_images", "test_labels")


@dataclass(frozen=True)
class Arrays:
    """Images uint8 (N, H, W, 3) and labels uint8 (N,), for training and for test.

    Labels are 0 to ``num_classes`` - 1; ``digests`` holds :func:`digest` of each of ``PARTS``.
    """

    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.uint8]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.uint8]
    num_classes: int
    digests: dict[str, str]


def digest(array: NDArray[np.uint8]) -> str:
    """SHA-256 of the bytes of a uint8 array in C order, in hexadecimal.

    Raises:
        TypeError: the array is not uint8, for which the published digests say nothing.
    """
    if array.dtype != np.uint8:
        raise TypeError(f"digests are over uint8 bytes, got {array.dtype}")
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()
