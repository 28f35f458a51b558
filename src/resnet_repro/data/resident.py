"""Batches as tensor operations on the device: no loader, no workers, no PIL in the loop."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from resnet_repro.data import Arrays, Prepared, Share, Skipped
from resnet_repro.data.order import Batch, BatchOrder


class DeviceDataset:
    """A data set as one uint8 tensor on the device, and its batches.

    Pixels are scaled to 0..1 and the mean of the training images is subtracted (Sec. 4.2);
    there is no division by a standard deviation.

    Args:
        images: uint8 (N, H, W, 3).
        labels: (N,).
        device: where the images live and batches are made.
        mean: ``pixel`` subtracts the mean image, ``channel`` the mean colour of ``images``.
        pad: ``mean`` subtracts first and pads with 0, so that the border is the mean colour;
            ``zero`` pads with black, from which the mean colour is subtracted.
        border: pixels padded on each side.
    """

    def __init__(
        self,
        images: NDArray[np.uint8],
        labels: NDArray[np.uint8],
        device: torch.device,
        *,
        mean: str = "pixel",
        pad: str = "mean",
        border: int = 4,
    ):
        pixel_mean = _mean_image(images)
        channel_mean = pixel_mean.mean(axis=(0, 1))
        if mean == "channel":
            pixel_mean = np.broadcast_to(channel_mean, pixel_mean.shape)
        edge = -channel_mean if pad == "zero" else np.zeros(3)
        self.border = border
        self.mean = torch.tensor(pixel_mean, dtype=torch.float32, device=device)  # (H, W, 3)
        self._edge = torch.tensor(edge, dtype=torch.float32, device=device)
        self._hold(images, labels, device)

    def _hold(
        self, images: NDArray[np.uint8], labels: NDArray[np.uint8], device: torch.device
    ) -> None:
        self.device = device
        self.skipped: list[tuple[int, int]] = []  # and it stays so: all images are there
        self.images = torch.from_numpy(np.ascontiguousarray(images)).to(device)
        self.labels = torch.from_numpy(np.asarray(labels)).to(device, torch.int64)

    def sibling(self, images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> DeviceDataset:
        """Other images prepared with the mean of these: test images, validation images."""
        other = object.__new__(DeviceDataset)
        other.border, other.mean, other._edge = self.border, self.mean, self._edge
        other._hold(images, labels, self.device)
        return other

    def __len__(self) -> int:
        return len(self.labels)

    def train_batch(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Images of a training batch, padded, cropped, flipped; float32 (B, 3, H, W), and labels.

        The images lie in memory channels last.
        """
        indices, dy, dx = (self._put(values) for values in (batch.indices, batch.dy, batch.dx))
        return self.augment(indices, dy, dx, self._put(batch.flip))

    def augment(
        self, indices: Tensor, dy: Tensor, dx: Tensor, flip: Tensor
    ) -> tuple[Tensor, Tensor]:
        """As :meth:`train_batch`, from tensors on the device; shapes depend on B alone."""
        height, width = self.images.shape[1:3]
        border, count = self.border, len(indices)
        high, wide = height + 2 * border, width + 2 * border
        padded = self._edge.expand(count, high, wide, 3).clone()
        padded[:, border:-border, border:-border] = self._centred(self.images[indices])
        columns = torch.arange(width, device=self.device)
        columns = dx[:, None] + torch.where(flip[:, None], columns.flip(0), columns)
        rows = dy[:, None] + torch.arange(height, device=self.device)
        rows = rows + high * torch.arange(count, device=self.device)[:, None]
        # Pixels by their place in the whole batch: almost twice as fast as three indices.
        places = wide * rows[:, :, None] + columns[:, None, :]
        crops = padded.view(-1, 3).index_select(0, places.view(-1))
        crops = crops.view(count, height, width, 3)
        return crops.permute(0, 3, 1, 2), self.labels[indices]

    def sample(self, count: int) -> DeviceDataset:
        """``count`` of the images, evenly spaced."""
        if count >= len(self):
            return self
        rows = torch.arange(count, device=self.device) * len(self) // count
        other = copy.copy(self)
        other.images, other.labels = self.images[rows], self.labels[rows]
        return other

    def eval_batches(
        self, batch_size: int, limit: int | None = None, *, first: int = 0, every: int = 1
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The first ``limit`` images (all by default), each once, in order, not augmented.

        Of their batches, number ``first`` and each ``every``-th after it.
        """
        end = len(self) if limit is None else min(limit, len(self))
        for start in range(first * batch_size, end, every * batch_size):
            stop = min(start + batch_size, end)
            images = self._centred(self.images[start:stop]).permute(0, 3, 1, 2)
            yield images, self.labels[start:stop]

    def name_of(self, row: int) -> str:
        """Its row."""
        return str(row)

    def _centred(self, images: Tensor) -> Tensor:
        return images.to(torch.float32).div_(255).sub_(self.mean)

    def _put(self, values: NDArray[np.generic]) -> Tensor:
        tensor = torch.from_numpy(values)
        if self.device.type == "cuda":  # from other memory the host would wait for the device
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)


def _mean_image(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Mean of each pixel, 0..1, exact: sums of integers."""
    total = np.zeros(images.shape[1:], dtype=np.int64)
    for start in range(0, len(images), 10_000):
        total += images[start : start + 10_000].sum(axis=0, dtype=np.int64)
    return total / (255 * len(images))


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
        self.skipped: list[Skipped] = []  # and it stays so: all images are there
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
