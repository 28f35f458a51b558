"""Batches as tensor operations on the device: no loader, no workers, no PIL in the loop."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from resnet_repro.data import Arrays, EvalImages, Prepared, Skipped
from resnet_repro.data.order import Batch, BatchOrder, spaced

Bytes: TypeAlias = NDArray[np.uint8] | Tensor


def mean_image(images: NDArray[np.uint8], mean: str) -> NDArray[np.float64]:
    """The mean image (H, W, 3) of uint8 ``images``, 0..1, or with ``channel`` their mean colour."""
    pixels = images.sum(axis=0, dtype=np.int64) / (255 * len(images))  # exact: sums of integers
    return np.broadcast_to(pixels.mean(axis=(0, 1)), pixels.shape) if mean == "channel" else pixels


class DeviceDataset:
    """A data set as one uint8 tensor (N, H, W, 3) on the device with labels (N,), and its batches.

    Pixels are scaled to 0..1 and the mean of the training images is subtracted (Sec. 4.2);
    there is no division by a standard deviation.

    Args:
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
        edge = -mean_image(images, "channel")[0, 0] if pad == "zero" else np.zeros(3)
        self.device, self.border = device, border
        pixels = mean_image(images, mean)
        self.mean = torch.tensor(pixels, dtype=torch.float32, device=device)  # (H, W, 3)
        self._edge = torch.tensor(edge, dtype=torch.float32, device=device)
        self.skipped: list[Skipped] = []  # always empty: all images are there
        self._store(images, labels)

    def sibling(self, images: Bytes, labels: Bytes) -> DeviceDataset:
        """Other images prepared with the mean of these: test images, validation images."""
        other = copy.copy(self)
        other._store(images, labels)
        return other

    def _store(self, images: Bytes, labels: Bytes) -> None:
        self.images = torch.as_tensor(images, device=self.device)
        self.labels = torch.as_tensor(labels, device=self.device, dtype=torch.int64)

    def sample(self, count: int) -> DeviceDataset:
        """``count`` of the images, evenly spaced."""
        if count >= len(self):
            return self
        rows = torch.from_numpy(spaced(len(self), count)).to(self.device)
        return self.sibling(self.images[rows], self.labels[rows])

    def __len__(self) -> int:
        return len(self.labels)

    def train_batch(self, batch: Batch) -> Prepared:
        """Images padded, cropped, flipped, float32 (B, 3, H, W), channels last; their labels."""
        indices, dy, dx, flip = (self._put(values) for values in batch)
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

    def eval_batches(
        self, batch_size: int, limit: int | None = None, *, first: int = 0, every: int = 1
    ) -> Iterator[Prepared]:
        """The first ``limit`` images (all by default), each once, in order, not augmented."""
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


class ResidentImages:
    """A data set of small images that lies on the device; ``order`` is over ``train_set``.

    ``places`` of a batch are this worker's share.
    """

    def __init__(
        self,
        name: str,
        arrays: Arrays,
        train_set: DeviceDataset,
        held_out: Mapping[str, EvalImages],
        order: BatchOrder,
        places: range,
    ):
        self.train_set, self.held_out, self.order = train_set, held_out, order
        self.num_classes, self.digests = arrays.num_classes, arrays.digests
        self.skipped, self.name_of = train_set.skipped, train_set.name_of
        self._share = slice(places.start, places.stop)
        height, width = train_set.images.shape[1:3]
        self.share_shape: tuple[int, int, int, int] = (len(places), 3, height, width)
        self.record: dict[str, Any] = {
            "name": name,
            "train_images": len(arrays.train_labels),
            "test_images": len(arrays.test_labels),
            "digests": self.digests,
        }

    def batch(self, iteration: int, *, whole: bool = False) -> Prepared:
        """The worker's share of the batch after ``iteration`` updates, or all of it."""
        batch = self.order.batch(iteration)
        return self.train_set.train_batch(batch if whole else batch.part(self._share))

    def clean(self, count: int) -> DeviceDataset:
        """``count`` training images, evenly spaced."""
        return self.train_set.sample(count)

    def close(self) -> None:
        """Release nothing."""
