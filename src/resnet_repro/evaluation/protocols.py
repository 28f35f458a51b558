"""How held-out images are shown to a net (Sec. 3.4), and precise batch norm; imports none of ours.

===============  ===================================================================================
``1-crop``       the centre
``10-crop``      four corners, centre and their mirrors; softmax averaged for each image
``multi-scale``  fully convolutional at several scales; scores averaged
===============  ===================================================================================

A protocol turns images (N, 3, H, W), which need not be square, into *views*, one batch for each
view. A scorer turns the views of N images into class scores (N, classes) float32. Averages of
softmaxes are returned as their logarithm, whose cross-entropy is that of the average.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PAPER_SCALES = (224, 256, 384, 480, 640)
STRIDE = 32  # pixels of the image behind one of the last map, ImageNet family

Views = Sequence[Tensor]  # one of 1-crop, ten of 10-crop, one at each scale of multi-scale
Scorer = Callable[[Views], Tensor]
Prepare = Callable[[Tensor], Tensor]  # pixels (N, 3, H, W), uint8 or 0..1, to a net's input


@dataclass(frozen=True)
class Geometry:
    """Sizes in pixels, by default the paper's for ImageNet."""

    crop: int = 224  # side of a view
    ten_crop_side: int = 256  # shorter side of the image that ten are cut from
    scales: tuple[int, ...] = PAPER_SCALES  # shorter sides of the fully convolutional test
    window: int = 7  # side of the last map in training

    @classmethod
    def of_small_pictures(cls, size: int) -> Geometry:
        """The same for whole pictures, which ``1-crop`` shows as they are (Sec. 4.2)."""
        scales = tuple(round(scale * size / 224) for scale in PAPER_SCALES)
        return cls(size, scales[1], scales, math.ceil(size / STRIDE))


def views_of(protocol: str, images: Tensor, geometry: Geometry) -> list[Tensor]:
    """Resize and cut images (N, 3, H, W), float, into the views of a protocol."""
    if protocol == "1-crop":
        return [images.contiguous(memory_format=torch.channels_last)]
    if protocol == "10-crop":
        return list(ten_crops(resize_shorter(images, geometry.ten_crop_side), geometry.crop))
    return [resize_shorter(images, side) for side in geometry.scales]


def resize_shorter(images: Tensor, side: int) -> Tensor:
    """Scale images so that their shorter side is ``side``: bilinear, with antialiasing."""
    shorter = min(images.shape[-2:])
    if shorter == side:
        return images
    size = [round(length * side / shorter) for length in images.shape[-2:]]
    return F.interpolate(images, size=size, mode="bilinear", antialias=True, align_corners=False)


def ten_crops(images: Tensor, crop: int) -> Iterator[Tensor]:
    """Ten batches of views, each (N, 3, crop, crop): four corners, centre, and their mirrors.

    Corners are those of the full rectangle; the paper does not say whether it means those of a
    central square.
    """
    height, width = images.shape[2] - crop, images.shape[3] - crop  # how far a crop can move
    corners = [(0, 0), (0, width), (height, 0), (height, width), (height // 2, width // 2)]
    for top, left in corners:
        view = images[..., top : top + crop, left : left + crop]
        for shown in (view, view.flip(3)):
            yield shown.contiguous(memory_format=torch.channels_last)


def scorer(protocol: str, net: nn.Module, prepare: Prepare, window: int = 7) -> Scorer:
    """Scores of ``net`` under ``protocol``; ``prepare`` normalises a view before the net sees it.

    ``10-crop`` averages the softmax over the views of each image (Tables 2, 3). ``multi-scale``
    averages the fully convolutional scores before the softmax, over positions and scales alike
    (Sec. 3.4: "average the scores"; Tables 4, 5), without mirrors, as the paper names none.
    """

    def forward(view: Tensor) -> Tensor:
        if protocol != "multi-scale":
            return cast(Tensor, net(prepare(view))).float()
        return cast(Callable[..., Tensor], net.forward_dense)(prepare(view), window).float()

    def scores(views: Views) -> Tensor:
        each = map(forward, views)
        return log_mean_softmax(each) if protocol == "10-crop" else torch.stack([*each]).mean(0)

    return scores


def ensemble(members: Sequence[Scorer]) -> Scorer:
    """Average the softmax over several nets, each under its own protocol; log of the average."""
    if len(members) == 1:
        return members[0]
    return lambda views: log_mean_softmax(member(views) for member in members)


def log_mean_softmax(scores: Iterable[Tensor]) -> Tensor:
    """Logarithm of the mean of softmaxes, (N, classes) float32.

    Taken in logarithms throughout: a probability that underflows to 0 would make a loss infinite.
    """
    logs = torch.stack([each.float().log_softmax(1) for each in scores])
    return logs.logsumexp(0) - math.log(len(logs))


@contextmanager
def precise_bn(model: nn.Module, batches: Iterable[Tensor]) -> Iterator[int]:
    """Let ``model`` test with statistics averaged over ``batches``; then restore its own.

    A running average lags behind the weights; the authors' release averages over a large batch
    after training. Here mean and unbiased variance of every batch under the final weights are
    averaged with equal weight for each image. The batches are prepared training images
    (N, 3, H, W), each of the size used in training: the variance within a batch depends on it.
    In the block the model is in evaluation mode. Yields the number of images averaged over, or
    raises ValueError without any.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    was_training, momenta = model.training, [norm.momentum for norm in norms]
    saved = [(value, value.clone()) for norm in norms for value in norm.buffers()]
    seen = 0
    try:
        model.train()
        with torch.no_grad():
            for images in batches:
                seen += len(images)
                for norm in norms:  # not None: torch would read its counter back from the device
                    norm.momentum = len(images) / seen
                model(images)
        if not seen:
            raise ValueError("precise batch norm needs at least one batch of training images")
        model.eval()
        yield seen
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for value, before in saved:
            value.copy_(before)
        model.train(was_training)
