"""What a run is doing when it is hit: noted where a kill cannot take it away."""

from __future__ import annotations

import mmap
import time
from collections.abc import Callable
from pathlib import Path

from resnet_repro.progress import Watcher
from resnet_repro.runs.atomic import crash_point
from resnet_repro.runs.folder import RunFolder
from resnet_repro.runs.metrics import read_metrics

LINGERING = {"mid-write.pt": 1, "mid-load": 4}
PHASES = ("start-up", "load", "train", "evaluate", "save", "end")


class Marks:
    """One byte in a file that another process reads: the phase."""

    def __init__(self, path: Path):
        if not path.exists():
            path.write_bytes(b"\0")
        with path.open("r+b") as file:
            self._byte = mmap.mmap(file.fileno(), 1)

    @property
    def phase(self) -> str:
        """The phase noted last."""
        return PHASES[self._byte[0]]

    @phase.setter
    def phase(self, name: str) -> None:
        self._byte[0] = PHASES.index(name)


class Noting(Watcher):
    """Watches a run and notes what it does.

    Args:
        marks: where; ``None``: nowhere.
        entering: told of each phase that begins, and at which iteration.
    """

    def __init__(self, marks: Marks | None, entering: Callable[[str, int], None] | None = None):
        self._marks, self._entering = marks, entering
        if marks is not None:
            marks.phase = "start-up"

    def enter(self, phase: str, iteration: int) -> None:
        """Note a phase."""
        if self._entering is not None:
            self._entering(phase, iteration)
        if self._marks is not None:
            self._marks.phase = phase

    def update(self, iteration: int, top1_err: float | None, lr: float) -> None:
        """Do nothing."""


def slow_down(seconds: float) -> None:
    """Spend so long in the middle of each save, and four times that in a load, which comes once."""
    from resnet_repro.training import checkpoint

    def linger(name: str) -> None:
        if name in LINGERING:
            time.sleep(seconds * LINGERING[name])
        crash_point(name)

    checkpoint.crash_point = linger  # type: ignore[attr-defined]


def judged_from_outside(folder: RunFolder, killed: int) -> str:
    """What a run of the real command was doing when process ``killed`` died, by what it left.

    The loop writes a record, evaluates, saves, in this order. Loading counts as start-up: nothing
    outside tells them apart.
    """
    status = folder.status()
    if status.get("state") != "running" or status.get("pid") != killed:
        return "start-up"
    unfinished = list(folder.checkpoints.glob(".*.tmp"))
    digests = [p for p in folder.checkpoints.glob("*.sha256") if not p.with_suffix("").exists()]
    if unfinished or digests:
        return "save"
    records = [r for r in read_metrics(folder.metrics_path) if r["kind"] != "event"]
    config = folder.config()
    last = records[-1] if records else {"kind": "", "iter": 0}
    done, every = last["iter"], config["evaluation"]["every_iters"]
    if last["kind"] == "train" and done and done % every == 0:
        return "evaluate"
    if done == config["recipe"]["max_iters"] and status["iter"] == done:
        return "end"
    saved = [int(p.stem.removeprefix("iter_")) for p in folder.checkpoints.glob("iter_*.pt")]
    due = done and done % config["trainer"]["checkpoint_every_iters"] == 0
    if due and (done not in saved or status["iter"] < done):
        return "save"
    return "train"
