"""Which images make up batch i of seed s, and how each is cropped and flipped.

Everything is a function of (seed, iteration) alone. The random numbers are the raw output of the
counter-based generator Philox, keyed by (seed, epoch): NumPy keeps that stream the same for ever,
unlike the methods of its ``Generator``. So there is no state to save, every number of processes
sees the same batches, and a batch can be recomputed by hand.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

ORDER, CROP_Y, CROP_X, FLIP = range(4)  # streams of one (seed, epoch)
PICTURE = 16  # the stream of full-size pictures
SPLIT_SEED, SPLIT_TRAIN = 0, 45_000
SIDES = (256, 480)  # shorter side of training pictures, both ends included (Sec. 3.4)
ALPHA_STD = 0.1  # AlexNet's PCA colour noise


def raw(seed: int, epoch: int, stream: int, count: int, index: int = 0) -> NDArray[np.uint64]:
    """``count`` raw 64-bit draws of a stream of (seed, epoch)."""
    key = np.array([seed, epoch], dtype=np.uint64)
    counter = np.array([0, 0, index, stream], dtype=np.uint64)
    return np.random.Philox(key=key, counter=counter).random_raw(count)


def permutation(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """The order in which an epoch visits ``count`` images: the stable argsort of raw draws."""
    return np.argsort(raw(seed, epoch, ORDER, count), kind="stable")


class Batch(NamedTuple):
    """Rows of the data set and what is done to each; all (B,)."""

    indices: NDArray[np.int64]
    dy: NDArray[np.int64]  # offsets of the crop, 0 .. 2 x pad
    dx: NDArray[np.int64]
    flip: NDArray[np.bool_]

    def part(self, places: slice) -> Batch:
        """Return some places of the batch."""
        return Batch(self.indices[places], self.dy[places], self.dx[places], self.flip[places])


class BatchOrder:
    """Batches over the concatenated permutations of the epochs; each is full.

    Batch ``i`` of B images covers the places i x B up to (i + 1) x B and may straddle two epochs.
    With ``pad`` pixels of border on each side, crops start at offsets 0 to 2 x pad.
    """

    def __init__(self, num_images: int, batch_size: int, seed: int, pad: int = 4):
        self.num_images, self.batch_size, self.seed, self.pad = num_images, batch_size, seed, pad
        self._epoch = lru_cache(maxsize=2)(self._draw_epoch)

    def batch(self, iteration: int) -> Batch:
        """The batch of the update that follows ``iteration`` finished updates."""
        return self.batches(iteration, 1)

    def batches(self, iteration: int, count: int) -> Batch:
        """The batches of ``count`` updates from that one on, one after another: count x B rows."""
        places = np.arange(iteration * self.batch_size, (iteration + count) * self.batch_size)
        epochs, within = np.divmod(places, self.num_images)
        parts = []
        for epoch in np.unique(epochs).tolist():
            order, *augmentations = self._epoch(epoch)
            rows = order[within[epochs == epoch]]
            parts.append((rows, *(values[rows] for values in augmentations)))
        return Batch(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def epoch_of(self, iteration: int) -> float:
        """Passes over the training images after ``iteration`` updates."""
        return round(iteration * self.batch_size / self.num_images, 6)

    def _draw_epoch(self, epoch: int) -> Batch:
        """The order of an epoch, and the augmentation of each image, by its row in the data set."""
        seed, count = self.seed, self.num_images
        offsets = np.uint64(2 * self.pad + 1)  # all of them: 81 positions for a pad of 4
        return Batch(
            permutation(seed, epoch, count),
            (raw(seed, epoch, CROP_Y, count) % offsets).astype(np.int64),
            (raw(seed, epoch, CROP_X, count) % offsets).astype(np.int64),
            (raw(seed, epoch, FLIP, count) >> np.uint64(63)).astype(bool),
        )


def train_split_indices(split: str, num_images: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows used for training and for validation; the split is the same in every run.

    ``all`` trains on every image; ``45k`` on 45,000, the others validate (Sec. 4.2). Which ones is
    not in the paper: here the first 45,000 of a fixed permutation, whatever the seed of the run.
    """
    if split == "all":
        return np.arange(num_images), np.arange(0)
    order = permutation(SPLIT_SEED, 0, num_images)
    return np.sort(order[:SPLIT_TRAIN]), np.sort(order[SPLIT_TRAIN:])


def spaced(total: int, count: int) -> NDArray[np.int64]:
    """``count`` of ``total`` rows, evenly spaced, or all: data sets are often sorted by class."""
    count = min(count, total)
    return np.arange(count) * total // max(count, 1)


class Draw(NamedTuple):
    """The random choices for one use of a training picture."""

    side: int  # shorter side, pixels
    y: int  # raw 64-bit draws of the crop's top and left, modulo the number of positions
    x: int
    flip: bool
    alphas: tuple[float, float, float]  # coefficients of the colour noise, N(0, 0.1)


def picture_draw(seed: int, epoch: int, index: int) -> Draw:
    """The draws of picture ``index`` (its row in the whole data set) in an epoch."""
    side, y, x, flip, *rest = raw(seed, epoch, PICTURE, 8, index).tolist()
    low, high = SIDES
    first, second = _normals(rest[0], rest[1])
    third, _ = _normals(rest[2], rest[3])
    alphas = (ALPHA_STD * first, ALPHA_STD * second, ALPHA_STD * third)
    return Draw(low + side % (high - low + 1), y, x, bool(flip >> 63), alphas)


def _normals(a: int, b: int) -> tuple[float, float]:
    """Two standard normals from two raw draws: Box and Muller's method on their upper 53 bits."""
    radius = math.sqrt(-2 * math.log(((a >> 11) + 1) * 2.0**-53))
    angle = 2 * math.pi * (b >> 11) * 2.0**-53
    return radius * math.cos(angle), radius * math.sin(angle)
