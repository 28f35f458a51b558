"""From a spec to a net with the weights of a seed: He normal (the paper's reference [13])."""

import torch
from torch import nn

from resnet_repro.models.blocks import on_shortcut
from resnet_repro.models.nets import StagedNet
from resnet_repro.models.shortcuts import GatedShortcut
from resnet_repro.models.spec import NetSpec


def build(spec: NetSpec, num_classes: int, seed: int = 0) -> StagedNet:
    """Return a net on the CPU, float32, in training mode; its weights depend on ``seed`` alone.

    Torch's global generator is not moved. ValueError: ``num_classes`` below 1.
    """
    net = build_empty(spec, num_classes)
    init_weights(net, spec.init, generator=torch.Generator().manual_seed(seed))
    return net


def build_empty(spec: NetSpec, num_classes: int) -> StagedNet:
    """Return the same net on the CPU with weights that are not set, to load a state into it."""
    net = build_meta(spec, num_classes)
    # Does what to_empty does, without importing sympy, which takes a second.
    net._apply(lambda tensor: torch.empty(tensor.shape, dtype=tensor.dtype))  # type: ignore[no-untyped-call]
    return net


def build_meta(spec: NetSpec, num_classes: int) -> StagedNet:
    """Return the same net on the meta device, to count and list; ValueError: no classes."""
    if num_classes < 1:
        raise ValueError(f"num_classes={num_classes}: must be at least 1")
    with torch.device("meta"):
        net = StagedNet(spec, num_classes)
    return net.float()  # whatever torch's default dtype is


def init_weights(model: nn.Module, init: str, *, generator: torch.Generator) -> None:
    """Fill all weights and BN statistics of ``model`` (CPU) in place.

    Convs and the fc: normal, mean 0, std sqrt(2 / n), n the inputs (``he_fan_in``) or the outputs
    (``he_fan_out``) that one weight connects to: k * k * channels. Biases 0, a gate's bias its
    ``gate_bias``. BN: weight 1, bias 0, running mean 0 and variance 1.

    The main path is drawn before the shortcuts, so that of one seed plain net, options A, B, C
    and the gated net start with the same convs and fc.
    """
    named = list(model.named_modules())
    main = [module for name, module in named if not on_shortcut(name)]
    rest = [module for name, module in named if on_shortcut(name)]
    for module in main + rest:
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(
                module.weight,
                mode="fan_in" if init == "he_fan_in" else "fan_out",
                nonlinearity="relu",
                generator=generator,
            )
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
    for module in rest:
        if isinstance(module, GatedShortcut) and module.gate.bias is not None:
            nn.init.constant_(module.gate.bias, module.gate_bias)
