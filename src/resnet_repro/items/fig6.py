"""Fig. 6: CIFAR-10 training and test error of plain (left) and residual nets (middle, right).

Plain nets get worse with depth, residual nets better, up to 110 layers; 1202 layers overfit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from resnet_repro.analysis import curves, style
from resnet_repro.analysis.load import Run
from resnet_repro.analysis.paper import Paper
from resnet_repro.analysis.protocol import by_net

ZOOM_FROM = 35 / 64  # share of the schedule where Fig. 6's right panel begins

Nets = Mapping[str, Sequence[Run]]


def save(runs: Sequence[Run], out_dir: Path) -> list[Path]:
    """Draw Fig. 6 and write it as ``fig6.png`` and ``fig6.svg``."""
    return style.save(fig6(runs), "fig6", out_dir)


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
        book = (paper or Paper()) if curves.comparable(drawn) else None
        axes_row = figure.subplots(1, 3, sharey=True)
        axes_row[0].set_ylabel("error (%)")
        curves.set_limits(list(axes_row), drawn)
        unit = curves.iter_unit(drawn)
        end = max((run.max_iters for run in drawn), default=curves.PAPER_ITERS) / unit
        axes_row[2].set_xlim(end * ZOOM_FROM, end)
        for axes, panel in zip(axes_row, row, strict=True):
            _draw(axes, panel, book, unit)
        handles, labels = _fig6_legend(drawn, with_paper=book is not None)
        style.underneath(figure, curves.sentences(drawn, book), handles, labels, columns=6)
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
        curves.draw_both(axes, group, paper, 6, panel.place, unit)
    axes.set_title(panel.title)
    axes.tick_params(labelleft=True)
    if panel.missing:
        curves.no_runs(axes, panel.missing, alone=not panel.nets)
    curves.name_what_is_above(axes, list(panel.nets.values()))


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
