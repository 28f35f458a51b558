"""Fig. 4: training and validation error of plain and residual nets, 18 and 34 layers."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from resnet_repro.analysis import curves, style
from resnet_repro.analysis.captions import TITLES
from resnet_repro.analysis.logged_run import Run
from resnet_repro.analysis.protocol import nets_by_data

# By their place in the paper: title, the nets they should have.
PANELS = {
    "left": ("plain nets", ("plain-18", "plain-34")),
    "right": ("residual nets, option A", ("ResNet-18 A", "ResNet-34 A")),
}


@style.style()
def fig4(runs: Sequence[Run]) -> Figure:
    """Fig. 4: plain nets (left) and residual nets with option A (right), 18 and 34 layers.

    On ImageNet the deeper plain net is worse in both errors, the deeper residual net better. Bold
    is the validation error of the single view, thin dashed the training error. A data set has a
    pair of panels of its own; one without runs has none.
    """
    known = [label for _, labels in PANELS.values() for label in labels]
    nets = {
        data: {label: net for label, net in found.items() if label in known}
        for data, found in nets_by_data(runs).items()
    }
    rows = {data: found for data, found in nets.items() if found} or {"imagenet": {}}
    drawn, sentences, paper_label = list[Run](), list[str](), ""
    figure, grid = style.subplots(len(rows), 2, squeeze=False)
    for pair, (data, found) in zip(grid, rows.items(), strict=True):
        shown = [run for net in found.values() for run in net]
        curves.set_limits(pair, shown, "imagenet")
        for axes, (place, (title, labels)) in zip(pair, PANELS.items(), strict=True):
            between = ": " if data == "imagenet" else ":\n"  # the long name needs two lines
            axes.set_title(TITLES.get(data, data) + between + title)
            axes.set_ylabel("error (%)")
            panel_nets = {label: found[label] for label in labels if label in found}
            curves.draw_nets(axes, panel_nets, labels, (4, place), shown)
        sentences += curves.sentences(shown)
        paper_label = paper_label or "validation error" * curves.comparable(shown)
        drawn += shown
    if "imagenet" not in rows:
        sentences.append("No ImageNet runs logged.")
    depths = [run.depth for run in drawn]
    key = curves.legend(depths, 2, "validation error, 1-crop", paper_label)
    return style.underneath(figure, list(dict.fromkeys(sentences)), key)
