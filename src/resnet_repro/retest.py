"""Count errors of finished runs under a further protocol where a table lacks them."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from resnet_repro import evaluate
from resnet_repro.analysis.evaluations import evaluations_beside, score_of
from resnet_repro.analysis.load import Run
from resnet_repro.analysis.protocol import by_net
from resnet_repro.config import Config
from resnet_repro.evaluation import DataOptions, EvaluateOptions, TrainerOptions
from resnet_repro.exits import exit_code, notify


def count_missing(
    runs: Sequence[Run], protocol: str, config: Config, *, together: bool = False
) -> None:
    """Test untested final nets under ``protocol``; name those that cannot be.

    ``runs`` are finished and of one profile; ``config`` says where the data are and on which device
    to count; ``together``: as an ensemble of one run of each net instead of each run alone.
    """
    evaluations = evaluations_beside(runs)
    untested = [run for run in runs if together or score_of(run, protocol, evaluations) is None]
    available = [run for run in untested if _final_weights(run).is_file()]
    if len(available) < len(untested):
        names = ", ".join(run.place for run in untested if run not in available)
        notify(f"not tested at {protocol}, since their final weights are not here: {names}")
    missing = [[run] for run in available]
    if together:
        tested = [e for e in evaluations if e.score.protocol.endswith(f", {protocol}")]
        groups = _ensembles_of(available)
        missing = [group for group in groups if not any(found.is_of(group) for found in tested)]
    if missing:
        nets = "an ensemble" if together else f"{len(missing)} run{'s' if len(missing) > 1 else ''}"
        notify(f"counting errors at {protocol} of {nets} first; TRAIN=0 only draws")
    for group in missing:
        _test(group, protocol, config)


def _final_weights(run: Run) -> Path:
    return run.path / "checkpoints" / f"iter_{run.max_iters:08d}.pt"


def _ensembles_of(runs: Sequence[Run]) -> list[list[Run]]:
    """For each data set the first seed of every net; none where there is only one net."""
    by_data: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        by_data[run.config["data"]["name"]].append(run)
    groups = [[seeds[0] for seeds in by_net(same).values()] for same in by_data.values()]
    return [group for group in groups if len(group) > 1]


def _test(group: Sequence[Run], protocol: str, config: Config) -> None:
    """Evaluate and write the result beside the runs; print an error that a user can act on."""
    data, trainer = config.data, config.trainer
    folder = group[0].path.parents[2].parent / "evaluations"
    options = EvaluateOptions(
        run=[str(run.path) for run in group],
        results_dir=str(folder),
        protocol=protocol,
        data=DataOptions(root=data.root, source=data.source, on_corrupt=data.on_corrupt),
        trainer=TrainerOptions(
            device=trainer.device, threads=trainer.threads, loader_workers=trainer.loader_workers
        ),
    )
    names = " + ".join(run.place for run in group)
    try:
        result = evaluate.count(options)
        written = evaluate.write(folder, result)
    except Exception as error:
        if exit_code(error) is None:
            raise
        notify(f"not tested at {protocol}: {names}: {error}")
        return
    errors = f"top-1 {result['top1_err']:.2f} %, top-5 {result['top5_err']:.2f} %"
    notify(f"{names} at {protocol}: {errors}; {os.path.relpath(written)}")
