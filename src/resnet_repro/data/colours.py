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

from resnet_repro.data import DataError, note
from resnet_repro.data.cache import load_checksummed, store_checksummed
from resnet_repro.data.jpeg import CROP, PictureError, read_picture, train_crop
from resnet_repro.data.order import picture_draw
from resnet_repro.data.workers import map_chunks

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from resnet_repro.data.folder import PictureIndex

SAMPLE = 10_000
_VERSION = 1  # of the method: crops, sums
_CHUNK = 100


@dataclass(frozen=True)
class ColourStatistics:
    """What is subtracted from and added to training pictures; pixels on the scale 0..1.

    Attributes:
        mean: float64 (224, 224, 3), the mean picture.
        deviations: float64 (3,), standard deviation along each principal colour, falling.
        colours: float64 (3, 3), principal colours as columns: eigenvectors of the covariance of
            the pixels' RGB values, each with its largest component positive.
        pictures: how many they were measured on.
        digest: SHA-256 of the mean picture's bytes.
    """

    mean: NDArray[np.float64]
    deviations: NDArray[np.float64]
    colours: NDArray[np.float64]
    pictures: int
    digest: str


def load_statistics(
    index: PictureIndex,
    cache: Path,
    *,
    sample: int = SAMPLE,
    processes: int = 0,
    skip_corrupt: bool = False,
) -> ColourStatistics:
    """The statistics of a training set, kept in the folder ``cache`` for these very files.

    They are measured anew where the size or the modification time of any file has changed.

    Args:
        index: the training pictures.
        cache: a folder; where it cannot be written they are measured each time.
        sample: pictures to measure, all if there are fewer.
        processes: that decode; 0 for one for each core.
        skip_corrupt: measure on the others where pictures of the sample cannot be decoded.

    Raises:
        DataError: a file cannot be read, or not be decoded and is not to be skipped.
        StoppedError: a stop signal came.
    """
    key = {"version": _VERSION, "sample": sample, "pictures": index.stamp()}
    path = cache / f".colours-{sample}.npz"
    try:
        kept = load_checksummed(path)
    except DataError:  # damaged: measured anew
        kept = None
    if kept is not None and kept[1] == key:
        return _from_sums(kept[0])
    sums = _measure(index, sample, processes, skip_corrupt)
    try:
        store_checksummed(path, sums, key)
    except DataError as error:
        note(f"mean and colours are not kept: {error}")
    return _from_sums(sums)


Sums = dict[str, NDArray[np.int64]]  # of pixels (224, 224, 3), of colour products (3, 3), count (1)


def _measure(index: PictureIndex, sample: int, processes: int, skip_corrupt: bool) -> Sums:
    count = min(sample, len(index))
    note(f"measuring mean and principal colours on {count:,} pictures, once")
    rows = (np.arange(count) * len(index) // count).tolist()
    tasks = [
        [(row, index.path(row)) for row in rows[start : start + _CHUNK]]
        for start in range(0, count, _CHUNK)
    ]
    total: Sums = {
        "pixels": np.zeros((CROP, CROP, 3), np.int64),
        "products": np.zeros((3, 3), np.int64),
        "count": np.zeros(1, np.int64),
    }
    for part, failures in map_chunks(
        sum_chunk, tasks, label=f"measuring, {_CHUNK} a step", processes=processes
    ):
        for line in failures:
            if not skip_corrupt:
                raise PictureError(line)
            note(f"left out of the mean: {line}")
        for name, value in part.items():
            total[name] += value
    if not total["count"][0]:
        raise DataError(f"{index.root}: no picture of the sample can be decoded")
    return total


def sum_chunk(task: Sequence[tuple[int, Path]]) -> tuple[Sums, list[str]]:
    """Sums over the training crops of some (row, path); and a line for each undecodable one."""
    pixels = np.zeros((CROP, CROP, 3), np.int64)
    products = np.zeros((3, 3), np.int64)
    count = 0
    failures: list[str] = []
    for row, path in task:
        try:
            crop = train_crop(read_picture(path), str(path), picture_draw(0, 0, row))
        except PictureError as error:
            failures.append(str(error))
            continue
        pixels += crop
        # Exact: every sum of these products stays below 2^53.
        colours = crop.reshape(-1, 3).astype(np.float64)
        products += (colours.T @ colours).astype(np.int64)
        count += 1
    return {"pixels": pixels, "products": products, "count": np.array([count])}, failures


def _from_sums(sums: Sums) -> ColourStatistics:
    count = int(sums["count"][0])
    mean = sums["pixels"] / (255 * count)
    colour = mean.mean(axis=(0, 1))
    second = sums["products"] / (255**2 * count * CROP * CROP)
    values, vectors = np.linalg.eigh(second - np.outer(colour, colour))
    values, vectors = values[::-1], vectors[:, ::-1]
    largest = vectors[np.abs(vectors).argmax(axis=0), range(3)]
    digest = hashlib.sha256(mean.tobytes()).hexdigest()
    deviations = np.sqrt(np.maximum(values, 0))
    return ColourStatistics(mean, deviations, vectors * np.sign(largest), count, digest)


class PicturePreparation:
    """Scales pixels to 0..1, subtracts the mean, adds colour noise.

    Args:
        statistics: of the training set.
        device: where it is done.
        mean: ``pixel`` subtracts the mean picture, ``channel`` its mean colour. From pictures of
            another size than the mean picture (multi-scale testing) the mean colour is subtracted.
    """

    def __init__(self, statistics: ColourStatistics, device: torch.device, mean: str = "pixel"):
        import torch  # here: the processes that decode do not need it

        picture = torch.tensor(statistics.mean, dtype=torch.float32, device=device)  # (224, 224, 3)
        self._colour = torch.tensor(
            statistics.mean.mean(axis=(0, 1)), dtype=torch.float32, device=device
        )
        self._mean = picture if mean == "pixel" else self._colour.expand_as(picture)
        noise = statistics.colours * statistics.deviations  # column i: p_i * lambda_i
        self._noise = torch.tensor(noise, dtype=torch.float32, device=device)
        self._device = device

    def train(self, images: Tensor, alphas: Tensor) -> Tensor:
        """Training pictures; uint8 (B, H, W, 3) and float32 (B, 3) to float32 (B, 3, H, W).

        The result lies in memory channels last.
        """
        alphas = alphas.to(self._device, non_blocking=True)
        # Sums of three products, not a matrix product: TF32 would round it.
        shift = (alphas[:, None, :] * self._noise).sum(dim=2)
        return self._centred(images).add_(shift[:, :, None, None])

    def test(self, images: Tensor) -> Tensor:
        """Test pictures; uint8 (B, H, W, 3) to float32 (B, 3, H, W), channels last."""
        return self._centred(images)

    def _centred(self, images: Tensor) -> Tensor:
        pixels = images.to(self._device, non_blocking=True).float().div_(255)
        mean = self._mean if pixels.shape[1:] == self._mean.shape else self._colour
        return pixels.sub_(mean).permute(0, 3, 1, 2)
