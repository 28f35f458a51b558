"""``python -m resnet_repro.train experiment=... profile=... seed=...``: one run; ``-m`` sweeps.

Also installed as ``resnet-repro``; ``eval "$(resnet-repro -sc install=bash)"`` completes its words.

Exit codes: 0 done, 1 a defect of this program or a lost worker, 2 bad configuration or usage,
3 bad data, 4 no checkpoint to trust, 5 diverged, 74 disk full, 75 stopped: rerun to resume.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from typing import NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from resnet_repro.compose import (
    compose_run,
    compose_sweep,
    hydra_in_one_line,
    make_job,
    quoted,
)
from resnet_repro.conf import names
from resnet_repro.exits import PREEMPTED, explained, notify
from resnet_repro.options import ConfigError
from resnet_repro.paths import CONF, REPOSITORY
from resnet_repro.progress import Progress
from resnet_repro.reference import as_help
from resnet_repro.runs.signals import stop_on_signals
from resnet_repro.training.jobs import report, run_all, say_places
from resnet_repro.training.launch import Job, launch, refuse_torchrun


def hydra_job(_: DictConfig) -> None:
    """Do one run: Hydra calls this once, or its launcher once for each job of a sweep.

    A single run's error is reported here: Hydra would print a line before it, which in a sweep says
    whose error it is.
    """
    here = HydraConfig.get()
    with explained() if here.mode == RunMode.RUN else nullcontext():
        run(here.overrides.task)


def run(overrides: Sequence[str]) -> None:
    """Do the run that ``overrides`` name, here."""
    job = make_job(*overrides)
    say_places(job.config)
    with stop_on_signals() as stop_asked:
        progress = Progress()
        watcher = progress.begin(job.label, job.config.recipe.max_iters)
        state = launch(job, watcher, stop_asked)
        progress.end(watcher)
    notify(f"{job.label}: {state}, {job.folder.path}")
    if state == "preempted":
        raise SystemExit(PREEMPTED)


def sweep(jobs: Sequence[Job]) -> None:
    """Do the runs of a sweep here, one after the other, with the remaining time of all of them."""
    with stop_on_signals() as stop_asked:
        outcomes = run_all(jobs, stop_asked)
    for outcome in outcomes:
        notify(f"{outcome.job.label}: {outcome.state}, {outcome.job.folder.path}")
    report(outcomes)


def main() -> None:
    """Check what can be checked, then do it; through Hydra where its own words are used."""
    words = [quoted(word) for word in sys.argv[1:]]
    with explained():
        if {"--help", "-h"} & set(words):
            print(f"{__doc__}\nexperiments: {', '.join(names('experiment'))}\n{as_help()}")
            return
        refuse_torchrun()
        asked = read_flags(words)
        ours = [word for word in asked.overrides if not word.startswith("hydra")]
        flags = [word for word in words if word not in asked.overrides]
        launched = len(ours) < len(asked.overrides)  # by Hydra, as its words ask
        if set(flags) <= {"-m", "--multirun", "-r", "--run"}:
            if asked.multirun:
                jobs = compose_sweep(ours)
                if not launched:
                    sweep(jobs)
                    return
            elif not launched:
                run(ours)
                return
            else:
                compose_run(*ours)  # for its one-line errors, before Hydra does anything
        if asked.shell_completion:
            _prepare_completion()
        if asked.hydra_help:  # of Hydra alone, which knows none of our options
            asked.overrides = [word for word in asked.overrides if word not in ours]
        if asked.multirun and not any(w.startswith("hydra.sweep.dir=") for w in words):
            asked.overrides.append(f"hydra.sweep.dir={REPOSITORY / 'results' / '.sweep'}")
        sys.argv[1:] = [*flags, *asked.overrides]
        os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come to us, not to Hydra's printer
        with hydra_in_one_line(asked.overrides):
            hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")(hydra_job)()


def read_flags(words: Sequence[str]) -> argparse.Namespace:
    """Parse Hydra's flags, which may stand anywhere among the overrides.

    Raises:
        ConfigError: flags that Hydra has not, or that would have no effect.
    """
    parser = get_args_parser()
    parser.error = _refuse  # type: ignore[method-assign]
    asked = parser.parse_intermixed_args(list(words))
    actions = ("run", "multirun", "cfg", "info", "shell_completion")
    chosen = [f"--{name.replace('_', '-')}" for name in actions if getattr(asked, name)]
    if len(chosen) > 1:
        _refuse(f"{' and '.join(chosen)}: only one of them at a time")
    for name in ("resolve", "package"):
        if getattr(asked, name) and not asked.cfg:
            _refuse(f"--{name}: only with --cfg, of which it says what is shown")
    submitit = any(word.startswith("hydra/launcher=s") for word in asked.overrides)
    for word in asked.overrides:
        if word.startswith("hydra.run.dir=") or (
            word.startswith("hydra.sweep.dir=") and not submitit
        ):
            _refuse(f"{word}: nothing is written there; runs go to runs_dir=...")
    return asked


def _refuse(message: str) -> NoReturn:
    raise ConfigError(message)


def _prepare_completion() -> None:
    """Make the line to complete one that Hydra can compose: with an experiment, without flags.

    Raises:
        ConfigError: not the installed command; Hydra would complete every ``python``.
    """
    if sys.argv[0].endswith(".py"):
        _refuse('-sc: only of the installed command: eval "$(resnet-repro -sc install=bash)"')
    command, *words = os.environ.get("COMP_LINE", "").split(" ")
    words = [word for word in words if not word.startswith("-")]
    if not any(word.startswith("experiment=") for word in words[:-1]):
        words.insert(0, f"experiment={names('experiment')[0]}")
    os.environ["COMP_LINE"] = " ".join([command, *words])


if __name__ == "__main__":
    main()
