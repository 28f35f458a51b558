"""Pieces of diagrams: boxes, arrows, shortcuts and additions on a canvas measured in inches."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, PathPatch
from matplotlib.path import Path as Outline

from resnet_repro.analysis import style

INK = "#333333"
LINE = 0.8
NO_HEAD = 0.08  # inches
SOLID: Any = "-"
DOTTED: Any = (0, (1.2, 1.6))
# A residual block: size of a box, from box to box, reach of the shortcut; inches.
BLOCK_BOX, BLOCK_PITCH, BLOCK_SIDE = (1.15, 0.27), 0.62, 0.95
BLOCK_COLOUR = "#0072B2"


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """Make a figure with one bare panel whose coordinates are inches from its lower left."""
    figure = style.new_figure(1, panel=(width, height))
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.set_xlim(0, width)
    axes.set_ylim(0, height)
    axes.set_aspect("equal")
    return figure, axes


def box(
    axes: Axes,
    centre: tuple[float, float],
    size: tuple[float, float],
    text: str,
    colour: str = "#777777",
    fontsize: float = 8.0,
) -> None:
    """Draw a box with rounded corners, palely filled with ``colour``, and its text."""
    (x, y), (width, height) = centre, size
    corner = min(0.04, height / 4)
    axes.add_patch(
        FancyBboxPatch(
            (x - width / 2, y - height / 2),
            width,
            height,
            boxstyle=f"round,pad=0,rounding_size={corner}",
            facecolor=style.pale(colour, 0.38),
            edgecolor=colour,
            linewidth=LINE,
            zorder=3,
        )
    )
    label(axes, (x, y), text, fontsize=fontsize)


def label(axes: Axes, at: tuple[float, float], text: str, **look: Any) -> None:
    """Write text centred on a point."""
    every: dict[str, Any] = {
        "ha": "center",
        "va": "center",
        "color": "#000000",
        "fontsize": 8,
        "zorder": 4,
    }
    axes.text(*at, text, **(every | look))


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Draw a straight arrow; one too short for a head is a line."""
    if abs(start[1] - end[1]) + abs(start[0] - end[0]) < NO_HEAD:
        axes.add_patch(PathPatch(Outline([start, end]), edgecolor=INK, linewidth=LINE, zorder=2))
    else:
        axes.add_patch(_arrow(Outline([start, end]), SOLID))


def shortcut(
    axes: Axes,
    start: tuple[float, float],
    end: tuple[float, float],
    reach: float,
    line: Any = SOLID,
    colour: str = INK,
) -> None:
    """Draw a shortcut: an arrow that leaves ``start`` sideways and comes back at ``end``."""
    (x0, y0), (x1, y1) = start, end
    far = x0 + reach
    bend = min(abs(reach) * 0.6, abs(y0 - y1) / 2)
    points = [
        (x0, y0),
        (far - bend, y0),
        (far, y0),
        (far, y0 - bend),
        (far, y1 + bend),
        (far, y1),
        (far - bend, y1),
        (x1, y1),
    ]
    go, turn = Outline.LINETO, Outline.CURVE3
    codes = [Outline.MOVETO, go, turn, turn, go, turn, turn, go]
    axes.add_patch(_arrow(Outline(points, codes), line, colour))


def _arrow(outline: Outline, line: Any, colour: str = INK) -> FancyArrowPatch:
    return FancyArrowPatch(
        path=outline,
        arrowstyle="-|>,head_length=2.4,head_width=1.3",
        mutation_scale=1.0,
        shrinkA=0,
        shrinkB=0,
        color=colour,
        linewidth=LINE,
        linestyle=line,
        capstyle="butt",
        joinstyle="round",
        zorder=2,
    )


def addition(axes: Axes, centre: tuple[float, float], radius: float = 0.085) -> None:
    """Draw a circle with a plus in it."""
    x, y = centre
    axes.add_patch(Circle(centre, radius, facecolor="white", edgecolor=INK, lw=LINE, zorder=3))
    arm = radius * 0.6
    cross = Outline(
        [(x - arm, y), (x + arm, y), (x, y - arm), (x, y + arm)],
        [Outline.MOVETO, Outline.LINETO] * 2,
    )
    axes.add_patch(PathPatch(cross, edgecolor=INK, linewidth=LINE, zorder=4))


def stack(
    axes: Axes,
    x: float,
    heights: Sequence[float],
    size: tuple[float, float],
    texts: Sequence[str],
    colours: Sequence[str],
    fontsize: float,
) -> None:
    """Draw boxes under each other at the given heights, an arrow from each to the next."""
    half = size[1] / 2
    for number, (y, text, colour) in enumerate(zip(heights, texts, colours, strict=True)):
        box(axes, (x, y), size, text, colour, fontsize)
        if number:
            arrow(axes, (x, heights[number - 1] - half), (x, y + half))


def block(axes: Axes, x: float, top: float, texts: Sequence[str], into: str) -> None:
    """Draw a residual block, its first box centred on (``x``, ``top``), its input ``into``."""
    half = BLOCK_BOX[1] / 2
    heights = [top - BLOCK_PITCH * number for number in range(len(texts))]
    start, sum_at = top + 0.28, heights[-1] - 0.52 * BLOCK_PITCH
    label(axes, (x, top + 0.47), into, fontsize=9)
    arrow(axes, (x, top + 0.4), (x, top + half))
    stack(axes, x, heights, BLOCK_BOX, texts, [BLOCK_COLOUR] * len(texts), 8.5)
    for one, two in pairwise(heights):
        label(axes, (x + 0.06, (one + two) / 2), "relu", ha="left", fontsize=8)
    arrow(axes, (x, heights[-1] - half), (x, sum_at + 0.085))
    addition(axes, (x, sum_at))
    shortcut(axes, (x, start), (x + 0.085, sum_at), BLOCK_SIDE)
    arrow(axes, (x, sum_at - 0.085), (x, sum_at - 0.38))
    label(axes, (x + 0.06, sum_at - 0.22), "relu", ha="left", fontsize=8)
