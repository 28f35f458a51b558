"""Fig. 4: training and validation error of plain (left) and residual nets (right).

Of 18 and 34 layers, the deeper plain net is worse in both on ImageNet, the deeper residual net
better. Tiny ImageNet has panels of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from resnet_repro.analysis import curves, style
from resnet_repro.analysis.imagenet import TITLES, Nets, nets_by_data
from resnet_repro.analysis.load import Run
from resnet_repro.analysis.paper import Paper

FRAME = curves.Frame((20.0, 65.0), 600_000)  # Fig. 4 ends at 63 % and 55e4 iterations
PLACES = {
    "left": ("plain nets", ("plain-18", "plain-34")),
    "right": ("residual nets, option A", ("ResNet-18 A", "ResNet-34 A")),
}
CENTRE_CROP = "val_center_crop"  # what the digitised validation curves are called


def save(runs: Sequence[Run], out_dir: Path) -> list[Path]:
    """Draw Fig. 4 and write it as ``fig4.png`` and ``fig4.svg``."""
    return style.save(fig4(runs), "fig4", out_dir)


def fig4(runs: Sequence[Run], paper: Paper | None = None) -> Figure:
    """Fig. 4: plain nets (left) and residual nets with option A (right), 18 and 34 layers.

    Bold is the validation error of the single view, thin dashed the training error. A data set
    has a pair of panels of its own; one without runs has none. The paper's curves lie under
    ImageNet runs of its schedule only.
    """
    wanted = [label for _, labels in PLACES.values() for label in labels]
    nets = {
        data: {label: group for label, group in found.items() if label in wanted}
        for data, found in nets_by_data(runs).items()
    }
    rows = {data: found for data, found in nets.items() if found} or {"imagenet": {}}
    with style.style():
        figure = style.new_figure(2, rows=len(rows))
        grid = figure.subplots(len(rows), 2, squeeze=False)
        said, overlaid = [], False
        for axes_row, (data, found) in zip(grid, rows.items(), strict=True):
            shown = [run for group in found.values() for run in group]
            book = (paper or Paper()) if curves.comparable(shown) else None
            overlaid = overlaid or book is not None
            _draw_pair(list(axes_row), data, found, shown, book)
            said += curves.sentences(shown, book, FRAME)
        if "imagenet" not in rows:
            said.append("No ImageNet runs logged.")
        handles, labels = _legend(rows, with_paper=overlaid)
        style.underneath(figure, list(dict.fromkeys(said)), handles, labels, columns=2)
    return figure


def _draw_pair(
    row: Sequence[Axes], data: str, nets: Nets, shown: Sequence[Run], paper: Paper | None
) -> None:
    """Draw the two panels of one data set."""
    curves.set_limits(row, shown, FRAME)
    unit = curves.iter_unit(shown)
    for axes, (place, (title, labels)) in zip(row, PLACES.items(), strict=True):
        between = ": " if data == "imagenet" else ":\n"  # the long name needs two lines
        axes.set_title(TITLES[data] + between + title)
        axes.set_ylabel("error (%)")
        groups = [nets[label] for label in labels if label in nets]
        for group in groups:
            curves.draw_net(axes, group, "test", style.TEST, unit)
            curves.draw_paper(axes, paper, 4, group[0], CENTRE_CROP, style.PAPER_TEST, place)
            curves.draw_net(axes, group, "train", style.TRAIN, unit)
            curves.draw_paper(axes, paper, 4, group[0], "train", style.PAPER_TRAIN, place)
        missing = [label for label in labels if label not in nets]
        if missing:
            curves.no_runs(axes, missing, alone=not groups)
        curves.name_what_is_above(axes, groups)


def _legend(rows: dict[str, Nets], *, with_paper: bool) -> tuple[list[Line2D], list[str]]:
    """Colours of the depths and styles of the lines."""
    depths = sorted(
        {run.depth for nets in rows.values() for group in nets.values() for run in group}
    )
    if not depths:
        return [], []
    looks: list[tuple[str, Any, dict[str, Any]]]
    looks = [(f"{depth} layers", style.depth_colour(depth), style.TEST) for depth in depths]
    looks += [("", "none", {"linestyle": "none"})] * (len(depths) % 2)
    looks += [("validation error, 1-crop", "#000000", style.TEST)]
    looks += [("training error", "#000000", style.TRAIN)]
    if with_paper:
        shade = style.pale("#000000")
        looks += [("the paper's validation error", shade, style.PAPER_TEST)]
        looks += [("the paper's training error", shade, style.PAPER_TRAIN)]
    return [Line2D([], [], color=c, **look) for _, c, look in looks], [text for text, *_ in looks]
