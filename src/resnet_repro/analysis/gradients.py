"""Are the gradients of plain nets healthy? Norms by layer, at initialisation and in training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from resnet_repro.analysis import style
from resnet_repro.analysis.captions import run_sentences
from resnet_repro.analysis.load import Run
from resnet_repro.analysis.panels import logarithmic, no_runs
from resnet_repro.analysis.probes import (
    ByIteration,
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

    Upper row: norm of each layer's weight gradient over the layer's place in the net, at
    initialisation and at the last logged iteration, and the norm of its weights then. Lower row,
    over the iterations: the norm of the first layer's gradient over that of the last, bare and
    with weights as long as at first (:func:`scaled_gradients`); and the forward signal at
    initialisation: the standard deviation of each conv's output before batch norm.
    Plain nets are dashed; of several seeds the geometric mean is drawn.
    """
    logged = [run for run in runs if gradients(run) is not None]
    nets = by_net(logged)
    with style.style():
        figure = style.new_figure(3, rows=2, panel=(3.1, 2.5))
        (start, end, size), (bare, scaled, forward) = figure.subplots(2, 3)
        start.set_title("gradient norm at initialisation")
        end.set_title("gradient norm, last logged")
        size.set_title("weight norm, last logged")
        bare.set_title("gradient norm, first layer over last")
        scaled.set_title("the same, growth of weights taken out")
        forward.set_title("conv output before BN\nat initialisation (std)")
        for group in nets.values():
            _draw_by_place(start, group, _at_start)
            _draw_by_place(end, group, _last(gradients))
            _draw_by_place(size, group, _last(weights))
            _draw_by_place(forward, group, signal)
            _draw_ratio(bare, group, gradients)
            _draw_ratio(scaled, group, scaled_gradients)
        for axes in (start, end, size, forward):
            axes.set_xlabel("place in the net (0: first conv, 1: last)")
            axes.set_xlim(0, 1)
        for axes in (bare, scaled) if nets else ():
            axes.set_xlabel("iteration")
            _scale(axes, nets)
            axes.axhline(1, color="#555555", linewidth=0.7, zorder=1)
        for axes in (start, end, size, bare, scaled):
            if axes.lines:
                logarithmic(axes)
            else:
                no_runs(axes, ["no gradient norms"])
        if forward.lines:
            forward.set_ylim(bottom=0)
        else:
            no_runs(forward, ["no signal"])
        handles, labels = start.get_legend_handles_labels()
        style.underneath(figure, _sentences(logged), handles, labels, columns=4)
    return figure


def _at_start(run: Run) -> pd.Series[float] | None:
    table = gradients(run)
    return None if table is None or not starts_at_initialisation(table) else table.iloc[0]


def _last(read: ByIteration) -> Curve:
    def last(run: Run) -> pd.Series[float] | None:
        table = read(run)
        return None if table is None else table.iloc[-1]

    return last


def _draw_by_place(axes: Axes, runs: Sequence[Run], read: Curve) -> None:
    """Draw a quantity of each layer over the layer's place in the net, 0 to 1."""
    rows = [logarithm(values.to_numpy()) for run in runs if (values := read(run)) is not None]
    if not rows:
        return
    mean = np.exp(np.mean(rows, axis=0))
    label = f"{runs[0].label}, {seeds_phrase(len(rows))}"
    _line(axes, runs[0], np.linspace(0, 1, len(mean)), mean, label)


def _draw_ratio(axes: Axes, runs: Sequence[Run], read: ByIteration) -> None:
    ratios = end_ratios(runs, read)
    _line(axes, runs[0], ratios.index.to_numpy(), ratios.to_numpy(), runs[0].label)
    axes.lines[-1].set_marker("o")
    axes.lines[-1].set_markersize(2.5)


def _line(axes: Axes, run: Run, x: np.ndarray, y: np.ndarray, label: str) -> None:
    dashes = (0, (4, 1.6)) if run.is_plain else "-"
    colour = style.depth_colour(run.depth)
    axes.plot(x, y, color=colour, linestyle=dashes, linewidth=1.4, label=label)


def _scale(axes: Axes, nets: dict[str, list[Run]]) -> None:
    """Iterations on a logarithmic axis that has a place for 0."""
    iters = np.unique(np.concatenate([end_ratios(group).index for group in nets.values()]))
    later = iters[iters > 0]
    if len(later):
        axes.set_xscale("symlog", linthresh=float(later[0]))
        axes.set_xlim(0, float(later[-1]))


def _sentences(runs: Sequence[Run]) -> list[str]:
    if not runs:
        return ["No runs with gradient norms logged."]
    said = [
        "Norm of the loss gradient with respect to the weights of each 3x3 conv.",
        *run_sentences(runs),
        "Dashed: plain nets.",
        "With batch norm after a conv, weights twice as large make the same net with half the "
        "gradient; lower middle: the norm, were all weights as long as at initialisation.",
    ]
    tables = [table for run in runs if (table := gradients(run)) is not None]
    last = sorted({int(table.index[-1]) for table in tables})
    said.append(f"Last logged iteration: {', '.join(f'{it:,}' for it in last)}.")
    if len(runs) > len(by_net(runs)):
        said.append("Geometric mean over seeds.")
    return said
