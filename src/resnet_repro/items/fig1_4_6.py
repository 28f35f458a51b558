"""Figs. 1, 4 and 6: training and test error over the iterations, plain against residual nets."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from resnet_repro.analysis import curves, style
from resnet_repro.analysis.captions import TITLES
from resnet_repro.analysis.logged_run import Run
from resnet_repro.analysis.protocol import SCHEDULES, cifar_nets, nets_by_data

# Fig. 4 ends at 63 % and 55e4 iterations.
FIG4 = curves.Frame((20.0, 65.0), SCHEDULES["imagenet"][0])
ZOOM_FROM = 35 / 64  # share of the schedule where the right panel of Fig. 6 begins
# Panels by their place in the paper: title, the nets they should have.
FIG4_PANELS = {
    "left": ("plain nets", ("plain-18", "plain-34")),
    "right": ("residual nets, option A", ("ResNet-18 A", "ResNet-34 A")),
}
FIG6_PANELS = {
    "left": ("plain nets", ("plain-20", "plain-32", "plain-44", "plain-56")),
    "middle": ("residual nets", tuple(f"ResNet-{depth}" for depth in (20, 32, 44, 56, 110))),
    "right": ("residual nets, 110 and 1202 layers", ("ResNet-110", "ResNet-1202")),
}


@style.style()
def fig1(runs: Sequence[Run]) -> Figure:
    """Fig. 1: training and test error of plain nets, a band from the lowest to the highest seed."""
    nets = cifar_nets(runs, "plain")
    shown = [run for net in nets.values() for run in net]
    unit = curves.iter_unit(shown)
    figure, (left, right) = style.subplots(1, 2, sharey=True)
    for axes, kind, title in ((left, "train", "training"), (right, "test", "test")):
        for net in nets.values():
            curves.draw_net(axes, net, kind, style.TEST, unit)
            if curves.comparable(shown):
                curves.draw_paper(axes, 1, net[0], kind, style.PAPER_TEST)
        curves.name_missing(axes, nets, ("plain-20", "plain-56"))
        axes.set_title(f"{title} error")
    left.set_ylabel("error (%)")
    right.tick_params(labelleft=True)
    curves.set_limits([left, right], shown)
    return style.underneath(figure, curves.sentences(shown), left)


@style.style()
def fig4(runs: Sequence[Run]) -> Figure:
    """Fig. 4: plain nets (left) and residual nets with option A (right), 18 and 34 layers.

    Bold is the validation error of the single view, thin dashed the training error. A data set has
    a pair of panels of its own; one without runs has none.
    """
    known = [label for _, labels in FIG4_PANELS.values() for label in labels]
    nets = {
        data: {label: net for label, net in found.items() if label in known}
        for data, found in nets_by_data(runs).items()
    }
    rows = {data: found for data, found in nets.items() if found} or {"imagenet": {}}
    drawn, sentences, paper_label = list[Run](), list[str](), ""
    figure, grid = style.subplots(len(rows), 2, squeeze=False)
    for pair, (data, found) in zip(grid, rows.items(), strict=True):
        shown = [run for net in found.values() for run in net]
        curves.set_limits(pair, shown, FIG4)
        for axes, (place, (title, labels)) in zip(pair, FIG4_PANELS.items(), strict=True):
            between = ": " if data == "imagenet" else ":\n"  # the long name needs two lines
            axes.set_title(TITLES.get(data, data) + between + title)
            axes.set_ylabel("error (%)")
            panel_nets = {label: found[label] for label in labels if label in found}
            curves.draw_nets(axes, panel_nets, labels, (4, place), shown)
        sentences += curves.sentences(shown, FIG4)
        paper_label = paper_label or "validation error" * curves.comparable(shown)
        drawn += shown
    if "imagenet" not in rows:
        sentences.append("No ImageNet runs logged.")
    depths = [run.depth for run in drawn]
    key = curves.legend(depths, 2, "validation error, 1-crop", paper_label)
    return style.underneath(figure, list(dict.fromkeys(sentences)), key)


@style.style()
def fig6(runs: Sequence[Run]) -> Figure:
    """Fig. 6: plain nets, residual nets to 110 layers, and 110 against 1202 layers.

    Dashed is training error, bold is test error. A net that stays above the axis is not drawn, as
    in the paper, but named with its error.
    """
    residual = cifar_nets(runs, "ResNet")
    panels = {
        "left": cifar_nets(runs, "plain"),
        "middle": {label: net for label, net in residual.items() if net[0].depth <= 110},
        "right": {k: net for k, net in residual.items() if k in FIG6_PANELS["right"][1]},
    }
    shown = {run.path: run for nets in panels.values() for net in nets.values() for run in net}
    drawn = list(shown.values())
    figure, row = style.subplots(1, 3, panel=(3.4, 3.1), sharey=True)
    row[0].set_ylabel("error (%)")
    curves.set_limits(row, drawn)
    end = row[2].get_xlim()[1]
    row[2].set_xlim(end * ZOOM_FROM, end)
    for axes, (place, nets) in zip(row, panels.items(), strict=True):
        title, labels = FIG6_PANELS[place]
        axes.set_title(title)
        axes.tick_params(labelleft=True)
        curves.draw_nets(axes, nets, labels, (6, place), drawn)
    depths, paper_label = [run.depth for run in drawn], "test error" * curves.comparable(drawn)
    key = curves.legend(depths, 6, "test error", paper_label)
    return style.underneath(figure, curves.sentences(drawn), key, columns=6)
