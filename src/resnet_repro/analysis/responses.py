"""Figure 7: standard deviation of the layer responses, in the nets' order and sorted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from resnet_repro.analysis import style
from resnet_repro.analysis.captions import run_sentences
from resnet_repro.analysis.curves import logarithmic, no_runs
from resnet_repro.analysis.load import Run
from resnet_repro.analysis.paper import Paper
from resnet_repro.analysis.probes import responses
from resnet_repro.analysis.protocol import by_net, why_not_comparable
from resnet_repro.analysis.stats import seeds_phrase

NETS = ("plain-20", "plain-56", "ResNet-20", "ResNet-56", "ResNet-110")
HUGE = 7.0  # twice the top of the paper's axis
OURS: dict[str, Any] = {"linewidth": 1.5}
PAPERS: dict[str, Any] = {"linewidth": 0.7, "zorder": 1.5}


def save_fig7(runs: Sequence[Run], out_dir: Path, paper: Paper | None = None) -> list[Path]:
    """Draw Fig. 7 and write it as ``fig7.png`` and ``fig7.svg``."""
    return style.save(fig7(runs, paper), "fig7", out_dir)


def fig7(runs: Sequence[Run], paper: Paper | None = None) -> Figure:
    """Fig. 7: responses of the 3x3 convs after batch norm, before ReLU and addition.

    Above in the nets' order, below in descending order; plain nets dashed, residual nets solid,
    the mean over seeds. The paper's curves lie under them at any profile, for the axis is the
    same; the caption says where the training was not.
    """
    book = paper or Paper()
    logged = [run for run in runs if responses(run) is not None]
    nets = {label: group for label, group in by_net(logged).items() if label in NETS}
    shown = [run for group in nets.values() for run in group]
    missing = [label for label in NETS if label not in nets]
    with style.style():
        figure = style.new_figure(1, rows=2, panel=(7.2, 2.5))
        above, below = figure.subplots(2, 1, sharex=True)
        for axes, ordered in ((above, False), (below, True)):
            for group in nets.values():
                _draw(axes, group, ordered)
                _draw_paper(axes, book, group[0], ordered)
            if missing:
                no_runs(axes, missing, alone=not nets)
            axes.set_ylabel("std")
            _scale(axes)
        above.set_title("standard deviation of layer responses")
        below.set_xlabel("layer index (above: in the net's order; below: sorted by size)")
        below.set_xlim(0, max((run.depth for run in shown), default=110))
        handles, labels = above.get_legend_handles_labels()
        style.underneath(figure, _sentences(shown), handles, labels, columns=4)
    return figure


def _scale(axes: Axes) -> None:
    """From 0 as in the paper; logarithmic where one net's responses would hide the others'."""
    highest = max((float(np.max(line.get_ydata())) for line in axes.lines), default=0.0)
    if highest > HUGE:
        logarithmic(axes)
    else:
        axes.set_ylim(bottom=0)


def _line_style(run: Run) -> Any:
    return (0, (4, 1.6)) if run.is_plain else "-"


def _draw(axes: Axes, runs: Sequence[Run], ordered: bool) -> None:
    rows = [table.to_numpy() for run in runs if (table := responses(run)) is not None]
    values = np.array([np.sort(row)[::-1] if ordered else row for row in rows])
    layers, colour = np.arange(1, values.shape[1] + 1), style.depth_colour(runs[0].depth)
    label = f"{runs[0].label}, {seeds_phrase(len(runs))}"
    line = _line_style(runs[0])
    axes.plot(layers, values.mean(axis=0), color=colour, label=label, linestyle=line, **OURS)
    if len(rows) > 1:
        low, high = values.min(axis=0), values.max(axis=0)
        axes.fill_between(layers, low, high, color=colour, alpha=0.15, linewidth=0)


def _draw_paper(axes: Axes, paper: Paper, run: Run, ordered: bool) -> None:
    curve = paper.responses(run.label, ordered=ordered)
    if not curve.empty:
        colour, label = style.pale(style.depth_colour(run.depth)), f"{run.label} in the paper"
        x, line = curve.index.to_numpy(), _line_style(run)
        axes.plot(x, curve.to_numpy(), color=colour, label=label, linestyle=line, **PAPERS)


def _sentences(runs: Sequence[Run]) -> list[str]:
    if not runs:
        return ["No runs with layer responses logged."]
    said = ["Output of each 3x3 conv after batch norm, before ReLU and addition."]
    said += run_sentences(runs)
    said.append("Dashed: plain nets; thin pale: the paper's.")
    highest = max(float(table.max()) for run in runs if (table := responses(run)) is not None)
    if highest > HUGE:
        said.append("Logarithmic axes, unlike the paper's.")
    if len(runs) > len(by_net(runs)):
        said.append("Line: mean over seeds; band: lowest to highest seed.")
    reason = why_not_comparable(runs)
    if reason:
        said.append(
            f"The paper's nets were trained for 64,000 iterations, these were not ({reason})."
        )
    return said
