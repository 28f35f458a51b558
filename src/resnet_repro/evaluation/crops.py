"""Views of held-out images for the testing protocols; imports nothing of ours.

Images are (N, 3, H, W) float, and need not be square.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F


def resize_shorter(images: Tensor, side: int) -> Tensor:
    """Scale images so that their shorter side is ``side``, the other in proportion.

    Bilinear, averaging over all pixels that fall into one where it shrinks. Images of that size
    already come back as they are.
    """
    height, width = images.shape[-2:]
    shorter = min(height, width)
    if shorter == side:
        return images
    size = [round(length * side / shorter) for length in (height, width)]
    return F.interpolate(images, size=size, mode="bilinear", antialias=True, align_corners=False)


def centre_crop(images: Tensor, crop: int) -> Tensor:
    """The central ``crop`` x ``crop`` part; of two equally central ones the upper, left one.

    Raises:
        ValueError: the images are smaller than the crop.
    """
    height, width = _room(images, crop)
    return _cut(images, height // 2, width // 2, crop)


def ten_crops(images: Tensor, crop: int) -> Iterator[Tensor]:
    """Ten batches of views, each (N, 3, crop, crop): four corners, centre, and their mirrors.

    Corners are those of the full rectangle; the paper does not say whether it means those of a
    central square. One batch per view, so that no view of an image meets another image's.

    Raises:
        ValueError: the images are smaller than the crop.
    """
    height, width = _room(images, crop)
    corners = [(0, 0), (0, width), (height, 0), (height, width), (height // 2, width // 2)]
    for top, left in corners:
        view = _cut(images, top, left, crop)
        yield view
        yield view.flip(3).contiguous(memory_format=torch.channels_last)


def _room(images: Tensor, crop: int) -> tuple[int, int]:
    """How far a crop can move down and to the right."""
    height, width = images.shape[-2:]
    if min(height, width) < crop:
        raise ValueError(f"no crop of {crop}x{crop} fits into images of {height}x{width}")
    return height - crop, width - crop


def _cut(images: Tensor, top: int, left: int, crop: int) -> Tensor:
    view = images[..., top : top + crop, left : left + crop]
    return view.contiguous(memory_format=torch.channels_last)
