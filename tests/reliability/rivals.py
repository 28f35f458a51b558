"""Two commands on one run folder: one proceeds, the other names it."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from ranks import Silent, never, small_job
from reliability.processes import begin, ended, environment, words_of
from reliability.record import Outcome
from reliability.runs import Trial, Workshop
from resnet_repro.runs.folder import RunFolderError
from resnet_repro.training.launch import Job, launch

EVERY = 10  # every tenth pair are real commands
REFUSED = 2


def trials(shop: Workshop) -> Iterator[Trial]:
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
        launch(job, Silent(), never)
    except RunFolderError as error:
        answer.write_text(str(error))
        os._exit(REFUSED)


def commands(folder: Path) -> Outcome:
    job = small_job(folder)
    begun = [
        subprocess.Popen(words_of(*job.words), env=environment(), stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    output = " ".join(process.communicate()[1] for process in begun)
    codes = sorted(process.returncode for process in begun)
    outcome = {"ok": job.folder.is_finished, "identical": None, "command": True}
    return judged(outcome, codes, output)


def judged(verdict: Outcome, codes: list[int], output: str) -> Outcome:
    """One ran to the end; the other was refused and told by whom, or found the run done."""
    named = re.search(r"process \d+ on \S+ is working on this run", output) is not None
    one = codes == [0, REFUSED] and named
    return verdict | {"codes": codes, "named": named, "ok": verdict["ok"] and one}
