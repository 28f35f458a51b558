"""One full-size picture after the other, and a batch of them; what a decoding worker does."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from resnet_repro.data.draws import SIDES, picture_draw
from resnet_repro.data.errors import DataError
from resnet_repro.data.image_folder import PictureIndex
from resnet_repro.data.jpeg import (
    CROP,
    PictureError,
    Pixels,
    centre_crop,
    read_picture,
    scaled,
    train_crop,
)

Key = tuple[int, int]  # epoch, row
Alphas = tuple[float, float, float]
View = Callable[[bytes, str, int, int], tuple[Pixels, Alphas]]  # file, name, epoch, row

_NO_NOISE = (0.0, 0.0, 0.0)


class Failure(NamedTuple):
    """Why a picture is not there: a line that names it, and whether its file was undecodable."""

    line: str
    undecodable: bool


class Item(NamedTuple):
    """A picture, or the reason why it is not there."""

    image: Pixels | None
    label: int
    alphas: Alphas
    failure: Failure | None


class PictureBatch(NamedTuple):
    """Pictures as they come from the workers.

    Attributes:
        images: uint8 (B, H, W, 3).
        labels: int64 (B,).
        alphas: float32 (B, 3), coefficients of the colour noise; 0 in testing.
        valid: bool (B,), false where a picture could not be had; its pixels are 0.
        failures: what happened to each such picture.
    """

    images: Tensor
    labels: Tensor
    alphas: Tensor
    valid: Tensor
    failures: list[Failure]


class Pictures(Dataset[Item]):
    """A view of each picture of an index, by (epoch, row)."""

    def __init__(self, index: PictureIndex, view: View):
        self._index, self._view = index, view

    def __getitem__(self, key: Key) -> Item:
        epoch, row = key
        path, label = self._index.path(row), int(self._index.labels[row])
        try:
            image, alphas = self._view(read_picture(path), str(path), epoch, row)
        except DataError as error:  # told by the parent, in one line
            failure = Failure(str(error), isinstance(error, PictureError))
            return Item(None, label, _NO_NOISE, failure)
        return Item(image, label, alphas, None)


def train_view(seed: int) -> View:
    """The augmented crop of a training picture in an epoch (Sec. 3.4)."""
    return partial(_train_view, seed)


def eval_view(side: int, whole: bool) -> View:
    """The picture at a shorter side: its centre 224x224 or all of it."""
    return partial(_whole_view if whole else _centre_view, side)


def collate(items: list[Item]) -> PictureBatch:
    """Put pictures of one size into a batch."""
    shape = next((item.image.shape for item in items if item.image is not None), (CROP, CROP, 3))
    images = np.zeros((len(items), *shape), dtype=np.uint8)
    for row, item in enumerate(items):
        if item.image is not None:
            images[row] = item.image
    return PictureBatch(
        torch.from_numpy(images),
        torch.tensor([item.label for item in items]),
        torch.tensor([item.alphas for item in items], dtype=torch.float32),
        torch.tensor([item.image is not None for item in items]),
        [item.failure for item in items if item.failure is not None],
    )


# Views are functions of a module, not closures: a worker may have to be sent them.
def _train_view(
    seed: int, encoded: bytes, name: str, epoch: int, row: int
) -> tuple[Pixels, Alphas]:
    draw = picture_draw(seed, epoch, row, SIDES)
    return train_crop(encoded, name, draw), draw.alphas


def _centre_view(side: int, encoded: bytes, name: str, _: int, __: int) -> tuple[Pixels, Alphas]:
    return centre_crop(encoded, name, side), _NO_NOISE


def _whole_view(side: int, encoded: bytes, name: str, _: int, __: int) -> tuple[Pixels, Alphas]:
    return scaled(encoded, name, side), _NO_NOISE
