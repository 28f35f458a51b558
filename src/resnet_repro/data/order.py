"""Which images make up batch i of seed s, and how each is cropped and flipped.

Everything is a function of (seed, iteration) alone. The random numbers are the raw output of the
counter-based generator Philox, keyed by (seed, epoch): NumPy keeps that stream the same for ever,
unlike the methods of its ``Generator``. So there is no state to save, every number of processes
sees the same batches, and a batch can be recomputed by hand.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ORDER, CROP_Y, CROP_X, FLIP = range(4)  # streams of one (seed, epoch)
SPLIT_SEED, SPLIT_TRAIN = 0, 45_000


def raw(seed: int, epoch: int, stream: int, count: int) -> NDArray[np.uint64]:
    """``count`` raw 64-bit draws of a stream of (seed, epoch)."""
    key = np.array([seed, epoch], dtype=np.uint64)
    counter = np.array([0, 0, 0, stream], dtype=np.uint64)
    return np.random.Philox(key=key, counter=counter).random_raw(count)


def permutation(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """The order in which an epoch visits ``count`` images: the stable argsort of raw draws."""
    return np.argsort(raw(seed, epoch, ORDER, count), kind="stable")


@dataclass(frozen=True)
class Batch:
    """Rows of the data set and what is done to each: offsets of the crop, and whether it flips.

    ``indices`` int64 (B,); ``dy`` and ``dx`` int64 (B,) in 0 .. 2 x pad; ``flip`` bool (B,).
    """

    indices: NDArray[np.int64]
    dy: NDArray[np.int64]
    dx: NDArray[np.int64]
    flip: NDArray[np.bool_]


class _Epoch:
    """One epoch's order and augmentations; the latter belong to the image, not to its place."""

    def __init__(self, seed: int, epoch: int, count: int, pad: int):
        offsets = np.uint64(2 * pad + 1)  # all of them: 81 positions for a pad of 4
        self.order = permutation(seed, epoch, count)
        self.dy = (raw(seed, epoch, CROP_Y, count) % offsets).astype(np.int64)
        self.dx = (raw(seed, epoch, CROP_X, count) % offsets).astype(np.int64)
        self.flip = (raw(seed, epoch, FLIP, count) >> np.uint64(63)).astype(bool)


class BatchOrder:
    """Batches over the concatenated permutations of the epochs; each is full.

    Batch ``i`` covers the places i x B up to (i + 1) x B and may straddle two epochs.

    Args:
        num_images: images of the training set.
        batch_size: B, images of a batch.
        seed: of the run.
        pad: pixels of border on each side; crops start at offsets 0 to 2 x pad.
    """

    def __init__(self, num_images: int, batch_size: int, seed: int, pad: int = 4):
        self.num_images, self.batch_size, self.seed, self.pad = num_images, batch_size, seed, pad
        self._epochs: dict[int, _Epoch] = {}

    def batch(self, iteration: int) -> Batch:
        """The batch of the update that follows ``iteration`` finished updates."""
        return self.batches(iteration, 1)

    def batches(self, iteration: int, count: int) -> Batch:
        """The batches of ``count`` updates from that one on, one after another: count x B rows."""
        places = np.arange(iteration * self.batch_size, (iteration + count) * self.batch_size)
        epochs, within = np.divmod(places, self.num_images)
        parts = [self._part(epoch, within[epochs == epoch]) for epoch in np.unique(epochs).tolist()]
        return Batch(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def epoch_of(self, iteration: int) -> float:
        """Passes over the training images after ``iteration`` updates."""
        return round(iteration * self.batch_size / self.num_images, 6)

    def _part(self, epoch: int, places: NDArray[np.int64]) -> tuple[NDArray[np.generic], ...]:
        plan = self._epoch(epoch)
        rows = plan.order[places]
        return rows, plan.dy[rows], plan.dx[rows], plan.flip[rows]

    def _epoch(self, epoch: int) -> _Epoch:
        if epoch not in self._epochs:
            for old in [e for e in self._epochs if e < epoch - 1]:
                del self._epochs[old]
            self._epochs[epoch] = _Epoch(self.seed, epoch, self.num_images, self.pad)
        return self._epochs[epoch]


def train_split_indices(split: str, num_images: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows used for training and for validation; the split is the same in every run.

    ``all`` trains on every image; ``45k`` on 45,000, the others validate (Sec. 4.2). Which ones is
    not in the paper: here the first 45,000 of a fixed permutation, whatever the seed of the run.
    """
    if split == "all":
        return np.arange(num_images), np.arange(0)
    order = permutation(SPLIT_SEED, 0, num_images)
    return np.sort(order[:SPLIT_TRAIN]), np.sort(order[SPLIT_TRAIN:])


PICTURE = 16  # stream of (seed, epoch), beside those of data.order
SIDES = (256, 480)  # shorter side in training, both ends included (Sec. 3.4)
ALPHA_STD = 0.1  # AlexNet's PCA colour noise


@dataclass(frozen=True)
class Draw:
    """What chance decides for one use of a training picture.

    Attributes:
        side: shorter side, pixels.
        y: raw 64-bit draw of the crop's top; :func:`offset` makes it a position.
        x: raw 64-bit draw of the crop's left.
        flip: whether the crop is mirrored.
        alphas: the three coefficients of the colour noise, N(0, 0.1).
    """

    side: int
    y: int
    x: int
    flip: bool
    alphas: tuple[float, float, float]


def picture_draw(seed: int, epoch: int, index: int, sides: tuple[int, int] = SIDES) -> Draw:
    """The draws of picture ``index`` (its row in the whole data set) in an epoch."""
    key = np.array([seed, epoch], dtype=np.uint64)
    counter = np.array([0, 0, index, PICTURE], dtype=np.uint64)
    side, y, x, flip, *rest = np.random.Philox(key=key, counter=counter).random_raw(8).tolist()
    low, high = sides
    first, second = _normals(rest[0], rest[1])
    third, _ = _normals(rest[2], rest[3])
    return Draw(
        side=low + side % (high - low + 1),
        y=y,
        x=x,
        flip=bool(flip >> 63),
        alphas=(ALPHA_STD * first, ALPHA_STD * second, ALPHA_STD * third),
    )


def offset(draw: int, room: int) -> int:
    """A raw draw as one of the positions 0 .. ``room``, both included."""
    return draw % (room + 1)


def _normals(a: int, b: int) -> tuple[float, float]:
    """Two standard normals from two raw draws: Box and Muller's method on their upper 53 bits."""
    radius = math.sqrt(-2 * math.log(((a >> 11) + 1) * 2.0**-53))
    angle = 2 * math.pi * (b >> 11) * 2.0**-53
    return radius * math.cos(angle), radius * math.sin(angle)
