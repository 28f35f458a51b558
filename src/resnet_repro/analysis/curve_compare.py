"""Our error curves held against the paper's digitised ones, iteration by iteration.

Two curves are compared only while both nets were trained alike: the same data, net and recipe, and
the same learning rate up to that iteration. A short run is thus comparable up to its first drop.
A run that was stopped counts here as far as it goes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from resnet_repro.analysis.judge import one_run_sd, sign
from resnet_repro.analysis.load import Run
from resnet_repro.analysis.paper import Paper
from resnet_repro.analysis.protocol import Horizon, by_net, paper_horizon, paper_rates
from resnet_repro.analysis.stats import Difference

ENOUGH_STEPS = 3  # of the paper's curve, to tell its wiggle
_CURVES = {"cifar": (6, "test"), "imagenet": (4, "val_center_crop")}  # figure, held-out curve
KINDS = {"train": "training error", "test": "test error"}


@dataclass(frozen=True)
class Stretch:
    """One curve of a net against the paper's, at one learning rate.

    Attributes:
        net: as the paper calls it; ``kind``: ``train`` or ``test``; ``rate``: learning rate.
        runs: those behind our curve.
        ours, paper: errors in percent over the iterations that both have.
        course: ours on the same grid from the first update on, where the paper shows none, too.
        gap: mean of ours minus the paper's, with the noise it has to be held against; None where
            the paper's curve has too few points to tell.
    """

    net: str
    kind: str
    rate: float
    runs: tuple[Run, ...]
    ours: pd.Series[float]
    paper: pd.Series[float]
    course: pd.Series[float]
    gap: Difference | None

    @property
    def differences(self) -> pd.Series[float]:
        """Ours minus the paper's over the iterations, points."""
        return self.ours - self.paper

    @property
    def verdict(self) -> str:
        """``within the noise``, ``above``, ``below``, or that nothing can be said."""
        if self.gap is None:
            return "too few points"
        return {0: "within the noise", 1: "above", -1: "below"}[sign(self.gap)]


@dataclass(frozen=True)
class Uncompared:
    """A net whose curves share no iteration with the paper's, and why."""

    net: str
    profile: str
    reason: str


def compare_curves(
    runs: Sequence[Run], paper: Paper | None = None
) -> tuple[list[Stretch], list[Uncompared]]:
    """Hold every net of these runs, finished or not, against the paper's curve of it.

    Raises:
        ValueError: runs of one net and profile that must not be averaged.
    """
    book = paper or Paper()
    stretches: list[Stretch] = []
    uncompared: list[Uncompared] = []
    for profile in sorted({run.profile for run in runs}):
        for net, group in by_net([run for run in runs if run.profile == profile]).items():
            horizon = paper_horizon(group[0])
            found = _of_net(net, group, horizon, book)
            stretches += found
            if not found:
                why = _why_not(net, group, horizon, book)
                uncompared.append(Uncompared(net, profile, why))
    return stretches, uncompared


def _of_net(net: str, group: Sequence[Run], horizon: Horizon, paper: Paper) -> list[Stretch]:
    found = []
    for kind in KINDS:
        theirs = _paper_curve(group[0], net, kind, paper)
        grid = np.arange(0, horizon.iters + 1, step := _step(theirs))[1:]
        ours = logged_at(group, kind, grid, step)
        for rate, first, last in paper_rates(group[0]):
            whole = theirs[(theirs.index > first) & (theirs.index <= last)]
            course = ours[(ours.index > first) & (ours.index <= last)]
            part = course[course.index.isin(whole.index)]
            if part.empty:
                continue
            near = course[course.index <= part.index[-1]].tail(max(len(part), ENOUGH_STEPS + 1))
            gap = _gap(net, part, whole, wiggle(near), len(group))
            same = whole.loc[part.index]
            found.append(Stretch(net, kind, rate, tuple(group), part, same, course, gap))
    return found


def _paper_curve(run: Run, net: str, kind: str, paper: Paper) -> pd.Series[float]:
    number, held_out = _CURVES[str(run.config["model"]["family"])]
    return paper.curve(number, net, "train" if kind == "train" else held_out)


def _step(curve: pd.Series[float]) -> int:
    """Iterations between two points of a digitised curve."""
    return int(np.median(np.diff(curve.index.to_numpy(int)))) if len(curve) > 1 else 1


