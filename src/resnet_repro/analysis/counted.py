"""The nets' layers and sizes as counted by :mod:`resnet_repro.architecture`, read from its CSVs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from pathlib import Path

import pandas as pd

from resnet_repro.paths import REPOSITORY

COUNTED_DIR = REPOSITORY / "results" / "architecture"


@dataclass(frozen=True)
class CountedLayer:
    """One conv or fc of a net, for one image."""

    layer: str
    kind: str  # conv | fc
    kernel: int
    stride: int
    in_channels: int
    out_channels: int
    out_size: int  # side of the map it returns
    params: int  # weights and bias, without the BN that follows
    multiply_adds: int
    on_shortcut: bool

    @property
    def block(self) -> str:
        """``stage2.0`` of ``stage2.0.residual.conv1``; empty outside a block."""
        match = re.match(r"stage\d+\.\d+", self.layer)
        return match[0] if match else ""

    @property
    def stage(self) -> str:
        """``stage2``; outside a stage the name of the part: ``stem``, ``features``, ``head``."""
        return self.layer.split(".")[0]


@dataclass(frozen=True)
class CountedBlock:
    """A block of a net: the layers of its residual function and, if it has one, its projection."""

    name: str
    main: tuple[CountedLayer, ...]
    projection: CountedLayer | None

    @property
    def changes_shape(self) -> bool:
        """Whether an identity cannot join its ends: the width or the map differs."""
        return (
            any(layer.stride != 1 for layer in self.main)
            or self.main[0].in_channels != self.main[-1].out_channels
        )


@dataclass(frozen=True)
class CountedNet:
    """Sizes of a net, for one image of ``image_size`` pixels a side."""

    family: str
    net: str
    depth: int
    shortcut: str
    image_size: int
    params: int
    multiply_adds: int


class Counted:
    """Access to ``results/architecture``.

    Raises:
        FileNotFoundError: the folder has no such file.
        KeyError: a net that was not counted; the message names those that were.
    """

    def __init__(self, root: Path | str | None = None):
        self.root = Path(root) if root is not None else COUNTED_DIR

    @cached_property
    def _layers(self) -> pd.DataFrame:
        return pd.read_csv(self.root / "layers.csv")

    @cached_property
    def _summary(self) -> pd.DataFrame:
        return pd.read_csv(self.root / "summary.csv", keep_default_na=False)

    def nets(self, family: str | None = None) -> list[CountedNet]:
        """All nets in their order, or those of a family: ``imagenet``, ``vgg``, ``cifar``."""
        table = self._summary
        if family is not None:
            table = table[table["family"] == family]
        return [
            CountedNet(
                str(row["family"]),
                str(row["net"]),
                int(row["depth"]),
                str(row["shortcut"]),
                int(row["image_size"]),
                int(row["params"]),
                int(row["multiply_adds"]),
            )
            for _, row in table.iterrows()
        ]

    def net(self, label: str) -> CountedNet:
        """One net by its label."""
        known = {net.net: net for net in self.nets()}
        if label not in known:
            raise KeyError(f"{label!r} was not counted; there are {', '.join(known)}")
        return known[label]

    def layers(self, label: str) -> list[CountedLayer]:
        """All layers of a net in the order of computation, folded blocks unfolded."""
        self.net(label)
        table = self._layers[self._layers["net"] == label]
        rows = [
            (
                CountedLayer(
                    str(row["layer"]),
                    str(row["kind"]),
                    int(row["kernel"]),
                    int(row["stride"]),
                    int(row["in_channels"]),
                    int(row["out_channels"]),
                    int(row["out_size"]),
                    int(row["params"]),
                    int(row["multiply_adds"]),
                    bool(row["on_shortcut"]),
                ),
                int(row["repeats"]),
            )
            for _, row in table.iterrows()
        ]
        found: list[CountedLayer] = []
        for block, group in groupby(rows, key=lambda row: row[0].block or row[0].layer):
            same = list(group)
            for number in range(same[0][1]):
                found += [_renumbered(layer, block, number) for layer, _ in same]
        return found

    def blocks(self, label: str) -> list[CountedBlock]:
        """The blocks of a net in order; empty for VGG."""
        return blocks_of(self.layers(label))


def blocks_of(layers: Sequence[CountedLayer]) -> list[CountedBlock]:
    """Gather layers into their blocks."""
    found = []
    for name, group in groupby((layer for layer in layers if layer.block), lambda x: x.block):
        inside = list(group)
        main = tuple(layer for layer in inside if not layer.on_shortcut)
        projections = [layer for layer in inside if layer.on_shortcut]
        found.append(CountedBlock(name, main, projections[0] if projections else None))
    return found


def pool_before(layer: CountedLayer, size: int) -> bool:
    """Whether a pool lies between a map of ``size`` pixels a side and a conv or fc.

    The lists hold convs and fc alone; a pool shows in a map that shrinks by more than the stride.
    """
    if layer.kind == "fc":
        return size > 1
    return layer.out_size * layer.stride < size


def _renumbered(layer: CountedLayer, block: str, number: int) -> CountedLayer:
    """The same layer ``number`` blocks further on."""
    if not layer.block:
        return layer
    stage, first = block.split(".")
    rest = layer.layer.removeprefix(block)
    return replace(layer, layer=f"{stage}.{int(first) + number}{rest}")
