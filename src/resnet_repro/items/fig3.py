"""Fig. 3: VGG-19 beside the plain and the residual net of 34 layers, drawn as counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from resnet_repro.analysis import diagram, style
from resnet_repro.analysis.counted import Counted, CountedLayer, pool_before

NETS = ("VGG-19", "plain-34", "ResNet-34 A")
BOX = (1.28, 0.145)  # inches
PITCH = 0.222
COLUMN = 1.72  # from column to column
LEFT = 1.62  # centre of the first column
REACH = 0.92  # of a shortcut from its column's centre
TITLE, FOOT = 0.36, 0.5  # room above and beneath the columns
GAP = 0.1  # between two sizes of map
FONT = 6.4
APART = 0.017  # half the way from where a shortcut ends to where the next begins


@dataclass(frozen=True)
class Cell:
    """One box of a column.

    Attributes:
        size: side of the map it returns.
        block: name of the block it belongs to; empty outside blocks.
    """

    text: str
    size: int
    block: str = ""


def save(out_dir: Path) -> list[Path]:
    """Draw Fig. 3 and write it as ``fig3.png`` and ``fig3.svg``."""
    return style.save(fig3(), "fig3", out_dir)


def fig3(counted: Counted | None = None) -> Figure:
    """Fig. 3: the three nets side by side, maps of one size at one height."""
    counted = counted or Counted()
    columns = {net: cells(counted.layers(net), counted.net(net).image_size) for net in NETS}
    heights, zones, total = _layout(list(columns.values()))
    with style.style():
        figure, axes = diagram.canvas(LEFT + 2 * COLUMN + REACH + 0.3, total + TITLE + FOOT)
        _draw_zones(axes, zones)
        for number, (net, column) in enumerate(columns.items()):
            x = LEFT + number * COLUMN
            places = [heights[cell.size] - PITCH * row for cell, row in _rows(column)]
            _draw_column(axes, x, column, places)
            if counted.net(net).shortcut != "none":
                _draw_shortcuts(axes, x, counted, net, column, places)
            diagram.label(
                axes, (x, total + FOOT + 0.26), net, fontsize=9.5, weight="bold", va="bottom"
            )
            diagram.label(axes, (x, 0.26), _sizes(counted, net), fontsize=7.5, linespacing=1.4)
        style.underneath(figure, _sentences(counted))
    return figure


def cells(layers: Sequence[CountedLayer], image_size: int) -> list[Cell]:
    """Boxes of a net's column: its convs and fcs, and the pools that lie between them."""
    found: list[Cell] = []
    size, channels = image_size, 0
    for layer in layers:
        if layer.on_shortcut:
            continue
        if pool_before(layer, size):
            whole = layer.kind == "fc" and layer.in_channels == channels
            after = layer.out_size * layer.stride if layer.kind == "conv" else size // 2
            found.append(Cell("average pool", 1) if whole else Cell("pool, /2", after))
        text = f"fc {layer.out_channels}"
        if layer.kind == "conv":
            text = f"{layer.kernel}x{layer.kernel} conv, {layer.out_channels}"
            text += f", /{layer.stride}" if layer.stride > 1 else ""
        found.append(Cell(text, layer.out_size, layer.block))
        size, channels = layer.out_size, layer.out_channels
    return found


def _rows(column: Sequence[Cell]) -> list[tuple[Cell, int]]:
    """Each cell with its number among those of its size."""
    seen: dict[int, int] = {}
    found = []
    for cell in column:
        found.append((cell, seen.get(cell.size, 0)))
        seen[cell.size] = seen.get(cell.size, 0) + 1
    return found


def _layout(
    columns: Sequence[Sequence[Cell]],
) -> tuple[dict[int, float], dict[int, tuple[float, float]], float]:
    """Height of the first box of each size, each size's zone (top, bottom), and all of it."""
    sizes = sorted({cell.size for column in columns for cell in column}, reverse=True)
    most = {
        size: max(sum(cell.size == size for cell in column) for column in columns) for size in sizes
    }
    total = sum(rows * PITCH + GAP for rows in most.values())
    heights, zones, top = {}, {}, total + FOOT
    for size, rows in most.items():
        bottom = top - rows * PITCH - GAP
        zones[size] = (top, bottom)
        heights[size] = top - (PITCH + GAP) / 2
        top = bottom
    return heights, zones, total


def _draw_zones(axes: Axes, zones: dict[int, tuple[float, float]]) -> None:
    width = axes.get_xlim()[1]
    top = next(iter(zones.values()))[0]
    diagram.label(axes, (0.36, top + 0.1), "output size", fontsize=7, color=diagram.INK)
    for size, (top, bottom) in zones.items():
        axes.axhline(top, 0.1 / width, 1 - 0.1 / width, color="#d5d5d5", lw=0.6, zorder=0.5)
        diagram.label(
            axes,
            (0.36, (top + bottom) / 2),
            f"{size}x{size}",
            fontsize=8,
            color=style.map_colour(size),
            weight="bold",
        )
    axes.axhline(bottom, 0.1 / width, 1 - 0.1 / width, color="#d5d5d5", lw=0.6, zorder=0.5)


def _draw_column(axes: Axes, x: float, column: Sequence[Cell], places: Sequence[float]) -> None:
    colours = [style.map_colour(cell.size) for cell in column]
    texts = [cell.text for cell in column]
    edge = places[0] + BOX[1] / 2
    diagram.arrow(axes, (x, edge + 0.14), (x, edge))
    diagram.stack(axes, x, places, BOX, texts, colours, FONT)


def _draw_shortcuts(
    axes: Axes,
    x: float,
    counted: Counted,
    net: str,
    column: Sequence[Cell],
    places: Sequence[float],
) -> None:
    """Draw each block's shortcut; dotted where an identity does not fit."""
    for block in counted.blocks(net):
        inside = [y for cell, y in zip(column, places, strict=True) if cell.block == block.name]
        line = diagram.DOTTED if block.changes_shape else diagram.SOLID
        start, end = inside[0] + PITCH / 2 - APART, inside[-1] - PITCH / 2 + APART
        diagram.shortcut(axes, (x, start), (x, end), REACH, line)


def _sizes(counted: Counted, net: str) -> str:
    size = counted.net(net)
    return f"{size.multiply_adds / 1e9:.2f}e9 multiply-adds\n{size.params / 1e6:.1f}M parameters"


def _sentences(counted: Counted) -> list[str]:
    vgg, plain = counted.net("VGG-19"), counted.net("plain-34")
    share = 100 * plain.multiply_adds / vgg.multiply_adds
    return [
        "Drawn from the counted layers of the nets as built here, one 224x224 image.",
        "Solid: identity shortcuts; dotted: shortcuts where the width doubles and the map halves "
        "(option A: every second pixel, new channels of zeros).",
        f"plain-34 takes {share:.1f} % of VGG-19's multiply-adds (paper: 3.6e9 of 19.6e9, 18 %).",
    ]
