"""Fig. 6: plain nets get worse with depth, residual nets better up to 110 layers; 1202 overfit."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from resnet_repro.analysis import curves, style
from resnet_repro.analysis.logged_run import Run
from resnet_repro.analysis.protocol import cifar_nets

ZOOM_FROM = 35 / 64  # share of the schedule where the right panel of Fig. 6 begins
# By their place in the paper: title, the nets they should have.
PANELS = {
    "left": ("plain nets", ("plain-20", "plain-32", "plain-44", "plain-56")),
    "middle": ("residual nets", tuple(f"ResNet-{depth}" for depth in (20, 32, 44, 56, 110))),
    "right": ("residual nets, 110 and 1202 layers", ("ResNet-110", "ResNet-1202")),
}


@style.style()
def fig6(runs: Sequence[Run]) -> Figure:
    """Fig. 6: plain nets, residual nets to 110 layers, and 110 against 1202 layers.

    Dashed is training error, bold is test error. A net that stays above the axis is not drawn, as
    in the paper, but named with its error. Without a run of its nets there is no third panel.
    """
    residual = cifar_nets(runs, "ResNet")
    panels = {
        "left": cifar_nets(runs, "plain"),
        "middle": {label: net for label, net in residual.items() if net[0].depth <= 110},
        "right": {k: net for k, net in residual.items() if k in PANELS["right"][1]},
    }
    if not panels["right"]:
        del panels["right"]
    shown = {run.path: run for nets in panels.values() for net in nets.values() for run in net}
    drawn = list(shown.values())
    figure, row = style.subplots(1, len(panels), panel=(3.4, 3.1), sharey=True)
    row[0].set_ylabel("error (%)")
    curves.set_limits(row, drawn)
    for axes, (place, nets) in zip(row, panels.items(), strict=True):
        title, labels = PANELS[place]
        if place == "right":
            axes.set_xlim(ZOOM_FROM * axes.get_xlim()[1])
        axes.set_title(title)
        axes.tick_params(labelleft=True)
        curves.draw_nets(axes, nets, labels, (6, place), drawn)
    depths, paper_label = [run.depth for run in drawn], "test error" * curves.comparable(drawn)
    columns = 2 * len(panels)
    key = curves.legend(depths, columns, "test error", paper_label)
    sentences = curves.sentences(drawn)
    if drawn and "right" not in panels:
        sentences.append(f"No third panel: no finished runs of {' and '.join(PANELS['right'][1])}.")
    return style.underneath(figure, sentences, key, columns=columns)
