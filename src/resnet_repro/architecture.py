"""The nets as data: ``python -m resnet_repro.architecture`` counts them into two CSV files.

Figures and tables never import torch, so what they show of an architecture (Table 1, Figs. 2, 3
and 5, the costs) is counted here on the meta device and committed:

``layers.csv``
    One row per conv or fc of every net in the order of computation. Consecutive equal blocks
    share their rows: ``repeats`` is their number, ``layer`` names the first of them.
``summary.csv``
    One row per net: weighted layers on the main path (the depth), convs on shortcuts, learned
    parameters (BN included), multiply-adds of one image.

ImageNet nets take 224x224 images and have 1000 classes, CIFAR nets 32x32 and 10.
"""

import argparse
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from resnet_repro import paths
from resnet_repro.models.build import build_meta
from resnet_repro.models.count import Layer, count_params, list_layers
from resnet_repro.models.nets import vgg19
from resnet_repro.models.spec import BOTTLENECK_DEPTHS, NetSpec
from resnet_repro.runs.atomic import write_text_atomic

FOLDER = paths.REPOSITORY / "results" / "architecture"
IMAGE_SIZE = {"imagenet": 224, "vgg": 224, "cifar": 32}
CLASSES = {"imagenet": 1000, "vgg": 1000, "cifar": 10}
CIFAR_DEPTHS = (20, 32, 44, 56, 110, 1202)


@dataclass(frozen=True)
class Net:
    """One net of the list; without a spec it is VGG-19."""

    family: str
    label: str
    spec: NetSpec | None = None

    def build(self) -> nn.Module:
        """Make the net on the meta device."""
        if self.spec is None:
            with torch.device("meta"):
                return vgg19()
        return build_meta(self.spec, CLASSES[self.family])


def nets() -> list[Net]:
    """List the nets to count: those of Tables 1 to 3, VGG-19 of Fig. 3, those of Table 6.

    Bottleneck nets with either place of the stride, CIFAR nets with each shortcut. No plain net
    of 1202 layers was ever trained.
    """
    specs = [
        NetSpec("imagenet", depth, kind) for depth in (18, 34) for kind in ["none", "A", "B", "C"]
    ]
    specs += [
        NetSpec("imagenet", depth, "B", stride_in=place)
        for place in ("1x1", "3x3")
        for depth in BOTTLENECK_DEPTHS
    ]
    specs += [NetSpec("cifar", depth, "none") for depth in CIFAR_DEPTHS[:-1]]
    specs += [NetSpec("cifar", depth, kind) for depth in CIFAR_DEPTHS for kind in "ABC"]
    return [Net("vgg", "VGG-19"), *(Net(spec.family, spec.label, spec) for spec in specs)]


def layer_rows(net: Net, layers: list[Layer]) -> Iterator[dict[str, Any]]:
    """Rows of ``layers.csv`` for one net; equal neighbouring blocks are folded into one."""
    blocks = [list(group) for _, group in groupby(layers, key=lambda layer: _block(layer.name))]
    for _, group in groupby(blocks, key=_shape):
        same = list(group)
        for layer in same[0]:
            row: dict[str, Any] = {"family": net.family, "net": net.label, "layer": layer.name}
            row |= {"repeats": len(same), **asdict(layer), "on_shortcut": int(layer.on_shortcut)}
            yield row


def _block(name: str) -> str:
    """``stage2.0`` of ``stage2.0.residual.conv1``; the layer itself outside a block."""
    match = re.match(r"stage\d+\.\d+", name)
    return match[0] if match else name


def _shape(block: list[Layer]) -> list[Layer]:
    """Return what equal blocks share: stage and layers, but not the block's number."""
    return [replace(layer, name=re.sub(r"^(stage\d+)\.\d+", r"\1", layer.name)) for layer in block]


def summary_row(net: Net, params: int, layers: list[Layer]) -> dict[str, Any]:
    """Row of ``summary.csv`` for one net."""
    return {
        "family": net.family,
        "net": net.label,
        "depth": net.spec.depth if net.spec else 19,
        "shortcut": net.spec.shortcut if net.spec else "none",
        "stride_in": net.spec.stride_in if net.spec and net.spec.has_bottlenecks else "",
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
        listed = list_layers(model, IMAGE_SIZE[net.family])
        layers += list(layer_rows(net, listed))
        summary.append(summary_row(net, count_params(model), listed))
    # Maps are square.
    frame = pd.DataFrame(layers).drop(columns=["name", "out_width"])
    frame = frame.rename(columns={"out_height": "out_size"})
    tables = {folder / "layers.csv": frame, folder / "summary.csv": pd.DataFrame(summary)}
    folder.mkdir(parents=True, exist_ok=True)
    for path, table in tables.items():
        write_text_atomic(path, table.to_csv(index=False, lineterminator="\n"))
    return list(tables)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Count the nets into layers.csv and summary.csv.")
    parser.add_argument("--out", type=paths.expand, default=FOLDER, help="folder of the two files")
    for path in write(parser.parse_args().out):
        print(path)


if __name__ == "__main__":
    main()
