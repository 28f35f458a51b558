"""What a run is doing when it is hit: noted where a kill cannot take it away."""

from __future__ import annotations

import mmap
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from resnet_repro.runs.faults import crash_point
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


Entering = Callable[[str, int], None]
Turns = Generator[None, None, Any]


def watch(marks: Marks, slow: float = 0.0, entering: Entering = lambda *_: None) -> None:
    """Note from now on what this process does.

    Args:
        marks: where.
        slow: seconds to spend in the middle of each save, and four times that of a load, which
            comes but once.
        entering: is told of each phase that begins, and at which iteration.
    """
    from resnet_repro.training import checkpoint, loop
    from resnet_repro.training import run as run_module

    marks.phase = "start-up"
    places: list[tuple[Any, str, str]] = [
        (run_module, "resume", "load"),
        (run_module, "train", "train"),
        (loop, "evaluate", "evaluate"),
        (run_module, "count_clean_training_error", "evaluate"),
        (run_module, "keep_responses", "evaluate"),
        (checkpoint, "save", "save"),
    ]
    for module, name, phase in places:
        setattr(module, name, _marked(getattr(module, name), marks, phase, entering))

    def linger(name: str) -> None:
        if name in LINGERING:
            time.sleep(slow * LINGERING[name])
        crash_point(name)

    checkpoint.crash_point = linger  # type: ignore[attr-defined]


def _marked(work: Callable[..., Any], marks: Marks, phase: str, entering: Entering) -> Any:
    def marked(*args: Any, **more: Any) -> Any:
        began = marks.phase
        entering(phase, _iteration(args))
        marks.phase = phase
        made = work(*args, **more)
        if isinstance(made, Generator):
            return in_turns(made)
        marks.phase = began
        return made

    def in_turns(made: Turns) -> Turns:
        result = yield from made
        marks.phase = "end"
        return result

    return marked


def _iteration(args: tuple[Any, ...]) -> int:
    """The iteration that a function was called at: of the state it works on, or told as such."""
    found = [getattr(arg, "iteration", arg) for arg in args]
    return next((value for value in found if isinstance(value, int)), 0)


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
