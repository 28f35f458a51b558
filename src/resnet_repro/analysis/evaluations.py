"""Errors of finished nets under further protocols: the JSON files of ``results/evaluations``.

``python -m resnet_repro.evaluate`` writes one object a file: ``models`` (each with the ``run`` its
weights come from), ``kind``, ``protocol``, ``bn``, ``data``, ``top1_err``, ``top5_err`` and
``num_samples``. Read are those of the held-out images and of nets that runs made; what was
measured on somebody else's weights is no number of ours. Other keys are passed over.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from resnet_repro.analysis.load import Run

SINGLE_VIEW = "1-crop"


@dataclass(frozen=True)
class Score:
    """Errors in percent under one protocol; top-5 may not have been counted."""

    protocol: str
    top1: float
    top5: float | None
    images: int


@dataclass(frozen=True)
class Evaluation:
    """One tested net, or an ensemble of several.

    Attributes:
        runs: the run folders as ``profile/name/seed<k>``.
        iters: of each net; None where the file does not say, which means the last.
        data: name of the data set; ``bn`` the batch-norm statistics used.
    """

    runs: tuple[str, ...]
    iters: tuple[int | None, ...]
    score: Score
    data: str
    bn: str

    def is_of(self, runs: Sequence[Run]) -> bool:
        """Whether it tested the last iterates of just these runs on their own data set."""
        return (
            self.runs == tuple(run_key(run.path) for run in runs)
            and all(run.config["data"]["name"] == self.data for run in runs)
            and all(
                found in (None, run.max_iters) for found, run in zip(self.iters, runs, strict=True)
            )
        )


def run_key(path: Path | str) -> str:
    """Name a run by the end of its path, which is the same wherever the results lie."""
    return "/".join(Path(path).parts[-3:])


def evaluations_beside(runs: Sequence[Run]) -> list[Evaluation]:
    """All evaluations of the results that the runs are part of."""
    folders = sorted({run.path.parents[2].parent / "evaluations" for run in runs})
    return [found for folder in folders for found in load_evaluations(folder)]


def load_evaluations(folder: Path) -> list[Evaluation]:
    """Read the evaluations of our nets in a folder, in the order of the files' names.

    Raises:
        ValueError: a file that is not what ``resnet_repro.evaluate`` writes; the message names it.
    """
    found = []
    for path in sorted(Path(folder).glob("*.json")):
        try:
            entry = json.loads(path.read_text(encoding="utf-8"))
            models = entry["models"]
            if entry.get("kind", "test") == "test" and all("run" in model for model in models):
                found.append(_read(entry, models))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}: not an evaluation ({error!r})") from error
    return found


def _read(entry: Mapping[str, Any], models: Sequence[Mapping[str, Any]]) -> Evaluation:
    top5 = entry.get("top5_err")
    score = Score(
        str(entry["protocol"]),
        float(entry["top1_err"]),
        None if top5 is None else float(top5),
        int(entry["num_samples"]),
    )
    return Evaluation(
        tuple(run_key(model["run"]) for model in models),
        tuple(_iteration(model) for model in models),
        score,
        str(entry["data"]["name"]),
        str(entry.get("bn", "running")),
    )


def _iteration(model: Mapping[str, Any]) -> int | None:
    """Iteration of the tested weights, from the record or from the name of a checkpoint."""
    if model.get("iter") is not None:
        return int(model["iter"])
    match = re.search(r"iter_(\d+)", str(model.get("file", "")))
    return int(match[1]) if match else None


def score_of(run: Run, protocol: str, evaluations: Sequence[Evaluation]) -> Score | None:
    """The errors of one run's last iterate under a protocol; None where nobody counted them.

    What the run itself logged comes first, then the evaluation with the batch-norm statistics
    the run was configured for.
    """
    logged = _logged(run, protocol)
    if logged is not None:
        return logged
    bn = run.config["evaluation"].get("bn", "running")
    fitting = [
        found.score
        for found in evaluations
        if found.score.protocol == protocol and found.bn == bn and found.is_of([run])
    ]
    return fitting[-1] if fitting else None


def _logged(run: Run, protocol: str) -> Score | None:
    table = run.metrics
    if table.empty or "protocol" not in table:
        return None
    table = table[(table["kind"] == "test") & (table["protocol"] == protocol)]
    table = table[table["iter"] == run.max_iters].dropna(subset=["top1_err"])
    if table.empty:
        return None
    last = table.iloc[-1]
    top5 = None if pd.isna(last["top5_err"]) else float(last["top5_err"])
    return Score(protocol, float(last["top1_err"]), top5, int(last["num_samples"]))
