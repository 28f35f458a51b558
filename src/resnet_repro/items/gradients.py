"""Are the gradients of plain nets healthy? Norms by layer, at first and in training; claim C10."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from resnet_repro.analysis import style
from resnet_repro.analysis.captions import run_sentences
from resnet_repro.analysis.curves import explain_empty, logarithmic
from resnet_repro.analysis.judge import FAILS, HOLDS, INCONCLUSIVE, OPEN, Evidence, claim
from resnet_repro.analysis.logged_run import Run
from resnet_repro.analysis.protocol import by_net, cifar_nets
from resnet_repro.analysis.stats import how_many

ByIteration = Callable[[Run], "pd.DataFrame | None"]
Curve = Callable[[Run], "pd.Series[float] | None"]
FIRST_UPDATE = 1  # its gradients are those at initialisation
# Marks for the gradient of the first layer over that of the last, and, as ratios, for their
# inverses: the lower ones were decided before any run was seen.
VANISHED, HEALTHY = 0.1, 1 / 3
EACH = "lowest to highest of the logged iterations, by seed"
VERDICTS = {HOLDS: "as the paper says", FAILS: "not as the paper says", INCONCLUSIVE: OPEN}


def gradients(run: Run, column: str = "grad_norm") -> pd.DataFrame | None:
    """Norm of each conv's weight gradient by ``iter`` and layer; None if not logged."""
    table = run.table("gradients")
    if table is None or column not in table:
        return None
    return table.pivot_table(index="iter", columns="layer", values=column)


def bn_output_gradients(run: Run) -> pd.DataFrame | None:
    """Norm of the loss gradient at the output of each conv's BN; None in runs older than that."""
    return gradients(run, "bn_output_grad_norm")


def weights(run: Run) -> pd.DataFrame | None:
    """Norm of each conv's weights when that gradient was made, by ``iter`` and layer.

    What is logged is the norm after the update. The first update can be far longer than the
    weights, so its step is subtracted again: the gradient of a conv that a batch norm follows is
    orthogonal to its weights. None if not logged.
    """
    norms, steps = gradients(run, "weight_norm"), gradients(run)
    if norms is None or steps is None or norms.index[0] > FIRST_UPDATE:
        return norms
    recipe = run.config["recipe"]
    rate = recipe["lr" if recipe["warmup"] == "none" else "warmup_lr"]
    squares = norms.iloc[0] ** 2 - (rate * steps.iloc[0]) ** 2
    norms.iloc[0] = np.sqrt(squares.where(squares > 0, norms.iloc[0] ** 2))
    return norms


def scaled_gradients(run: Run) -> pd.DataFrame | None:
    """Norm of each conv's gradient for weights of the initial norm, by ``iter`` and layer.

    A conv that a batch norm follows makes the same net with weights a times as large, and has 1/a
    of the gradient. This removes that a; at initialisation it is the norm itself. None if
    not logged.
    """
    norms, sizes = gradients(run), weights(run)
    return None if norms is None or sizes is None else norms * sizes / sizes.iloc[0]


def brief(value: float) -> str:
    """Format a norm or a ratio: an integer from 100 on, two digits below."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"


def end_ratios(run: Run, read: ByIteration = gradients) -> pd.Series[float] | None:
    """Return the first layer's value of ``read`` over the last layer's, by iteration."""
    table = read(run)
    if table is None:
        return None
    norms = _positive(table.to_numpy())
    return pd.Series(np.exp(np.log(norms[:, 0]) - np.log(norms[:, -1])), index=table.index)


def _positive(norms: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Norms without 0, where a layer is dead: logarithms are taken of them."""
    positive: np.ndarray[Any, Any] = np.maximum(norms, float(np.finfo(np.float32).tiny))
    return positive


@style.style()
def gradient_figure(runs: Sequence[Run]) -> Figure:
    """Gradient and weight norms by layer, and the first layer's over the last's.

    Upper row, over the layer's place in the net: norm of the gradient at the output of each batch
    norm at initialisation, norm of each conv's weight gradient at initialisation and at the last
    logged iteration, and the norm of its weights then. Lower row: what claim C10 tests, the first
    layer over the last at the batch norms' outputs; the same of the weight gradients, bare and
    with weights as long as at first (:func:`scaled_gradients`); and the forward signal at
    initialisation: the standard deviation of each conv's output before batch norm.
    Plain nets are dashed; every seed has its own line.
    """
    logged = [run for run in runs if gradients(run) is not None]
    panels: dict[str, Curve] = {
        "gradient at BN outputs\nat initialisation": lambda run: _first(bn_output_gradients(run)),
        "weight gradient\nat initialisation": lambda run: _first(gradients(run)),
        "weight gradient\nlast logged": lambda run: _last(gradients(run)),
        "weight norm\nlast logged": lambda run: _last(weights(run)),
        "gradient at BN outputs\nfirst layer over last": (
            lambda run: end_ratios(run, bn_output_gradients)
        ),
        "weight gradient\nfirst layer over last": end_ratios,
        "the same, growth of\nweights taken out": lambda run: end_ratios(run, scaled_gradients),
        "conv output before BN\nat initialisation (std)": (
            lambda run: run.by_layer("signal", "output_std")
        ),
    }
    figure, axes_grid = style.subplots(2, 4, panel=(2.6, 2.5))
    grid = list(axes_grid.flat)
    for axes, (title, read) in zip(grid, panels.items(), strict=True):
        _draw(axes, title, logged, read, over_iterations=axes in grid[4:7])
        if not axes.lines:
            explain_empty(axes, "these runs did not log it")
        elif axes is grid[-1]:
            axes.set_ylim(bottom=0)
        else:
            logarithmic(axes)
    for axes in grid[4:7]:
        axes.axhline(1, color="#555555", linewidth=0.7, zorder=1)
    return style.underneath(figure, _sentences(logged), grid[1], columns=4)


