"""Batch norm, blocks (Fig. 2 and 5) and the head.

No ReLU works in place: the probes read BN outputs, and no memory would be saved, since autograd
keeps the ReLU's result rather than its input.
"""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NormFactory = Callable[[int], nn.BatchNorm2d]  # channels


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
        own: Any = self  # its statistics are tracked
        mean, var = own.running_mean, own.running_var
        own.num_batches_tracked.add_(1)
        # F.batch_norm moves the statistics that it is given: one copy per group, then their mean.
        moved = [(mean.clone(), var.clone()) for _ in range(input.shape[0] // self.group)]
        out = [
            F.batch_norm(images, m, v, self.weight, self.bias, True, own.momentum, self.eps)
            for images, (m, v) in zip(input.chunk(len(moved)), moved, strict=True)
        ]
        mean.copy_(torch.stack([m for m, _ in moved]).mean(0))
        var.copy_(torch.stack([v for _, v in moved]).mean(0))
        return torch.cat(out)


def make_norm(eps: float = 1e-5, momentum: float = 0.1, group: int = 0) -> NormFactory:
    """Return channels -> BN layer; ``group`` > 0 gives each group of images its own statistics.

    ``momentum`` is PyTorch's, the weight of the new batch; Caffe's fraction is one minus it.
    """
    if group:
        return partial(GroupedBatchNorm2d, group=group, eps=eps, momentum=momentum)
    return partial(nn.BatchNorm2d, eps=eps, momentum=momentum)


class Block(nn.Module):
    """y = relu(shortcut(x, F(x))). F is ``residual``: each conv with BN, ReLUs between them.

    The last ReLU follows the addition (Sec. 3.2). In a plain net the shortcut returns F(x) alone,
    and the block is just its layers.
    """

    def __init__(self, convs: list[nn.Conv2d], norm: NormFactory, shortcut: nn.Module) -> None:
        super().__init__()
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for number, conv in enumerate(convs, start=1):
            layers[f"conv{number}"] = conv
            layers[f"bn{number}"] = norm(conv.out_channels)
            if number < len(convs):
                layers[f"relu{number}"] = nn.ReLU()
        self.residual = nn.Sequential(layers)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, ceil(H/stride), ceil(W/stride))."""
        joined: Tensor = self.shortcut(x, self.residual(x))
        return F.relu(joined)


def on_shortcut(name: str) -> bool:
    """Whether the module of this dotted name is, or is part of, a block's shortcut."""
    return "shortcut" in name.split(".")


def basic_convs(
    in_channels: int, out_channels: int, stride: int, *, layers: int = 2
) -> list[nn.Conv2d]:
    """3x3 convs (Fig. 5 left), the first with the stride.

    The paper's blocks have two. One ("no observed benefit", Sec. 3.2) and three are for comparison.
    """
    first = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
    rest = (
        nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False) for _ in range(layers - 1)
    )
    return [first, *rest]


def bottleneck_convs(
    in_channels: int, out_channels: int, stride: int, *, stride_in: str = "1x1"
) -> list[nn.Conv2d]:
    """1x1 to a quarter of the width, 3x3, 1x1 back (Fig. 5 right).

    ``stride_in``: which conv has the stride. The first 1x1 is the authors' (their released nets,
    and the only place that fits Table 1's FLOPs); the 3x3 is torchvision's.
    """
    width = out_channels // 4
    first, second = (stride, 1) if stride_in == "1x1" else (1, stride)
    return [
        nn.Conv2d(in_channels, width, 1, stride=first, bias=False),
        nn.Conv2d(width, width, 3, stride=second, padding=1, bias=False),
        nn.Conv2d(width, out_channels, 1, bias=False),
    ]


class Head(nn.Module):
    """Global average pool and fc: (N, C, H, W) -> class scores (N, num_classes), no softmax."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Score a map of any size as a whole."""
        scores: Tensor = self.fc(x.mean((2, 3)))
        return scores

    def score_map(self, x: Tensor, window: int) -> Tensor:
        """Scores of every window x window part, as a sliding crop's; ValueError: a smaller map."""
        height, width = x.shape[-2:]
        if min(height, width) < window:
            raise ValueError(
                f"the last feature map is {height}x{width}, smaller than the pooling window "
                f"{window}: test at a larger scale or set the window of the training size"
            )
        pooled = F.avg_pool2d(x, window, stride=1)
        return F.conv2d(pooled, self.fc.weight[:, :, None, None], self.fc.bias)
