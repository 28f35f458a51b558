"""Errors of finished nets under further protocols: the JSON files of ``results/evaluations``.

``python -m resnet_repro.evaluate`` writes one a file. Those of held-out images and of our own runs
are read; other people's weights give no number of ours. An evaluation is joined with a run only if
it tested an iterate of that very training, in tables its last, on all held-out images; any other is
named and not used.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from resnet_repro.analysis.logged_run import Run, warn
from resnet_repro.runs.folder import RunFolder

SINGLE_VIEW = "1-crop"


@dataclass(frozen=True)
class Score:
    """Errors in percent under one protocol, of ``images``; ``left_out`` could not be decoded."""

    protocol: str
    top1: float
    top5: float | None
    images: int
    left_out: int = 0


class Tested(NamedTuple):
    """The weights of one run in an evaluation; null where the file does not say.

    ``run`` is ``profile/name/seed<k>``, ``training`` the SHA-256 of its ``metrics.jsonl`` then.
    """

    run: str
    iteration: int | None
    training: str | None


@dataclass(frozen=True)
class Evaluation:
    """One tested net, or an ensemble of several.

    ``data`` names the data set, ``digests`` are of its parts, ``bn`` says which batch-norm
    statistics were used.
    """

    file: str
    nets: tuple[Tested, ...]
    score: Score
    data: str
    digests: Mapping[str, str]
    bn: str

    def members(self, runs: Sequence[Run]) -> list[Run]:
        """Those of the runs that were tested here, in its order; none where others were, too."""
        known = {run.place: run for run in runs}
        complete = all(net.run in known for net in self.nets)
        return [known[net.run] for net in self.nets] if complete else []

    def is_of(self, runs: Sequence[Run], *, early: bool = False) -> bool:
        """Whether it tested just these runs at their ends, or ``early``, on all held-out images."""
        return self.members(runs) == [*runs] and not self.fault(runs, early=early)

    def fault(self, members: Sequence[Run], *, early: bool = False) -> str:
        """Why it is no result of its members, ``early``: before their ends; empty if it is one."""
        pairs = zip(self.nets, members, strict=True)
        return next(filter(None, (self._fault_of(net, run, early) for net, run in pairs)), "")

    def _fault_of(self, net: Tested, run: Run, early: bool) -> str:
        if net.iteration is None or (net.iteration != run.max_iters and not early):
            at = "an unknown iteration" if net.iteration is None else f"iteration {net.iteration:,}"
            return f"is of {at}, {net.run} ends at {run.max_iters:,}"
        if net.training != RunFolder(run.path).metrics_digest(net.iteration):
            return f"is of {'another' if net.training else 'an unknown'} training of {net.run}"
        data = run.meta.get("data", {})
        if self.data != run.data:
            return f"is on {self.data}, {net.run} on {run.data}"
        for part, digest in data.get("digests", {}).items():
            if self.digests.get(part, digest) != digest:
                return f"is on other {part.replace('_', ' ')} than {net.run}"
        shown, held_out = self.score.images + self.score.left_out, data.get("test_images")
        if held_out not in (None, shown):
            return f"is on {shown:,} of the {held_out:,} held-out images of {net.run}"
        return ""


def evaluations_beside(runs: Sequence[Run]) -> list[Evaluation]:
    """All evaluations of the results that the runs are part of."""
    folders = sorted({run.path.parents[2].parent / "evaluations" for run in runs})
    return [found for folder in folders for found in load_evaluations(folder)]


def load_evaluations(folder: Path) -> list[Evaluation]:
    """Read a folder's evaluations of our nets, by file name; stderr names once what is none."""
    found = []
    for path in sorted(Path(folder).glob("*.json")):
        try:
            entry = json.loads(path.read_text(encoding="utf-8"))
            ours = all("run" in model for model in entry["models"])
            if entry.get("kind", "test") == "test" and ours:
                found.append(_evaluation(path.name, entry))
        except KeyError as error:
            _warn_once(f"{path}: not an evaluation (has no {error})")
        except (OSError, ValueError, TypeError, AttributeError) as error:
            _warn_once(f"{path}: not an evaluation ({error})")
    return found


_warn_once = cache(warn)


def _evaluation(file: str, entry: Mapping[str, Any]) -> Evaluation:
    nets = tuple(
        Tested(
            "/".join(Path(model["run"]).parts[-3:]), model.get("iter"), model.get("metrics_sha256")
        )
        for model in entry["models"]
    )
    score, data = _score(entry), entry["data"]
    digests, bn = dict(data.get("digests", {})), str(entry.get("bn", "running"))
    return Evaluation(file, nets, score, str(data["name"]), digests, bn)


def _score(entry: Mapping[Any, Any]) -> Score:
    """Read what an evaluation and a record of ``metrics.jsonl`` have alike."""
    top5 = entry.get("top5_err")
    return Score(
        str(entry["protocol"]),
        float(entry["top1_err"]),
        None if pd.isna(top5) else float(top5),
        int(entry["num_samples"]),
        int(entry.get("left_out", 0)),
    )


def not_used(runs: Sequence[Run], evaluations: Sequence[Evaluation]) -> list[str]:
    """A sentence for each evaluation that names these runs and is no result of them."""
    return [
        f"Not used: evaluations/{found.file} {fault}; evaluate again."
        for found in evaluations
        if (members := found.members(runs)) and (fault := found.fault(members))
    ]


def score_of(run: Run, protocol: str, evaluations: Sequence[Evaluation]) -> Score | None:
    """The errors of a run's last iterate under a protocol: logged, else evaluated; else None."""
    table = run.metrics
    if len(table) and "protocol" in table:
        table = table[(table["kind"] == "test") & (table["protocol"] == protocol)]
        table = table[table["iter"] == run.max_iters].dropna(subset=["top1_err"])
        if len(table):
            return _score(dict(table.iloc[-1].items()))
    fitting = [
        found.score
        for found in evaluations
        if found.score.protocol == protocol and found.bn == "running" and found.is_of([run])
    ]
    return fitting[-1] if fitting else None
