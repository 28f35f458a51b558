"""Sizes of nets: parameters, multiply-adds, and the list of layers behind Table 1 and Fig. 3.

Convs and fc are replaced by the shapes they return: weights are not used, wherever they are. As in
the paper, convs and fc are counted (its "FLOPs" are multiply-adds), BN, ReLU, pools and
additions are not. Biases and BN weights are parameters; BN running statistics are not.
"""

import math
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from resnet_repro.models.blocks import on_shortcut


@dataclass(frozen=True)
class Layer:
    """One conv or fc, for one image."""

    name: str
    kind: str  # conv | fc
    kernel: int  # side of the window, 1 for fc
    stride: int
    in_channels: int
    out_channels: int
    out_height: int
    out_width: int
    params: int  # weights and bias, without the BN that follows
    multiply_adds: int
    on_shortcut: bool  # a projection or a gate; all others count for the depth


def count_params(model: nn.Module) -> int:
    """Number of learned parameters."""
    return sum(p.numel() for p in model.parameters())


def count_multiply_adds(model: nn.Module, image_size: int) -> int:
    """Multiply-adds of one forward pass of one 3 x image_size x image_size image."""
    return sum(layer.multiply_adds for layer in list_layers(model, image_size))


def list_layers(model: nn.Module, image_size: int) -> list[Layer]:
    """All convs and fc of ``model`` in the order of computation, with their sizes."""
    layers: list[Layer] = []
    replaced: list[nn.Module] = []
    try:
        for name, module in model.named_modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.forward = partial(_record, layers, name, module)  # type: ignore[method-assign]
                replaced.append(module)
            elif isinstance(module, _BatchNorm | nn.ReLU):  # no layers of the list
                module.forward = lambda x: x  # type: ignore[method-assign,assignment]
                replaced.append(module)
        with torch.no_grad():
            model(torch.empty(1, 3, image_size, image_size))
    finally:
        for module in replaced:
            del module.forward
    return layers


def conv_bn_layers(model: nn.Module) -> list[tuple[str, nn.Conv2d, nn.BatchNorm2d]]:
    """3x3 convs of the main path, by name, with the BN that follows, in the order of computation.

    The stem comes first, also where it is 7x7 (ImageNet family); a CIFAR net has 6n+1 entries,
    the layers of Fig. 7. The response of a layer is the output of its BN: before ReLU and addition
    (Sec. 4.2, "Analysis of Layer Responses"). ValueError: there is no conv followed by BN.
    """
    layers = [
        (f"{prefix}.{name}" if prefix else name, conv, bn)
        for prefix, parent in model.named_modules()
        if not on_shortcut(prefix)
        for (name, conv), (_, bn) in pairwise(parent.named_children())
        if isinstance(conv, nn.Conv2d) and isinstance(bn, nn.BatchNorm2d)
    ]
    if not layers:
        raise ValueError(f"{type(model).__name__} has no conv followed by BN")
    return layers[:1] + [entry for entry in layers[1:] if entry[1].kernel_size == (3, 3)]


def _record(layers: list[Layer], name: str, module: nn.Conv2d | nn.Linear, x: Tensor) -> Tensor:
    """Add a layer to the list; return a map of the shape that it returns."""
    channels_out, channels_in = module.weight.shape[:2]
    kind, kernel, stride, height, width = "fc", 1, 1, 1, 1
    out = x.new_empty(1, channels_out)
    if isinstance(module, nn.Conv2d):
        kind, kernel, stride = "conv", module.kernel_size[0], module.stride[0]
        window = x.new_empty(1, 1, *module.kernel_size)  # of a single channel: its map is enough
        single = F.conv2d(x[:, :1], window, None, module.stride, module.padding, module.dilation)
        height, width = single.shape[2:]
        out = x.new_empty(1, channels_out, height, width)
    adds = math.prod(module.weight.shape) * height * width
    sizes = (kernel, stride, channels_in, channels_out, height, width)
    layers.append(Layer(name, kind, *sizes, count_params(module), adds, on_shortcut(name)))
    return out
