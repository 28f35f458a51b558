"""The two families of nets (Sec. 3.3, 4.2), and VGG-19 for the comparison of Fig. 3."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from resnet_repro.models.blocks import BlockFactory, Head, NormFactory, make_stage
from resnet_repro.models.spec import NetSpec


class CifarNet(nn.Module):
    """The CIFAR family (Sec. 4.2): 6n+2 layers, plain, residual or gated.

    3x3 stem of 16 filters; three stages of 2n 3x3 convs of 16, 32, 64 filters at 32, 16, 8 pixels;
    head. Images (N, 3, H, W), float, 32x32 in the paper, to class scores (N, num_classes).
    """

    def __init__(
        self, spec: NetSpec, *, block: BlockFactory, norm: NormFactory, num_classes: int
    ) -> None:
        super().__init__()
        blocks = spec.blocks_per_stage
        self.stem = nn.Sequential(
            OrderedDict(
                conv=nn.Conv2d(3, 16, 3, padding=1, bias=False), bn=norm(16), relu=nn.ReLU()
            )
        )
        self.stage1 = make_stage(block, blocks[0], 16, 16, stride=1)
        self.stage2 = make_stage(block, blocks[1], 16, 32, stride=2)
        self.stage3 = make_stage(block, blocks[2], 32, 64, stride=2)
        self.head = Head(64, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores of images."""
        scores: Tensor = self.head(self.stage3(self.stage2(self.stage1(self.stem(x)))))
        return scores


class ImageNetNet(nn.Module):
    """The ImageNet family (Sec. 3.3, Table 1): plain and ResNet-18 to 152.

    7x7 stem with max pool, four stages (conv2_x to conv5_x), head. Images (N, 3, H, W), float, of
    any size, 224x224 in the paper's training, to class scores (N, num_classes).

    The stem's pool has one pixel of padding, as torchvision's. Caffe's, in the authors' release,
    has none and rounds the size up: the same 56x56 map with windows shifted by one pixel.
    """

    def __init__(
        self, spec: NetSpec, *, block: BlockFactory, norm: NormFactory, num_classes: int
    ) -> None:
        super().__init__()
        blocks = spec.blocks_per_stage
        widths = [256, 512, 1024, 2048] if spec.has_bottlenecks else [64, 128, 256, 512]
        self.stem = nn.Sequential(
            OrderedDict(
                conv=nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False),
                bn=norm(64),
                relu=nn.ReLU(),
                pool=nn.MaxPool2d(3, stride=2, padding=1),
            )
        )
        self.stage1 = make_stage(block, blocks[0], 64, widths[0], stride=1)
        self.stage2 = make_stage(block, blocks[1], widths[0], widths[1], stride=2)
        self.stage3 = make_stage(block, blocks[2], widths[1], widths[2], stride=2)
        self.stage4 = make_stage(block, blocks[3], widths[2], widths[3], stride=2)
        self.head = Head(widths[3], num_classes)

    def features(self, x: Tensor) -> Tensor:
        """Last feature map, (N, C, H/32, W/32) rounded up."""
        maps: Tensor = self.stage4(self.stage3(self.stage2(self.stage1(self.stem(x)))))
        return maps

    def forward(self, x: Tensor) -> Tensor:
        """Class scores from the pool over the whole map: the crop form."""
        scores: Tensor = self.head(self.features(x))
        return scores

    def forward_dense(self, x: Tensor, window: int = 7) -> Tensor:
        """Class scores of the fully convolutional form (Sec. 3.4), (N, num_classes).

        Each ``window`` x ``window`` part of the last map is scored as a training crop would be,
        and the scores are averaged; on a 224x224 image that is :meth:`forward`. ``window`` is the
        side of the map in training: 7 for crops of 224, 2 for images of 64. ValueError: the image
        is too small for one window.
        """
        return self.head.score_map(self.features(x), window).mean((2, 3))


class VGG19(nn.Module):
    """VGG-19 (Fig. 3 left) at 224x224, only to compare its size: build it on the meta device."""

    STAGES = ((2, 64), (2, 128), (4, 256), (4, 512), (4, 512))  # 3x3 convs, filters

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for convs, width in self.STAGES:
            for _ in range(convs):
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.Flatten(),
            *(nn.Linear(512 * 7 * 7, 4096), nn.ReLU()),
            *(nn.Linear(4096, 4096), nn.ReLU()),
            nn.Linear(4096, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 224, 224) -> (N, num_classes)."""
        scores: Tensor = self.head(self.features(x))
        return scores
