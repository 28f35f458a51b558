"""Stop signals: each one, to the process or its group, in each phase; and a second one."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from ranks import crash
from reliability.processes import PREEMPTED, Marks, Noting, begin, do, ended, observed
from reliability.record import Outcome
from reliability.runs import Trial, Workshop, generations
from resnet_repro.runs.signals import STOP_SIGNALS
from resnet_repro.training.launch import Job

PHASES = ("load", "train", "evaluate", "save")


def trials(shop: Workshop) -> Iterator[Trial]:
    for number in STOP_SIGNALS:
        for phase in PHASES:
            for to in ("process", "group"):
                work = partial(stopped, shop, number, phase, to)
                yield Trial(f"{number.name} to {to} in {phase}", work)
        yield Trial(f"{number.name} twice", partial(stopped_twice, shop, number))


def stopped(shop: Workshop, number: signal.Signals, phase: str, to: str, folder: Path) -> Outcome:
    """Send a signal when a phase begins: saved within an iteration, the same bits later."""
    reference, job, name = shop.begun(number, folder)
    if phase == "load":  # needs something to load
        crash(job, "after-prune:2")
    code = ended(begin(signalled, folder, job, number, phase, to))
    at, iteration = (folder / "at").read_text().split()
    ending = round(time.monotonic() - float(at), 2)
    status = job.folder.status()
    lost = status["iter"] - int(iteration)
    found = reference.after(job, code, variant=name, more_iterations=lost, to_exit_s=ending)
    fine = code == PREEMPTED and status["state"] == "preempted" and 0 <= lost <= 1
    return found | {"ok": found["ok"] and fine}


def signalled(folder: Path, job: Job, number: int, phase: str, to: str) -> None:
    """Do ``job``; on entering ``phase`` send the signal and note when and at which iteration."""

    def entering(begun: str, iteration: int) -> None:
        if begun == phase and not (folder / "at").exists():
            at = int(generations(job.folder)[-1].stem[5:]) if phase == "load" else iteration
            (folder / "at").write_text(f"{time.monotonic()} {at}")
            os.killpg(0, number) if to == "group" else os.kill(os.getpid(), number)

    os.setpgrp()
    observed(job, Noting(Marks(folder / "marks"), entering))


def stopped_twice(shop: Workshop, number: signal.Signals, folder: Path) -> Outcome:
    """Send a signal twice during a slow save: the process ends at once, and nothing is lost."""
    reference, job, name = shop.begun(number, folder)
    process = begin(do, job, folder / "marks", 5.0)
    marks = Marks(folder / "marks")
    while marks.phase != "save" and process.is_alive():
        time.sleep(0.005)
    os.kill(process.pid, number)
    time.sleep(0.2)
    os.kill(process.pid, number)
    began = time.monotonic()
    code = ended(process)
    ending = time.monotonic() - began
    found = reference.after(job, code, variant=name, to_exit_s=round(ending, 2))
    return found | {"ok": found["ok"] and code == 128 + number and ending < 4}
