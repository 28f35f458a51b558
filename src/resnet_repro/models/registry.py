"""Make a net from plain arguments: the keys of the configuration's ``model`` group."""

from __future__ import annotations

from functools import partial

import torch

from resnet_repro.models.blocks import BasicBlock, BlockFactory, Bottleneck
from resnet_repro.models.cifar import CifarNet
from resnet_repro.models.imagenet import ImageNetNet
from resnet_repro.models.init import init_weights
from resnet_repro.models.norm import make_norm
from resnet_repro.models.rules import BOTTLENECK_DEPTHS, check_net
from resnet_repro.models.shortcuts import make_shortcut


def build(
    family: str,
    depth: int,
    shortcut: str,
    *,
    num_classes: int,
    zero_pad: str = "end",
    layers_per_block: int = 2,
    init: str = "he_fan_in",
    bn_eps: float = 1e-5,
    bn_momentum: float = 0.1,
    bn_group: int = 0,
    stride_in: str = "1x1",
    gate_bias: float = -2.0,
    seed: int = 0,
) -> CifarNet | ImageNetNet:
    """Return a net on the CPU, float32, in training mode; its weights depend on ``seed`` alone.

    Torch's global generator is neither used nor moved.

    Args:
        family: ``cifar`` or ``imagenet``.
        depth: 6n+2 for ``cifar``; 18, 34, 50, 101, 152 for ``imagenet``.
        shortcut: ``none`` (plain net), ``A``, ``B``, ``C``, or ``gate`` (``cifar`` only).
        num_classes: outputs of the fc.
        zero_pad: where A and gate put new zero channels, ``end`` or ``both``.
        layers_per_block: 1, 2 or 3 3x3 convs in a block of a CIFAR net.
        init: ``he_fan_in`` or ``he_fan_out``.
        bn_eps: added to the variance.
        bn_momentum: weight of the new batch in the running statistics.
        bn_group: images that share BN statistics in training; 0 is the whole batch.
        stride_in: the conv of a bottleneck that has the stride, ``1x1`` or ``3x3``.
        gate_bias: start of a gate's bias.
        seed: of the weights.

    Raises:
        ValueError: a net that does not exist, or a setting that it would ignore.
    """
    net = build_meta(
        family,
        depth,
        shortcut,
        num_classes=num_classes,
        zero_pad=zero_pad,
        layers_per_block=layers_per_block,
        bn_eps=bn_eps,
        bn_momentum=bn_momentum,
        bn_group=bn_group,
        stride_in=stride_in,
        gate_bias=gate_bias,
    )
    net.to_empty(device="cpu")
    init_weights(net, init, generator=torch.Generator().manual_seed(seed))
    return net


def build_meta(
    family: str,
    depth: int,
    shortcut: str,
    *,
    num_classes: int,
    zero_pad: str = "end",
    layers_per_block: int = 2,
    bn_eps: float = 1e-5,
    bn_momentum: float = 0.1,
    bn_group: int = 0,
    stride_in: str = "1x1",
    gate_bias: float = -2.0,
) -> CifarNet | ImageNetNet:
    """Return the same net on the meta device: shapes without weights, to count and to list.

    Raises:
        ValueError: as :func:`build`.
    """
    check_net(
        family,
        depth,
        shortcut,
        layers_per_block=layers_per_block,
        zero_pad=zero_pad,
        bn_eps=bn_eps,
        bn_momentum=bn_momentum,
        bn_group=bn_group,
        stride_in=stride_in,
        gate_bias=gate_bias,
    )
    if num_classes < 1:
        raise ValueError(f"num_classes={num_classes}: must be at least 1")
    norm = make_norm(bn_eps, bn_momentum, bn_group)
    joins = partial(make_shortcut, shortcut, norm=norm, zero_pad=zero_pad, gate_bias=gate_bias)
    block: BlockFactory
    if family == "imagenet" and depth in BOTTLENECK_DEPTHS:
        block = partial(Bottleneck, shortcut=joins, norm=norm, stride_in=stride_in)
    else:
        block = partial(BasicBlock, shortcut=joins, norm=norm, layers=layers_per_block)
    net: CifarNet | ImageNetNet
    with torch.device("meta"):
        if family == "imagenet":
            net = ImageNetNet(depth, block=block, norm=norm, num_classes=num_classes)
        else:
            net = CifarNet(
                depth,
                block=block,
                norm=norm,
                num_classes=num_classes,
                layers_per_block=layers_per_block,
            )
    return net.float()  # whatever torch's default dtype is
