"""Fig. 1: training error (left) and test error (right) of plain-20 and plain-56 on CIFAR-10.

It shows the degradation: the deeper plain net has the higher training error, and thus test error.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from resnet_repro.analysis import curves, style
from resnet_repro.analysis.load import Run
from resnet_repro.analysis.paper import Paper
from resnet_repro.analysis.protocol import by_net


def save(runs: Sequence[Run], out_dir: Path) -> list[Path]:
    """Draw Fig. 1 and write it as ``fig1.png`` and ``fig1.svg``."""
    return style.save(fig1(runs), "fig1", out_dir)


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
        book = (paper or Paper()) if curves.comparable(shown) else None
        unit = curves.iter_unit(shown)
        for axes, kind in ((left, "train"), (right, "test")):
            for group in nets.values():
                curves.draw_net(axes, group, kind, style.TEST, unit)
                curves.draw_paper(axes, book, 1, group[0], kind, style.PAPER_TEST)
            if missing:
                curves.no_runs(axes, missing, alone=not nets)
        left.set_title("training error")
        right.set_title("test error")
        left.set_ylabel("error (%)")
        right.tick_params(labelleft=True)
        curves.set_limits([left, right], shown)
        handles, labels = left.get_legend_handles_labels()
        style.underneath(figure, curves.sentences(shown, book), handles, labels)
    return figure
