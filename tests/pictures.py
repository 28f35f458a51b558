"""Photographs for tests: smooth colours with some noise, and folders of them."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from resnet_repro.data import jpeg, order

SAMPLE = Path(__file__).parents[2] / "shared" / "data" / "imagenet-sample"
TINY_ARCHIVE = Path(__file__).parents[2] / "shared" / "data" / "tiny-imagenet-200.tar.xz"
WORDS = (  # a small run on a folder of them, of whatever experiment
    "data=folder", "profile=smoke", "recipe.batch_size=5", "probes.signals=false",
    "probes.response_images=0", "evaluation.every_iters=4", "trainer.threads=1",
    "trainer.precision=fp32", "trainer.loader_workers=0",
)  # fmt: skip
SMALL_CROP = 64


def shrink(patch: Any) -> None:
    """Let ``patch`` make crops of 64 instead of 224 pixels: a twelfth of the work."""
    patch.setattr(jpeg, "CROP", SMALL_CROP)
    patch.setattr(order, "SIDES", (72, 120))


def photograph(width: int, height: int, seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (7, 9, 3), dtype=np.uint8)
    smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    noise = rng.normal(0, 6, (height, width, 3))
    return Image.fromarray(np.clip(np.asarray(smooth) + noise, 0, 255).astype(np.uint8))


def encoded(image: Image.Image, form: str = "JPEG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def write_folder(
    root: Path, classes: int = 3, train: int = 4, val: int = 2, size: tuple[int, int] = (300, 260)
) -> None:
    for part, count in (("train", train), ("val", val)):
        for label in range(classes):
            folder = root / part / f"n{label:08d}"
            folder.mkdir(parents=True)
            for number in range(count):
                seed = 1000 * (part == "val") + 100 * label + number
                path = folder / f"n{label:08d}_{number}.JPEG"
                path.write_bytes(encoded(photograph(*size, seed=seed)))
