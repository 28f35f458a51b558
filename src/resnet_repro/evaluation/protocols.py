"""How held-out images are shown to a net (Sec. 3.4); imports nothing of ours.

Images are (N, 3, H, W) float, and need not be square.

A protocol is a function from images (N, 3, H, W) to class scores (N, classes) float32, to be
given to :func:`resnet_repro.evaluation.count.count_errors`. Where images come at the right
sizes already, decoded so, it takes their views instead (:data:`Shown`). Scores that are averages
of softmaxes are returned as their logarithm, whose cross-entropy is that of the average.

===============  ===================================================================================
``1-crop``       the centre
``10-crop``      four corners, centre and their mirrors; softmax averaged for each image
``multi-scale``  fully convolutional at several scales; scores averaged
===============  ===================================================================================

Several nets make an ensemble: their softmaxes are averaged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

PROTOCOLS = ("1-crop", "10-crop", "multi-scale")
PAPER_SCALES = (224, 256, 384, 480, 640)
STRIDE = 32  # pixels of the image behind one of the last map, ImageNet family

# Images that are resized and cut here, or the views that were cut from them before: one of
# ``1-crop``, ten of ``10-crop``, one at each scale of ``multi-scale``; each (N, 3, H, W).
Shown = Tensor | Sequence[Tensor]
Scorer = Callable[[Shown], Tensor]
Forward = Callable[[Tensor], Tensor]


class DenseNet(Protocol):
    """A net that can be made fully convolutional."""

    def forward_dense(self, x: Tensor, window: int = 7) -> Tensor:
        """Scores averaged over all positions of a ``window`` x ``window`` pool."""


@dataclass(frozen=True)
class Geometry:
    """Sizes in pixels, by default the paper's for ImageNet.

    ``crop`` is the side of a view, ``centre_side`` and ``ten_crop_side`` the shorter side of the
    image it is cut from, ``scales`` the shorter sides of the fully convolutional test, ``window``
    the side of the last map in training.
    """

    crop: int = 224
    centre_side: int = 256
    ten_crop_side: int = 256
    scales: tuple[int, ...] = PAPER_SCALES
    window: int = 7

    @classmethod
    def of_small_pictures(cls, size: int) -> Geometry:
        """The same proportions for a net trained on whole pictures of ``size`` x ``size``.

        ``1-crop`` is then the picture itself (Sec. 4.2 for CIFAR-10).
        """
        scales = tuple(round(scale * size / 224) for scale in PAPER_SCALES)
        return cls(size, size, scales[1], scales, math.ceil(size / STRIDE))


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


def central_view(images: Tensor, crop: int) -> Tensor:
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


def views_of(protocol: str, images: Tensor, geometry: Geometry) -> Iterable[Tensor]:
    """The views of images (N, 3, H, W) that a protocol shows, one after the other."""
    if protocol == "1-crop":
        return [central_view(resize_shorter(images, geometry.centre_side), geometry.crop)]
    if protocol == "10-crop":
        return ten_crops(resize_shorter(images, geometry.ten_crop_side), geometry.crop)
    return (resize_shorter(images, side) for side in geometry.scales)


def one_crop(forward: Forward, geometry: Geometry) -> Scorer:
    """Score the central crop alone."""

    def scores(shown: Shown) -> Tensor:
        (view,) = _views("1-crop", shown, geometry)
        return forward(view).float()

    return scores


def ten_crop(forward: Forward, geometry: Geometry) -> Scorer:
    """Average the softmax over the ten views of each image; log of the average (Tables 2, 3)."""
    return lambda shown: log_mean_softmax(map(forward, _views("10-crop", shown, geometry)))


def multi_scale(dense: Forward, geometry: Geometry) -> Scorer:
    """Average the fully convolutional scores over the scales (Sec. 3.4, Tables 4 and 5).

    The paper says "average the scores": here they are averaged before the softmax, over positions
    and scales alike, and no mirrors are shown, as it names none.
    """

    def scores(shown: Shown) -> Tensor:
        maps = [dense(view).float() for view in _views("multi-scale", shown, geometry)]
        return torch.stack(maps).mean(0)

    return scores


def ensemble(members: Sequence[Scorer]) -> Scorer:
    """Average the softmax over several nets, each under its own protocol; log of the average."""
    return lambda shown: log_mean_softmax(member(shown) for member in members)


def log_mean_softmax(scores: Iterable[Tensor]) -> Tensor:
    """Logarithm of the mean of softmaxes, (N, classes) float32.

    Taken in logarithms throughout: a probability that underflows to 0 would make a loss infinite.
    """
    logs = torch.stack([each.float().log_softmax(1) for each in scores])
    return logs.logsumexp(0) - math.log(len(logs))


def scorer(protocol: str, net: Forward, prepare: Forward, geometry: Geometry) -> Scorer:
    """Scores of ``net`` under ``protocol``; ``prepare`` normalises a view before the net sees it.

    Raises:
        ValueError: unknown protocol, or a net that has no fully convolutional form.
    """
    if protocol == "multi-scale":
        if not hasattr(net, "forward_dense"):
            raise ValueError(f"{type(net).__name__} has no fully convolutional form")
        dense: DenseNet = net
        return multi_scale(lambda x: dense.forward_dense(prepare(x), geometry.window), geometry)
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol={protocol!r}: expected one of {', '.join(PROTOCOLS)}")
    make = one_crop if protocol == "1-crop" else ten_crop
    return make(lambda x: net(prepare(x)), geometry)


def protocol_name(protocol: str, nets: int) -> str:
    """What is stored with a number: ``10-crop``, ``ensemble of 6, multi-scale``."""
    return protocol if nets == 1 else f"ensemble of {nets}, {protocol}"


def _views(protocol: str, shown: Shown, geometry: Geometry) -> Iterable[Tensor]:
    return views_of(protocol, shown, geometry) if isinstance(shown, Tensor) else shown
