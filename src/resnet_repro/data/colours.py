"""Mean picture and principal colours of the training set (Sec. 3.4; AlexNet's colour noise).

They are measured over training crops of a sample: pictures evenly spaced through the sorted list,
each used once with the draws of seed 0, epoch 0, whatever the seed of a run. Sums are of integers,
so the result has the same bits however many processes decode.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from resnet_repro.data import DataError, jpeg, note
from resnet_repro.data.cache import load_arrays, map_tasks, store_arrays
from resnet_repro.data.order import picture_draw, spaced

if TYPE_CHECKING:
    from resnet_repro.data.folder import PictureIndex

SAMPLE = 10_000  # pictures that are measured, all if there are fewer
_VERSION = 1  # of the method: crops, sums
_CHUNK = 100


@dataclass(frozen=True)
class ColourStatistics:
    """What is subtracted from and added to training pictures; pixels on the scale 0..1."""

    mean: NDArray[np.float64]  # (224, 224, 3), the mean picture
    deviations: NDArray[np.float64]  # (3,), standard deviation along each colour, falling
    # (3, 3), as columns the eigenvectors of the covariance of the pixels' RGB values, each with its
    # largest component positive.
    colours: NDArray[np.float64]
    pictures: int  # how many they were measured on
    digest: str  # SHA-256 of the mean picture's bytes


def load_statistics(
    index: PictureIndex, cache: Path, skip_corrupt: bool = False
) -> ColourStatistics:
    """Return the statistics of a training set, cached in the folder ``cache`` for these files.

    They are measured again where the size or the modification time of any file has changed, and
    where ``cache`` cannot be written. DataError: a file is unreadable, or undecodable and not to be
    skipped.
    """
    key = {"version": _VERSION, "sample": SAMPLE, "pictures": index.stamp()}
    path = cache / f".colours-{SAMPLE}.npz"
    try:
        stored = load_arrays(path)
    except DataError:  # damaged: measured again
        stored = None
    if stored is not None and stored.about == key:
        return _from_sums(stored.arrays)
    sums = _measure(index, skip_corrupt)
    try:
        store_arrays(path, sums, key)
    except DataError as error:
        note(f"mean and colours are not kept: {error}")
    return _from_sums(sums)


Sums = dict[str, NDArray[np.int64]]  # of pixels (224, 224, 3), of colour products (3, 3), count (1)


def _measure(index: PictureIndex, skip_corrupt: bool) -> Sums:
    sample = [(row, index.path(row)) for row in spaced(len(index), SAMPLE).tolist()]
    note(f"measuring mean and principal colours on {len(sample):,} pictures, once")
    tasks = [sample[start : start + _CHUNK] for start in range(0, len(sample), _CHUNK)]
    total: Sums = {}
    for sums, failures in map_tasks(_sum_chunk, tasks, f"measuring, {_CHUNK} a step"):
        for line in failures:
            if not skip_corrupt:
                raise jpeg.PictureError(line).with_advice()
            note(f"left out of the mean: {line}")
        total = {name: total.get(name, 0) + value for name, value in sums.items()}
    if not total["count"][0]:
        raise DataError(f"{index.root}: no picture of the sample can be decoded")
    return total


def _sum_chunk(task: Sequence[tuple[int, Path]]) -> tuple[Sums, list[str]]:
    """Sums over the training crops of some (row, path); and a line for each undecodable one."""
    shapes = {"pixels": (jpeg.CROP, jpeg.CROP, 3), "products": (3, 3), "count": (1,)}
    sums = {name: np.zeros(shape, np.int64) for name, shape in shapes.items()}
    failures = []
    for row, path in task:
        try:
            crop = jpeg.train_crop(jpeg.read_picture(path), str(path), picture_draw(0, 0, row))
        except jpeg.PictureError as error:
            failures.append(str(error))
            continue
        sums["pixels"] += crop
        # Exact: every sum of these products stays below 2^53.
        colours = crop.reshape(-1, 3).astype(np.float64)
        sums["products"] += (colours.T @ colours).astype(np.int64)
        sums["count"] += 1
    return sums, failures


def _from_sums(sums: Sums) -> ColourStatistics:
    count = int(sums["count"][0])
    mean = sums["pixels"] / (255 * count)
    colour = mean.mean(axis=(0, 1))
    second = sums["products"] / (255**2 * count * jpeg.CROP**2)
    values, vectors = np.linalg.eigh(second - np.outer(colour, colour))
    values, vectors = values[::-1], vectors[:, ::-1]
    largest = vectors[np.abs(vectors).argmax(axis=0), range(3)]
    digest = hashlib.sha256(mean.tobytes()).hexdigest()
    deviations = np.sqrt(np.maximum(values, 0))
    return ColourStatistics(mean, deviations, vectors * np.sign(largest), count, digest)
