"""Fig. 7 and claim C6: standard deviation of the layer responses, in the nets' order and sorted."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from resnet_repro.analysis import paper, style
from resnet_repro.analysis.captions import run_sentences
from resnet_repro.analysis.curves import logarithmic, name_missing
from resnet_repro.analysis.judge import Evidence, Measure, claim, compare, moved
from resnet_repro.analysis.logged_run import Run
from resnet_repro.analysis.protocol import by_net, cifar_nets, why_not_comparable
from resnet_repro.analysis.stats import how_many

NETS = ("plain-20", "plain-56", "ResNet-20", "ResNet-56", "ResNet-110")
HUGE = 7.0  # twice the top of the paper's axis
OURS: dict[str, Any] = {"linewidth": 1.5}
PAPERS: dict[str, Any] = {"linewidth": 0.7, "zorder": 1.5}


def responses(run: Run) -> pd.Series[float] | None:
    """Standard deviation of each 3x3 conv's responses by 1-based layer; None if not logged."""
    return run.by_layer("responses", "std")


@style.style()
def fig7(runs: Sequence[Run]) -> Figure:
    """Fig. 7: responses of the 3x3 convs after batch norm, before ReLU and addition.

    Above in the nets' order, below in descending order; plain nets dashed, residual nets solid,
    the mean over seeds. The paper's curves are under them at any profile, since the axis is the
    same; the caption says where the training was not.
    """
    logged = [run for run in runs if responses(run) is not None]
    nets = {label: net for label, net in by_net(logged).items() if label in NETS}
    shown = [run for net in nets.values() for run in net]
    figure, axes_pair = panels(max((run.depth for run in shown), default=110))
    for axes, ordered in zip(axes_pair, (False, True), strict=True):
        for net in nets.values():
            _draw(axes, net, ordered)
            draw_paper(axes, net[0].label, ordered, pale=True)
        name_missing(axes, nets, NETS)
        if _has_huge(shown):
            logarithmic(axes)  # one net's responses would hide the others'
        else:
            axes.set_ylim(bottom=0)
    return style.underneath(figure, _sentences(shown), axes_pair[0], columns=4)


def panels(depth: int) -> tuple[Figure, list[Axes]]:
    """The two empty panels for nets of up to so many layers."""
    figure, (above, below) = style.subplots(2, 1, panel=(7.2, 2.5), sharex=True)
    for axes in (above, below):
        axes.set_ylabel("std")
    above.set_title("standard deviation of layer responses")
    below.set_xlabel("layer index (above: in the net's order; below: sorted by size)")
    below.set_xlim(0, depth)
    return figure, [above, below]


def _draw(axes: Axes, runs: Sequence[Run], ordered: bool) -> None:
    rows = [table.to_numpy() for run in runs if (table := responses(run)) is not None]
    values = np.array([np.sort(row)[::-1] if ordered else row for row in rows])
    layers, colour = np.arange(1, values.shape[1] + 1), style.depth_colour(runs[0].depth)
    label = f"{runs[0].label}, {how_many(len(runs), 'seed')}"
    line = style.TRAIN["linestyle"] if runs[0].is_plain else "-"
    axes.plot(layers, values.mean(axis=0), color=colour, label=label, linestyle=line, **OURS)
    if len(rows) > 1:
        low, high = values.min(axis=0), values.max(axis=0)
        axes.fill_between(layers, low, high, color=colour, alpha=0.15, linewidth=0)


def draw_paper(axes: Axes, net: str, ordered: bool, *, pale: bool) -> None:
    """Draw the paper's curve of a net where there is one; ``pale``: under ours, not alone."""
    curve = paper.responses(net, ordered=ordered)
    if curve.empty:
        return
    colour: Any = style.depth_colour(int(net.rpartition("-")[2]))
    look = {"color": colour, "label": net} | OURS
    if pale:
        look = {"color": style.pale(colour), "label": f"{net} in the paper"} | PAPERS
    look["linestyle"] = style.TRAIN["linestyle"] if net.startswith("plain") else "-"
    axes.plot(curve.index.to_numpy(), curve.to_numpy(), **look)


def _sentences(runs: Sequence[Run]) -> list[str]:
    if not runs:
        return ["No runs with layer responses logged."]
    lines = ["Output of each 3x3 conv after batch norm, before ReLU and addition."]
    lines += run_sentences(runs)
    lines.append("Dashed: plain nets; thin pale: the paper's.")
    if _has_huge(runs):
        lines.append("Logarithmic axes, unlike the paper's.")
    if len(runs) > len(by_net(runs)):
        lines.append("Line: mean over seeds; band: lowest to highest seed.")
    if reason := why_not_comparable(runs):
        lines.append(f"These nets were not trained as the paper's ({reason}).")
    return lines


def _has_huge(runs: Sequence[Run]) -> bool:
    return any(float(table.max()) > HUGE for run in runs if (table := responses(run)) is not None)


@claim(
    "C6",
    "responses: residual below plain, deeper residual smaller",
    "a pair of nets with logged responses",
)
def responses_are_smaller(runs: Sequence[Run]) -> Evidence | None:
    """Responses of residual nets are below plain nets', and the deeper net has the smaller.

    Compared is the mean over layers of the standard deviation of a layer's responses (Fig. 7).
    Its seed noise is known from two seeds on: nobody has published one.
    """
    levels = {r.path: float(table.mean()) for r in runs if (table := responses(r)) is not None}
    logged = [run for run in runs if run.path in levels]
    plain, residual = cifar_nets(logged, "plain"), cifar_nets(logged, "ResNet")
    pairs = [
        (residual[label], net)
        for net in plain.values()
        if (label := f"ResNet-{net[0].depth}") in residual
    ]
    pairs += [(deeper, net) for net, deeper in itertools.pairwise(residual.values())]
    if not pairs:
        return None
    measure = Measure("mean response std", lambda run: levels[run.path])
    nets = list((plain | residual).values())
    means = ", ".join(f"{net[0].label} {measure.mean(net):.2f}" for net in nets)
    found = Evidence(nets, f"{measure.name} {means}")
    for smaller, larger in pairs:
        gap = compare(smaller, larger, measure)
        low, high = smaller[0].label, larger[0].label
        clause = f"{low} {moved(gap, f'below {high}', f'above {high}', '')}"
        found.add(f"{high} minus {low}", gap, 1, clause)
    return found
