"""The two families of nets (Sec. 3.3, 4.2), and VGG-19 for the comparison of Fig. 3."""

from collections import OrderedDict

from torch import Tensor, nn

from resnet_repro.models.blocks import (
    Block,
    Head,
    NormFactory,
    basic_convs,
    bottleneck_convs,
    make_norm,
)
from resnet_repro.models.shortcuts import make_shortcut
from resnet_repro.models.spec import NetSpec


class StagedNet(nn.Sequential):
    """Stem, stages and head: images (N, 3, H, W), float, of any size to class scores.

    The CIFAR family (Sec. 4.2) has 6n+2 layers, plain, residual or gated: a 3x3 stem of 16 filters,
    three stages of 2n 3x3 convs of 16, 32, 64 filters at 32, 16, 8 pixels of images of 32x32.

    The ImageNet family (Sec. 3.3, Table 1), plain and ResNet-18 to 152, has a 7x7 stem with max
    pool and four stages (conv2_x to conv5_x), and images of 224x224 in the paper's training. The
    stem's pool has one pixel of padding, as torchvision's. Caffe's, in the authors' release, has
    none and rounds the size up: the same 56x56 map with windows shifted by one pixel.
    """

    head: Head

    def __init__(self, spec: NetSpec, num_classes: int) -> None:
        norm = make_norm(spec.bn_eps, spec.bn_momentum, spec.bn_group)
        stem: OrderedDict[str, nn.Module] = OrderedDict()
        if spec.family == "cifar":
            channels, widths = 16, [16, 32, 64]
            stem["conv"] = nn.Conv2d(3, channels, 3, padding=1, bias=False)
        else:
            channels, widths = 64, [64, 128, 256, 512]
            stem["conv"] = nn.Conv2d(3, channels, 7, stride=2, padding=3, bias=False)
        stem |= {"bn": norm(channels), "relu": nn.ReLU()}
        if spec.family == "imagenet":
            stem["pool"] = nn.MaxPool2d(3, stride=2, padding=1)
        parts: OrderedDict[str, nn.Module] = OrderedDict(stem=nn.Sequential(stem))
        for number, blocks in enumerate(spec.blocks_per_stage):
            width = widths[number] * (4 if spec.has_bottlenecks else 1)
            stride = 2 if number else 1  # of the first block, which changes width and size
            first = _block(spec, norm, channels, width, stride)
            rest = (_block(spec, norm, width, width, 1) for _ in range(blocks - 1))
            parts[f"stage{number + 1}"] = nn.Sequential(first, *rest)
            channels = width
        parts["head"] = Head(channels, num_classes)
        super().__init__(parts)

    def features(self, x: Tensor) -> Tensor:
        """Last feature map, (N, C, H/4, W/4) or, ImageNet family, (N, C, H/32, W/32) rounded up."""
        for part in self:
            if part is not self.head:
                x = part(x)
        return x

    def forward_dense(self, x: Tensor, window: int = 7) -> Tensor:
        """Class scores of the fully convolutional form (Sec. 3.4), (N, num_classes).

        Each ``window`` x ``window`` part of the last map is scored as a training crop would be,
        and the scores are averaged; on a 224x224 image that is the crop form. ``window`` is the
        side of the map in training: 7 for crops of 224, 2 for images of 64. ValueError: the image
        is too small for one window.
        """
        return self.head.score_map(self.features(x), window).mean((2, 3))


def _block(
    spec: NetSpec, norm: NormFactory, in_channels: int, out_channels: int, stride: int
) -> Block:
    sizes = (in_channels, out_channels, stride)
    if spec.has_bottlenecks:
        convs = bottleneck_convs(*sizes, stride_in=spec.stride_in)
    else:
        convs = basic_convs(*sizes, layers=spec.layers_per_block)
    return Block(convs, norm, make_shortcut(spec, *sizes, norm))


def vgg19() -> nn.Sequential:
    """VGG-19 (Fig. 3 left) at 224x224, only to compare its size: build it on the meta device."""
    from torchvision import models

    net = models.vgg19(init_weights=False)
    layers = [layer for layer in net.classifier if not isinstance(layer, nn.Dropout)]
    head = nn.Sequential(nn.Flatten(), *layers)
    return nn.Sequential(OrderedDict(features=net.features, head=head))
