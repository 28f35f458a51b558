"""Errors of finished nets under further protocols: the JSON files of ``results/evaluations``.

``python -m resnet_repro.evaluate`` writes one object a file: ``models`` (each with the ``run`` its
weights come from, their iteration ``iter`` and the training's ``metrics_sha256``), ``kind``,
``protocol``, ``bn``, ``data``, ``top1_err``, ``top5_err``, ``num_samples`` and ``left_out``. Read
are those of the held-out images and of nets that runs made; what was measured on somebody else's
weights is no number of ours. Other keys are passed over.

An evaluation is joined with a run only if it tested the run's last iterate, of that very training,
on all of its held-out images; one that did not is named and not used.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from resnet_repro.analysis.load import Run
from resnet_repro.exits import notify
from resnet_repro.runs.folder import RunFolder

SINGLE_VIEW = "1-crop"


@dataclass(frozen=True)
class Score:
    """Errors in percent under one protocol; top-5 may not have been counted.

    ``left_out`` are images that could not be decoded; ``images`` are the others.
    """

    protocol: str
    top1: float
    top5: float | None
    images: int
    left_out: int = 0


@dataclass(frozen=True)
class Tested:
    """The weights of one run in an evaluation; null where the file does not say.

    Attributes:
        run: the run folder as ``profile/name/seed<k>``.
        training: SHA-256 of the run's ``metrics.jsonl`` then.
    """

    run: str
    iteration: int | None
    training: str | None


@dataclass(frozen=True)
class Evaluation:
    """One tested net, or an ensemble of several.

    Attributes:
        file: its name.
        data: name of the data set; ``digests`` of its parts; ``bn`` the batch-norm statistics used.
    """

    file: str
    nets: tuple[Tested, ...]
    score: Score
    data: str
    digests: Mapping[str, str]
    bn: str

    def names(self, runs: Sequence[Run]) -> bool:
        """Whether it says to have tested just these runs."""
        return tuple(net.run for net in self.nets) == tuple(run_key(run.path) for run in runs)

    def is_of(self, runs: Sequence[Run]) -> bool:
        """Whether it tested the last iterates of just these runs on all their held-out images."""
        return self.names(runs) and not self.fault(runs)

    def fault(self, runs: Sequence[Run]) -> str:
        """Why it is no result of the runs it names; empty where it is one."""
        faults = (self._fault_of(net, run) for net, run in zip(self.nets, runs, strict=True))
        return next(filter(None, faults), "")

    def _fault_of(self, net: Tested, run: Run) -> str:
        if net.iteration != run.max_iters:
            at = "an unknown iteration" if net.iteration is None else f"iteration {net.iteration:,}"
            return f"is of {at}, {net.run} ends at {run.max_iters:,}"
        if net.training != RunFolder(run.path).metrics_digest():
            return f"is of {'another' if net.training else 'an unknown'} training of {net.run}"
        data = run.meta.get("data", {})
        if self.data != run.config["data"]["name"]:
            return f"is on {self.data}, {net.run} on {run.config['data']['name']}"
        for part, digest in data.get("digests", {}).items():
            if self.digests.get(part, digest) != digest:
                return f"is on other {part.replace('_', ' ')} than {net.run}"
        shown, there = self.score.images + self.score.left_out, data.get("test_images")
        if there not in (None, shown):
            return f"is on {shown:,} of the {there:,} held-out images of {net.run}"
        return ""


def run_key(path: Path | str) -> str:
    """Name a run by the end of its path, which is the same wherever the results lie."""
    return "/".join(Path(path).parts[-3:])


def evaluations_beside(runs: Sequence[Run]) -> list[Evaluation]:
    """All evaluations of the results that the runs are part of."""
    folders = sorted({run.path.parents[2].parent / "evaluations" for run in runs})
    return [found for folder in folders for found in load_evaluations(folder)]


def load_evaluations(folder: Path) -> list[Evaluation]:
    """Read the evaluations of our nets in a folder, in the order of the files' names.

    A file that is not what ``resnet_repro.evaluate`` writes is left out; stderr names it once.
    """
    found = []
    for path in sorted(Path(folder).glob("*.json")):
        try:
            entry = json.loads(path.read_text(encoding="utf-8"))
            ours = all("run" in model for model in entry["models"])
            if entry.get("kind", "test") == "test" and ours:
                found.append(_read(path.name, entry))
        except KeyError as error:
            _leave_out(f"{path}: not an evaluation (has no {error})")
        except (OSError, ValueError, TypeError, AttributeError) as error:
            _leave_out(f"{path}: not an evaluation ({error})")
    return found


@cache
def _leave_out(line: str) -> None:
    notify(f"left out: {line}")


def _read(file: str, entry: Mapping[str, Any]) -> Evaluation:
    top5 = entry.get("top5_err")
    score = Score(
        str(entry["protocol"]),
        float(entry["top1_err"]),
        None if top5 is None else float(top5),
        int(entry["num_samples"]),
        int(entry.get("left_out", 0)),
    )
    return Evaluation(
        file,
        tuple(
            Tested(run_key(model["run"]), model.get("iter"), model.get("metrics_sha256"))
            for model in entry["models"]
        ),
        score,
        str(entry["data"]["name"]),
        dict(entry["data"].get("digests", {})),
        str(entry.get("bn", "running")),
    )


def not_used(runs: Sequence[Run], evaluations: Sequence[Evaluation]) -> list[str]:
    """A sentence for each evaluation that names these runs and is no result of them."""
    known = {run_key(run.path): run for run in runs}
    said = []
    for found in evaluations:
        members = [known[net.run] for net in found.nets if net.run in known]
        if len(members) == len(found.nets) and (fault := found.fault(members)):
            said.append(f"Not used: evaluations/{found.file} {fault}; evaluate again.")
    return said


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
