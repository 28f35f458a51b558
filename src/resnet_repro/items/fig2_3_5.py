"""Figs. 2, 3 and 5: a residual block, the three nets side by side, the two kinds of block.

Diagrams on a canvas measured in inches; nets are drawn as counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, PathPatch
from matplotlib.path import Path as Outline

from resnet_repro.analysis import counted, style
from resnet_repro.analysis.counted import CountedLayer, pool_before

INK = "#333333"
PEN: dict[str, Any] = {"edgecolor": INK, "linewidth": 0.8}
NO_HEAD = 0.08  # inches: a shorter arrow is a line
SOLID: Any = "-"
DOTTED: Any = (0, (1.2, 1.6))
# A residual block: size of a box, from box to box, reach of the shortcut, radius of an addition;
# inches.
BLOCK_BOX, BLOCK_PITCH, BLOCK_SIDE, RADIUS = (1.15, 0.27), 0.62, 0.95, 0.085
BLOCK_COLOUR = "#0072B2"
Point = tuple[float, float]
X, F = r"$\mathbf{x}$", r"$\mathcal{F}(\mathbf{x})$"
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


@style.style()
def fig2() -> Figure:
    """Fig. 2: residual learning, a building block."""
    figure, axes = canvas(3.7, 1.95)
    x, top = 1.75, 1.42
    draw_block(axes, x, top, ["weight layer"] * 2, X)
    left = {"ha": "right", "fontsize": 10}
    draw_label(axes, (x - 0.72, top - BLOCK_PITCH / 2), F, **left)
    draw_label(axes, (x - 0.16, top - 1.52 * BLOCK_PITCH), f"{F} + {X}", **left)
    position = (x + BLOCK_SIDE + 0.08, top - 0.5 * BLOCK_PITCH)
    draw_label(axes, position, f"{X}\nidentity", ha="left", fontsize=8.5)
    caption = (
        "Residual learning: y = relu(F(x) + x). Here each weight layer is a conv with "
        "batch normalisation; a plain net has the same layers without the shortcut."
    )
    return style.underneath(figure, [caption])


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
    figure, axes = canvas(LEFT + 2 * COLUMN + REACH + 0.3, total + TITLE + FOOT)
    _draw_zones(axes, zones)
    for number, (net, column) in enumerate(columns.items()):
        x, size = LEFT + number * COLUMN, counted.net(net)
        heights = _heights(column, zones)
        draw_arrow(axes, (x, heights[0] + BOX[1] / 2 + 0.14), (x, heights[0] + BOX[1] / 2))
        boxes = [
            (y, cell.text, style.map_colour(cell.size))
            for cell, y in zip(column, heights, strict=True)
        ]
        draw_stack(axes, x, boxes, BOX, FONT)
        if size.shortcut != "none":
            _draw_shortcuts(axes, x, net, column, heights)
        title = {"fontsize": 9.5, "weight": "bold", "va": "bottom"}
        draw_label(axes, (x, total + FOOT + 0.26), net, **title)
        text = f"{size.multiply_adds / 1e9:.2f}e9 multiply-adds\n"
        text += f"{size.params / 1e6:.1f}M parameters"
        draw_label(axes, (x, 0.26), text, fontsize=7.5, linespacing=1.4)
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
    draw_label(axes, (0.36, top + 0.1), "output size", fontsize=7, color=INK)
    for size, (top, bottom) in zones.items():
        axes.axhline(top, margin, 1 - margin, **RULE)
        look = {"fontsize": 8, "color": style.map_colour(size), "weight": "bold"}
        draw_label(axes, (0.36, (top + bottom) / 2), f"{size}x{size}", **look)
    axes.axhline(bottom, margin, 1 - margin, **RULE)


def _draw_shortcuts(
    axes: Axes, x: float, net: str, column: Sequence[Cell], heights: Sequence[float]
) -> None:
    """Draw each block's shortcut; dotted where an identity does not fit."""
    for block in counted.blocks(net):
        inside = [y for cell, y in zip(column, heights, strict=True) if cell.block == block.name]
        line = DOTTED if block.changes_shape else SOLID
        start, end = inside[0] + PITCH / 2 - SHORTCUT_GAP, inside[-1] - PITCH / 2 + SHORTCUT_GAP
        draw_shortcut(axes, (x, start), (x, end), REACH, line)


def _sentences() -> list[str]:
    vgg, plain = counted.net("VGG-19"), counted.net("plain-34")
    share = 100 * plain.multiply_adds / vgg.multiply_adds
    return [
        "Drawn from the counted layers of the nets as built here, one 224x224 image.",
        "Solid: identity shortcuts; dotted: shortcuts where the width doubles and the map halves "
        "(option A: every second pixel, new channels of zeros).",
        f"plain-34 takes {share:.1f} % of VGG-19's multiply-adds (paper: 3.6e9 of 19.6e9, 18 %).",
    ]


