"""The CIFAR family (Sec. 4.2): 6n+2 layers, plain, residual or gated."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from resnet_repro.models.blocks import BlockFactory, Head, make_stage
from resnet_repro.models.norm import NormFactory
from resnet_repro.models.rules import cifar_blocks_per_stage


class CifarNet(nn.Module):
    """3x3 stem of 16 filters; stages of 16, 32, 64 filters at 32, 16, 8 pixels; head.

    Each stage has 2n 3x3 convs, in blocks of ``layers_per_block``. Takes images (N, 3, H, W),
    float, 32x32 in the paper; returns class scores (N, num_classes).

    Raises:
        ValueError: depth is not 6n+2, or its 2n convs do not divide into such blocks.
    """

    def __init__(
        self,
        depth: int,
        *,
        block: BlockFactory,
        norm: NormFactory,
        num_classes: int,
        layers_per_block: int = 2,
    ) -> None:
        super().__init__()
        blocks = cifar_blocks_per_stage(depth, layers_per_block)
        self.stem = nn.Sequential(
            OrderedDict(
                conv=nn.Conv2d(3, 16, 3, padding=1, bias=False), bn=norm(16), relu=nn.ReLU()
            )
        )
        self.stage1 = make_stage(block, blocks, 16, 16, stride=1)
        self.stage2 = make_stage(block, blocks, 16, 32, stride=2)
        self.stage3 = make_stage(block, blocks, 32, 64, stride=2)
        self.head = Head(64, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores of images."""
        x = self.stem(x)
        x = self.stage1(x)
        x = self.stage2(x)
        x = self.stage3(x)
        scores: Tensor = self.head(x)
        return scores
