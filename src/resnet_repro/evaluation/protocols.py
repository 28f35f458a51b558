"""How held-out images are shown to a net (Sec. 3.4); imports nothing of ours but the crops.

A protocol is a function from images (N, 3, H, W) to class scores (N, classes) float32, to be
given to :func:`resnet_repro.evaluation.counting.count_errors`. Scores that are averages of
softmaxes are returned as their logarithm, whose cross-entropy is that of the average.

===============  ===================================================================================
``1-crop``       the centre
``10-crop``      four corners, centre and their mirrors; softmax averaged for each image
``multi-scale``  fully convolutional at several scales; scores averaged
===============  ===================================================================================

Several nets make an ensemble: their softmaxes are averaged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from resnet_repro.evaluation.crops import centre_crop, resize_shorter, ten_crops

PROTOCOLS = ("1-crop", "10-crop", "multi-scale")
PAPER_SCALES = (224, 256, 384, 480, 640)
STRIDE = 32  # pixels of the image behind one of the last map, ImageNet family

Scorer = Callable[[Tensor], Tensor]


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


def one_crop(forward: Scorer, geometry: Geometry) -> Scorer:
    """Score the central crop alone."""

    def scores(images: Tensor) -> Tensor:
        image = resize_shorter(images, geometry.centre_side)
        return forward(centre_crop(image, geometry.crop)).float()

    return scores


def ten_crop(forward: Scorer, geometry: Geometry) -> Scorer:
    """Average the softmax over the ten views of each image; log of the average (Tables 2, 3)."""

    def scores(images: Tensor) -> Tensor:
        views = ten_crops(resize_shorter(images, geometry.ten_crop_side), geometry.crop)
        return log_mean_softmax(forward(view) for view in views)

    return scores


def multi_scale(dense: Scorer, geometry: Geometry) -> Scorer:
    """Average the fully convolutional scores over the scales (Sec. 3.4, Tables 4 and 5).

    The paper says "average the scores": here they are averaged before the softmax, over positions
    and scales alike, and no mirrors are shown, as it names none.
    """

    def scores(images: Tensor) -> Tensor:
        maps = [dense(resize_shorter(images, side)).float() for side in geometry.scales]
        return torch.stack(maps).mean(0)

    return scores


def ensemble(members: Sequence[Scorer]) -> Scorer:
    """Average the softmax over several nets, each under its own protocol; log of the average."""
    return lambda images: log_mean_softmax(member(images) for member in members)


def log_mean_softmax(scores: Iterable[Tensor]) -> Tensor:
    """Logarithm of the mean of softmaxes, (N, classes) float32.

    Taken in logarithms throughout: a probability that underflows to 0 would make a loss infinite.
    """
    logs = torch.stack([each.float().log_softmax(1) for each in scores])
    return logs.logsumexp(0) - math.log(len(logs))


def scorer(protocol: str, net: Scorer, prepare: Scorer, geometry: Geometry) -> Scorer:
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
