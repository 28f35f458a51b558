"""Weights at the start: He normal (the paper's reference [13]), from a generator of its own."""

from __future__ import annotations

import math

import torch
from torch import nn

from resnet_repro.models.blocks import on_shortcut
from resnet_repro.models.shortcuts import GatedShortcut


def init_weights(model: nn.Module, init: str, *, generator: torch.Generator) -> None:
    """Fill all weights and BN statistics of ``model`` (CPU) in place.

    Convs and the fc: normal, mean 0, std sqrt(2 / n), n the inputs (``he_fan_in``) or the outputs
    (``he_fan_out``) that one weight connects to: k * k * channels. Biases 0, a gate's bias its
    ``gate_bias``. BN: weight 1, bias 0, running mean 0 and variance 1.

    The main path is drawn before the shortcuts, so that of one seed plain net, options A, B, C
    and the gated net start with the same convs and fc.

    Raises:
        ValueError: unknown ``init``.
    """
    if init not in ("he_fan_in", "he_fan_out"):
        raise ValueError(f"init={init!r}: expected he_fan_in or he_fan_out")
    named = list(model.named_modules())
    main = [module for name, module in named if not on_shortcut(name)]
    rest = [module for name, module in named if on_shortcut(name)]
    for module in main + rest:
        if isinstance(module, nn.Conv2d | nn.Linear):
            _he_normal(module, init, generator)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
    for module in rest:
        if isinstance(module, GatedShortcut) and module.gate.bias is not None:
            nn.init.constant_(module.gate.bias, module.gate_bias)


def _he_normal(layer: nn.Conv2d | nn.Linear, init: str, generator: torch.Generator) -> None:
    window = math.prod(layer.weight.shape[2:])  # 1 for the fc
    channels = layer.weight.shape[1] if init == "he_fan_in" else layer.weight.shape[0]
    with torch.no_grad():
        layer.weight.normal_(0.0, math.sqrt(2.0 / (channels * window)), generator=generator)
        if layer.bias is not None:
            layer.bias.zero_()
