"""Fig. 1, the degradation: of plain nets the deeper has the higher training and test error."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from resnet_repro.analysis import curves, style
from resnet_repro.analysis.load import Run
from resnet_repro.analysis.protocol import by_net


def fig1(runs: Sequence[Run]) -> Figure:
    """Fig. 1: training error (left) and test error (right) of plain nets, the paper's 20 and 56.

    The mean over seeds is drawn with a band from the lowest to the highest seed. The paper's
    curves are drawn where the runs follow the paper's schedule; elsewhere the axes fit the runs
    and the caption says so.
    """
    nets = {label: net for label, net in by_net(runs).items() if net[0].is_plain}
    shown = [run for net in nets.values() for run in net]
    missing = [label for label in ("plain-20", "plain-56") if label not in nets]
    unit = curves.iter_unit(shown)
    with style.style():
        figure = style.new_figure(2)
        left, right = figure.subplots(1, 2, sharey=True)
        for axes, kind, title in ((left, "train", "training"), (right, "test", "test")):
            for net in nets.values():
                curves.draw_net(axes, net, kind, style.TEST, unit)
                if curves.comparable(shown):
                    curves.draw_paper(axes, 1, net[0], kind, style.PAPER_TEST)
            if missing:
                curves.no_runs(axes, missing, alone=not nets)
            axes.set_title(f"{title} error")
        left.set_ylabel("error (%)")
        right.tick_params(labelleft=True)
        curves.set_limits([left, right], shown)
        handles, labels = left.get_legend_handles_labels()
        style.underneath(figure, curves.sentences(shown), handles, labels)
    return figure
