"""Sizes of nets: parameters, multiply-adds, and the list of layers behind Table 1 and Fig. 3.

Everything is counted on the meta device: no weights are copied, nothing is computed. As in the
paper, convs and fc are counted (its "FLOPs" are multiply-adds), BN, ReLU, pools and additions
are not. Biases and BN weights are parameters; BN running statistics are not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.func import functional_call
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
    hooks = [
        module.register_forward_hook(partial(_append, layers, name))
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    for norm in norms:  # no layer of the list, and its shapes would take most of the time
        norm.forward = _identity  # type: ignore[method-assign,assignment]
    tensors = [*model.named_parameters(), *model.named_buffers()]
    shapes = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors}
    try:
        with torch.no_grad():
            image = torch.empty(1, 3, image_size, image_size, device="meta")
            functional_call(model, shapes, (image,))
    finally:
        for hook in hooks:
            hook.remove()
        for norm in norms:
            del norm.forward
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


def _append(
    layers: list[Layer], name: str, module: nn.Module, _inputs: tuple[Tensor, ...], out: Tensor
) -> None:
    assert isinstance(module, nn.Conv2d | nn.Linear)
    kind, kernel, stride, height, width = "fc", 1, 1, 1, 1
    if isinstance(module, nn.Conv2d):
        kind, kernel, stride = "conv", module.kernel_size[0], module.stride[0]
        height, width = out.shape[2:]
    channels_out, channels_in = module.weight.shape[:2]
    adds = math.prod(module.weight.shape) * height * width
    sizes = (kernel, stride, channels_in, channels_out, height, width)
    layers.append(Layer(name, kind, *sizes, count_params(module), adds, on_shortcut(name)))


def _identity(x: Tensor) -> Tensor:
    return x
