"""The nets as data: ``python -m resnet_repro.architecture`` counts them into two CSV files.

Figures and tables never import torch, so what they show of an architecture (Table 1, Figs. 2, 3
and 5, the costs) is counted here on the meta device and committed:

``layers.csv``
    One row per conv or fc of every net in the order of computation. Equal blocks that follow
    each other stand there once: ``repeats`` is their number, ``layer`` names the first of them.
``summary.csv``
    One row per net: weighted layers on the main path (the depth), convs on shortcuts, learned
    parameters (BN included), multiply-adds of one image.

ImageNet nets take 224x224 images and tell 1000 classes apart, CIFAR nets 32x32 and 10.
"""

from __future__ import annotations

import argparse
import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import nn

from resnet_repro.models.counts import Layer, count_params, list_layers
from resnet_repro.models.imagenet import VGG19
from resnet_repro.models.labels import net_label
from resnet_repro.models.registry import build_meta
from resnet_repro.models.rules import BOTTLENECK_DEPTHS, STRIDES_IN
from resnet_repro.runs.atomic import write_text_atomic

FOLDER = Path(__file__).resolve().parents[2] / "results" / "architecture"
IMAGE_SIZE = {"imagenet": 224, "vgg": 224, "cifar": 32}
CLASSES = {"imagenet": 1000, "vgg": 1000, "cifar": 10}
CIFAR_DEPTHS = (20, 32, 44, 56, 110, 1202)


@dataclass(frozen=True)
class Net:
    """One net of the list: how it is called and how it is chosen."""

    family: str  # imagenet | vgg | cifar
    label: str
    depth: int
    shortcut: str
    stride_in: str = "1x1"  # of bottlenecks: the conv that has the stride

    def build(self) -> nn.Module:
        """Make the net on the meta device."""
        if self.family == "vgg":
            with torch.device("meta"):
                return VGG19(CLASSES["vgg"])
        return build_meta(
            self.family,
            self.depth,
            self.shortcut,
            num_classes=CLASSES[self.family],
            stride_in=self.stride_in,
        )


def nets() -> list[Net]:
    """Every net that is counted: those of Tables 1 to 3, VGG-19 of Fig. 3, those of Table 6.

    Bottleneck nets with either place of the stride, CIFAR nets with each shortcut. Nobody has
    trained a plain net of 1202 layers.
    """
    shallow = [(18, kind) for kind in ("none", "A", "B", "C")]
    shallow += [(34, kind) for kind in ("none", "A", "B", "C")]
    found = [Net("vgg", "VGG-19", 19, "none")]
    found += [_net("imagenet", depth, kind) for depth, kind in shallow]
    found += [
        _net("imagenet", depth, "B", stride_in=place)
        for place in STRIDES_IN
        for depth in BOTTLENECK_DEPTHS
    ]
    found += [_net("cifar", depth, "none") for depth in CIFAR_DEPTHS[:-1]]
    found += [_net("cifar", depth, kind) for depth in CIFAR_DEPTHS for kind in ("A", "B", "C")]
    return found


def _net(family: str, depth: int, shortcut: str, stride_in: str = "1x1") -> Net:
    label = net_label(family, depth, shortcut, stride_in=stride_in)
    return Net(family, label, depth, shortcut, stride_in)


def layer_rows(net: Net, layers: list[Layer]) -> Iterator[dict[str, Any]]:
    """Rows of ``layers.csv`` for one net; equal neighbouring blocks are folded into one."""
    blocks = [list(group) for _, group in groupby(layers, key=lambda layer: _block(layer.name))]
    for _, group in groupby(blocks, key=_shape):
        same = list(group)
        for layer in same[0]:
            yield {
                "family": net.family,
                "net": net.label,
                "layer": layer.name,
                "repeats": len(same),
                "kind": layer.kind,
                "kernel": layer.kernel,
                "stride": layer.stride,
                "in_channels": layer.in_channels,
                "out_channels": layer.out_channels,
                "out_size": layer.out_height,
                "params": layer.params,
                "multiply_adds": layer.multiply_adds,
                "on_shortcut": int(layer.on_shortcut),
            }


def _block(name: str) -> str:
    """``stage2.0`` of ``stage2.0.residual.conv1``; a layer outside a block stands alone."""
    match = re.match(r"stage\d+\.\d+\.", name)
    return match[0] if match else name


def _shape(block: list[Layer]) -> tuple[object, ...]:
    """Return what blocks must share to be folded: all of their layers but the block's number."""
    stage = block[0].name.split(".")[0] if _block(block[0].name) != block[0].name else None
    if stage is None:
        return (block[0].name,)
    return stage, *(
        (layer.name.removeprefix(_block(layer.name)), *list(vars(layer).values())[1:])
        for layer in block
    )


def drop_norms(model: nn.Module) -> nn.Module:
    """Take BN out of a net that is only to be listed.

    BN is no layer of the list, and its shapes take most of the time of 1202 layers.
    """
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, nn.Identity())
    return model


def summary_row(net: Net, params: int, layers: list[Layer]) -> dict[str, Any]:
    """Row of ``summary.csv`` for one net."""
    return {
        "family": net.family,
        "net": net.label,
        "depth": net.depth,
        "shortcut": net.shortcut,
        "stride_in": net.stride_in if net.depth in BOTTLENECK_DEPTHS else "",
        "image_size": IMAGE_SIZE[net.family],
        "classes": CLASSES[net.family],
        "weighted_layers": sum(not layer.on_shortcut for layer in layers),
        "shortcut_convs": sum(layer.on_shortcut for layer in layers),
        "params": params,
        "multiply_adds": sum(layer.multiply_adds for layer in layers),
    }


def write(folder: Path = FOLDER) -> list[Path]:
    """Count every net and write ``layers.csv`` and ``summary.csv``; return their paths."""
    layers, summary = [], []
    for net in nets():
        model = net.build()
        params = count_params(model)
        listed = list_layers(drop_norms(model), IMAGE_SIZE[net.family])
        layers += list(layer_rows(net, listed))
        summary.append(summary_row(net, params, listed))
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for stem, rows in (("layers", layers), ("summary", summary)):
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text_atomic(folder / f"{stem}.csv", text.getvalue())
        paths.append(folder / f"{stem}.csv")
    return paths


def main() -> None:
    """Write the files where the command line says."""
    parser = argparse.ArgumentParser(description="Count the nets into layers.csv and summary.csv.")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the two files")
    for path in write(parser.parse_args().out):
        print(path)


if __name__ == "__main__":
    main()
