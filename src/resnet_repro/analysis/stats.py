"""Numbers over seeds, their noise, and the verdict against the paper's value; percent, points.

The standard deviation over seeds contains what counting on the same images adds: no binomial noise
is added. ``docs/FIDELITY.md`` has the sources of constants and rules.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special  # scipy.stats takes a second to import

from resnet_repro.analysis.logged_run import Run
from resnet_repro.analysis.paper import Noise, PaperValue

TAIL = 1 / 16  # of the schedule: iterations 60k to 64k of the paper's
LEVEL = 0.95
MARGIN = 1.0  # points within which a net of the paper counts as reproduced
Numbers = float | NDArray[np.float64]
REPRODUCED, COMPATIBLE, DIFFERS, NO_VERDICT = "reproduced", "compatible", "differs", "no verdict"


@dataclass(frozen=True)
class Summary:
    """One number per seed: how many, mean, standard deviation, 95 % t interval; NaN for one."""

    n: int
    mean: float
    sd: float = math.nan
    low: float = math.nan
    high: float = math.nan


def summarise(values: Sequence[float]) -> Summary:
    """Summarise one number per seed; a ValueError where there is none."""
    if len(values) == 0:
        raise ValueError("nothing to summarise")
    n, found = len(values), contrast((1, Side(values)))
    sd = float(np.std(values, ddof=1)) if n > 1 else math.nan
    return Summary(n, found.value, sd, found.low, found.high)


def count_interval(error: float, images: int) -> tuple[float, float]:
    """95 % interval of an error in percent from its count alone (Clopper and Pearson 1934)."""
    wrong, tail = round(error / 100 * images), (1 - LEVEL) / 2
    low = special.betaincinv(wrong, images - wrong + 1, tail) if wrong else 0.0
    high = special.betaincinv(wrong + 1, images - wrong, 1 - tail) if wrong < images else 1.0
    return 100 * float(low), 100 * float(high)


def last_error(run: Run) -> float:
    """Error of the last evaluation, percent: the headline."""
    return float(logged(run, "test").iloc[-1])


def clean_training_error(run: Run) -> float | None:
    """Error on training images without augmentation at the end, percent; None if not logged."""
    curve = run.curve("train_clean")
    return None if curve.empty else float(curve.iloc[-1])


def final_training_error(run: Run) -> float:
    """End of the noisy training curve, percent: mean over the last sixteenth of the schedule."""
    curve = logged(run, "train")
    tail = curve[curve.index > run.max_iters * (1 - TAIL)]
    return float(tail.mean()) if len(tail) else float(curve.iloc[-1])


def mean_of(measure: Callable[[Run], float | None], runs: Sequence[Run]) -> float | None:
    """Mean of a measure over the runs that have it; None where none has."""
    values = [value for run in runs if (value := measure(run)) is not None]
    return float(np.mean(values)) if values else None


def logged(run: Run, kind: str) -> pd.Series[float]:
    """One error curve of a run, percent; a ValueError where there is none."""
    curve = run.curve(kind)
    if curve.empty:
        raise ValueError(f"{run.path}: no {kind} error was logged")
    return curve


@dataclass(frozen=True)
class Side:
    """Runs of one net in a comparison.

    ``values``: one number per seed along the last axis; further axes are independent repetitions.
    ``public``: seed noise of one run as others measured it; None where no such figure applies.
    """

    values: Sequence[float] | NDArray[np.float64]
    public: Noise | None = None


@dataclass(frozen=True)
class Difference:
    """A sum and difference of means with its standard error, NaN where that is not known.

    ``df``: degrees of freedom of the error; ``basis``: where it comes from, in words.
    """

    value: float
    se: float
    df: float
    basis: str

    @property
    def known(self) -> bool:
        """Whether there is a figure of the noise."""
        return not math.isnan(self.se)

    @property
    def reach(self) -> float:
        """Half of the 95 % interval."""
        return float(half_interval(self.se, self.df))

    @property
    def low(self) -> float:
        """Lower end of the 95 % interval."""
        return self.value - self.reach

    @property
    def high(self) -> float:
        """Upper end of the 95 % interval."""
        return self.value + self.reach

    def sign(self, tests: int = 1) -> int:
        """1 or -1 where the interval lies on one side of 0, else 0; ``tests`` share the 5 %."""
        reach = half_interval(self.se, self.df, tests)
        return int(self.value > reach) - int(self.value < -reach)


def half_interval(se: Numbers, df: Numbers, tests: int = 1) -> NDArray[np.float64]:
    """Half of the 95 % t interval."""
    quantile = special.stdtrit(df, 1 - (1 - LEVEL) / 2 / tests)
    return np.asarray(quantile * np.asarray(se), float)


def contrast(*terms: tuple[float, Side]) -> Difference:
    """Add up means of runs, each with a factor: ``(1, upper), (-1, lower)`` is a difference.

    The variance of a net's run is the larger of that over our seeds and the public one, with the
    degrees of freedom of that figure; of a single seed without a public figure it is unknown.
    """
    value, se, df, own, public = combine(terms)
    sources = ("our seeds",) * bool(own > 0) + ("public runs",) * bool(public > 0)
    basis = f"noise of {' and '.join(sources) or 'our seeds'}"
    if np.isnan(se):
        basis = "unknown noise of one seed"
    return Difference(float(value), float(se), float(df), basis)


def combine(terms: Sequence[tuple[float, Side]]) -> list[NDArray[Any]]:
    """Return value, standard error, degrees of freedom, variance from our seeds and from public.

    Arrays where the sides have further axes, as in the simulation of FIDELITY.md.
    """
    value, parts, shared = np.zeros(()), [], dict[Noise | None, Any]()
    for factor, side in terms:
        values = np.asarray(side.values, float)
        n = values.shape[-1]
        own = values.var(axis=-1, ddof=1) if n > 1 else np.zeros(values.shape[:-1])
        floor = (0.0 if n > 1 else math.nan) if side.public is None else side.public.sd**2
        value = value + factor * values.mean(axis=-1)
        parts.append((factor**2 / n * np.where(own > floor, own, 0.0), max(n - 1, 1)))
        rest = factor**2 / n * np.where(own > floor, 0.0, floor)
        shared[side.public] = shared.get(side.public, 0.0) + rest
    ours = sum(variance for variance, _ in parts)
    parts += [(variance, noise.df if noise else 1) for noise, variance in shared.items()]
    return [value, *welch(parts), np.asarray(ours), np.asarray(sum(shared.values()))]


def welch(parts: Sequence[tuple[Any, float]]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Standard error and df of a sum of independent (variance, df), by Welch and Satterthwaite."""
    total = np.asarray(sum(variance for variance, _ in parts), float)
    spread = np.asarray(sum(variance**2 / df for variance, df in parts), float)
    never = np.full(np.broadcast(total, spread).shape, math.inf)
    return np.sqrt(total), np.divide(total**2, spread, out=never, where=spread != 0)


