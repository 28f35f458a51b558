"""Claims about what happens inside the nets: layer responses (C6) and gradient norms (C10)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from resnet_repro.analysis.judge import (
    FAILS,
    HOLDS,
    INCONCLUSIVE,
    OPEN,
    ClaimResult,
    Measure,
    compare,
    conclude,
    decide,
    interval,
    plain_nets,
    residual_nets,
    without_runs,
)
from resnet_repro.analysis.load import Run
from resnet_repro.analysis.probes import (
    bn_output_gradients,
    end_ratios,
    gradients,
    responses,
    scaled_gradients,
)

# Marks for the gradient of the first layer over that of the last, and, as ratios, for their
# inverses: the lower ones were decided before any run was seen.
VANISHED, HEALTHY = 0.1, 1 / 3
EACH = "lowest to highest of the logged iterations, by seed"
AS_SAID = {HOLDS: "as the paper says", FAILS: "not as the paper says", INCONCLUSIVE: OPEN}


def responses_are_smaller(runs: Sequence[Run]) -> ClaimResult:
    """C6: responses of residual nets are below plain nets', and the deeper net has the smaller.

    Compared is the mean over layers of the standard deviation of a layer's responses (Fig. 7).
    Its seed noise is known from two seeds on: nobody has published one.
    """
    id, title = "C6", "responses: residual below plain, deeper residual smaller"
    plain = _with(plain_nets(runs), responses)
    residual = _with(residual_nets(runs), responses)
    pairs = [
        (residual[f"ResNet-{group[0].depth}"], group)
        for group in plain.values()
        if f"ResNet-{group[0].depth}" in residual
    ]
    pairs += [(b, a) for a, b in itertools.pairwise(residual.values())]
    if not pairs:
        return without_runs(id, title, "a pair of nets with logged responses")
    gaps = [compare(smaller, larger, RESPONSE) for smaller, larger in pairs]
    words = [
        f"{smaller[0].label} {'below' if gap.value > 0 else 'above'} {larger[0].label} by "
        f"{abs(gap.value):.2f} ({interval(gap)})"
        for (smaller, larger), gap in zip(pairs, gaps, strict=True)
    ]
    numbers = {
        f"{larger[0].label} minus {smaller[0].label}": gap.value
        for (smaller, larger), gap in zip(pairs, gaps, strict=True)
    }
    groups = list((plain | residual).values())
    means = ", ".join(
        f"{group[0].label} {np.mean([RESPONSE.of(run) for run in group]):.2f}" for group in groups
    )
    verdict = decide([(gap, 1) for gap in gaps])
    sentence = f"mean response std {means}: {'; '.join(words)}"
    return conclude(id, title, verdict, sentence, numbers, groups)


def gradients_stay_healthy(runs: Sequence[Run]) -> ClaimResult:
    """C10: in plain nets the gradient neither vanishes nor explodes toward the input.

    The paper says that the backward propagated gradients exhibit healthy norms (Sec. 4.1) and
    prints no numbers. Compared is the norm of the loss gradient with respect to the output of the
    first batch norm over that of the last, run by run and at every logged iteration. It vanishes
    below 0.1 and explodes above 10; it is healthy from 1/3 to 3 and unclear between. One run of a
    plain net that vanishes or explodes is enough for the claim to fail. Runs that logged only the
    gradients of weights give no verdict; their two measures are shown.
    """
    id, title = "C10", "gradients of plain nets stay healthy: they neither vanish nor explode"
    plain = _with(plain_nets(runs), gradients)
    if not plain:
        return without_runs(id, title, "a plain net with logged gradient norms")
    groups = list((plain | _with(residual_nets(runs), gradients)).values())
    answers, words, older, numbers = [], list[str](), list[str](), dict[str, float]()
    for run in itertools.chain(*groups):
        ratios = end_ratios(run, bn_output_gradients)
        name = f"{run.label} seed {run.seed}"
        if ratios is None:
            older.append(f"{name} {_weight_ratios(run)}")
            continue
        lowest, highest = float(ratios.min()), float(ratios.max())
        vanishing, exploding = _answer(lowest), _answer(1 / highest)
        if run.is_plain:
            answers += [vanishing, exploding]
        words.append(f"{name} {_span(ratios)}: vanishing {vanishing}, exploding {exploding}")
        numbers |= {f"{name} lowest": lowest, f"{name} highest": highest}
    verdict = INCONCLUSIVE if "unclear" in answers or not answers else HOLDS
    verdict = FAILS if "yes" in answers else verdict
    sentences = []
    if words:
        sentences = [
            f"gradient at the output of the first batch norm over that of the last, {EACH}"
        ]
        sentences[0] += f": {'; '.join(words)}"
    if older:
        sentences += [
            "no verdict where only gradients of weights were logged; first conv over last, "
            f"{EACH} (in brackets with the growth of the weights taken out): {'; '.join(older)}"
        ]
    return conclude(id, title, verdict, "; ".join(sentences), numbers, groups, AS_SAID)


def _mean_response(run: Run) -> float:
    table = responses(run)
    assert table is not None, run.path
    return float(table.mean())


RESPONSE = Measure("mean response std", _mean_response)


def _answer(ratio: float) -> str:
    """Whether a gradient has shrunk by the ratio: ``yes``, ``no`` or ``unclear``."""
    if ratio < VANISHED:
        return "yes"
    return "no" if ratio >= HEALTHY else "unclear"


def _weight_ratios(run: Run) -> str:
    """The two measures by the gradients of weights, for runs that logged no other."""
    bare, scaled = end_ratios(run, gradients), end_ratios(run, scaled_gradients)
    assert bare is not None, run.path
    assert scaled is not None, run.path
    return f"{_span(bare)} ({_span(scaled)})"


def _span(ratios: pd.Series[float]) -> str:
    """Lowest and highest ratio."""
    low, high = (
        f"{ratio:,.0f}" if ratio >= 100 else f"{ratio:.2g}"
        for ratio in (float(ratios.min()), float(ratios.max()))
    )
    return f"{low} to {high}"


def _with(nets: dict[str, list[Run]], read: Callable[[Run], object | None]) -> dict[str, list[Run]]:
    """Runs that logged the probe, by net, without nets that did not."""
    found = {
        label: [run for run in group if read(run) is not None] for label, group in nets.items()
    }
    return {label: group for label, group in found.items() if group}
