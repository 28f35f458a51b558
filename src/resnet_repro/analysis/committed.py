"""The committed runs as the results page reads them: which count, and for what."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from resnet_repro.analysis.claims import check_all
from resnet_repro.analysis.exhibits import Item, load_items
from resnet_repro.analysis.imagenet_claims import check_imagenet
from resnet_repro.analysis.judge import ClaimResult
from resnet_repro.analysis.load import Run, load_run, load_runs, most_telling_profile
from resnet_repro.runs.folder import find_runs

COMMITTED = ("paper", "short")  # profiles whose runs are in the repository


@dataclass(frozen=True)
class Study:
    """The logged runs that the page speaks of.

    Attributes:
        root: folder of the run folders.
    """

    root: Path

    @cached_property
    def logged(self) -> list[Run]:
        """Runs of the committed profiles, finished or stopped."""
        runs = load_runs(self.root, finished_only=False)
        return [run for run in runs if run.profile in COMMITTED]

    @cached_property
    def finished(self) -> list[Run]:
        """Those that reached their end: what figures, tables and claims are made from."""
        return [run for run in self.logged if run.status.get("state") == "finished"]

    @cached_property
    def checks(self) -> list[Run]:
        """Short looks at one question, runs named ``check_...``: in no figure, table or claim."""
        return [load_run(path) for path in sorted(self.root.glob("*/check_*/seed*"))]

    @cached_property
    def given_up(self) -> list[str]:
        """Runs of the committed profiles that diverged or failed, and why."""
        return [
            f"`{'/'.join(folder.path.parts[-3:])}` {status['state']}: {status.get('reason') or '-'}"
            for folder in find_runs(self.root)
            if folder.path.parts[-3] in COMMITTED
            and (status := folder.status()).get("state") in ("diverged", "failed")
        ]

    @cached_property
    def items(self) -> dict[str, Item]:
        """Figures and tables, and the experiments they are made of."""
        return load_items()

    def of(self, *items: str) -> list[Run]:
        """The finished runs that items are drawn from: of the profile with most of their nets."""
        wanted = {name for item in items for name in self.items[item].experiments}
        runs = [run for run in self.finished if run.experiment in wanted]
        profile = most_telling_profile(runs)
        return [run for run in runs if run.profile == profile]

    @cached_property
    def claims(self) -> list[ClaimResult]:
        """Every claim on the runs that tell most about it."""
        results = check_all(self.of("claims")) + check_imagenet(self.of("fig4", "table3"))
        return sorted(results, key=lambda result: int(result.id[1:]))