def equivalence(value: Numbers, reach: Numbers) -> NDArray[np.str_]:
    """Judge the 95 % interval ``value`` +- ``reach`` of a difference.

    *reproduced*: it lies within the margin; *differs*: it excludes 0 and does not; *compatible*:
    it contains 0 and is not within, too wide to say; *no verdict*: the noise is not known.
    """
    return np.select(
        [np.isnan(reach), np.abs(value) + reach <= MARGIN, np.abs(value) <= reach],
        [NO_VERDICT, REPRODUCED, COMPATIBLE],
        DIFFERS,
    )


def verdict(ours: Sequence[float], paper: PaperValue, public: Noise | None) -> str:
    """Judge our last test errors, one a seed, against the paper's value: a word and its numbers.

    ``public``: seed noise of one run; without it there is no verdict, nor was a margin fixed.
    """
    found = difference_from_paper(ours, paper, public)
    bounds = "seed noise unknown"
    if found.known:
        bounds = f"95 % interval {found.low:+.2f} to {found.high:+.2f}"
    numbers = f"{found.value:+.2f} points, {bounds}; {how_many(len(ours), 'seed')}"
    return f"{equivalence(found.value, found.reach)} ({numbers})"


def difference_from_paper(
    ours: Sequence[float], paper: PaperValue, public: Noise | None
) -> Difference:
    """Our mean minus the paper's value, with the noise of both."""
    paper_noise = public if paper.sd is None else Noise(paper.sd / paper.runs**0.5, paper.runs - 1)
    return contrast((1, Side(ours, public)), (-1, Side([paper.value], paper_noise)))


def how_many(n: int, what: str) -> str:
    """Return ``1 seed`` or ``3 seeds``."""
    return f"{n} {what}" + ("" if n == 1 else "s")
