"""The random part of a picture's augmentation: a function of (seed, epoch, index) alone.

As in :mod:`resnet_repro.data.order`, all randomness is raw output of the counter-based generator
Philox, here with the picture's index in the counter: a picture's draws are the same in any order,
batch, process and resumed run, and can be had without those of any other picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

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
