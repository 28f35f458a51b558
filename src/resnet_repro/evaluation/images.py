"""Held-out images as an evaluation counts them, how nets were taught to see them, and small ones.

Small pictures lie on the device as a whole; full-size ones are decoded as they are shown
(:mod:`resnet_repro.evaluation.full_size`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from resnet_repro.data import Arrays
from resnet_repro.data.order import BatchOrder, train_split_indices
from resnet_repro.data.resident import DeviceDataset
from resnet_repro.evaluation.protocols import Geometry, Shown
from resnet_repro.evaluation.subjects import Subject
from resnet_repro.options import ConfigError

# Of ImageNet's colours, 0..1. Wrong for CIFAR-10 (trap 10), but some published nets were trained
# with them, and a net is tested as it was trained.
THEIR_MEAN, THEIR_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preparation:
    """From pixels (N, 3, H, W), uint8 or 0..1, to what a net sees, float32 of the same shape.

    ``label`` is recorded with a result: which mean, and whether something is divided by.
    """

    label: str
    prepare: Callable[[Tensor], Tensor]

    def __call__(self, images: Tensor) -> Tensor:
        """Prepare images."""
        return self.prepare(images)


def subtract(label: str, mean: Tensor, std: Tensor | None = None) -> Preparation:
    """Subtract a mean and, where ``std`` (3, 1, 1) is given, divide.

    ``mean`` is (3, 1, 1) or a mean image (3, H, W), resized for views of another size.
    """

    def prepare(images: Tensor) -> Tensor:
        if images.dtype == torch.uint8:
            images = images.to(torch.float32).div_(255)
        resized = mean
        if mean.shape[-1] > 1 and mean.shape[-2:] != images.shape[-2:]:
            size = list(images.shape[-2:])
            resized = F.interpolate(mean[None], size=size, mode="bilinear", antialias=True)[0]
        centred = images - resized
        return centred if std is None else centred.div_(std)

    return Preparation(label, prepare)


def theirs(device: torch.device) -> Preparation:
    """What akamaster's and torchvision's nets expect."""
    mean, std = (torch.tensor(v, device=device)[:, None, None] for v in (THEIR_MEAN, THEIR_STD))
    return subtract("mean (0.485, 0.456, 0.406), std (0.229, 0.224, 0.225)", mean, std)


class CountedImages(Protocol):
    """All images of a split, to be shown once under a protocol."""

    @property
    def num_classes(self) -> int:
        """Classes of the data set."""

    @property
    def classes(self) -> Sequence[str]:
        """Their names in the order of the labels; none where they have no names."""

    @property
    def digests(self) -> Mapping[str, str]:
        """SHA-256 of what is counted and of what the nets' means come from."""

    @property
    def geometry(self) -> Geometry:
        """Sizes in which images are shown."""

    @property
    def left_out(self) -> list[str]:
        """A line for each image that the last pass could not show; empty before one."""

    def __len__(self) -> int:
        """Images there are, those left out included."""

    def shown(self, protocol: str, at_once: int) -> Iterator[tuple[Shown, Tensor]]:
        """Every image once, up to ``at_once`` together, with labels int64 (N,) on the device."""

    def normaliser(self, subject: Subject) -> Preparation:
        """Return what prepares the net's input, as in its training."""

    def next_epoch(self, subject: Subject) -> Iterator[Tensor]:
        """Training batches (N, 3, H, W) of the epoch that would have followed the subject's run."""


@dataclass
class SmallImages:
    """A split of a data set that lies in arrays; nothing of it is ever left out.

    ``images`` are uint8 (N, H, W, 3), ``labels`` int64 (N,), both on the device.
    """

    arrays: Arrays
    images: Tensor
    labels: Tensor
    classes: Sequence[str] = ()
    left_out: list[str] = field(default_factory=list)

    @classmethod
    def open(
        cls, arrays: Arrays, subjects: Sequence[Subject], split: str, device: torch.device
    ) -> SmallImages:
        """Put all images of ``test``, ``train`` or ``val`` on the device.

        Raises:
            ConfigError: nets that were trained on different images, or no validation images.
        """
        images, labels = arrays.test_images, arrays.test_labels
        if split != "test":
            trained_on = {
                subject.data.train_split if subject.data else "all" for subject in subjects
            }
            if len(trained_on) > 1:
                raise ConfigError(f"split={split}: the nets were trained on different images")
            train, val = train_split_indices(trained_on.pop(), len(arrays.train_labels))
            rows = train if split == "train" else val
            if not len(rows):
                raise ConfigError(
                    "split=val: the net was trained on all images; only runs with "
                    "data.train_split=45k have validation images"
                )
            images, labels = arrays.train_images[rows], arrays.train_labels[rows]
        pixels = torch.from_numpy(np.ascontiguousarray(images)).to(device)
        return cls(arrays, pixels, torch.from_numpy(np.asarray(labels)).to(device, torch.int64))

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def num_classes(self) -> int:
        """Of the data set."""
        return self.arrays.num_classes

    @property
    def digests(self) -> dict[str, str]:
        """SHA-256 of the arrays."""
        return self.arrays.digests

    @property
    def geometry(self) -> Geometry:
        """The paper's proportions at the size of these pictures."""
        return Geometry.of_small_pictures(self.arrays.test_images.shape[1])

    def shown(self, protocol: str, at_once: int) -> Iterator[tuple[Shown, Tensor]]:
        """Images as they are, in order; a protocol resizes and cuts them on the device."""
        del protocol
        for start in range(0, len(self), at_once):
            part = slice(start, start + at_once)
            pixels = self.images[part].to(torch.float32).div_(255)
            yield pixels.permute(0, 3, 1, 2), self.labels[part]

    def normaliser(self, subject: Subject) -> Preparation:
        """The mean of the training images in use (Sec. 4.2), torchvision's colours for others."""
        if subject.data is None:
            return theirs(self.labels.device)
        label = f"{subject.data.mean} mean of the training images ({subject.data.train_split})"
        return subtract(label, self._training_images(subject).mean.permute(2, 0, 1))

    def next_epoch(self, subject: Subject) -> Iterator[Tensor]:
        """The augmented batches that would have followed the run, all of them full."""
        config = subject.config
        assert config is not None
        recipe, dataset = config.recipe, self._training_images(subject)
        order = BatchOrder(len(dataset), recipe.batch_size, config.seed, config.data.border)
        for i in range(len(dataset) // recipe.batch_size):
            yield dataset.train_batch(order.batch(recipe.max_iters + i))[0]

    def _training_images(self, subject: Subject) -> DeviceDataset:
        """The training images as a net of ours saw them."""
        data = subject.data
        assert data is not None
        rows, _ = train_split_indices(data.train_split, len(self.arrays.train_labels))
        return DeviceDataset(
            self.arrays.train_images[rows],
            self.arrays.train_labels[rows],
            self.labels.device,
            mean=data.mean,
            pad=data.pad,
            border=data.border,
        )
