"""Figures 1 and 6: training and test error over the iterations, the paper's curves underneath."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from resnet_repro.analysis import panels, style
from resnet_repro.analysis.load import Run
from resnet_repro.analysis.paper import Paper
from resnet_repro.analysis.protocol import by_net

ZOOM_FROM = 35 / 64  # share of the schedule where Fig. 6's right panel begins

Nets = Mapping[str, Sequence[Run]]


def save_fig1(runs: Sequence[Run], out_dir: Path, paper: Paper | None = None) -> list[Path]:
    """Draw Fig. 1 and write it as ``fig1.png`` and ``fig1.svg``."""
    return style.save(fig1(runs, paper), "fig1", out_dir)


def save_fig6(runs: Sequence[Run], out_dir: Path, paper: Paper | None = None) -> list[Path]:
    """Draw Fig. 6 and write it as ``fig6.png`` and ``fig6.svg``."""
    return style.save(fig6(runs, paper), "fig6", out_dir)


def fig1(runs: Sequence[Run], paper: Paper | None = None) -> Figure:
    """Fig. 1: training error (left) and test error (right) of plain nets, the paper's 20 and 56.

    The mean over seeds is drawn with a band from the lowest to the highest seed. The paper's
    curves are drawn where the runs follow the paper's schedule; elsewhere the axes fit the runs
    and the caption says so.
    """
    nets = {label: group for label, group in by_net(runs).items() if group[0].is_plain}
    shown = [run for group in nets.values() for run in group]
    missing = [label for label in ("plain-20", "plain-56") if label not in nets]
    with style.style():
        figure = style.new_figure(2)
        left, right = figure.subplots(1, 2, sharey=True)
        book = (paper or Paper()) if panels.comparable(shown) else None
        unit = panels.iter_unit(shown)
        for axes, kind in ((left, "train"), (right, "test")):
            for group in nets.values():
                panels.draw_net(axes, group, kind, style.TEST, unit)
                panels.draw_paper(axes, book, 1, group[0], kind, style.PAPER_TEST)
            if missing:
                panels.no_runs(axes, missing, alone=not nets)
        left.set_title("training error")
        right.set_title("test error")
        left.set_ylabel("error (%)")
        right.tick_params(labelleft=True)
        panels.set_limits([left, right], shown)
        handles, labels = left.get_legend_handles_labels()
        style.underneath(figure, panels.sentences(shown, book), handles, labels)
    return figure


@dataclass(frozen=True)
class Panel:
    """One panel of Fig. 6: its place in the paper, its nets and those it should have."""

    place: str
    title: str
    nets: Nets
    wanted: tuple[str, ...]

    @property
    def missing(self) -> list[str]:
        """Nets the panel should have and has not."""
        return [label for label in self.wanted if label not in self.nets]


def fig6(runs: Sequence[Run], paper: Paper | None = None) -> Figure:
    """Fig. 6: plain nets, residual nets to 110 layers, and 110 against 1202 layers.

    Dashed is training error, bold is test error. A net that stays above the axis is not drawn,
    as in the paper, but named with its error.
    """
    row = _fig6_panels(by_net(runs))
    shown = {run.path: run for panel in row for group in panel.nets.values() for run in group}
    drawn = list(shown.values())
    with style.style():
        figure = style.new_figure(3, panel=(3.4, 3.1))
        book = (paper or Paper()) if panels.comparable(drawn) else None
        axes_row = figure.subplots(1, 3, sharey=True)
        axes_row[0].set_ylabel("error (%)")
        panels.set_limits(list(axes_row), drawn)
        unit = panels.iter_unit(drawn)
        end = max((run.max_iters for run in drawn), default=panels.PAPER_ITERS) / unit
        axes_row[2].set_xlim(end * ZOOM_FROM, end)
        for axes, panel in zip(axes_row, row, strict=True):
            _draw(axes, panel, book, unit)
        handles, labels = _fig6_legend(drawn, with_paper=book is not None)
        style.underneath(figure, panels.sentences(drawn, book), handles, labels, columns=6)
    return figure


def _fig6_panels(nets: Nets) -> list[Panel]:
    residual = {k: g for k, g in nets.items() if k == f"ResNet-{g[0].depth}"}
    return [
        Panel(
            "left",
            "plain nets",
            {k: g for k, g in nets.items() if k == f"plain-{g[0].depth}"},
            ("plain-20", "plain-32", "plain-44", "plain-56"),
        ),
        Panel(
            "middle",
            "residual nets",
            {k: g for k, g in residual.items() if g[0].depth <= 110},
            ("ResNet-20", "ResNet-32", "ResNet-44", "ResNet-56", "ResNet-110"),
        ),
        Panel(
            "right",
            "residual nets, 110 and 1202 layers",
            {k: g for k, g in residual.items() if g[0].depth in (110, 1202)},
            ("ResNet-110", "ResNet-1202"),
        ),
    ]


def _draw(axes: Axes, panel: Panel, paper: Paper | None, unit: float) -> None:
    for group in panel.nets.values():
        panels.draw_both(axes, group, paper, 6, panel.place, unit)
    axes.set_title(panel.title)
    axes.tick_params(labelleft=True)
    if panel.missing:
        panels.no_runs(axes, panel.missing, alone=not panel.nets)
    panels.name_what_is_above(axes, list(panel.nets.values()))


def _fig6_legend(runs: Sequence[Run], *, with_paper: bool) -> tuple[list[Line2D], list[str]]:
    """Colours of the depths in the first row, styles of the lines in the second."""
    depths = sorted({run.depth for run in runs})
    handles = [Line2D([], [], color=style.depth_colour(depth), **style.TEST) for depth in depths]
    labels = [f"{depth} layers" for depth in depths]
    blanks = 6 - len(depths) if depths else 0
    handles += [Line2D([], [], linestyle="none")] * blanks
    labels += [""] * blanks
    kinds = [("test error", style.TEST), ("training error", style.TRAIN)]
    if with_paper:
        kinds += [("the paper's test error", style.PAPER_TEST)]
        kinds += [("the paper's training error", style.PAPER_TRAIN)]
    for label, look in kinds if depths else []:
        shade = style.pale("#000000") if "paper" in label else "#000000"
        handles.append(Line2D([], [], color=shade, **look))
        labels.append(label)
    return handles, labels
