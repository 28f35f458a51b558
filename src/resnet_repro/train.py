"""``python -m resnet_repro.train experiment=... profile=... seed=...``: one run; ``-m`` sweeps.

Also installed as ``resnet-repro``; ``eval "$(resnet-repro -sc install=bash)"`` completes its words.

Exit codes: 0 done, 1 a defect of this program or a lost worker, 2 bad configuration or usage,
3 bad data, 4 no checkpoint to trust, 5 diverged, 74 disk full, 75 stopped: rerun to resume.
"""

import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from resnet_repro.compose import compose_sweep, make_job
from resnet_repro.conf import names
from resnet_repro.config import Config
from resnet_repro.exits import explained, notify
from resnet_repro.hydra_cli import read_flags, run_hydra
from resnet_repro.options import ConfigError, help_text
from resnet_repro.runs.signals import stop_on_signals
from resnet_repro.training.jobs import report, run_all
from resnet_repro.training.launch import Job


def work(jobs: Sequence[Job]) -> None:
    """Do the runs in this process, showing the remaining time."""
    with stop_on_signals() as stop_asked:
        outcomes = run_all(jobs, stop_asked)
    for outcome in outcomes:
        if outcome.error is None and outcome.state != "not begun":
            notify(f"{outcome.job.config.label}: {outcome.state}, {outcome.job.folder.path}")
    report(outcomes)


def hydra_job(_: DictConfig) -> None:
    """Do one run: Hydra calls this once, or its launcher once for each job of a sweep.

    A single run's error is reported here; in a sweep, Hydra names the run.
    """
    hydra_config = HydraConfig.get()
    with explained() if hydra_config.mode == RunMode.RUN else nullcontext():
        work([make_job(*hydra_config.overrides.task)])


def main() -> None:
    """Check the command line, then run it; through Hydra where its own flags are used."""
    argv = sys.argv[1:]
    with explained():
        if {"--help", "-h"} & set(argv):
            print(f"{__doc__}\nexperiments: {', '.join(names('experiment'))}\n")
            print(help_text(Config))
            return
        if "TORCHELASTIC_RUN_ID" in os.environ:  # each of its copies would do the run
            raise ConfigError(
                "torchrun starts resnet_repro.worker, not resnet_repro.train: use "
                "trainer.devices=N without torchrun; for several machines see docs/CLUSTER.md"
            )
        args = read_flags(argv)
        overrides = [word for word in args.overrides if not word.startswith("hydra")]
        flags = [word for word in argv if word not in args.overrides]
        trains = set(flags) <= {"-m", "--multirun", "-r", "--run"}
        if trains:  # composed here first: one-line errors before Hydra does anything
            jobs = compose_sweep(overrides) if args.multirun else [make_job(*overrides)]
            if overrides == args.overrides:
                work(jobs)
                return
        run_hydra(args, flags, hydra_job)


if __name__ == "__main__":
    main()