def _first(table: pd.DataFrame | None) -> pd.Series[float] | None:
    return None if table is None or table.index[0] > FIRST_UPDATE else table.iloc[0]


def _last(table: pd.DataFrame | None) -> pd.Series[float] | None:
    return None if table is None else table.iloc[-1]


def _draw(
    axes: Axes, title: str, runs: Sequence[Run], read: Curve, *, over_iterations: bool
) -> None:
    """Draw a line a run, over the layer's place in the net from 0 to 1 or over the iterations.

    The legend has one entry a net. Iterations have a logarithmic axis with a place for 0.
    """
    iters = {0.0}
    axes.set_title(title)
    for label, net in by_net(runs).items():
        curves = [curve for run in net if (curve := read(run)) is not None]
        look: dict[str, Any] = {"color": style.depth_colour(net[0].depth), "linewidth": 1.2}
        look["linestyle"] = style.TRAIN["linestyle"] if net[0].is_plain else "-"
        for number, curve in enumerate(curves):
            look["label"] = f"{label}, {how_many(len(curves), 'seed')}" if number == 0 else None
            x = np.linspace(0, 1, len(curve))
            if over_iterations:
                x = curve.index.to_numpy(float)
                look |= {"marker": "o", "markersize": 2.5}
                iters |= {*x}
            axes.plot(x, _positive(curve.to_numpy()), **look)
    axes.set_xlabel("iteration" if over_iterations else "place in the net")
    if not over_iterations:
        axes.set_xlim(0, 1)
    elif len(iters) > 1:
        axes.set_xscale("symlog", linthresh=sorted(iters)[1])
        axes.set_xlim(0, max(iters))


def _sentences(runs: Sequence[Run]) -> list[str]:
    if not runs:
        return ["No runs with gradient norms logged."]
    last = {int(table.index[-1]) for run in runs if (table := gradients(run)) is not None}
    lines = [
        "Norm of the loss gradient with respect to the output of each batch norm and to the "
        "weights of each 3x3 conv.",
        *run_sentences(runs),
        "Place 0: first conv, 1: last. Dashed: plain nets.",
        "With batch norm after a conv, weights twice as large make the same net with half the "
        "gradient; third below: the norm, were all weights as long as at initialisation.",
        f"Last logged iteration: {', '.join(f'{it:,}' for it in sorted(last))}.",
    ]
    return lines + (["One line a seed."] if len(runs) > len(by_net(runs)) else [])


@claim(
    "C10",
    "gradients of plain nets stay healthy: they neither vanish nor explode",
    "a plain net with logged gradient norms",
    VERDICTS,
)
def gradients_stay_healthy(runs: Sequence[Run]) -> Evidence | None:
    """In plain nets the gradient neither vanishes nor explodes toward the input.

    The paper says that the backward propagated gradients exhibit healthy norms (Sec. 4.1) and
    prints no numbers. Compared is the norm of the loss gradient with respect to the output of the
    first batch norm over that of the last, run by run and at every logged iteration. It vanishes
    below 0.1 and explodes above 10; it is healthy from 1/3 to 3 and unclear between. One run of a
    plain net that vanishes or explodes is enough for the claim to fail. Runs that logged only the
    gradients of weights give no verdict; their two measures are shown.
    """
    logged = [run for run in runs if gradients(run) is not None]
    plain = cifar_nets(logged, "plain")
    if not plain:
        return None
    nets = [*plain.values(), *cifar_nets(logged, "ResNet").values()]
    answers, clauses, older, numbers = list[str](), list[str](), list[str](), dict[str, float]()
    for run in (run for net in nets for run in net):
        ratios = end_ratios(run, bn_output_gradients)
        name = f"{run.label} seed {run.seed}"
        if ratios is None:
            bare, scaled = (_span(end_ratios(run, read)) for read in (gradients, scaled_gradients))
            older.append(f"{name} {bare} ({scaled})")
            continue
        lowest, highest = float(ratios.min()), float(ratios.max())
        vanishing, exploding = _answer(lowest), _answer(1 / highest)
        answers += [vanishing, exploding] if run.is_plain else []
        clauses.append(f"{name} {_span(ratios)}: vanishing {vanishing}, exploding {exploding}")
        numbers |= {f"{name} lowest": lowest, f"{name} highest": highest}
    verdict = INCONCLUSIVE if "unclear" in answers or not answers else HOLDS
    verdict = FAILS if "yes" in answers else verdict
    heads = {
        f"gradient at the output of the first batch norm over that of the last, {EACH}": clauses,
        "no verdict where only gradients of weights were logged; first conv over last, "
        f"{EACH} (in brackets with the growth of the weights taken out)": older,
    }
    groups = [f"{head}: {'; '.join(each)}" for head, each in heads.items() if each]
    return Evidence(nets, clauses=groups, numbers=numbers, verdict=verdict)


def _answer(ratio: float) -> str:
    """Whether a gradient has shrunk by the ratio: ``yes``, ``no`` or ``unclear``."""
    if ratio < VANISHED:
        return "yes"
    return "no" if ratio >= HEALTHY else "unclear"


def _span(ratios: pd.Series[float] | None) -> str:
    """Lowest and highest ratio."""
    assert ratios is not None
    return " to ".join(map(brief, (ratios.min(), ratios.max())))
