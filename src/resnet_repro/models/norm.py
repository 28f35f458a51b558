"""Batch normalisation, and the emulation of BN over several devices on one."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NormFactory = Callable[[int], nn.BatchNorm2d]


class GroupedBatchNorm2d(nn.BatchNorm2d):
    """BN in which each ``group`` consecutive images of the batch have statistics of their own.

    In training a batch of 128 with ``group=64`` is normalised as two devices with 64 images each
    would do it (the paper's CIFAR set-up: 2 x 64; ImageNet: 8 x 32). In evaluation it is
    ``nn.BatchNorm2d``, and so are the keys of its state dict.

    Running statistics, of which every device would keep its own, move by the mean over the groups:
    in expectation those of one device (the variance is the one *within* a group), and unlike the
    first device's they do not favour the images that stand first in the batch.
    """

    def __init__(self, num_features: int, group: int, *, eps: float, momentum: float) -> None:
        super().__init__(num_features, eps=eps, momentum=momentum)
        self.group = group

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (N, C, H, W); ValueError: N is no multiple of ``group`` in training."""
        if not self.training:
            return super().forward(input)
        if input.shape[0] % self.group:
            raise ValueError(
                f"a batch of {input.shape[0]} images cannot be cut into BN groups of {self.group}"
            )
        mean, var, seen = self.running_mean, self.running_var, self.num_batches_tracked
        assert mean is not None
        assert var is not None
        assert seen is not None
        seen.add_(1)
        # momentum None is torch's way to ask for a plain average over all batches
        rate = 1.0 / float(seen) if self.momentum is None else self.momentum
        # F.batch_norm moves the statistics that it is given: one copy per group, then their mean.
        moved = [(mean.clone(), var.clone()) for _ in range(input.shape[0] // self.group)]
        out = [
            F.batch_norm(images, m, v, self.weight, self.bias, True, rate, self.eps)
            for images, (m, v) in zip(input.chunk(len(moved)), moved, strict=True)
        ]
        mean.copy_(torch.stack([m for m, _ in moved]).mean(0))
        var.copy_(torch.stack([v for _, v in moved]).mean(0))
        return torch.cat(out)


def make_norm(eps: float = 1e-5, momentum: float = 0.1, group: int = 0) -> NormFactory:
    """Return channels -> BN layer; ``group`` > 0 gives each group of images its own statistics.

    ``momentum`` is PyTorch's, the weight of the new batch; Caffe's fraction is one minus it.
    """

    def norm(channels: int) -> nn.BatchNorm2d:
        if group:
            return GroupedBatchNorm2d(channels, group, eps=eps, momentum=momentum)
        return nn.BatchNorm2d(channels, eps=eps, momentum=momentum)

    return norm
