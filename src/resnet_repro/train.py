"""``python -m resnet_repro.train experiment=... profile=... seed=...``: one run; ``-m`` sweeps.

Exit codes: 0 done, 1 a defect of this program, 2 bad configuration or usage, 3 bad data,
4 no checkpoint to trust, 5 diverged, 75 stopped and saved: say it again to go on.
"""

from __future__ import annotations

import os
import sys

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from resnet_repro.compose import CONF, compose_run, compose_sweep, make_job
from resnet_repro.exits import PREEMPTED, explained
from resnet_repro.progress import JobProgress
from resnet_repro.runs.signals import stop_on_signals
from resnet_repro.training.jobs import say
from resnet_repro.training.launch import launch


@hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")
def hydra_job(_: DictConfig) -> None:
    """Do one run: Hydra calls this once, or once for each job of a sweep."""
    job = make_job(*HydraConfig.get().overrides.task)
    start, length = job.folder.status().get("iter", 0), job.config.recipe.max_iters
    with stop_on_signals() as stop_asked:
        progress = JobProgress([1.0])
        state = launch(job, progress.begin(job.label, start, length), stop_asked)
        progress.end()
    say(f"{job.label}: {state}, {job.folder.path}")
    if state == "preempted":
        raise SystemExit(PREEMPTED)


def main() -> None:
    """Check everything that can be checked, then let Hydra run it."""
    words = sys.argv[1:]
    sweeping = {"-m", "--multirun"} & set(words)
    overrides = [word for word in words if word not in ("-m", "--multirun")]
    with explained():
        if not any(word.startswith("-") for word in overrides):  # Hydra's own flags: --help, --cfg
            compose_sweep(overrides) if sweeping else compose_run(*overrides)
        os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come to us, not to Hydra's printer
        hydra_job()


if __name__ == "__main__":
    main()
