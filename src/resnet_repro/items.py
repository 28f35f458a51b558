"""One item of the paper from the command line: train what is missing, draw, say what is claimed.

``experiments/fig1.py`` and its like are each a call of :func:`main`: which item, how it is drawn,
which claims are tested on it.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from resnet_repro import paths
from resnet_repro.analysis.evaluations import evaluations_beside, not_used
from resnet_repro.analysis.judge import ClaimResult
from resnet_repro.analysis.load import Run, load_runs, most_telling_profile
from resnet_repro.compose import compose_run, make_job
from resnet_repro.conf import Item, load_item
from resnet_repro.config_groups import PROFILES
from resnet_repro.exits import explained, notify
from resnet_repro.retest import count_missing
from resnet_repro.runs.signals import stop_on_signals
from resnet_repro.training.jobs import report, run_all

FIRST_PROFILE = "quick"  # trained where nothing is logged and no profile is asked for

Draw = Callable[[list[Run], Path], list[Path]]
Claim = Callable[[list[Run]], ClaimResult]


def main(
    item_name: str,
    draw: Draw,
    claims: Sequence[Claim] = (),
    out: str = "results/figures",
    protocol: str | None = None,
    *,
    together: bool = False,
) -> None:
    """Do one item of the paper as the command line asks; drawn files go to ``out``.

    Where it needs the nets tested under a further ``protocol`` (``together``: as an ensemble), that
    is done for the finished runs whose weights are here.
    """
    asked = _arguments(item_name, out)
    with explained():
        item = load_item(item_name)
        config = compose_run(f"experiment={item.experiments[0]}", *asked.overrides)
        root = paths.runs(config.runs_dir)
        logged = load_runs(root, experiments=item.drawn)
        profile = asked.profile or most_telling_profile(logged)
        if asked.train and (asked.profile or asked.seeds or profile is None):
            profile = profile or FIRST_PROFILE
            train_missing(item, profile, asked.seeds, asked.overrides)
            logged = load_runs(root, profile=profile, experiments=item.drawn)
        runs = [
            run
            for run in logged
            if run.profile == profile and (asked.seeds is None or run.seed < asked.seeds)
        ]
        if not runs:
            notify(
                f"{item_name}: no finished run to draw from; make {item_name} PROFILE=quick trains"
            )
            raise SystemExit(1)
        tell_what_is_missing(item, runs)
        if protocol and asked.train:
            count_missing(runs, protocol, config, together=together)
        for line in not_used(runs, evaluations_beside(runs)) if protocol else ():
            notify(line)
        for path in draw(runs, Path(asked.out)):
            print(os.path.relpath(path))
        for claim in claims:
            print(claim(runs).line())


def tell_what_is_missing(item: Item, runs: Sequence[Run]) -> None:
    """Name the item's nets that no run speaks for."""
    there = {run.experiment for run in runs}
    missing = [name for name in item.experiments if name not in there]
    if missing:
        profile = runs[0].profile
        notify(
            f"no {profile} run of {', '.join(missing)}; "
            f"make {item.name} PROFILE={profile} trains what is missing"
        )


def train_missing(item: Item, profile: str, seeds: int | None, overrides: Sequence[str]) -> None:
    """Train the item's runs that are not finished; leave the process where one could not be.

    Without ``seeds``, one seed of each net is enough.
    """
    jobs = [
        make_job(f"experiment={experiment}", f"profile={profile}", f"seed={seed}", *overrides)
        for seed in range(seeds or 1)
        for experiment in item.experiments
    ]
    with stop_on_signals() as stop_asked:
        outcomes = run_all(jobs, stop_asked)
    report(outcomes)


def _arguments(item_name: str, out: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=f"Train what {item_name} lacks, then draw it.")
    parser.add_argument("--profile", choices=PROFILES, help="default: the most logged one")
    parser.add_argument(
        "--seeds", type=_count, help="number of seeds, from 0 on; default: all logged"
    )
    parser.add_argument("--no-train", dest="train", action="store_false", help="only draw")
    parser.add_argument("--out", default=out, help="folder of what is drawn")
    parser.add_argument("overrides", nargs="*", help="configuration, as for resnet_repro.train")
    return parser.parse_args()


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be at least 1")
    return value
