"""Data sets by name: small images as arrays, full-size pictures as lists of files.

:class:`Images` is what training sees of either: :class:`resnet_repro.data.resident.ResidentImages`
holds small images on the device, :class:`resnet_repro.data.streamed.StreamedImages` decodes
full-size pictures as it goes.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # torch is not imported by the processes that decode
    from torch import Tensor

    from resnet_repro.data.folder import PictureFolder
    from resnet_repro.data.order import BatchOrder


class DataError(Exception):
    """Data that are missing, unreadable or not what they should be.

    The message is one line that says what is wrong and what to do.
    """


class UnwritableError(DataError):
    """The folder for data may not be written; what lies in it may be usable all the same."""


class StoppedError(DataError):
    """Getting or waiting for data was stopped by a signal: nothing else is to be tried."""


def brief(error: BaseException) -> str:
    """What an error says, on one line of at most 200 characters."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def note(message: str) -> None:
    """Print a line on standard error, once where several workers of torchrun meet the same."""
    if os.environ.get("RANK", "0") == "0":
        print(f"note: {message}", file=sys.stderr, flush=True)


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


# Images float32 (N, 3, H, W), channels last; labels int64 (N,).
Prepared: TypeAlias = "tuple[Tensor, Tensor]"
MODIFIED = "modified"  # the digest of when files were modified, which a copy may not keep
Skipped = tuple[int, int]  # number of the batch, row of the image
Share = Callable[[int], range]  # which of so many things fall to this worker


class MaySkip(Protocol):
    """Images of which some may turn out not to be usable."""

    @property
    def skipped(self) -> list[Skipped]:
        """Images that batches lack; whoever has reported them clears the list."""

    def name_of(self, row: int) -> str:
        """How the image of a row is called."""


class EvalImages(MaySkip, Protocol):
    """Images to count errors on."""

    def __len__(self) -> int:
        """How many there are."""

    def eval_batches(
        self, batch_size: int, limit: int | None = None, *, first: int = 0, every: int = 1
    ) -> Iterator[Prepared]:
        """Each image once, in order, not augmented; those that are left out are missing.

        Args:
            batch_size: images of a batch; the last may have fewer.
            limit: only so many images.
            first: number of the first batch to give, from 0.
            every: gives that one and each ``every``-th after it.

        Raises:
            DataError: an image is unusable and is not to be skipped.
        """


class Images(MaySkip, Protocol):
    """The images of a run, and in what order they come."""

    @property
    def order(self) -> BatchOrder:
        """Which training images make up which batch."""

    @property
    def held_out(self) -> Mapping[str, EvalImages]:
        """Kind of record -> images: ``test``, with ``train_split=45k`` also ``val``."""

    @property
    def num_classes(self) -> int:
        """Labels are 0 to this - 1."""

    @property
    def digests(self) -> dict[str, str]:
        """What identifies the data, by name; a run resumes only on the same.

        ``MODIFIED`` alone may differ, which the run then records.
        """

    @property
    def share_shape(self) -> tuple[int, int, int, int]:
        """Shape (N, 3, H, W) of the images of :meth:`batch`, none of them left out."""

    def batch(self, iteration: int) -> Prepared:
        """Augmented training images: the share of one worker in a batch.

        The batch is the same for every number of workers; the shares follow one another. Going on
        with the next iteration is fast, any other is possible.

        Args:
            iteration: updates done before.

        Raises:
            DataError: an image is unusable and is not to be skipped, or none is left.
        """

    def whole_batch(self, iteration: int) -> Prepared:
        """The same batch, the shares of all workers; nothing counts as left out."""

    def clean(self, count: int) -> EvalImages:
        """``count`` training images, evenly spaced, to be seen without augmentation."""

    def record(self) -> dict[str, Any]:
        """What ``meta.json`` says of the data."""

    def close(self) -> None:
        """End the worker processes; the images may be used again."""


def load(name: str, root: Path, source: str = "auto") -> Arrays:
    """Load a data set of small images, fetching it into ``root`` first if need be.

    Raises:
        DataError: unknown name, or the data are missing or not what they should be.
    """
    if name == "cifar10":
        from resnet_repro.data import cifar10

        return cifar10.load(root, source)
    if name == "tiny_imagenet":
        from resnet_repro.data import tiny_imagenet

        return tiny_imagenet.load(root)
    if name == "synthetic":
        from resnet_repro.data import synthetic

        return synthetic.make()
    raise DataError(f"unknown data set {name!r}; one of cifar10, tiny_imagenet, synthetic")


def load_pictures(name: str, root: Path, skip_corrupt: bool = False) -> PictureFolder:
    """Find ``imagenet``, or any ``folder`` of full-size pictures, in ``root``.

    Raises:
        DataError: it is not there or not arranged as it should be.
    """
    from resnet_repro.data import folder

    return folder.load_pictures(name, root, skip_corrupt)
