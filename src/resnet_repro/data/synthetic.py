"""Made-up images of CIFAR's shape: for tests, and for trying the harness without a download.

Each class is a smooth random pattern; an image is its class's pattern, shifted in brightness, under
strong noise. A net learns it in a few hundred updates. No figure of the paper is drawn from it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from resnet_repro.data import Arrays, digest
from resnet_repro.data.order import raw

CLASSES, SIDE, COARSE = 10, 32, 4
TRAIN_IMAGES, TEST_IMAGES = 2_000, 500
_SEED = 10  # fixed: the data set is the same for every run
PATTERNS, NOISE, BRIGHTNESS = range(3)


def make(train_images: int = TRAIN_IMAGES, test_images: int = TEST_IMAGES) -> Arrays:
    """The synthetic data set; the same bits on every machine."""
    patterns = _uniform(PATTERNS, 0, CLASSES * COARSE * COARSE * 3)
    patterns = patterns.reshape(CLASSES, COARSE, COARSE, 3)
    fine = patterns.repeat(SIDE // COARSE, axis=1).repeat(SIDE // COARSE, axis=2)
    train, train_labels = _draw(fine, 1, train_images)
    test, test_labels = _draw(fine, 2, test_images)
    parts = {
        "train_images": train,
        "train_labels": train_labels,
        "test_images": test,
        "test_labels": test_labels,
    }
    digests = {name: digest(part) for name, part in parts.items()}
    return Arrays(**parts, num_classes=CLASSES, digests=digests)


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
