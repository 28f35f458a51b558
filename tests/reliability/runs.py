"""The disturbed runs: small, real, and compared with an undisturbed one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ranks import fingerprint, small_job
from reliability.processes import begin, command, do, ended
from reliability.record import Outcome, Record
from resnet_repro.runs.folder import RunFolder
from resnet_repro.training.launch import Job

# 12 iterations with checkpoints at 4, 8 and 12 (profile smoke); what differs between them is what
# a resume could forget.
VARIANTS: dict[str, tuple[str, ...]] = {
    "residual": (),
    "plain": ("model.shortcut=none", "recipe.nesterov=true", "trainer.checkpoint_every_iters=3"),
    "gated": ("model.shortcut=gate", "recipe.warmup=iters400", "seed=3"),
    "grouped": ("model.bn_group=8", "trainer.checkpoint_every_iters=1", "seed=1"),
}
NAMES = sorted(VARIANTS)
# For the real command, whose start takes seconds: long enough to be hit elsewhere too.
LONG = (
    "recipe.max_iters=160",
    "recipe.milestones=[80,120]",
    "trainer.log_every_iters=8",
    "trainer.checkpoint_every_iters=8",
    "evaluation.every_iters=32",
)


def left_overs(folder: RunFolder) -> list[str]:
    """Temporary files, and digests without their checkpoint, that nobody removed."""
    lonely = [p for p in folder.checkpoints.glob("*.sha256") if not p.with_suffix("").exists()]
    return sorted(path.name for path in (*folder.path.rglob("*.tmp"), *lonely))


def generations(folder: RunFolder) -> list[Path]:
    return sorted(folder.checkpoints.glob("iter_*.pt"))


@dataclass(frozen=True)
class Reference:
    """A run that nothing disturbed, and how long it took in seconds."""

    computed: dict[str, Any]
    seconds: float

    def verdict(self, folder: RunFolder) -> Outcome:
        """Compare a run that was disturbed and ended with this one."""
        found = fingerprint(folder) if generations(folder) else {}
        differs = sorted(k for k, value in self.computed.items() if value != found.get(k))
        left, kept = left_overs(folder), len(generations(folder))
        fine = folder.is_finished and not differs and not left and kept <= 2
        outcome: Outcome = {"ok": fine, "identical": folder.is_finished and not differs}
        if not fine:
            state = folder.status().get("state")
            outcome |= {"state": state, "differs": differs, "left": left, "generations": kept}
        return outcome

    def after(self, job: Job, *codes: int | None, **facts: Any) -> Outcome:
        """Rerun ``job``, which ended with ``codes``, to its end and compare it."""
        return {**facts, "codes": [*codes, finish(job)], **self.verdict(job.folder)}


def finish(job: Job) -> int:
    """Rerun ``job`` in a process of its own until it ends; return its exit code."""
    return ended(begin(do, job))


class Trial(NamedTuple):
    """One way of hurting a run; ``do`` gets an empty folder and says what came of it."""

    key: str
    do: Callable[[Path], Outcome]


@dataclass
class Workshop:
    """Where the trials of a part are done, and the undisturbed runs they are compared with.

    ``count`` is how many of what the part counts are wanted (0: all), ``record`` what was found so
    far, ``scratch`` a folder to work in.
    """

    scratch: Path
    count: int
    record: Record
    _made: dict[tuple[str, ...], Reference] = field(default_factory=dict)

    def begun(self, number: int, folder: Path) -> tuple[Reference, Job, str]:
        """A variant, another one for each number: its undisturbed run, one to disturb, its name."""
        name = NAMES[number % len(NAMES)]
        return self.variant(name), small_job(folder, *VARIANTS[name]), name

    def variant(self, name: str) -> Reference:
        return self.undisturbed(*VARIANTS[name])

    def undisturbed(self, *args: str, real: bool = False) -> Reference:
        """The undisturbed small run with ``args``, done at the first call; ``real``: by command.

        SystemExit: it fails, and no trial can be judged.
        """
        if args not in self._made:
            job = small_job(self.scratch / "undisturbed" / str(len(self._made)), *args)
            begin(time.monotonic).join()  # the first fork waits for its server's imports
            began = time.monotonic()
            done = command(*job.words) if real else None
            code = finish(job) if done is None else done.returncode
            seconds = time.monotonic() - began
            if code:
                why = "" if done is None else done.stderr
                raise SystemExit(f"{job.folder.path}: exit code {code} {why}")
            self._made[args] = Reference(fingerprint(job.folder), seconds)
        return self._made[args]


Trials = Callable[[Workshop], Iterator[Trial]]
