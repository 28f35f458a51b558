"""Signals: random SIGKILLs, one to three in a run, at any moment of it; those that ask to stop.

These go to the process or its group, in each phase, and twice. And what piles up over many.
"""

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from ranks import crash, never, small_job
from reliability.record import Outcome
from reliability.runs import (
    KILLED,
    LONG,
    Marks,
    Noting,
    Trial,
    Workshop,
    at_work,
    begin,
    by_command,
    command,
    do,
    ended,
    generations,
    judged_from_outside,
    left_overs,
    observed,
)
from resnet_repro.exits import PREEMPTED
from resnet_repro.progress import Watcher
from resnet_repro.runs.signals import STOP_SIGNALS
from resnet_repro.training.launch import Job, launch

SLOW = 0.12  # seconds that a slow save or load takes longer: more kills land inside
SAVES = 4  # slow places in a run, for its length
MOST = 3  # kills in one run
EVERY = 4  # every fourth run is the real command,
SHARE = 0.2  # until it has had this share of the kills
MAX_SLOPE = 0.1  # MiB of memory a cycle: a net of this size and its momentum are 0.6
WARM = 10  # cycles until caches are filled
STOPPED_IN = ("load", "train", "evaluate", "save")


def trials(shop: Workshop) -> Iterator[Trial]:
    """Runs to be killed, until enough kills were sent.

    Most are forked, which leaves most of their time to training; half of those save and load
    slowly. A fifth of the kills are sent to the real command with its seconds of start-up. When a
    kill comes is drawn uniformly over the time that the run takes from its start to its end.
    """
    while shop.record.total("phases") < shop.count:
        number = len(shop.record.trials)
        commands = [t["phases"] for t in shop.record.trials if t.get("variant") == "command"]
        enough = sum(map(len, commands)) >= SHARE * shop.count
        real = not enough and number % EVERY == EVERY - 1
        work = killed_command if real else killed_process
        yield Trial(f"{'command' if real else 'process'} {number}", partial(work, shop, number))


def killed_process(shop: Workshop, number: int, folder: Path) -> Outcome:
    """Kill a forked run up to three times, then rerun it until it ends."""
    rng = random.Random(f"kills {number}")
    reference, job, name = shop.begun(number // EVERY, folder)
    slow, marks = rng.choice((0.0, SLOW)), folder / "marks"
    phases: list[str] = []
    for _ in range(rng.randint(1, MOST)):
        process = begin(do, job, marks, slow)
        process.join(rng.uniform(0, reference.seconds + SAVES * slow))
        if process.exitcode is not None:
            break
        process.kill()
        process.join()
        phases.append(Marks(marks).phase)
    return reference.after(job, variant=name, slow=slow > 0, phases=phases)


def killed_command(shop: Workshop, number: int, folder: Path) -> Outcome:
    """The same with ``python -m resnet_repro.train``."""
    rng = random.Random(f"kills {number}")
    reference, job = shop.undisturbed(*LONG, real=True), small_job(folder, *LONG)
    phases: list[str] = []
    for _ in range(rng.randint(1, MOST)):
        with command(job) as process:
            try:
                process.wait(rng.uniform(0, reference.seconds))
                break
            except subprocess.TimeoutExpired:
                process.kill()
        phases.append(judged_from_outside(job.folder, process.pid))
    orphans = len(at_work(folder))
    began = time.monotonic()
    code, _ = by_command(job)
    outcome = {"variant": "command", "phases": phases, "codes": [code], "orphans": orphans}
    outcome["resumed_in"] = round(time.monotonic() - began, 2)
    verdict = reference.verdict(job.folder)
    return verdict | outcome | {"ok": verdict["ok"] and not orphans}


def stop_trials(shop: Workshop) -> Iterator[Trial]:
    for number in STOP_SIGNALS:
        for phase in STOPPED_IN:
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
    observed(job, Noting(entering))


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


def leak_trials(shop: Workshop) -> Iterator[Trial]:
    """The same run killed again and again, and stopped again and again within one process."""
    yield Trial(f"{shop.count} kills of one run", partial(killed_often, shop))
    yield Trial(f"{shop.count} stops in one process", partial(stopped_often, shop))


def length(count: int) -> tuple[str, ...]:
    """Words of a run that is not at its end after ``count`` cycles of one iteration."""
    more = ("trainer.checkpoint_every_iters=1", "probes.signals=false", "recipe.milestones=[]")
    return (*more, f"recipe.max_iters={count + 2}", f"evaluation.every_iters={count + 2}")


def killed_often(shop: Workshop, folder: Path) -> Outcome:
    """Kill one run in the middle of a save, each time an iteration later."""
    args = length(shop.count)
    reference, job = shop.undisturbed(*args), small_job(folder, *args)
    most = {"temporary": 0, "generations": 0, "files": 0}
    for _ in range(shop.count):
        if (code := crash(job, "mid-write.pt:2")) != KILLED:
            return {"ok": False, "code": code}
        here = {
            "temporary": len(left_overs(job.folder)),
            "generations": len(generations(job.folder)),
            "files": len(list(job.folder.path.rglob("*"))),
        }
        most = {key: max(most[key], here[key]) for key in most}
    found = reference.after(job, cycles=shop.count, **most)
    orphans = len(at_work(folder))
    # A save that was cut short leaves its digest and its temporary file, until the next start.
    fine = most["temporary"] <= 2 and most["generations"] <= 2 and not orphans
    return found | {"orphans": orphans, "ok": found["ok"] and fine}


def stopped_often(shop: Workshop, folder: Path) -> Outcome:
    """Stop and resume one run in one process: open files and memory must not grow."""
    args = length(shop.count)
    reference, job = shop.undisturbed(*args), small_job(folder, *args)
    code = ended(begin(cycles, job, shop.count, folder / "seen"))
    seen = json.loads((folder / "seen").read_text())
    memory = seen["memory"][WARM:]
    slope = float(np.polyfit(range(len(memory)), memory, 1)[0]) if len(memory) > 1 else 0.0
    opened = seen["files"][-1] - seen["files"][min(WARM, len(seen["files"]) - 1)]
    verdict = reference.verdict(job.folder)
    outcome = {"cycles": shop.count, "codes": [code], "more_open_files": opened}
    outcome["memory_slope_mib"] = round(slope, 4)
    return verdict | outcome | {"ok": verdict["ok"] and opened <= 0 and slope < MAX_SLOPE}


def cycles(job: Job, count: int, answer: Path) -> None:
    """Do ``job`` an iteration at a time and then to its end; note open files and memory in MiB."""
    page = os.sysconf("SC_PAGE_SIZE") / 2**20
    seen: dict[str, list[float]] = {"files": [], "memory": []}
    for _ in range(count):
        launch(job, Watcher(), lambda: True)
        seen["files"].append(len(list(Path("/proc/self/fd").iterdir())))
        seen["memory"].append(int(Path("/proc/self/statm").read_text().split()[1]) * page)
    launch(job, Watcher(), never)
    answer.write_text(json.dumps(seen))