def logged_at(
    runs: Sequence[Run], kind: str, iters: np.ndarray[tuple[int], np.dtype[np.int_]], step: int
) -> pd.Series[float]:
    """Our curve at given iterations, the mean over the seeds that came so far; percent.

    A test error is that of the evaluation there; a training error the mean over the mini-batches
    of the ``step`` iterations before, where all of them were logged.
    """
    curves = []
    for run in runs:
        curve = run.curve(kind)
        if kind == "test":
            curves.append(curve[curve.index.isin(iters)])
            continue
        seen = run.curve("train", "num_samples").reindex(curve.index)
        batch = int(run.config["recipe"]["batch_size"])
        values = {}
        for it in iters:
            inside = (curve.index > it - step) & (curve.index <= it)
            if inside.any() and seen[inside].sum() >= step * batch:
                values[int(it)] = float(np.average(curve[inside], weights=seen[inside]))
        curves.append(pd.Series(values, dtype=float))
    table = pd.concat(curves, axis=1)
    return pd.Series(table.mean(axis=1), dtype=float).sort_index()


def _gap(
    net: str, ours: pd.Series[float], paper: pd.Series[float], own: float | None, seeds: int
) -> Difference | None:
    """Mean difference with its noise: the wiggle along the curves, and the level of a run.

    Each curve's wiggle is its own; ours (``own``), where it has too few points to tell, is taken
    to be the paper's. The level of a whole run varies by :func:`one_run_sd`.
    """
    theirs = wiggle(paper)
    if theirs is None:
        return None
    noise = theirs**2 + (theirs**2 / seeds if own is None else own**2)
    level = (1 + 1 / seeds) * one_run_sd(net, float(paper.mean())) ** 2
    value = float((ours - paper.loc[ours.index]).mean())
    return Difference(value, math.sqrt(noise / len(ours) + level), math.inf, "noise of one run")


def wiggle(curve: pd.Series[float]) -> float | None:
    """Standard deviation of a curve's points about its course; None if there are too few.

    From the steps between neighbours, less their median, so that a course that rises or falls
    evenly counts for nothing; by the median size, so that a drop does not count either.
    """
    steps = np.diff(curve.to_numpy())
    if len(steps) < ENOUGH_STEPS:
        return None
    return 1.4826 * float(np.median(np.abs(steps - np.median(steps)))) / math.sqrt(2)


def _why_not(net: str, group: Sequence[Run], horizon: Horizon, paper: Paper) -> str:
    if horizon.reason:
        return horizon.reason
    curves = [_paper_curve(group[0], net, kind, paper) for kind in KINDS]
    known = [int(curve.index[0]) for curve in curves if not curve.empty]
    if not known:
        return "the paper draws no curve of it"
    reached = max(run.status.get("iter", 0) for run in group)
    if reached < horizon.iters:
        return f"stopped at {reached:,}; the paper's curves begin at {min(known):,}"
    return (
        f"the rate is the paper's up to iteration {horizon.iters:,}; the paper's curves begin "
        f"at {min(known):,}"
    )


def agreement_table(stretches: Sequence[Stretch]) -> pd.DataFrame:
    """One row per net, kind of error and learning rate; differences in points."""
    rows = [
        {
            "net": s.net,
            "error": KINDS[s.kind],
            "profile": s.runs[0].profile,
            "seeds": len(s.runs),
            "rate": f"{s.rate:g}",
            "iterations": _span(s.ours.index.to_numpy(int)),
            "points": len(s.ours),
            "mean difference": float(s.differences.mean()),
            "sd": float(s.differences.std()) if len(s.ours) > 1 else None,
            "largest": float(s.differences.iloc[int(s.differences.abs().argmax())]),
            "noise (95 %)": None if s.gap is None else s.gap.reach,
            "ours is": s.verdict,
        }
        for s in stretches
    ]
    columns = ["net", "error", "profile", "seeds", "rate", "iterations", "points"]
    columns += ["mean difference", "sd", "largest", "noise (95 %)", "ours is"]
    return pd.DataFrame(rows, columns=columns)


def _span(iters: np.ndarray[tuple[int], np.dtype[np.int_]]) -> str:
    first, last = int(iters[0]), int(iters[-1])
    return f"{first:,}" if first == last else f"{first:,} to {last:,}"
