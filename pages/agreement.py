"""Our error curves compared with the paper's digitised ones, iteration by iteration, and drawn.

Two curves are compared only while both nets were trained alike: the same data, net and recipe, and
the same learning rate up to that iteration. A short run is thus comparable up to its first drop.
A run that was stopped counts here as far as it goes; of several seeds, those that came furthest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from resnet_repro.analysis import paper, style
from resnet_repro.analysis.captions import run_sentences
from resnet_repro.analysis.curves import LOOKS, draw_paper, in_windows, legend
from resnet_repro.analysis.evaluations import SINGLE_VIEW, Evaluation, evaluations_beside
from resnet_repro.analysis.judge import has_margin, public_noise
from resnet_repro.analysis.load import grouped
from resnet_repro.analysis.logged_run import Run
from resnet_repro.analysis.paper import Noise
from resnet_repro.analysis.protocol import by_net, paper_horizon, paper_rates
from resnet_repro.analysis.stats import NO_VERDICT, Difference, Side, contrast, equivalence

COLUMNS = 3  # of panels
FIGURES = {"cifar": 6, "imagenet": 4}
KINDS = {"train": "training error", "test": "test error"}


@dataclass(frozen=True)
class Stretch:
    """One curve of a net against the paper's, at one learning rate.

    ``ours`` and ``paper`` are errors in percent over the iterations that both have.
    """

    net: str
    kind: str  # train | test
    rate: float  # of learning
    runs: tuple[Run, ...]
    ours: pd.Series[float]
    paper: pd.Series[float]
    course: pd.Series[float]  # ours from the first update on, where the paper shows none, too
    gap: Difference  # mean of ours minus the paper's over the seeds

    @property
    def differences(self) -> pd.Series[float]:
        """Ours minus the paper's over the iterations, points."""
        return self.ours - self.paper

    @property
    def verdict(self) -> str:
        """``reproduced``, ``compatible``, ``differs`` or ``no verdict``, as for a last error."""
        if not has_margin(self.runs[0]):
            return NO_VERDICT
        return str(equivalence(self.gap.value, self.gap.reach))


def compare_curves(runs: Sequence[Run]) -> tuple[list[Stretch], dict[tuple[str, str], list[str]]]:
    """Compare every net of these runs, finished or not, with the paper's curve of it.

    Nets whose curves share no iteration with the paper's come second, by profile and reason.
    """
    stretches: list[Stretch] = []
    uncompared: dict[tuple[str, str], list[str]] = {}
    for profile in sorted({run.profile for run in runs}):
        for net, group in by_net([run for run in runs if run.profile == profile]).items():
            found = [stretch for kind in KINDS for stretch in _stretches(net, group, kind)]
            stretches += found
            if not found:
                uncompared.setdefault((profile, _why_not(group)), []).append(net)
    return stretches, uncompared


def _stretches(net: str, group: Sequence[Run], kind: str) -> list[Stretch]:
    """One kind of error, rate by rate."""
    papers = _paper_curve(group[0], kind)
    step = int(np.median(np.diff(papers.index))) if len(papers) > 1 else 1  # of two points
    grid = np.arange(0, paper_horizon(group[0])[0] + 1, step)[1:]
    table = pd.concat([logged_at(run, kind, grid, step) for run in group], axis=1).sort_index()
    found = []
    for rate, course in by_rate(table, group[0]).items():
        part = course[course.index.isin(papers.index)]
        if part.empty:
            continue
        furthest = (part.count() == part.count().max()).to_numpy()  # the others stopped within it
        course, part = course.loc[:, furthest], part.loc[:, furthest]
        runs = tuple(run for run, came in zip(group, furthest, strict=True) if came)
        same = papers.loc[part.index]
        # Public seed noise is that of a test error at the end of the schedule.
        at_end = rate == paper_rates(group[0])[-1][0] and all(run.is_finished for run in runs)
        ended = kind == "test" and at_end
        gap = _gap(part.sub(same, axis=0), public_noise(runs) if ended else None)
        ours, whole = (pd.Series(t.mean(axis=1), dtype=float) for t in (part, course))
        found.append(Stretch(net, kind, rate, runs, ours, same, whole, gap))
    return found


