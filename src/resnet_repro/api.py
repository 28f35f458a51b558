"""Training and trained nets from Python, for notebooks and scripts.

``resnet_repro.analysis`` is the other half: it reads what was trained.
"""

from __future__ import annotations

from pathlib import Path

from resnet_repro import paths
from resnet_repro.compose import compose_sweep
from resnet_repro.evaluation.exports import Classifier, load_classifier
from resnet_repro.runs.signals import stop_on_signals
from resnet_repro.training.jobs import run_all


def load_net(path: str | Path) -> Classifier:
    """Load weights that ``resnet_repro.export`` wrote: ``load_net(FILE).classify(picture)``.

    ``picture`` is a PIL image of any size; the data set is not needed.

    Raises:
        WeightsError: the file is refused, is none of ours, or was exported without the data.
    """
    return load_classifier(paths.given(str(path)))


def train(*words: str) -> list[Path]:
    """Do the runs of a command line here: ``train("experiment=cifar10_resnet20", "seed=0,1")``.

    The words are those of ``python -m resnet_repro.train -m``. A finished run is skipped, a stopped
    one is resumed; an interrupt saves first. Returns the run folders in the order of work.

    Raises:
        ConfigError: the words name no run that can be done; nothing was written.
        Exception: what stopped the first run that failed; the others were done all the same.
        KeyboardInterrupt: a signal stopped it; what was begun is saved.
    """
    with stop_on_signals() as stop_asked:
        outcomes = run_all(compose_sweep(words), stop_asked)
    for outcome in outcomes:
        if outcome.error is not None:
            raise outcome.error
    if any(outcome.state == "preempted" for outcome in outcomes):
        raise KeyboardInterrupt("stopped; checkpoint saved. Rerun the same command to resume.")
    return [outcome.job.folder.path for outcome in outcomes]
