"""Several processes on one run: its workers, of which one dies or hangs, and rival commands.

Also the command of the workers dies. Of two rivals one proceeds, the other names it.
"""

import contextlib
import os
import re
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from ranks import begin_as_is, never, small_job
from reliability.record import Outcome
from reliability.runs import (
    Trial,
    Workshop,
    at_work,
    begin,
    command,
    do,
    ended,
    seconds_until_gone,
)
from resnet_repro.exits import CONFIG
from resnet_repro.progress import Watcher
from resnet_repro.runs.folder import RunFolderError
from resnet_repro.runs.signals import STOP_SIGNALS
from resnet_repro.training.launch import Job, launch

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
EVERY = 10  # every tenth pair of rivals are real commands

# What is hurt, and how. A worker that is stopped, not killed, is one that hangs.
FAULTS: dict[str, tuple[str, signal.Signals]] = {
    "rank 0 killed": ("0", signal.SIGKILL),
    "last rank killed": ("last", signal.SIGKILL),
    "command killed": ("command", signal.SIGKILL),
    "last rank hangs": ("last", signal.SIGSTOP),
}
STOPS = {
    f"{number.name} to {whom}": (whom, number)
    for whom in ("command", "workers")
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
    ranks = {"0": ["0"], "last": [str(size - 1)], "workers": [str(rank) for rank in range(size)]}
    if whom == "command":
        hit = [process.pid]
    else:
        hit = [pid for pid, rank in found.items() if rank in ranks[whom]]
        assert len(hit) == len(ranks[whom]), found
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


def rival_trials(shop: Workshop) -> Iterator[Trial]:
    """Pairs begun at the same moment; every tenth by the real command."""
    for turn in range(shop.count):
        if turn % EVERY == EVERY - 1:
            yield Trial(f"commands {turn}", commands)
        else:
            yield Trial(f"processes {turn}", partial(pair, shop, turn))


def pair(shop: Workshop, turn: int, folder: Path) -> Outcome:
    """Two processes that wait for the same moment and then begin the same run."""
    reference, job, _ = shop.begun(turn, folder)
    at = time.monotonic() + 0.5
    processes = [begin(race, job, at, folder / str(number)) for number in range(2)]
    codes = sorted(ended(process) for process in processes)
    output = " ".join(path.read_text() for path in sorted(folder.glob("[01]")))
    return judged(reference.verdict(job.folder), codes, output)


def race(job: Job, at: float, answer: Path) -> None:
    """Begin ``job`` at a moment; the exit code is the command's."""
    time.sleep(max(0.0, at - time.monotonic()))
    try:
        launch(job, Watcher(), never)
    except RunFolderError as error:
        answer.write_text(str(error))
        os._exit(CONFIG)


def commands(folder: Path) -> Outcome:
    job = small_job(folder)
    begun = [command(job) for _ in range(2)]
    output = " ".join(process.communicate()[1] for process in begun)
    codes = sorted(process.returncode for process in begun)
    outcome = {"ok": job.folder.is_finished, "identical": None, "command": True}
    return judged(outcome, codes, output)


def judged(verdict: Outcome, codes: list[int], output: str) -> Outcome:
    """One ran to the end; the other was refused and told by whom, or found the run done."""
    named = re.search(r"process \d+ on \S+ is working on this run", output) is not None
    one = codes == [0, CONFIG] and named
    return verdict | {"codes": codes, "named": named, "ok": verdict["ok"] and one}
