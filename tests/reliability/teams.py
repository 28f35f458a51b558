"""Runs on several workers: one is killed or hangs, or the launcher, or the command."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from ranks import begin_as_is, small_job
from reliability.processes import at_work, do, ended, seconds_until_gone
from reliability.record import Outcome
from reliability.runs import Trial, Workshop
from resnet_repro.runs.signals import STOP_SIGNALS
from resnet_repro.training.launch import Job

SIZES = (2, 3, 4)
ITERATIONS = 4  # that a run does before it is hurt
TIMEOUT = 20.0  # seconds after which a silent worker is given up
WORDS = (
    "recipe.max_iters=80",
    "recipe.milestones=[40,60]",
    "trainer.log_every_iters=10",
    "trainer.checkpoint_every_iters=5",
    "evaluation.every_iters=40",
    f"trainer.timeout_seconds={TIMEOUT:g}",
)
WAITING = 240.0  # seconds for workers to come up on a busy machine

# What is hurt, and how. A worker that is stopped, not killed, is one that hangs.
FAULTS: dict[str, tuple[str, signal.Signals]] = {
    "rank 0 killed": ("0", signal.SIGKILL),
    "last rank killed": ("last", signal.SIGKILL),
    "launcher killed": ("launcher", signal.SIGKILL),
    "command killed": ("command", signal.SIGKILL),
    "last rank hangs": ("last", signal.SIGSTOP),
}
STOPS = {
    f"{number.name} to {whom}": (whom, number)
    for whom in ("command", "launcher", "workers")
    for number in STOP_SIGNALS
}


def trials(shop: Workshop) -> Iterator[Trial]:
    """Every fault for 2, 3 and 4 workers; every signal for 2. ``shop.count``: the most workers."""
    for size in SIZES:
        if size <= (shop.count or max(SIZES)):
            for name, fault in FAULTS.items():
                yield Trial(f"{size} workers: {name}", partial(hurt, shop, size, *fault))
    for name, stop in STOPS.items():
        yield Trial(f"2 workers: {name}", partial(hurt, shop, 2, *stop))


def hurt(shop: Workshop, size: int, whom: str, number: signal.Signals, folder: Path) -> Outcome:
    """Hurt a run once it is under way; all processes must end; then rerun it to its end."""
    words = (*WORDS, f"trainer.devices={size}")
    job = small_job(folder, *words)
    process = begin_as_is(do, job)
    found = under_way(job, size, process)
    began = time.monotonic()
    if whom == "command":
        hit = [process.pid]
    elif whom == "workers":
        hit = [pid for pid, what in found.items() if what.isdigit()]
    else:
        name = str(size - 1) if whom == "last" else whom
        hit = [pid for pid, what in found.items() if what == name]
        assert len(hit) == 1, found
    for pid in hit:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
    code = ended(process, WAITING)
    gone, orphans = seconds_until_gone(job.folder.path)
    to_exit = round(time.monotonic() - began, 2)
    state = job.folder.status().get("state")
    again = ended(begin_as_is(do, job), WAITING)
    outcome = {"workers": size, "codes": [code, again], "state": state, "orphans": orphans}
    outcome |= {"to_exit_s": to_exit, "after_command_s": gone}
    verdict = shop.undisturbed(*words).verdict(job.folder)
    expected = {"preempted"} if number in STOP_SIGNALS else {"failed", "preempted"}
    fine = verdict["ok"] and not orphans and code != 124 and state in expected
    return verdict | outcome | {"ok": fine}


def under_way(job: Job, size: int, process: Any) -> dict[int, str]:
    began = time.monotonic()
    while job.folder.status().get("iter", 0) < ITERATIONS:
        if not process.is_alive() or time.monotonic() - began > WAITING:
            raise RuntimeError(f"{size} workers did not come up: {job.folder.status()}")
        time.sleep(0.02)
    return at_work(job.folder.path)
