"""Random SIGKILLs: one to three in a run, at any moment of it."""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from reliability.phases import Marks, judged_from_outside
from reliability.processes import at_work, begin, command, do, environment, finish, say
from reliability.record import Outcome
from reliability.subject import LONG, VARIANTS, small_job
from reliability.workshop import Trial, Workshop

SLOW = 0.12  # seconds that a slow save or load takes longer: more kills land inside
SAVES = 4  # slow places in a run, for its length
MOST = 3  # kills in one run
EVERY = 4  # every fourth run is the real command,
SHARE = 0.2  # until it has had this share of the kills


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
    names = sorted(VARIANTS)
    name = names[(number // EVERY) % len(names)]
    reference = shop.variant(name)
    slow = rng.choice((0.0, SLOW))
    job, marks = small_job(folder, *VARIANTS[name]), folder / "marks"
    phases: list[str] = []
    for _ in range(rng.randint(1, MOST)):
        process = begin(do, job, marks, slow)
        process.join(rng.uniform(0, reference.seconds + SAVES * slow))
        if process.exitcode is not None:
            break
        process.kill()
        process.join()
        phases.append(Marks(marks).phase)
    codes = [finish(job)]
    told = {"variant": name, "slow": slow > 0, "phases": phases, "codes": codes}
    return reference.verdict(job.folder) | told


def killed_command(shop: Workshop, number: int, folder: Path) -> Outcome:
    """The same with ``python -m resnet_repro.train``."""
    rng = random.Random(f"kills {number}")
    reference = shop.command()
    job = small_job(folder, *LONG)
    phases: list[str] = []
    for _ in range(rng.randint(1, MOST)):
        process = subprocess.Popen(
            command(*job.words),
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            process.wait(rng.uniform(0, reference.seconds))
            break
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        phases.append(judged_from_outside(job.folder, process.pid))
    orphans = len(at_work(folder))
    began = time.monotonic()
    code = say(*job.words).returncode
    told = {"variant": "command", "phases": phases, "codes": [code], "orphans": orphans}
    told["resumed_in"] = round(time.monotonic() - began, 2)
    verdict = reference.verdict(job.folder)
    return verdict | told | {"ok": verdict["ok"] and not orphans}
