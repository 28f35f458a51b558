"""Numbers over seeds, the noise of one run, and the verdict against the paper's value.

All errors and differences in percent (points). The test set has 10,000 images, so a count of
errors has a binomial standard deviation of about 0.25 points at 7 % error, whatever is trained.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats as distributions

from resnet_repro.analysis.load import Run
from resnet_repro.analysis.paper import PaperValue

TEST_IMAGES = 10_000
ENOUGH_SEEDS = 3  # below this a standard deviation over our own seeds is not worth using
PUBLIC_RUNS = 5  # the public seed standard deviations are over five runs each
TAIL = 1 / 16  # of the schedule: iterations 60k to 64k of the paper's
LEVEL = 0.95


@dataclass(frozen=True)
class Summary:
    """A quantity over seeds: number, mean, standard deviation, 95 % t interval.

    ``sd``, ``low`` and ``high`` are NaN for a single run.
    """

    n: int
    mean: float
    sd: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half the interval."""
        return (self.high - self.low) / 2


def summarise(values: Sequence[float]) -> Summary:
    """Summarise one number per seed.

    Raises:
        ValueError: there is none.
    """
    if len(values) == 0:
        raise ValueError("nothing to summarise")
    n, mean = len(values), float(np.mean(values))
    if n == 1:
        return Summary(1, mean, math.nan, math.nan, math.nan)
    sd = float(np.std(values, ddof=1))
    reach = float(distributions.t.ppf((1 + LEVEL) / 2, n - 1)) * sd / math.sqrt(n)
    return Summary(n, mean, sd, mean - reach, mean + reach)


def binomial_sd(error: float, images: int = TEST_IMAGES) -> float:
    """Standard deviation of an error in percent counted on so many images."""
    share = min(max(error / 100, 0.0), 1.0)
    return 100 * math.sqrt(share * (1 - share) / images)


def last_error(run: Run, kind: str = "test") -> float:
    """Error of the last evaluation, percent: the headline."""
    return _of(run, kind).iloc[-1]


def best_error(run: Run, kind: str = "test") -> float:
    """Lowest error of any evaluation, percent; chosen on the test set, so it flatters."""
    return float(_of(run, kind).min())


def mean_last_ten(run: Run, kind: str = "test") -> float:
    """Mean error of the last ten evaluations, percent."""
    return float(_of(run, kind).tail(10).mean())


def clean_training_error(run: Run) -> float | None:
    """Error on training images without augmentation at the end, percent; None if not logged."""
    curve = run.curve("train_clean")
    return None if curve.empty else float(curve.iloc[-1])


def final_training_error(run: Run) -> float:
    """End of the training curve, percent: mean over the last sixteenth of the schedule.

    The curve is noisy from window to window, so a mean is compared; for the paper's schedule it
    is the mean over iterations 60k to 64k.
    """
    curve = _of(run, "train")
    tail = curve[curve.index > run.max_iters * (1 - TAIL)]
    return float(tail.mean()) if len(tail) else float(curve.iloc[-1])


def final_training_images(run: Run) -> int:
    """Images behind :func:`final_training_error`."""
    seen = run.curve("train", "num_samples")
    return int(seen[seen.index > run.max_iters * (1 - TAIL)].sum() or seen.iloc[-1])


def _of(run: Run, kind: str) -> pd.Series[float]:
    curve = run.curve(kind)
    if curve.empty:
        raise ValueError(f"{run.path}: no {kind} error was logged")
    return curve


@dataclass(frozen=True)
class Difference:
    """A difference with its noise.

    Attributes:
        value: points.
        se: standard error; ``df`` its degrees of freedom (inf where the noise is taken as known).
        basis: where the noise comes from, in words.
    """

    value: float
    se: float
    df: float
    basis: str

    @property
    def reach(self) -> float:
        """Half of the 95 % interval."""
        return float(distributions.t.ppf((1 + LEVEL) / 2, self.df)) * self.se

    @property
    def low(self) -> float:
        """Lower end of the 95 % interval."""
        return self.value - self.reach

    @property
    def high(self) -> float:
        """Upper end of the 95 % interval."""
        return self.value + self.reach


def welch(parts: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Combine independent variances of means by Welch and Satterthwaite.

    Args:
        parts: variance and its degrees of freedom (``inf`` for a known one).

    Returns:
        Standard error and degrees of freedom of the sum.
    """
    total = sum(variance for variance, _ in parts)
    spread = sum(variance**2 / df for variance, df in parts)
    return math.sqrt(total), (total**2 / spread if spread > 0 else math.inf)


@dataclass(frozen=True)
class Verdict:
    """Our error against the paper's.

    Attributes:
        word: ``reproduced``, ``differs``, ``inconclusive`` or ``not comparable``.
        sentence: the same with its numbers.
        difference: ours minus the paper's; None where not comparable.
    """

    word: str
    sentence: str
    difference: Difference | None = None


def verdict(
    ours: Sequence[float],
    paper: PaperValue,
    seed_sd: float,
    *,
    not_comparable: str = "",
    images: int = TEST_IMAGES,
) -> Verdict:
    """Judge our last test errors against the paper's value (``docs/FIDELITY.md``).

    Each run is a draw with the noise of its seed and the binomial noise of the test set. Ours is
    the mean of n draws, the paper's is one (ResNet-110: five). The interval for the difference
    contains 0: reproduced, or with fewer than three seeds inconclusive, for then a gap could
    hide in the noise of one run. It does not: differs.

    Args:
        ours: last test error of each seed, percent.
        paper: the paper's value.
        seed_sd: public standard deviation over seeds (five runs); used for the paper's draw
            where the paper gives none, and for ours below three seeds.
        not_comparable: why the runs must not be held against the paper; then no verdict.
        images: that the error was counted on.
    """
    if not_comparable:
        return Verdict("not comparable", f"not comparable: {not_comparable}")
    difference = difference_from_paper(ours, paper, seed_sd, images)
    bounds = f"95 % interval {difference.low:+.2f} to {difference.high:+.2f}"
    size = f"{difference.value:+.2f} points, {bounds}"
    few = len(ours) < ENOUGH_SEEDS
    if difference.low <= 0 <= difference.high:
        if few:
            return Verdict(
                "inconclusive", f"inconclusive ({size}; {seeds_phrase(len(ours))})", difference
            )
        return Verdict("reproduced", f"reproduced ({size})", difference)
    return Verdict("differs", f"differs by {size}", difference)


def difference_from_paper(
    ours: Sequence[float], paper: PaperValue, seed_sd: float, images: int = TEST_IMAGES
) -> Difference:
    """Our mean minus the paper's value with the noise of both."""
    summary = summarise(ours)
    few = summary.n < ENOUGH_SEEDS
    our_sd, our_df = (seed_sd, PUBLIC_RUNS - 1) if few else (summary.sd, summary.n - 1)
    paper_sd, paper_df = (
        (seed_sd, PUBLIC_RUNS - 1) if paper.sd is None else (paper.sd, paper.runs - 1)
    )
    se, df = welch(
        [
            (our_sd**2 / summary.n, our_df),
            (binomial_sd(summary.mean, images) ** 2 / summary.n, math.inf),
            (paper_sd**2 / paper.runs, paper_df),
            (binomial_sd(paper.value, images) ** 2 / paper.runs, math.inf),
        ]
    )
    basis = "public seed noise" if few else f"our {summary.n} seeds"
    return Difference(summary.mean - paper.value, se, df, basis)


def seeds_phrase(n: int) -> str:
    """Return ``1 seed`` or ``3 seeds``."""
    return f"{n} seed" + ("" if n == 1 else "s")
