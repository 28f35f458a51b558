"""The study as pages show it: the runs of each item, the claims, what differs from the paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from resnet_repro.analysis.claims import check_all
from resnet_repro.analysis.imagenet_claims import check_imagenet
from resnet_repro.analysis.judge import ClaimResult, first_tested
from resnet_repro.analysis.load import GIVEN_UP, Logged, Run
from resnet_repro.conf import load_item

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
