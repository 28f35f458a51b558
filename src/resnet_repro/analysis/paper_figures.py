"""The paper's own curves alone, from the points read off its figures (``results/paper``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from resnet_repro.analysis import style
from resnet_repro.analysis.curves import with_gaps
from resnet_repro.analysis.paper import Paper


@dataclass(frozen=True)
class Look:
    """A figure of error curves.

    Attributes:
        titles: of the panels, by their name in the data.
        errors: ends of the error axis, percent.
        one_kind: whether a panel has one kind of error (Fig. 1), which is then bold.
    """

    number: int
    titles: Mapping[str, str]
    errors: tuple[float, float]
    test: str = "test error"
    one_kind: bool = False


LOOKS = {
    "fig1": Look(1, {"left": "training error", "right": "test error"}, (0.0, 20.0), one_kind=True),
    "fig4": Look(
        4,
        {"left": "ImageNet: plain nets", "right": "ImageNet: residual nets, option A"},
        (20.0, 65.0),
        "validation error, centre crop",
    ),
    "fig6": Look(
        6,
        {
            "left": "plain nets",
            "middle": "residual nets",
            "right": "residual nets, 110 and 1202 layers",
        },
        (0.0, 20.0),
    ),
}
FIGURES = (*LOOKS, "fig7")


def paper_figure(name: str, paper: Paper | None = None) -> Figure:
    """Draw the paper's ``fig1``, ``fig4``, ``fig6`` or ``fig7``; the caption is left to the page.

    Raises:
        KeyError: the curves of no such figure were read off.
    """
    book = paper or Paper()
    with style.style():
        return _responses(book) if name == "fig7" else _errors(LOOKS[name], book)


def _errors(look: Look, paper: Paper) -> Figure:
    figure = style.new_figure(len(look.titles))
    row = list(figure.subplots(1, len(look.titles), squeeze=False)[0])
    table = paper.figure(look.number)
    for axes, (place, title) in zip(row, look.titles.items(), strict=True):
        here = table[table["panel"] == f"{look.number} {place}"]
        for net, curve in dict.fromkeys(zip(here["net"], here["curve"], strict=True)):
            points = with_gaps(paper.curve(look.number, net, curve, panel=place))
            kind = style.TRAIN if curve == "train" and not look.one_kind else style.TEST
            colour = style.depth_colour(_depth(net))
            axes.plot(points.index.to_numpy() / 1e4, points.to_numpy(), color=colour, **kind)
        axes.set_title(title)
        axes.set_ylim(*look.errors)
        if here["iteration_1e4"].min() < here["iteration_1e4"].max() / 2:
            axes.set_xlim(left=0)  # where the error comes from above the axes too
        axes.set_xlabel("iteration (1e4)")
    row[0].set_ylabel("error (%)")
    depths = sorted({_depth(net) for net in table["net"]})
    handles = [Line2D([], [], color=style.depth_colour(d), **style.TEST) for d in depths]
    labels = [f"{depth} layers" for depth in depths]
    if not look.one_kind:
        handles += [Line2D([], [], color="#000000", **kind) for kind in (style.TEST, style.TRAIN)]
        labels += [look.test, "training error"]
    style.underneath(figure, [], handles, labels, columns=4)
    return figure


def _responses(paper: Paper) -> Figure:
    figure = style.new_figure(1, rows=2, panel=(7.2, 2.5))
    above, below = figure.subplots(2, 1, sharex=True)
    nets = list(dict.fromkeys(paper.figure(7)["net"]))
    for axes, ordered in ((above, False), (below, True)):
        for net in nets:
            _draw_responses(axes, paper, net, ordered)
        axes.set_ylabel("std")
        axes.set_ylim(bottom=0)
    above.set_title("standard deviation of layer responses")
    below.set_xlabel("layer index (above: in the net's order; below: sorted by size)")
    below.set_xlim(0, max(_depth(net) for net in nets))
    handles = [line for line in above.lines if isinstance(line, Line2D)]
    style.underneath(figure, [], handles, nets, columns=4)
    return figure


def _draw_responses(axes: Axes, paper: Paper, net: str, ordered: bool) -> None:
    curve = paper.responses(net, ordered=ordered)
    line = (0, (4, 1.6)) if net.startswith("plain") else "-"
    colour = style.depth_colour(_depth(net))
    axes.plot(curve.index.to_numpy(), curve.to_numpy(), color=colour, linestyle=line, linewidth=1.5)


def _depth(net: str) -> int:
    return int(net.split(" ")[0].split("-")[1])
