"""The tables in ``docs/FIDELITY.md`` that are computed: constants of judging, and error rates.

The error rates are simulated with the functions that judge runs; the random numbers are seeded, so
the page is the same each time.
"""

import itertools

import numpy as np
import pandas as pd

from pages.study import Study
from resnet_repro.analysis import stats
from resnet_repro.analysis.judge import IMAGENET_SEED_NOISE
from resnet_repro.analysis.paper import Noise, seed_noise
from resnet_repro.analysis.stats import Side
from resnet_repro.analysis.tables import to_markdown
from resnet_repro.items.claims_cifar import PLAIN_110_ERROR, TRAINS_ERROR
from resnet_repro.items.gradients import HEALTHY, VANISHED

TRUE_DIFFERENCES, SEEDS = (0.0, 0.25, 0.5, 1.0, 2.0), (1, 2, 3, 5)
STUDIES, TRIALS = 100, 200  # public figures drawn, and comparisons with each


def verdict_rates(true: float, seeds: int, scatter: float = 1.0) -> dict[str, float]:
    """Share of each verdict in simulated studies, percent; each draws its public seed noise.

    ``true``: expected error of our protocol minus that of the paper's, points; ``scatter``:
    standard deviation of our seeds over that of the paper's and of public runs.
    """
    random = np.random.default_rng([int(1000 * true), seeds, int(10 * scatter)])
    sd, df = seed_noise().sd, seed_noise().df
    verdicts = []
    for _ in range(STUDIES):
        public = Noise(sd * float(np.sqrt(random.chisquare(df) / df)), df)
        ours = true + scatter * sd * random.standard_normal((TRIALS, seeds))
        papers = sd * random.standard_normal((TRIALS, 1))
        value, se, freedom, *_ = stats.combine(
            [(1, Side(ours, public)), (-1, Side(papers, public))]
        )
        verdicts.append(stats.equivalence(value, stats.half_interval(se, freedom)))
    found = np.concatenate(verdicts)
    return {
        x: 100 * float(np.mean(found == x))
        for x in (stats.REPRODUCED, stats.COMPATIBLE, stats.DIFFERS)
    }


def rates_block(_: Study) -> str:
    """Tabulate how often each verdict occurs, by true difference and number of seeds."""
    rows = []
    for true, seeds in itertools.product(TRUE_DIFFERENCES, SEEDS):
        rows.append({"true difference": f"{true:g}", "seeds": str(seeds)})
        for scatter, suffix in ((1.0, ""), (2.0, " (2x)")):
            rates = verdict_rates(true, seeds, scatter)
            rows[-1] |= {verdict + suffix: f"{rate:.1f}" for verdict, rate in rates.items()}
    return to_markdown(pd.DataFrame(rows))


def constants_block(_: Study) -> str:
    """Tabulate every constant behind a verdict, with its source."""
    noise = seed_noise()
    rows = [
        ("level of every interval", f"{100 * stats.LEVEL:g} %", "convention"),
        (
            "margin: CIFAR-10 nets of 20 to 110 layers but plain-110, top-1 of ImageNet nets; last "
            "errors and curves",
            f"{stats.MARGIN:g} point{'' if stats.MARGIN == 1 else 's'}",
            "chosen before any run of the `paper` profile was finished; reason above",
        ),
        (
            "seed noise of a test error, CIFAR-10 nets of 20 to 110 layers, paper's protocol",
            f"{noise.sd:.2f} points, {noise.df:g} degrees of freedom",
            "pooled: four nets of public runs, five runs each (`results/paper/public_runs.csv`), "
            "and the paper's five of ResNet-110 (0.16)",
        ),
        (
            "seed noise of a top-1 error, residual ImageNet nets, paper's protocol",
            f"{IMAGENET_SEED_NOISE.sd:g} points, {IMAGENET_SEED_NOISE.df:g} degrees of freedom",
            "ResNet-50 over five runs, 23.60 +- 0.12 (Goyal et al. 2017, Table 1)",
        ),
        (
            "end of a training curve",
            f"last {stats.TAIL:g} of the schedule",
            "60k to 64k of the paper's",
        ),
        ("C1: plain-110 is above", f"{PLAIN_110_ERROR:g} %", "caption of Fig. 6"),
        ("C5: training error is below", f"{TRAINS_ERROR:g} %", "Sec. 4.2"),
        (
            "C10: vanishing below, exploding above; healthy within",
            f"{VANISHED:g}, {1 / VANISHED:g}; {HEALTHY:.2g} to {1 / HEALTHY:.2g}",
            "ours: the lower marks before any run, their inverses on 2026-11-25",
        ),
    ]
    return to_markdown(pd.DataFrame(rows, columns=["constant", "value", "source"]))
