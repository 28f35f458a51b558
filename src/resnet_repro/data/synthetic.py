"""Synthetic images of CIFAR's shape: for tests, and for trying the harness offline.

An image is the smooth random pattern of its class, shifted in brightness, under strong noise. A net
learns it in a few hundred updates. No figure of the paper is drawn from it.
"""

import numpy as np
from numpy.typing import NDArray

from resnet_repro.data import PARTS, Arrays, digest
from resnet_repro.data.order import raw

SIZES = (2_000, 500)  # training and test images
CLASSES, SIDE, COARSE = 10, 32, 4
_SEED = 10  # fixed: the data set is the same for every run
PATTERNS, NOISE, BRIGHTNESS = range(3)


def make(sizes: tuple[int, int] | None = None) -> Arrays:
    """``SIZES`` or other numbers of training and test images; the same bits on every machine."""
    coarse = _uniform(PATTERNS, 0, CLASSES * COARSE * COARSE * 3)
    coarse = coarse.reshape(CLASSES, COARSE, COARSE, 3)
    patterns = coarse.repeat(SIDE // COARSE, axis=1).repeat(SIDE // COARSE, axis=2)
    train_images, test_images = sizes or SIZES
    arrays = (*_draw(patterns, 1, train_images), *_draw(patterns, 2, test_images))
    digests = {name: digest(array) for name, array in zip(PARTS, arrays, strict=True)}
    return Arrays(*arrays, num_classes=CLASSES, digests=digests)


def _draw(
    patterns: NDArray[np.float64], part: int, count: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    labels = (np.arange(count) % CLASSES).astype(np.uint8)
    noise = _uniform(NOISE, part, count * SIDE * SIDE * 3).reshape(count, SIDE, SIDE, 3)
    brightness = _uniform(BRIGHTNESS, part, count)[:, None, None, None]
    values = 0.35 * patterns[labels] + 0.5 * noise + 0.15 * brightness
    return (255 * values).astype(np.uint8), labels


def _uniform(stream: int, part: int, count: int) -> NDArray[np.float64]:
    return raw(_SEED, part, stream, count) / 2.0**64
