"""Fig. 4: training and validation error of plain (left) and residual nets (right).

Of 18 and 34 layers, the deeper plain net is worse in both on ImageNet, the deeper residual net
better. Tiny ImageNet has panels of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from resnet_repro.analysis import curves, style
from resnet_repro.analysis.load import Run
from resnet_repro.analysis.protocol import TITLES, Nets, nets_by_data

FRAME = curves.Frame((20.0, 65.0), 600_000)  # Fig. 4 ends at 63 % and 55e4 iterations
PANELS = {
    "left": ("plain nets", ("plain-18", "plain-34")),
    "right": ("residual nets, option A", ("ResNet-18 A", "ResNet-34 A")),
}
CENTRE_CROP = "val_center_crop"  # what the digitised validation curves are called


def fig4(runs: Sequence[Run]) -> Figure:
    """Fig. 4: plain nets (left) and residual nets with option A (right), 18 and 34 layers.

    Bold is the validation error of the single view, thin dashed the training error. A data set
    has a pair of panels of its own; one without runs has none. The paper's curves lie under
    ImageNet runs of its schedule only.
    """
    wanted = [label for _, labels in PANELS.values() for label in labels]
    nets = {
        data: {label: net for label, net in found.items() if label in wanted}
        for data, found in nets_by_data(runs).items()
    }
    rows = {data: found for data, found in nets.items() if found} or {"imagenet": {}}
    drawn: list[Run] = []
    said, papers = [], ""
    with style.style():
        figure = style.new_figure(2, rows=len(rows))
        grid = figure.subplots(len(rows), 2, squeeze=False)
        for axes_pair, (data, found) in zip(grid, rows.items(), strict=True):
            shown = [run for net in found.values() for run in net]
            _draw_pair(list(axes_pair), data, found, shown)
            said += curves.sentences(shown, FRAME)
            papers = papers or "validation error" * curves.comparable(shown)
            drawn += shown
        if "imagenet" not in rows:
            said.append("No ImageNet runs logged.")
        handles, labels = curves.legend(drawn, 2, "validation error, 1-crop", papers)
        style.underneath(figure, list(dict.fromkeys(said)), handles, labels, columns=2)
    return figure


def _draw_pair(row: Sequence[Axes], data: str, nets: Nets, shown: Sequence[Run]) -> None:
    """Draw the two panels of one data set."""
    curves.set_limits(row, shown, FRAME)
    with_paper, unit = curves.comparable(shown), curves.iter_unit(shown)
    for axes, (place, (title, labels)) in zip(row, PANELS.items(), strict=True):
        between = ": " if data == "imagenet" else ":\n"  # the long name needs two lines
        axes.set_title(TITLES[data] + between + title)
        axes.set_ylabel("error (%)")
        here = [nets[label] for label in labels if label in nets]
        for net in here:
            curves.draw_both(axes, net, (4, CENTRE_CROP, place) if with_paper else None, unit)
        if missing := [label for label in labels if label not in nets]:
            curves.no_runs(axes, missing, alone=not here)
        curves.name_what_is_above(axes, here)
