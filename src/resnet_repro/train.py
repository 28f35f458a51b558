"""``python -m resnet_repro.train experiment=... profile=... seed=...``: one run; ``-m`` sweeps.

Exit codes: 0 done, 1 a defect of this program or a lost worker, 2 bad configuration or usage,
3 bad data, 4 no checkpoint to trust, 5 diverged, 74 disk full, 75 stopped: rerun to resume.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from resnet_repro.compose import (
    compose_run,
    compose_sweep,
    hydra_in_one_line,
    make_job,
)
from resnet_repro.conf import names
from resnet_repro.exits import PREEMPTED, explained, notify
from resnet_repro.paths import CONF
from resnet_repro.progress import Progress
from resnet_repro.reference import as_help
from resnet_repro.runs.signals import stop_on_signals
from resnet_repro.training.jobs import report, run_all
from resnet_repro.training.launch import launch, refuse_torchrun


@hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")
def hydra_job(_: DictConfig) -> None:
    """Do one run: Hydra calls this once, or its launcher once for each job of a sweep.

    A single run's error is told here: Hydra would print a line before it, which in a sweep says
    whose error it is.
    """
    here = HydraConfig.get()
    with explained() if here.mode == RunMode.RUN else nullcontext():
        run(here.overrides.task)


def run(overrides: Sequence[str]) -> None:
    """Do the run that ``overrides`` name, here."""
    job = make_job(*overrides)
    with stop_on_signals() as stop_asked:
        progress = Progress()
        watcher = progress.begin(job.label, job.config.recipe.max_iters)
        state = launch(job, watcher, stop_asked)
        progress.end(watcher)
    notify(f"{job.label}: {state}, {job.folder.path}")
    if state == "preempted":
        raise SystemExit(PREEMPTED)


def sweep(overrides: Sequence[str]) -> None:
    """Do the runs of a sweep here, one after the other, with the remaining time of all of them."""
    jobs = compose_sweep(overrides)
    with stop_on_signals() as stop_asked:
        outcomes = run_all(jobs, stop_asked)
    for outcome in outcomes:
        notify(f"{outcome.job.label}: {outcome.state}, {outcome.job.folder.path}")
    report(outcomes)


def main() -> None:
    """Check what can be checked, then do it; through Hydra where its own words are used."""
    words = sys.argv[1:]
    if {"--help", "-h"} & set(words):
        print(f"{__doc__}\nexperiments: {', '.join(names('experiment'))}\n{as_help()}")
        return
    overrides = [word for word in words if word not in ("-m", "--multirun")]
    sweeping = len(overrides) < len(words)
    with explained():
        refuse_torchrun()
        if sweeping and not any(word.startswith(("-", "hydra")) for word in overrides):
            sweep(overrides)
            return
        if not sweeping and not any(word.startswith("-") for word in overrides):
            compose_run(*overrides)  # for its one-line errors, before Hydra does anything
        os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come to us, not to Hydra's printer
        with hydra_in_one_line(words):
            hydra_job()


if __name__ == "__main__":
    main()
