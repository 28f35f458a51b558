"""Are the gradients of plain nets healthy? Norms by layer, at initialisation and in training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from resnet_repro.analysis import style
from resnet_repro.analysis.captions import run_sentences
from resnet_repro.analysis.curves import logarithmic, say_why_empty
from resnet_repro.analysis.load import Run
from resnet_repro.analysis.probes import (
    ByIteration,
    bn_output_gradients,
    end_ratios,
    gradients,
    logarithm,
    scaled_gradients,
    signal,
    starts_at_initialisation,
    weights,
)
from resnet_repro.analysis.protocol import by_net
from resnet_repro.analysis.stats import seeds_phrase

Curve = Callable[[Run], "pd.Series[float] | None"]


def save_gradients(runs: Sequence[Run], out_dir: Path) -> list[Path]:
    """Draw the gradient norms and write them as ``gradients.png`` and ``gradients.svg``."""
    return style.save(gradient_figure(runs), "gradients", out_dir)


def gradient_figure(runs: Sequence[Run]) -> Figure:
    """Gradient and weight norms by layer, and how they stand between the first layer and the last.

    Upper row, over the layer's place in the net: norm of the gradient at the output of each batch
    norm at initialisation, norm of each conv's weight gradient at initialisation and at the last
    logged iteration, and the norm of its weights then. Lower row: what claim C10 tests, the first
    layer over the last at the batch norms' outputs; the same of the weight gradients, bare and
    with weights as long as at first (:func:`scaled_gradients`); and the forward signal at
    initialisation: the standard deviation of each conv's output before batch norm.
    Plain nets are dashed; every seed has its own line.
    """
    logged = [run for run in runs if gradients(run) is not None]
    places: dict[str, Curve] = {
        "gradient at BN outputs\nat initialisation": _at_start(bn_output_gradients),
        "weight gradient\nat initialisation": _at_start(gradients),
        "weight gradient\nlast logged": _last(gradients),
        "weight norm\nlast logged": _last(weights),
        "conv output before BN\nat initialisation (std)": signal,
    }
    over_iterations: dict[str, ByIteration] = {
        "gradient at BN outputs\nfirst layer over last": bn_output_gradients,
        "weight gradient\nfirst layer over last": gradients,
        "the same, growth of\nweights taken out": scaled_gradients,
    }
    with style.style():
        figure = style.new_figure(4, rows=2, panel=(2.6, 2.5))
        (*upper, forward), lower = _split(figure)
        for axes, (title, curve) in zip([*upper, forward], places.items(), strict=True):
            axes.set_title(title)
            axes.set_xlabel("place in the net")
            axes.set_xlim(0, 1)
            _draw(axes, logged, curve, by_place=True)
        for axes, (title, read) in zip(lower, over_iterations.items(), strict=True):
            axes.set_title(title)
            axes.set_xlabel("iteration")
            _draw(axes, logged, partial(end_ratios, read=read))
            _scale(axes)
        for axes in (*upper, *lower):
            if axes.lines:
                logarithmic(axes)
            else:
                say_why_empty(axes, "these runs did not log it")
        for axes in lower:
            axes.axhline(1, color="#555555", linewidth=0.7, zorder=1)
        if forward.lines:
            forward.set_ylim(bottom=0)
        else:
            say_why_empty(forward, "these runs did not log it")
        handles, labels = figure.axes[1].get_legend_handles_labels()
        style.underneath(figure, _sentences(logged), handles, labels, columns=4)
    return figure


def _split(figure: Figure) -> tuple[list[Axes], list[Axes]]:
    """The panels over the place in the net, forward signal last, and those over iterations."""
    (*upper, size), (*lower, forward) = figure.subplots(2, 4)
    return [*upper, size, forward], list(lower)


def _at_start(read: ByIteration) -> Curve:
    def start(run: Run) -> pd.Series[float] | None:
        table = read(run)
        return None if table is None or not starts_at_initialisation(table) else table.iloc[0]

    return start


def _last(read: ByIteration) -> Curve:
    def last(run: Run) -> pd.Series[float] | None:
        table = read(run)
        return None if table is None else table.iloc[-1]

    return last


def _draw(axes: Axes, runs: Sequence[Run], read: Curve, *, by_place: bool = False) -> None:
    """One line a run, over the layer's place in the net from 0 to 1 or over the iterations.

    The legend has one entry a net.
    """
    for group in by_net(runs).values():
        curves = [curve for run in group if (curve := read(run)) is not None]
        dashes = (0, (4, 1.6)) if group[0].is_plain else "-"
        look: dict[str, Any] = {"color": style.depth_colour(group[0].depth), "linestyle": dashes}
        if not by_place:
            look |= {"marker": "o", "markersize": 2.5}
        for number, curve in enumerate(curves):
            label = f"{group[0].label}, {seeds_phrase(len(curves))}" if number == 0 else None
            x = np.linspace(0, 1, len(curve)) if by_place else curve.index.to_numpy(float)
            y = np.exp(logarithm(curve.to_numpy()))
            axes.plot(x, y, linewidth=1.2, label=label, **look)


def _scale(axes: Axes) -> None:
    """Iterations on a logarithmic axis that has a place for 0."""
    iters = np.unique(np.concatenate([[0.0], *(line.get_xdata() for line in axes.lines)]))
    if len(iters) > 1:
        axes.set_xscale("symlog", linthresh=float(iters[1]))
        axes.set_xlim(0, float(iters[-1]))


def _sentences(runs: Sequence[Run]) -> list[str]:
    if not runs:
        return ["No runs with gradient norms logged."]
    said = [
        "Norm of the loss gradient with respect to the output of each batch norm and to the "
        "weights of each 3x3 conv.",
        *run_sentences(runs),
        "Place 0: first conv, 1: last. Dashed: plain nets.",
        "With batch norm after a conv, weights twice as large make the same net with half the "
        "gradient; third below: the norm, were all weights as long as at initialisation.",
    ]
    tables = [table for run in runs if (table := gradients(run)) is not None]
    last = sorted({int(table.index[-1]) for table in tables})
    said.append(f"Last logged iteration: {', '.join(f'{it:,}' for it in last)}.")
    if len(runs) > len(by_net(runs)):
        said.append("One line a seed.")
    return said
