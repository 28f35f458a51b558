"""Held-out images on the device, and how a net was taught to see them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from resnet_repro.data.augment import PicturePreparation

# Of ImageNet's colours, 0..1. Wrong for CIFAR-10 (trap 10), but some published nets were trained
# with them, and a net is tested as it was trained.
THEIR_MEAN, THEIR_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Prepare(Protocol):
    """From pixels to what a net sees; ``label`` is what a result says of it."""

    @property
    def label(self) -> str:
        """Which mean, and whether something is divided by."""

    def __call__(self, images: Tensor) -> Tensor:
        """(N, 3, H, W), uint8 or 0..1 -> the same, float32."""


@dataclass(frozen=True)
class AsTrained:
    """What full-size pictures went through while the net was trained, but for the noise."""

    label: str
    preparation: PicturePreparation

    def __call__(self, images: Tensor) -> Tensor:
        """(N, 3, H, W), uint8 -> the same, float32."""
        return self.preparation.test(images.permute(0, 2, 3, 1))


@dataclass(frozen=True)
class Normaliser:
    """Subtract a mean and, where ``std`` is given, divide.

    ``mean`` is (3, 1, 1) or a mean image (3, H, W), resized for views of another size; ``std`` is
    (3, 1, 1).
    """

    label: str
    mean: Tensor
    std: Tensor | None = None

    def __call__(self, images: Tensor) -> Tensor:
        """(N, 3, H, W), uint8 or 0..1 -> the same, float32."""
        if images.dtype == torch.uint8:
            images = images.to(torch.float32).div_(255)
        mean = self.mean
        if mean.shape[-1] > 1 and mean.shape[-2:] != images.shape[-2:]:
            size = list(images.shape[-2:])
            mean = F.interpolate(mean[None], size=size, mode="bilinear", antialias=True)[0]
        centred = images - mean
        return centred if self.std is None else centred.div_(self.std)


def theirs(device: torch.device) -> Normaliser:
    """What akamaster's and torchvision's nets expect."""
    mean, std = (torch.tensor(v, device=device)[:, None, None] for v in (THEIR_MEAN, THEIR_STD))
    return Normaliser("mean (0.485, 0.456, 0.406), std (0.229, 0.224, 0.225)", mean, std)


@dataclass(frozen=True)
class Pictures:
    """Images uint8 (N, H, W, 3) and labels int64 (N,) on the device."""

    images: Tensor
    labels: Tensor

    @classmethod
    def put(cls, images: NDArray[np.uint8], labels: NDArray[Any], device: torch.device) -> Pictures:
        """Copy arrays to the device once."""
        return cls(
            torch.from_numpy(np.ascontiguousarray(images)).to(device),
            torch.from_numpy(np.asarray(labels)).to(device, torch.int64),
        )

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Every image once, in order: float32 (N, 3, H, W) in 0..1, channels last, and labels."""
        for start in range(0, len(self), batch_size):
            part = slice(start, start + batch_size)
            pixels = self.images[part].to(torch.float32).div_(255)
            yield pixels.permute(0, 3, 1, 2), self.labels[part]