def by_rate(table: pd.DataFrame, run: Run) -> dict[float, pd.DataFrame]:
    """Cut a table over the iterations where the paper's learning rate for such a net drops."""
    parts = {
        rate: table[(table.index > first) & (table.index <= last)]
        for rate, first, last in paper_rates(run)
    }
    return {rate: part for rate, part in parts.items() if len(part)}


def means_by_rate(curves: Mapping[str, pd.Series[float]], run: Run) -> list[dict[str, Any]]:
    """Means of curves of one net at each of the paper's rates, over iterations that all have."""
    table = pd.concat(curves, axis=1, join="inner").sort_index()
    return [
        {"rate": f"{rate:g}", "iterations": ends(part.index), "points": len(part), **part.mean()}
        for rate, part in by_rate(table, run).items()
    ]


def _paper_curve(run: Run, kind: str) -> pd.Series[float]:
    return paper.curve(FIGURES[run.family], run.label, kind)


def logged_at(run: Run, kind: str, iters: NDArray[np.int_], step: int) -> pd.Series[float]:
    """The curve of a run at given iterations, as far as it came; percent.

    A test error is that of the evaluation there; a training error the mean over the mini-batches
    of the ``step`` iterations before, where all of them were logged.
    """
    curve = run.curve(kind)
    if kind == "train":
        windows = in_windows(run, step)
        curve = windows["mean"][windows["images"] >= step * run.config["recipe"]["batch_size"]]
    return curve[curve.index.isin(iters)]


def _gap(differences: pd.DataFrame, public: Noise | None) -> Difference:
    """Mean of ours minus the paper's over a stretch, with the noise of the seeds and the paper's.

    The paper's curve is one run: its noise is the public one, else that of one of our seeds.
    """
    means = differences.mean().to_numpy(float)
    ours = Side(means, public)
    if public is not None:
        return contrast((1, ours), (-1, Side([0.0], public)))
    found = contrast((1, ours))
    return replace(found, se=found.se * (len(means) + 1) ** 0.5)


def _why_not(group: Sequence[Run]) -> str:
    until, reason = paper_horizon(group[0])
    if reason:
        return reason
    begun = [int(c.index[0]) for kind in KINDS if len(c := _paper_curve(group[0], kind))]
    if not begun:
        return "the paper draws no curve of it"
    reached = max(run.status.get("iter", 0) for run in group)
    if reached < until:
        return f"stopped at {reached:,}; the paper's curves begin at {min(begun):,}"
    rate = f"the rate is the paper's up to iteration {until:,}"
    return f"{rate}; the paper's curves begin at {min(begun):,}"


def agreement_table(stretches: Sequence[Stretch]) -> pd.DataFrame:
    """One row per net, kind of error and learning rate; differences in points."""
    rows = [
        {
            "net": s.net,
            "error": KINDS[s.kind],
            "profile": s.runs[0].profile,
            "seeds": len(s.runs),
            "rate": f"{s.rate:g}",
            "iterations": ends(s.ours.index),
            "points": len(s.ours),
            "mean difference": float(s.differences.mean()),
            "sd": float(s.differences.std()) if len(s.ours) > 1 else None,
            "largest": float(s.differences.iloc[int(s.differences.abs().argmax())]),
            "noise (95 %)": s.gap.reach if s.gap.known else None,
            "verdict": s.verdict,
        }
        for s in stretches
    ]
    return pd.DataFrame(rows)


def _precise_errors(run: Run, evaluations: Sequence[Evaluation]) -> pd.Series[float]:
    """Test errors of a run's checkpoints, percent by iteration, under precise BN statistics."""
    found = {
        tested.nets[0].iteration: tested.score.top1
        for tested in evaluations
        if (tested.bn, tested.score.protocol) == ("precise", SINGLE_VIEW)
        and tested.is_of([run], early=True)
    }
    return pd.Series(found, dtype=float).sort_index()


