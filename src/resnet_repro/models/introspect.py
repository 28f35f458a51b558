"""Which layers the probes look at (Sec. 4.2, "Analysis of Layer Responses")."""

from __future__ import annotations

from itertools import pairwise

from torch import nn

from resnet_repro.models.blocks import on_shortcut


def conv_bn_layers(model: nn.Module) -> list[tuple[str, nn.Conv2d, nn.BatchNorm2d]]:
    """3x3 convs of the main path with the BN that follows, in the order of computation.

    The stem comes first, also where it is 7x7 (ImageNet family); a CIFAR net has 6n+1 entries,
    the layers of Fig. 7. Names are those of the convs. The response of a layer is the output of
    its BN: before ReLU and addition.

    Raises:
        ValueError: ``model`` has no conv followed by BN.
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
