"""Training decode against the reference recipe: ``python -m benchmarks.decoding FOLDER``.

Both make the same augmented crop of each photograph: ours as :func:`data.jpeg.train_crop`, the
reference as torchvision's recipe does it (whole decode by Pillow to RGB, resize of the whole
picture to the same shorter side, crop, mirror, to a tensor). They alternate picture by picture in
one thread, and CPU time is counted, so that a busy machine disturbs both alike.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from resnet_repro.data import DataError
from resnet_repro.data.jpeg import CROP, SUFFIXES, read_picture, train_crop
from resnet_repro.data.order import Draw, picture_draw
from resnet_repro.exits import explained
from resnet_repro.paths import given
from resnet_repro.runs.atomic import write_text_atomic
from resnet_repro.runs.provenance import cpu_description


@dataclass(frozen=True)
class Result:
    """Speeds and differences; pixel differences on the scale 0..255.

    Attributes:
        pictures: photographs in the folder.
        uses: crops made of each, with draws of its own.
        ours: crops a second and core.
        reference: the same for torchvision's recipe.
        speedup: ours over the reference.
        mean_difference: mean over all pixels of the absolute difference.
        worst_picture_mean: the largest mean of a single crop.
        max_difference: the largest of any pixel.
        same_scale_max: the largest of any pixel of crops that were decoded at full scale.
        reduced: share of the crops that were decoded at a smaller JPEG scale.
    """

    pictures: int
    uses: int
    ours: float
    reference: float
    speedup: float
    mean_difference: float
    worst_picture_mean: float
    max_difference: int
    same_scale_max: int
    reduced: float


def ours(encoded: bytes, name: str, draw: Draw) -> torch.Tensor:
    """Our training decode; uint8 (224, 224, 3)."""
    return torch.from_numpy(train_crop(encoded, name, draw))


def reference(encoded: bytes, _: str, draw: Draw) -> torch.Tensor:
    """The same crop by torchvision's reference recipe; uint8 (3, 224, 224)."""
    with Image.open(io.BytesIO(encoded)) as opened:
        image = opened.convert("RGB")
    image = F.resize(image, [draw.side], InterpolationMode.BILINEAR, antialias=True)
    left, top = draw.x % (image.width - CROP + 1), draw.y % (image.height - CROP + 1)
    image = F.crop(image, top, left, CROP, CROP)
    if draw.flip:
        image = F.horizontal_flip(image)
    tensor: torch.Tensor = F.pil_to_tensor(image)
    return tensor


def measure(folder: Path, rounds: int = 5) -> Result:
    """Time both on every photograph of ``folder``, ``rounds`` crops of each.

    Raises:
        DataError: no photographs there, or one cannot be decoded.
    """
    paths = sorted(p for p in folder.glob("*") if p.suffix.lower() in SUFFIXES)
    if not paths:
        raise DataError(f"{folder} holds no photographs ({', '.join(SUFFIXES)})")
    files = [(read_picture(path), str(path)) for path in paths]
    for decode in (ours, reference):  # first calls load libraries and tables
        decode(*files[0], picture_draw(0, 0, 0))
    times = np.zeros(2)
    means, maxima, reduced = [], [], []
    for use in range(rounds):
        for row, (encoded, name) in enumerate(files):
            draw = picture_draw(0, use, row)
            pair = [torch.empty(0), torch.empty(0)]
            # Which goes first alternates: the second finds the file in the processor's cache.
            for which in ((0, 1), (1, 0))[(use + row) % 2]:
                decode = (ours, reference)[which]
                began = time.thread_time()
                pair[which] = decode(encoded, name, draw)
                times[which] += time.thread_time() - began
            mean, most = difference(pair[0], pair[1].permute(1, 2, 0))
            means.append(mean)
            maxima.append(most)
            reduced.append(is_reduced(encoded, draw))
    return _result(len(files), rounds, times, means, maxima, np.array(reduced))


def difference(a: torch.Tensor, b: torch.Tensor) -> tuple[float, int]:
    """Mean and largest absolute difference of two uint8 pictures."""
    gap = (a.to(torch.int16) - b.to(torch.int16)).abs()
    return float(gap.float().mean()), int(gap.max())


def is_reduced(encoded: bytes, draw: Draw) -> bool:
    """Whether a JPEG is decoded at half scale or less for this draw."""
    with Image.open(io.BytesIO(encoded)) as image:
        return image.format == "JPEG" and min(image.size) >= 2 * draw.side


def _result(
    pictures: int,
    rounds: int,
    times: NDArray[np.float64],
    means: Sequence[float],
    maxima: Sequence[int],
    reduced: NDArray[np.bool_],
) -> Result:
    speeds = pictures * rounds / times
    return Result(
        pictures=pictures,
        uses=rounds,
        ours=round(float(speeds[0]), 1),
        reference=round(float(speeds[1]), 1),
        speedup=round(float(speeds[0] / speeds[1]), 3),
        mean_difference=round(float(np.mean(means)), 4),
        worst_picture_mean=round(max(means), 3),
        max_difference=max(maxima),
        same_scale_max=int(np.max(np.array(maxima)[~reduced], initial=0)),
        reduced=round(float(reduced.mean()), 4),
    )


def table(result: Result) -> str:
    """The result for people."""
    return "\n".join(
        [
            f"{result.pictures} photographs, {result.uses} crops of each; {cpu_description()[0]}",
            f"{'':24}{'images/s/core':>14}",
            f"{'this project':24}{result.ours:>14.1f}",
            f"{'torchvision reference':24}{result.reference:>14.1f}",
            f"{'ratio':24}{result.speedup:>14.2f}",
            f"absolute pixel difference, of 255: mean {result.mean_difference:.3f}, "
            f"largest mean of a crop {result.worst_picture_mean:.2f}, largest of a pixel "
            f"{result.max_difference}",
            f"{100 * result.reduced:.1f} % of the crops were decoded at a smaller JPEG scale; "
            f"largest difference of a pixel in the others: {result.same_scale_max}",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print a table, write JSON where asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decoding")
    parser.add_argument("folder", type=given, help="photographs, directly in it")
    parser.add_argument("--rounds", type=int, default=5, help="crops of each photograph")
    parser.add_argument("--json", type=given, help="file to write the result to")
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    torch.set_num_threads(1)
    with explained():
        result = measure(options.folder, options.rounds)
        if options.json:
            text = json.dumps(dataclasses.asdict(result) | {"cpu": cpu_description()[0]}, indent=2)
            write_text_atomic(options.json, text + "\n")
    print(table(result), file=sys.stdout)


if __name__ == "__main__":
    main()
