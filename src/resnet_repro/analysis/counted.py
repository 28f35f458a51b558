"""The nets' layers and sizes as counted by :mod:`resnet_repro.architecture`, read from its CSVs."""

import re
from dataclasses import dataclass, fields, replace
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import TypeVar

import pandas as pd

from resnet_repro.paths import REPOSITORY

COUNTED_DIR = REPOSITORY / "results" / "architecture"
Counted = TypeVar("Counted", "CountedLayer", "CountedNet")


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
    repeats: int  # of its block, in the file

    @property
    def block(self) -> str:
        """``stage2.0`` of ``stage2.0.residual.conv1``; empty outside a block."""
        match = re.match(r"stage\d+\.\d+", self.layer)
        return match[0] if match else ""


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

    family: str  # imagenet | vgg | cifar
    net: str
    depth: int
    shortcut: str
    image_size: int
    params: int
    multiply_adds: int


@cache
def _table(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, keep_default_na=False)


def _of(kind: type[Counted], table: pd.DataFrame) -> list[Counted]:
    columns = [field.name for field in fields(kind)]
    return [kind(*row) for row in table[columns].itertuples(index=False)]


def nets() -> list[CountedNet]:
    """All nets in their order."""
    return _of(CountedNet, _table(COUNTED_DIR / "summary.csv"))


def net(label: str) -> CountedNet:
    """One net by its label; a KeyError names those that were counted."""
    known = {net.net: net for net in nets()}
    if label not in known:
        raise KeyError(f"{label!r} was not counted; there are {', '.join(known)}")
    return known[label]


def layers(label: str) -> list[CountedLayer]:
    """All layers of a net in the order of computation, folded blocks unfolded."""
    net(label)
    table = _table(COUNTED_DIR / "layers.csv")
    folded = _of(CountedLayer, table[table["net"] == label].astype({"on_shortcut": bool}))
    found: list[CountedLayer] = []
    for block, group in groupby(folded, key=lambda layer: layer.block or layer.layer):
        same = list(group)
        stage, _, first = block.partition(".")
        for number in range(same[0].repeats):
            name = f"{stage}.{int(first) + number}" if same[0].block else block
            found += [replace(y, layer=y.layer.replace(block, name, 1)) for y in same]
    return found


def blocks(label: str) -> list[CountedBlock]:
    """The blocks of a net in order; empty for VGG."""
    found = []
    for name, group in groupby((x for x in layers(label) if x.block), lambda x: x.block):
        inside = list(group)
        main = tuple(layer for layer in inside if not layer.on_shortcut)
        projection = next((layer for layer in inside if layer.on_shortcut), None)
        found.append(CountedBlock(name, main, projection))
    return found


def pool_before(layer: CountedLayer, size: int) -> bool:
    """Whether a pool lies between a map of ``size`` pixels a side and a conv or fc.

    The lists hold convs and fc alone; a pool shows in a map that shrinks by more than the stride.
    """
    if layer.kind == "fc":
        return size > 1
    return layer.out_size * layer.stride < size
