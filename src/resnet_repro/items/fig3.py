"""Fig. 3: VGG-19, plain-34 and ResNet-34 side by side, drawn from their counted layers."""

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from resnet_repro.analysis import counted, diagram, style
from resnet_repro.analysis.counted import CountedLayer, pool_before

NETS = ("VGG-19", "plain-34", "ResNet-34 A")
BOX = (1.28, 0.145)  # inches
PITCH = 0.222
COLUMN = 1.72  # from column to column
LEFT = 1.62  # centre of the first column
REACH = 0.92  # of a shortcut from its column's centre
TITLE, FOOT = 0.36, 0.5  # room above and beneath the columns
GAP = 0.1  # between two sizes of map
FONT = 6.4
SHORTCUT_GAP = 0.017  # half the way from where a shortcut ends to where the next begins
RULE = {"color": "#d5d5d5", "lw": 0.6, "zorder": 0.5}


class Cell(NamedTuple):
    """One box of a column."""

    text: str
    size: int  # side of the map it returns
    block: str = ""  # that it belongs to


@style.style()
def fig3() -> Figure:
    """Fig. 3: the three nets side by side, maps of one size at one height."""
    columns = {net: cells(counted.layers(net), counted.net(net).image_size) for net in NETS}
    zones, total = _zones(list(columns.values()))
    figure, axes = diagram.canvas(LEFT + 2 * COLUMN + REACH + 0.3, total + TITLE + FOOT)
    _draw_zones(axes, zones)
    for number, (net, column) in enumerate(columns.items()):
        x, size = LEFT + number * COLUMN, counted.net(net)
        heights = _heights(column, zones)
        diagram.draw_arrow(axes, (x, heights[0] + BOX[1] / 2 + 0.14), (x, heights[0] + BOX[1] / 2))
        boxes = [
            (y, cell.text, style.map_colour(cell.size))
            for cell, y in zip(column, heights, strict=True)
        ]
        diagram.draw_stack(axes, x, boxes, BOX, FONT)
        if size.shortcut != "none":
            _draw_shortcuts(axes, x, net, column, heights)
        title = {"fontsize": 9.5, "weight": "bold", "va": "bottom"}
        diagram.draw_label(axes, (x, total + FOOT + 0.26), net, **title)
        text = f"{size.multiply_adds / 1e9:.2f}e9 multiply-adds\n"
        text += f"{size.params / 1e6:.1f}M parameters"
        diagram.draw_label(axes, (x, 0.26), text, fontsize=7.5, linespacing=1.4)
    return style.underneath(figure, _sentences())


def cells(layers: Sequence[CountedLayer], image_size: int) -> list[Cell]:
    """Boxes of a net's column: its convs and fcs, and the pools between them."""
    found: list[Cell] = []
    size, channels = image_size, 0
    for layer in layers:
        if layer.on_shortcut:
            continue
        if pool_before(layer, size):
            is_global = layer.kind == "fc" and layer.in_channels == channels
            after = layer.out_size * layer.stride if layer.kind == "conv" else size // 2
            found.append(Cell("average pool", 1) if is_global else Cell("pool, /2", after))
        text = f"fc {layer.out_channels}"
        if layer.kind == "conv":
            text = f"{layer.kernel}x{layer.kernel} conv, {layer.out_channels}"
            text += f", /{layer.stride}" if layer.stride > 1 else ""
        found.append(Cell(text, layer.out_size, layer.block))
        size, channels = layer.out_size, layer.out_channels
    return found


def _zones(columns: Sequence[Sequence[Cell]]) -> tuple[dict[int, tuple[float, float]], float]:
    """Top and bottom of the zone of each size of map, and the height of all."""
    sizes = sorted({cell.size for column in columns for cell in column}, reverse=True)
    rows_by_size = {
        size: max(sum(cell.size == size for cell in column) for column in columns) for size in sizes
    }
    total = sum(rows * PITCH + GAP for rows in rows_by_size.values())
    zones, top = {}, total + FOOT
    for size, rows in rows_by_size.items():
        zones[size] = (top, top - rows * PITCH - GAP)
        top = zones[size][1]
    return zones, total


def _heights(column: Sequence[Cell], zones: dict[int, tuple[float, float]]) -> list[float]:
    """Height of each box: those of one size one below the other in their zone."""
    seen = dict.fromkeys(zones, 0)
    heights = []
    for cell in column:
        heights.append(zones[cell.size][0] - (PITCH + GAP) / 2 - PITCH * seen[cell.size])
        seen[cell.size] += 1
    return heights


def _draw_zones(axes: Axes, zones: dict[int, tuple[float, float]]) -> None:
    margin = 0.1 / axes.get_xlim()[1]
    top = next(iter(zones.values()))[0]
    diagram.draw_label(axes, (0.36, top + 0.1), "output size", fontsize=7, color=diagram.INK)
    for size, (top, bottom) in zones.items():
        axes.axhline(top, margin, 1 - margin, **RULE)
        look = {"fontsize": 8, "color": style.map_colour(size), "weight": "bold"}
        diagram.draw_label(axes, (0.36, (top + bottom) / 2), f"{size}x{size}", **look)
    axes.axhline(bottom, margin, 1 - margin, **RULE)


def _draw_shortcuts(
    axes: Axes, x: float, net: str, column: Sequence[Cell], heights: Sequence[float]
) -> None:
    """Draw each block's shortcut; dotted where an identity does not fit."""
    for block in counted.blocks(net):
        inside = [y for cell, y in zip(column, heights, strict=True) if cell.block == block.name]
        line = diagram.DOTTED if block.changes_shape else diagram.SOLID
        start, end = inside[0] + PITCH / 2 - SHORTCUT_GAP, inside[-1] - PITCH / 2 + SHORTCUT_GAP
        diagram.draw_shortcut(axes, (x, start), (x, end), REACH, line)


def _sentences() -> list[str]:
    vgg, plain = counted.net("VGG-19"), counted.net("plain-34")
    share = 100 * plain.multiply_adds / vgg.multiply_adds
    return [
        "Drawn from the counted layers of the nets as built here, one 224x224 image.",
        "Solid: identity shortcuts; dotted: shortcuts where the width doubles and the map halves "
        "(option A: every second pixel, new channels of zeros).",
        f"plain-34 takes {share:.1f} % of VGG-19's multiply-adds (paper: 3.6e9 of 19.6e9, 18 %).",
    ]