def statistics_table(runs: Sequence[Run]) -> pd.DataFrame:
    """Mean test errors of checkpoints by the batch-norm statistics of the test; percent.

    One row per run and learning rate; over the iterations that the paper's curve has, too.
    """
    rows, evaluations = [], evaluations_beside(runs)
    for run in runs:
        errors = {
            "running averages (logged)": run.curve("test").loc[: paper_horizon(run)[0]],
            "precise statistics": _precise_errors(run, evaluations),
            "paper": _paper_curve(run, "test"),
        }
        net = {"net": f"{run.label}, seed {run.seed}"}
        rows += [net | row for row in means_by_rate(errors, run)]
    return pd.DataFrame(rows).rename(columns={"points": "checkpoints"})


def ends(iterations: pd.Index[int]) -> str:
    """The first and the last iteration: ``3,000 to 32,000``."""
    return " to ".join(f"{it:,}" for it in sorted({*iterations[[0, -1]]}))


@style.style()
def agreement(stretches: Sequence[Stretch]) -> Figure:
    """Ours over the paper's, pale; dots: where they are compared. ValueError: nowhere."""
    nets = grouped(stretches, lambda stretch: stretch.net)
    if not nets:
        raise ValueError("no curve of ours has an iteration in common with the paper's")
    rows = -(-len(nets) // COLUMNS)
    columns = -(-len(nets) // rows)
    panel = (3.4 if columns > 1 else 5.0, 2.9)
    figure, grid = style.subplots(rows, columns, panel=panel, squeeze=False, sharey=True)
    runs = list({str(r.path): r for s in stretches for r in s.runs}.values())
    evaluations = evaluations_beside(runs)
    precise = {run.path: _precise_errors(run, evaluations) for run in runs}
    for axes, (net, parts) in zip(grid.flat, nets.items(), strict=False):
        _draw(axes, net, parts, [precise[run.path] for run in parts[0].runs])
    for axes in list(grid.flat)[len(nets) :]:
        axes.remove()
    highest = max(float(max(s.ours.max(), s.paper.max())) for s in stretches)
    grid[0, 0].set_ylim(0, max(20.0, 5 * (highest // 5 + 1)))
    key = legend({run.depth for run in runs}, 2, "test error", "test error")
    sentences = ["Dots: where ours is compared with the paper's digitised curve."]
    if any(map(len, precise.values())):
        sentences.append("Circles: checkpoints tested with precise batch-norm statistics.")
    return style.underneath(figure, sentences + run_sentences(runs), key)


def _draw(
    axes: Axes, net: str, parts: Sequence[Stretch], precise: Sequence[pd.Series[float]]
) -> None:
    """Draw one net; ``precise``: of each seed the test errors under precise statistics."""
    run = parts[0].runs[0]
    colour, unit = style.depth_colour(run.depth), 1e4
    circle: dict[str, Any] = {"zorder": 2.7, "ms": 3.5, "mfc": "white", "mew": 0.8}
    for errors in precise:
        axes.plot(errors.index / unit, errors, "o", color=colour, **circle)
    for kind in KINDS:
        our_look, paper_look = LOOKS[kind]
        whole = [part for part in parts if part.kind == kind]
        if not whole:
            continue
        course = pd.concat([part.course for part in whole])
        compared = pd.concat([part.ours for part in whole])
        look = our_look | {"color": colour, "zorder": 2.5}
        axes.plot(course.index / unit, course, **look)
        axes.plot(compared.index / unit, compared, "o", color=colour, markersize=2, zorder=2.6)
        draw_paper(axes, FIGURES[run.family], run, kind, paper_look)
    axes.set_xlim(0, paper_horizon(run)[0] * 1.05 / unit)
    axes.set_title(net)
    axes.set_xlabel("iter. (1e4)")
    axes.set_ylabel("error (%)")
