"""Pieces of diagrams: boxes, arrows and shortcuts on a canvas measured in inches."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, PathPatch
from matplotlib.path import Path as Outline

from resnet_repro.analysis import style

INK = "#333333"
PEN: dict[str, Any] = {"edgecolor": INK, "linewidth": 0.8}
NO_HEAD = 0.08  # inches: a shorter arrow is a line
SOLID: Any = "-"
DOTTED: Any = (0, (1.2, 1.6))
Point = tuple[float, float]


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
    return FancyArrowPatch(
        path=outline,
        arrowstyle="-|>,head_length=2.4,head_width=1.3",
        mutation_scale=1.0,
        shrinkA=0,
        shrinkB=0,
        color=INK,
        linewidth=PEN["linewidth"],
        linestyle=line,
        capstyle="butt",
        joinstyle="round",
        zorder=2,
    )


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
