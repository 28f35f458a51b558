"""Decode photographs fast (Sec. 3.4): no more is decoded and resized than is needed.

A JPEG is decoded at the smallest scale (1, 1/2, 1/4, 1/8 of its DCT blocks) that still covers the
requested size: on the sample photographs at side 256, the picture that differs most from one
decoded in full differs by 3.2 of 255 in the mean and by 47 in one pixel. Crop and resize are one
step: only the crop's pixels are computed. They equal those of the whole picture resized, to one
grey level: Pillow rounds the filter's weights for each crop.

The paper does not name its interpolation. Here it is bilinear with antialiasing (a triangle filter
as wide as the reduction), and the longer side is ``floor(side * long / short)``, as in torchvision.
Orientation tags are not applied, as in every loader of this data set.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from resnet_repro.data import DataError, brief
from resnet_repro.data.files import open_regular
from resnet_repro.data.order import Draw

Pixels = NDArray[np.uint8]

CROP = 224
TEST_SIDE = 256

# What is decoded, and by which names such files are found. A file's content decides what it is, not
# its name: ILSVRC has a PNG and some CMYK files that are called .JPEG.
FORMATS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png", ".apng"),
    "BMP": (".bmp", ".dib"),
    "WEBP": (".webp",),
}
KINDS = f"{', '.join(list(FORMATS)[:-1])} or {list(FORMATS)[-1]}"
SUFFIXES = tuple(suffix for suffixes in FORMATS.values() for suffix in suffixes)
MAX_BYTES = 2**26  # of a file
MAX_PIXELS = 2**24  # of a whole picture once resized: 50 MB, 25:1 at a shorter side of 640
# What Pillow's decoders raise on damaged files.
_UNDECODABLE = (
    *(OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, OverflowError),
    *(struct.error, zlib.error, Image.DecompressionBombError),
)


class PictureError(DataError):
    """A picture that cannot be decoded; the message names it."""

    def with_advice(self) -> PictureError:
        """The error for a user who did not ask to skip such pictures."""
        return PictureError(f"{self}; replace it, or skip it with data.on_corrupt=skip")


def read_picture(path: Path) -> bytes:
    """The bytes of a file; DataError: unreadable; PictureError: more than ``MAX_BYTES``."""
    try:
        with open_regular(path) as file:
            encoded = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from error
    if len(encoded) > MAX_BYTES:
        raise PictureError(f"{path}: more than {MAX_BYTES:,} bytes")
    return encoded


def train_crop(encoded: bytes, name: str, draw: Draw) -> Pixels:
    """Resize to the drawn shorter side, crop at the drawn place, mirror or not (Sec. 3.4).

    ``encoded`` are the bytes of the file ``name``; returns uint8 (224, 224, 3). Like all here it
    raises PictureError for what cannot be decoded.
    """
    with _opened(encoded, name) as image:
        width, height = resized(image.size, draw.side)
        left, top = draw.x % (width - CROP + 1), draw.y % (height - CROP + 1)
        crop = _region(image, (width, height), (left, top, left + CROP, top + CROP))
    return np.ascontiguousarray(crop[:, ::-1]) if draw.flip else crop


def centre_crop(encoded: bytes, name: str) -> Pixels:
    """The 1-crop view: the middle at a shorter side of 256; uint8 (224, 224, 3)."""
    with _opened(encoded, name) as image:
        width, height = resized(image.size, TEST_SIDE)
        left, top = round((width - CROP) / 2), round((height - CROP) / 2)
        return _region(image, (width, height), (left, top, left + CROP, top + CROP))


def scaled(encoded: bytes, name: str, side: int) -> Pixels:
    """The whole picture at a shorter side, uint8 (H, W, 3), of at most ``MAX_PIXELS`` pixels."""
    with _opened(encoded, name) as image:
        width, height = resized(image.size, side)
        if width * height > MAX_PIXELS:
            raise PictureError(
                f"{name}: {image.width}x{image.height} pixels are {width}x{height} at a shorter "
                f"side of {side}, more than {MAX_PIXELS:,} pixels"
            )
        return _region(image, (width, height), (0, 0, width, height))


def pixels(encoded: bytes, name: str) -> Pixels:
    """The picture as it is, in RGB; uint8 (H, W, 3)."""
    with _opened(encoded, name) as image:
        return np.array(rgb(image))


def resized(size: tuple[int, int], side: int) -> tuple[int, int]:
    """(Width, height) of a picture once its shorter side is ``side``."""
    width, height = size
    shorter = min(size)
    return side * width // shorter, side * height // shorter


@contextmanager
def _opened(encoded: bytes, name: str) -> Iterator[Image.Image]:
    if not encoded:
        raise PictureError(f"{name}: the file is empty")
    try:
        with Image.open(io.BytesIO(encoded), formats=list(FORMATS)) as image:
            yield image
    except UnidentifiedImageError as error:
        raise PictureError(f"{name}: not a {KINDS} picture") from error
    except _UNDECODABLE as error:
        raise PictureError(f"{name}: cannot be decoded ({brief(error)})") from error


def _region(image: Image.Image, grid: tuple[int, int], box: tuple[int, int, int, int]) -> Pixels:
    """The pixels of ``box`` (left, top, right, bottom) of the picture resized to ``grid``."""
    image.draft(None, grid)  # decodes at the smallest scale that is no smaller than the grid
    left, top, right, bottom = box
    size = (right - left, bottom - top)
    source = (
        left * image.width / grid[0],
        top * image.height / grid[1],
        right * image.width / grid[0],
        bottom * image.height / grid[1],
    )
    # Grey has one channel to resize; the others are the same, so they are made afterwards.
    picture = image if image.mode == "L" else rgb(image)
    return np.array(rgb(picture.resize(size, Image.Resampling.BILINEAR, box=source)))


def rgb(image: Image.Image) -> Image.Image:
    """The picture in three channels of 8 bits; ValueError: it has more than 8 bits a channel."""
    if image.mode == "RGB":
        image.load()
        return image
    if image.mode.startswith(("I", "F")):  # Pillow would clip these to white
        raise ValueError(f"{image.mode} pixels have more than 8 bits")
    return image.convert("RGB")
