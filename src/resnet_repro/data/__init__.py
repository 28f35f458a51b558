"""Data sets by name, and what training sees of them.

Small images are on the device (``resident.py``); full-size pictures are decoded as they are needed
(``streamed.py``).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from resnet_repro.exits import notify, one_line

if TYPE_CHECKING:  # the command line waits for none; processes that decode do without torch
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from resnet_repro.data.order import BatchOrder


class DataError(Exception):
    """Data that are missing, unreadable or wrong; one line says what, and what to do."""


class UnwritableError(DataError):
    """The folder for data cannot be written; its files may still be usable."""


class StoppedError(DataError):
    """A signal stopped getting or waiting for data: no other source is tried."""


def brief(error: BaseException) -> str:
    """The message of an error, on one line of at most 200 characters, or its name."""
    return one_line(str(error)) or type(error).__name__


def note(message: str) -> None:
    """Print a line on standard error, on rank 0 alone."""
    if os.environ.get("RANK", "0") == "0":
        notify(f"note: {message}")


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
    """SHA-256 of a uint8 array in C order, hexadecimal; TypeError: published ones are of uint8."""
    import numpy as np

    if array.dtype != np.uint8:
        raise TypeError(f"digests are over uint8 bytes, got {array.dtype}")
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()


# Images float32 (N, 3, H, W), channels last; labels int64 (N,).
Prepared: TypeAlias = "tuple[Tensor, Tensor]"
MODIFIED = "modified"  # the digest of modification times, which a copy may not keep
Skipped = tuple[int, int]  # number of the batch, row of the image


class MaySkip(Protocol):
    """Images that may turn out unusable: ``skipped`` lists them until they are reported."""

    skipped: list[Skipped]

    def name_of(self, row: int) -> str:
        """The name of the image of a row."""


class EvalImages(MaySkip, Protocol):
    """Images to count errors on."""

    def __len__(self) -> int: ...

    def eval_batches(
        self, batch_size: int, limit: int | None = None, *, first: int = 0, every: int = 1
    ) -> Iterator[Prepared]:
        """Each of ``limit`` images (all by default) once, in order, not augmented.

        Of their batches, number ``first`` and each ``every``-th after it; the last may be smaller.
        DataError where an image is unusable and is not to be skipped.
        """


class Images(MaySkip, Protocol):
    """The images of a run, and in what order they come."""

    order: BatchOrder  # which training images make up which batch
    held_out: Mapping[str, EvalImages]  # ``test``, with ``train_split=45k`` also ``val``
    num_classes: int  # labels are 0 to this - 1
    # What identifies the data, by name; a run resumes only on the same. MODIFIED alone may differ.
    digests: dict[str, str]
    record: dict[str, Any]  # of the data, for ``meta.json``
    share_shape: tuple[int, int, int, int]  # (N, 3, H, W) of the images of a ``batch``

    def batch(self, iteration: int, *, whole: bool = False) -> Prepared:
        """One worker's share of the augmented batch after ``iteration`` updates, or all of it.

        The batch is the same for every number of workers; their shares follow one another. The
        next iteration is fast, any other is possible. DataError where an image is unusable and is
        not to be skipped, or none is left. Of a ``whole`` batch nothing is listed as skipped.
        """

    def clean(self, count: int) -> EvalImages:
        """``count`` training images, evenly spaced, without augmentation."""

    def close(self) -> None:
        """End the worker processes; the images may be used again."""


def load(name: str, root: Path, source: str = "auto") -> Arrays:
    """Load a data set of small images, fetched into ``root`` if need be, or raise DataError."""
    if name == "cifar10":
        from resnet_repro.data import cifar10

        return cifar10.load(root, source)
    if name == "tiny_imagenet":  # it needs Pillow, which a host that trains on CIFAR-10 may lack
        from resnet_repro.data import tiny_imagenet

        return tiny_imagenet.load(root)
    if name == "synthetic":
        from resnet_repro.data import synthetic

        return synthetic.make()
    raise DataError(f"unknown data set {name!r}; one of cifar10, tiny_imagenet, synthetic")
