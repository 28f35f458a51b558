"""The study as pages show it: its runs, those of each item, its claims, how it differs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from resnet_repro.analysis.captions import DATA_NAMES
from resnet_repro.analysis.judge import ClaimResult, first_tested
from resnet_repro.analysis.load import GIVEN_UP, Logged, Run, variants_of
from resnet_repro.analysis.protocol import unlike_caffe
from resnet_repro.analysis.tables import to_markdown
from resnet_repro.conf import load_item
from resnet_repro.items.claims_cifar import check_all
from resnet_repro.items.claims_imagenet import check_imagenet

COMMITTED = ("paper", "short")  # profiles whose runs are in the repository


@dataclass(frozen=True)
class Study:
    """The logged runs that the pages speak of.

    Attributes:
        root: folder of the run folders.
    """

    root: Path

    @cached_property
    def all(self) -> Logged:
        """Everything of the committed profiles."""
        return Logged.read(self.root, COMMITTED)

    @property
    def logged(self) -> list[Run]:
        """Runs that stand for their nets, finished or stopped."""
        return self.all.begun

    @property
    def finished(self) -> list[Run]:
        """Those that reached their end: what figures, tables and claims are made from."""
        return self.all.finished

    @property
    def checks(self) -> list[Run]:
        """Short looks at one question, runs named ``check_...``: in no figure, table or claim."""
        return [run for run in self.all.runs if run.name.startswith("check_")]

    @property
    def given_up(self) -> list[str]:
        """Runs of the committed profiles that diverged or failed, and why."""
        return [
            f"`{run.place}` {run.status['state']}: {run.status.get('reason') or '-'}"
            for run in self.all.runs
            if run.status.get("state") in GIVEN_UP
        ]

    def of(self, *items: str) -> list[Run]:
        """Return the finished runs that items are drawn from, of the best covered profile."""
        return self.all.of({name for item in items for name in load_item(item).experiments})

    def every(self, *items: str) -> list[Run]:
        """Return the finished runs that items are drawn from, of all profiles."""
        wanted = {name for item in items for name in load_item(item).experiments}
        return [run for run in self.finished if run.experiment in wanted]

    def of_table(self, item: str) -> list[Run]:
        """Return the runs of a table: of each net those of the longest schedule it finished.

        The claims choose among all profiles themselves.
        """
        if item == "claims":
            return self.every(item)
        return [run for name in load_item(item).experiments for run in self.all.of({name})]

    @cached_property
    def sweeps(self) -> list[list[Run]]:
        """The finished runs of each example of a sweep: ``results/sweeps/<sweep>``."""
        folders = sorted(self.root.parent.glob("sweeps/*/"))
        found = [Logged.read(folder).runs for folder in folders]
        return [[run for run in runs if run.is_finished] for runs in found]

    @cached_property
    def claims(self) -> list[ClaimResult]:
        """Every claim, on runs of the paper's protocol where they can test it."""
        results = first_tested(check_all, self.every("claims"))
        results += first_tested(check_imagenet, self.every("fig4", "table3"))
        return sorted(results, key=lambda result: int(result.id[1:]))


@dataclass(frozen=True)
class Deviation:
    """A key in which runs differ from the paper's protocol."""

    key: str
    paper: str
    here: str
    runs: tuple[str, ...]


def deviations(runs: Sequence[Run]) -> list[Deviation]:
    """The keys in which runs differ from the paper's protocol, as their ``meta.json`` says."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for run in runs:
        for key, pair in sorted(run.meta.get("deviations", {}).items()):
            paper, here = pair if isinstance(pair, list) and len(pair) == 2 else (None, pair)
            names = found.setdefault((key, _value(paper), _value(here)), [])
            if run.experiment not in names:
                names.append(run.experiment)
    return [Deviation(*what, tuple(names)) for what, names in sorted(found.items())]


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ", ".join(map(_value, value))
    return f"{value:,}" if isinstance(value, int) else str(value)


def runs_block(study: Study) -> str:
    """What was run: one row per profile, data set, hardware and precision."""
    rows = []
    for key, group in _by_place(study.logged).items():
        done = [run for run in group if run.is_finished]
        if not done:
            continue
        profile, data, machine, precision = key
        hours = sum(float(run.meta.get("wall_time_s") or 0) for run in done) / 3600
        iterations = sorted({run.max_iters for run in done})
        batches = sorted({int(run.config["recipe"]["batch_size"]) for run in done})
        rows.append(
            {
                "profile": profile,
                "data": data,
                "nets": ", ".join(by_net_or_variant(done)),
                "seeds": _seeds(done),
                "iterations": " or ".join(f"{n:,}" for n in iterations),
                "batch": " or ".join(map(str, batches)),
                "on": f"{machine}, {precision}",
                "hours": f"{hours:.1f}",
            }
        )
    lines = [to_markdown(pd.DataFrame(rows)) if rows else "No run is finished yet.", ""]
    lines += [f"- in no table: {_said(run)}" for run in study.logged if not run.is_finished]
    lines += [
        f"- a look at one question, in no figure or table: {_said(run)}" for run in study.checks
    ]
    lines += [f"- given up, in no figure or table: {said}" for said in study.given_up]
    return "\n".join(lines).rstrip()


def _said(run: Run) -> str:
    at = int(run.status.get("iter", 0))
    return (
        f"`{run.profile}/{run.name}/seed{run.seed}`, {run.meta.get('precision')}, stopped at "
        f"iteration {at:,} of {run.max_iters:,}"
    )


def _by_place(runs: Sequence[Run]) -> dict[tuple[str, str, str, str], list[Run]]:
    groups: dict[tuple[str, str, str, str], list[Run]] = {}
    for run in sorted(runs, key=lambda r: (COMMITTED.index(r.profile), not r.is_plain, r.depth)):
        data = str(run.config["data"]["name"])
        machine = str(run.meta.get("hardware", {}).get("label"))
        key = (run.profile, DATA_NAMES.get(data, data), machine, str(run.meta.get("precision")))
        groups.setdefault(key, []).append(run)
    return groups


def by_net_or_variant(runs: Sequence[Run]) -> list[str]:
    """Nets by label; a variant of one by the name of its experiment."""
    known = {run.experiment for run in runs}
    changed = variants_of(known)
    return list(dict.fromkeys(r.experiment if r.experiment in changed else r.label for r in runs))


def _seeds(runs: Sequence[Run]) -> str:
    counts = {
        len({r.seed for r in runs if r.experiment == e}) for e in {r.experiment for r in runs}
    }
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"


def protocol_block(study: Study) -> str:
    """In what the finished runs differ from the paper's protocol: keys, and how they compute."""
    changed = [
        (f"`{found.key}`", found.paper, found.here, list(found.runs))
        for found in deviations(study.finished)
        if found.key.split(".")[0] in ("data", "model", "recipe")
    ]
    every = {run.experiment for run in study.finished}
    rows = [
        {
            "key": key,
            "paper's protocol": paper,
            "here": here,
            "in": "every run" if set(names) == every else ", ".join(names),
        }
        for key, paper, here, names in changed + unlike_caffe(study.finished)
    ]
    return to_markdown(pd.DataFrame(rows)) if rows else "No run is finished yet."