@style.style()
def fig5() -> Figure:
    """Fig. 5: basic block of ResNet-34, bottleneck of ResNet-50, of the first stage, as counted."""
    basic, narrow = (
        next(block for block in counted.blocks(net) if not block.changes_shape)
        for net in ("ResNet-34 A", "ResNet-50")
    )
    figure, axes = canvas(5.6, 2.95)
    for x, top, block in ((1.3, 2.42 - BLOCK_PITCH / 2, basic), (4.0, 2.42, narrow)):
        texts = [f"{y.kernel}x{y.kernel}, {y.out_channels}" for y in block.main]
        draw_block(axes, x, top, texts, f"{block.main[0].in_channels}-d")
        params = sum(layer.params for layer in block.main)
        adds = sum(layer.multiply_adds for layer in block.main)
        size = f"{params / 1e3:.1f}k weights, {adds / 1e6:.0f}M multiply-adds"
        draw_label(axes, (x + BLOCK_SIDE / 4, 0.1), size, fontsize=8, color=INK)
    side = basic.main[0].out_size
    caption = (
        f"Left: basic block, as in ResNet-34; right: bottleneck, as in ResNet-50, 101 and "
        f"152; both on {side}x{side} maps of the first stage, at similar cost. Each conv "
        "is followed by batch normalisation; weights are the convs' own."
    )
    return style.underneath(figure, [caption])


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """Make a figure with one bare panel whose coordinates are inches from its lower left."""
    figure, axes = style.subplots(panel=(width, height))
    axes.set_axis_off()
    axes.set_xlim(0, width)
    axes.set_ylim(0, height)
    axes.set_aspect("equal")
    return figure, axes


def draw_label(axes: Axes, at: Point, text: str, **look: Any) -> None:
    """Write text centred on a point."""
    defaults: dict[str, Any] = {"ha": "center", "va": "center", "color": "#000000", "fontsize": 8}
    axes.text(*at, text, **(defaults | {"zorder": 4} | look))


def draw_strokes(axes: Axes, *ends: Point, zorder: float = 2) -> None:
    """Draw straight lines, each from one point to the next."""
    codes = [Outline.MOVETO, Outline.LINETO] * (len(ends) // 2)
    axes.add_patch(PathPatch(Outline(ends, codes), zorder=zorder, **PEN))


def draw_arrow(axes: Axes, start: Point, end: Point) -> None:
    """Draw a straight arrow; one too short for a head is a line."""
    if abs(start[1] - end[1]) + abs(start[0] - end[0]) < NO_HEAD:
        draw_strokes(axes, start, end)
    else:
        axes.add_patch(_pen_arrow(Outline([start, end]), SOLID))


def draw_shortcut(axes: Axes, start: Point, end: Point, reach: float, line: Any = SOLID) -> None:
    """Draw a shortcut: an arrow that leaves ``start`` sideways and comes back at ``end``."""
    (x0, y0), (_, y1) = start, end
    far = x0 + reach
    bend = min(abs(reach) * 0.6, abs(y0 - y1) / 2)
    upper = [(far - bend, y0), (far, y0), (far, y0 - bend)]
    lower = [(far, y1 + bend), (far, y1), (far - bend, y1)]
    go, turn = Outline.LINETO, Outline.CURVE3
    codes = [Outline.MOVETO, go, turn, turn, go, turn, turn, go]
    axes.add_patch(_pen_arrow(Outline([start, *upper, *lower, end], codes), line))


def _pen_arrow(outline: Outline, line: Any) -> FancyArrowPatch:
    look: dict[str, Any] = {"color": INK, "linewidth": PEN["linewidth"], "linestyle": line}
    look |= {"shrinkA": 0, "shrinkB": 0, "capstyle": "butt", "joinstyle": "round", "zorder": 2}
    head = "-|>,head_length=2.4,head_width=1.3"
    return FancyArrowPatch(path=outline, arrowstyle=head, mutation_scale=1.0, **look)


def draw_stack(
    axes: Axes, x: float, boxes: Sequence[tuple[float, str, str]], size: Point, fontsize: float
) -> None:
    """Draw boxes (height of the centre, text, colour) one under the other, with arrows between."""
    width, height = size
    corner = f"round,pad=0,rounding_size={min(0.04, height / 4)}"
    above = None
    for y, text, colour in boxes:
        look = PEN | {"facecolor": style.pale(colour, 0.38), "edgecolor": colour, "zorder": 3}
        corner_at = (x - width / 2, y - height / 2)
        axes.add_patch(FancyBboxPatch(corner_at, width, height, boxstyle=corner, **look))
        draw_label(axes, (x, y), text, fontsize=fontsize)
        if above is not None:
            draw_arrow(axes, (x, above - height / 2), (x, y + height / 2))
        above = y


def draw_block(axes: Axes, x: float, top: float, texts: Sequence[str], into: str) -> None:
    """Draw a block whose first box is centred on (``x``, ``top``) and whose input is ``into``."""
    half = BLOCK_BOX[1] / 2
    heights = [top - BLOCK_PITCH * number for number in range(len(texts))]
    start, sum_at = top + 0.28, heights[-1] - 0.52 * BLOCK_PITCH
    draw_label(axes, (x, top + 0.47), into, fontsize=9)
    draw_arrow(axes, (x, top + 0.4), (x, top + half))
    boxes = [(y, text, BLOCK_COLOUR) for y, text in zip(heights, texts, strict=True)]
    draw_stack(axes, x, boxes, BLOCK_BOX, 8.5)
    for one, two in pairwise(heights):
        draw_label(axes, (x + 0.06, (one + two) / 2), "relu", ha="left", fontsize=8)
    draw_arrow(axes, (x, heights[-1] - half), (x, sum_at + RADIUS))
    axes.add_patch(Circle((x, sum_at), RADIUS, facecolor="white", zorder=3, **PEN))
    arm = RADIUS * 0.6
    plus = [(x - arm, sum_at), (x + arm, sum_at), (x, sum_at - arm), (x, sum_at + arm)]
    draw_strokes(axes, *plus, zorder=4)
    draw_shortcut(axes, (x, start), (x + RADIUS, sum_at), BLOCK_SIDE)
    draw_arrow(axes, (x, sum_at - RADIUS), (x, sum_at - 0.38))
    draw_label(axes, (x + 0.06, sum_at - 0.22), "relu", ha="left", fontsize=8)
