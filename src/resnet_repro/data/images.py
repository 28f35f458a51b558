"""What a run needs of its images, wherever they are: on the device, or in a folder of pictures.

Two things are :class:`Images`: :class:`ResidentImages` holds all of them on the device (CIFAR-10,
Tiny ImageNet), :class:`resnet_repro.data.streamed.StreamedImages` decodes full-size pictures as it
goes. Training does not know which it has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from torch import Tensor

from resnet_repro.data.arrays import Arrays
from resnet_repro.data.batches import DeviceDataset
from resnet_repro.data.order import Batch, BatchOrder

Prepared = tuple[Tensor, Tensor]  # images float32 (N, 3, H, W), channels last; labels int64 (N,)
Gone = tuple[int, int]  # number of the batch, row of the image
Share = Callable[[int], range]  # which of so many things fall to this worker


class LeavesOut(Protocol):
    """Images of which some may turn out not to be usable."""

    @property
    def gone(self) -> list[Gone]:
        """What batches should have held and did not; whoever has told of it clears the list."""

    def name_of(self, row: int) -> str:
        """How the image of a row is called."""


class HeldOut(LeavesOut, Protocol):
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
            DataError: an image cannot be had and is not to be left out.
        """


class Images(LeavesOut, Protocol):
    """The images of a run, and in what order they come."""

    @property
    def order(self) -> BatchOrder:
        """Which training images make up which batch."""

    @property
    def held_out(self) -> Mapping[str, HeldOut]:
        """Kind of record -> images: ``test``, with ``train_split=45k`` also ``val``."""

    @property
    def num_classes(self) -> int:
        """Labels are 0 to this - 1."""

    @property
    def digests(self) -> dict[str, str]:
        """What identifies the data, by name; a run goes on only with the same."""

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
            DataError: an image cannot be had and is not to be left out, or none is left.
        """

    def whole_batch(self, iteration: int) -> Prepared:
        """The same batch, the shares of all workers; nothing counts as left out."""

    def clean(self, count: int) -> HeldOut:
        """``count`` training images, evenly spaced, to be seen without augmentation."""

    def record(self) -> dict[str, Any]:
        """What ``meta.json`` says of the data."""

    def close(self) -> None:
        """Let go of worker processes; the images may be used again."""


class ResidentImages:
    """A data set of small images that lies on the device as a whole.

    Args:
        name: of the data set.
        arrays: all of it.
        train_set: the training images in use.
        held_out: kind of record -> images.
        order: over the rows of ``train_set``.
        share: of a batch that falls to this worker.
    """

    def __init__(
        self,
        name: str,
        arrays: Arrays,
        train_set: DeviceDataset,
        held_out: Mapping[str, DeviceDataset],
        order: BatchOrder,
        share: Share,
    ):
        self.train_set, self.held_out, self.order = train_set, held_out, order
        self.num_classes, self.digests = arrays.num_classes, arrays.digests
        self.gone: list[Gone] = []  # and it stays so: all images are there
        self._name, self._share = name, share
        self._counts = len(arrays.train_labels), len(arrays.test_labels)

    @property
    def share_shape(self) -> tuple[int, int, int, int]:
        """Shape (N, 3, H, W) of the images of :meth:`batch`."""
        height, width = self.train_set.images.shape[1:3]
        return len(self._share(self.order.batch_size)), 3, height, width

    def batch(self, iteration: int) -> Prepared:
        """The worker's share of the batch after ``iteration`` updates."""
        whole = self.order.batch(iteration)
        share = self._share(len(whole.indices))
        mine = slice(share.start, share.stop)
        return self.train_set.train_batch(
            Batch(whole.indices[mine], whole.dy[mine], whole.dx[mine], whole.flip[mine])
        )

    def whole_batch(self, iteration: int) -> Prepared:
        """The whole batch after ``iteration`` updates."""
        return self.train_set.train_batch(self.order.batch(iteration))

    def clean(self, count: int) -> DeviceDataset:
        """``count`` training images, evenly spaced: data sets are often sorted by class."""
        return self.train_set.sample(count)

    def name_of(self, row: int) -> str:
        """Its row."""
        return str(row)

    def record(self) -> dict[str, Any]:
        """Name, counts and digests."""
        train, test = self._counts
        counts = {"train_images": train, "test_images": test}
        return {"name": self._name} | counts | {"digests": self.digests}

    def close(self) -> None:
        """Nothing to let go of."""
