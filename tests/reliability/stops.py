"""Asked to stop: by each signal, to the process or its group, in each phase; and asked twice."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from reliability.phases import Marks, Noting
from reliability.processes import begin, do, ended, finish, watched
from reliability.record import Outcome
from reliability.subject import VARIANTS, small_job
from reliability.workshop import Trial, Workshop
from resnet_repro.runs.signals import STOP_SIGNALS
from resnet_repro.training.launch import Job

PHASES = ("load", "train", "evaluate", "save")
PREEMPTED = 75


def trials(shop: Workshop) -> Iterator[Trial]:
    """Each signal, to process and group, in each phase, and a second one right after it."""
    for number in STOP_SIGNALS:
        name = number.name
        for phase in PHASES:
            for group in (False, True):
                to = "group" if group else "process"
                yield Trial(
                    f"{name} to {to} in {phase}", partial(asked, shop, number, phase, group)
                )
        yield Trial(f"{name} twice", partial(asked_twice, shop, number))


def asked(shop: Workshop, number: signal.Signals, phase: str, group: bool, folder: Path) -> Outcome:
    """Send a signal when a phase begins: saved within an iteration, the same bits later."""
    name = sorted(VARIANTS)[number % len(VARIANTS)]
    reference, job = shop.variant(name), small_job(folder, *VARIANTS[name])
    if phase == "load":  # needs something to load
        begin(do, job, None, 0.0, "after-prune:2").join()
    process = begin(signalled, folder, job, number, phase, group)
    process.join()
    ending = time.monotonic() - float((folder / "at").read_text().split()[0])
    asked_at = int((folder / "at").read_text().split()[1])
    status = job.folder.status()
    codes = [ended(process), finish(job)]
    lost = status["iter"] - asked_at
    verdict = reference.verdict(job.folder)
    stopped = codes[0] == PREEMPTED and status["state"] == "preempted"
    told = {"variant": name, "codes": codes, "more_iterations": lost, "to_exit_s": round(ending, 2)}
    return verdict | told | {"ok": verdict["ok"] and stopped and 0 <= lost <= 1}


def signalled(folder: Path, job: Job, number: int, phase: str, group: bool) -> None:
    """Do ``job``; on entering ``phase`` send the signal and note when and at which iteration."""

    def entering(begun: str, iteration: int) -> None:
        if begun == phase and not (folder / "at").exists():
            saved = [int(path.stem[5:]) for path in job.folder.checkpoints.glob("iter_*.pt")]
            at = max(saved) if phase == "load" else iteration
            (folder / "at").write_text(f"{time.monotonic()} {at}")
            os.killpg(0, number) if group else os.kill(os.getpid(), number)

    os.setpgrp()
    watched(job, Noting(Marks(folder / "marks"), entering))


def asked_twice(shop: Workshop, number: signal.Signals, folder: Path) -> Outcome:
    """Send a signal twice during a slow save: the process ends at once, and nothing is lost."""
    name = sorted(VARIANTS)[number % len(VARIANTS)]
    reference, job = shop.variant(name), small_job(folder, *VARIANTS[name])
    process = begin(do, job, folder / "marks", 5.0)
    marks = Marks(folder / "marks")
    while marks.phase != "save" and process.is_alive():
        time.sleep(0.005)
    os.kill(process.pid, number)
    time.sleep(0.2)
    os.kill(process.pid, number)
    began = time.monotonic()
    process.join()
    ending = time.monotonic() - began
    codes = [ended(process), finish(job)]
    verdict = reference.verdict(job.folder)
    told = {"variant": name, "codes": codes, "to_exit_s": round(ending, 2)}
    return verdict | told | {"ok": verdict["ok"] and codes[0] == 128 + number and ending < 4}
