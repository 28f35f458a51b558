"""Claims about what happens inside the nets: layer responses (C6) and gradient norms (C10)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from resnet_repro.analysis.judge import (
    FAILS,
    HOLDS,
    INCONCLUSIVE,
    ClaimResult,
    all_of,
    conclude,
    plain_nets,
    residual_nets,
    seeds_clause,
    sign,
    verdict_of,
    without_runs,
)
from resnet_repro.analysis.load import Run
from resnet_repro.analysis.probes import (
    end_ratios,
    responses,
    scaled_gradients,
    starts_at_initialisation,
)
from resnet_repro.analysis.stats import ENOUGH_SEEDS, Difference, summarise, welch

# No public measurement of this noise exists. It is taken small against the paper's differences
# (0.14 to 0.49), and only where fewer than three seeds are logged.
ASSUMED_RESPONSE_SD = 0.03
# Marks for the gradient of the first layer over that of the last: decided before any run was seen.
VANISHED = 0.1
HEALTHY = 1 / 3


def responses_are_smaller(runs: Sequence[Run]) -> ClaimResult:
    """C6: responses of residual nets are below plain nets', and the deeper net has the smaller.

    Compared is the mean over layers of the standard deviation of a layer's responses (Fig. 7).
    """
    id, title = "C6", "responses: residual below plain, deeper residual smaller"
    plain = _with(plain_nets(runs), responses)
    residual = _with(residual_nets(runs), responses)
    pairs = [
        (residual[f"ResNet-{group[0].depth}"], group)
        for group in plain.values()
        if f"ResNet-{group[0].depth}" in residual
    ]
    deeper = list(residual.values())
    pairs += [(b, a) for a, b in itertools.pairwise(deeper)]
    if not pairs:
        return without_runs(id, title, "a pair of nets with logged responses")
    verdicts, words = [], []
    numbers: dict[str, float] = {}
    for smaller, larger in pairs:
        gap = _response_gap(smaller, larger)
        verdicts.append(verdict_of(gap))
        beyond = "" if sign(gap) else " (within the noise)"
        relation = "below" if gap.value > 0 else "above"
        words.append(
            f"{smaller[0].label} {relation} {larger[0].label} by {abs(gap.value):.2f}{beyond}"
        )
        numbers[f"{larger[0].label} minus {smaller[0].label}"] = gap.value
    groups = list((plain | residual).values())
    means = ", ".join(f"{group[0].label} {_mean_response(group):.2f}" for group in groups)
    sentence = f"mean response std {means}: {'; '.join(words)} ({seeds_clause(groups)})"
    return conclude(id, title, all_of(*verdicts), sentence, numbers, groups)


def gradients_do_not_vanish(runs: Sequence[Run]) -> ClaimResult:
    """C10: in plain nets the gradient does not vanish on its way to the first layer.

    The paper argues so (Sec. 4.1) and prints no numbers; a common reading says the reverse. Held
    against fixed marks is the gradient of the first layer over that of the last, at initialisation
    and at every logged iteration: below 0.1 it has vanished, above 1/3 not. The norm is that of the
    same net with weights as long as at first (:func:`scaled_gradients`), for the bare one also
    falls where weights grow and the net stays the same; it is told beside it.
    """
    id, title = "C10", "gradients of plain nets do not vanish toward the input"
    nets = _with(plain_nets(runs), scaled_gradients)
    if not nets:
        return without_runs(id, title, "a plain net with logged gradient norms")
    verdicts, words = [], []
    numbers: dict[str, float] = {}
    shown = nets | _with(residual_nets(runs), scaled_gradients)
    for label, group in shown.items():
        ratios, bare = end_ratios(group, scaled_gradients), end_ratios(group)
        start, lowest = float(ratios.iloc[0]), float(ratios.min())
        if label in nets:
            verdicts.append(_health(lowest))
        begun = "initialisation"
        if not starts_at_initialisation(ratios):
            begun = f"iteration {ratios.index[0]:,}"
        words.append(
            f"{label} {_plainly(start)} at {begun}, lowest {_plainly(lowest)} "
            f"(iteration {ratios.index[int(ratios.to_numpy().argmin())]:,}; bare norms "
            f"{_plainly(float(bare.min()))})"
        )
        numbers |= {f"{label} at {begun}": start, f"{label} lowest": lowest}
        numbers[f"{label} lowest of bare norms"] = float(bare.min())
    sentence = (
        f"gradient norm of first layer over last, growth of weights taken out: {'; '.join(words)} "
        f"({seeds_clause(list(shown.values()))})"
    )
    return conclude(id, title, all_of(*verdicts), sentence, numbers, list(shown.values()))


def _plainly(ratio: float) -> str:
    return f"{ratio:,.0f}" if ratio >= 100 else f"{ratio:.2g}"


def _health(ratio: float) -> str:
    if ratio < VANISHED:
        return FAILS
    return HOLDS if ratio > HEALTHY else INCONCLUSIVE


def _with(nets: dict[str, list[Run]], read: object) -> dict[str, list[Run]]:
    """Runs that logged the probe, by net; nets without any are left out."""
    held = {
        label: [run for run in group if read(run) is not None]  # type: ignore[operator]
        for label, group in nets.items()
    }
    return {label: group for label, group in held.items() if group}


def _mean_response(group: Sequence[Run]) -> float:
    return summarise(_mean_responses(group)).mean


def _mean_responses(group: Sequence[Run]) -> list[float]:
    tables = [responses(run) for run in group]
    return [float(np.mean(table)) for table in tables if table is not None]


def _response_gap(smaller: Sequence[Run], larger: Sequence[Run]) -> Difference:
    sides = [summarise(_mean_responses(group)) for group in (smaller, larger)]
    value = sides[1].mean - sides[0].mean
    if all(side.n >= ENOUGH_SEEDS for side in sides):
        se, df = welch([(side.sd**2 / side.n, side.n - 1) for side in sides])
        return Difference(value, se, df, "noise over seeds")
    se = ASSUMED_RESPONSE_SD * math.sqrt(sum(1 / side.n for side in sides))
    return Difference(value, se, math.inf, "assumed noise of one run")
