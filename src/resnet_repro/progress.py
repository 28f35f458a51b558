"""What a person sees while runs are trained: one line for the run, with the time the job needs.

On a terminal the line is redrawn, and is as long as there is room for; elsewhere (CI, cluster logs)
a line is printed now and then, the more seldom the longer the run. No colours anywhere.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Never, Protocol, TextIO

if TYPE_CHECKING:
    from tqdm import tqdm

# Where the output is not a terminal: seconds between two lines, and a line for each 2 % at most.
QUIET_SECONDS, QUIET_SHARE, QUIET_AT_MOST = 10.0, 1 / 50, 600.0
BAR = 20  # characters
BAR_COLUMNS = 140  # narrower terminals have room for the numbers alone


def duration(seconds: float) -> str:
    """Seconds as people say them: ``45 s``, ``3 min 20 s``, ``2 h 05 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def is_redrawn(stream: TextIO) -> bool:
    """Whether a line can be written over another one there."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


PHASES = ("load", "train", "evaluate", "save", "end")


class Watcher(Protocol):
    """Whoever observes a run."""

    def enter(self, phase: str, iteration: int) -> None:
        """Note that one of :data:`PHASES` begins; between two updates the run is in ``train``."""

    def update(self, iteration: int, top1_err: float | None, lr: float) -> None:
        """Note an iteration; ``top1_err`` is the last logged training error, percent."""


class JobProgress:
    """Progress of several runs done one after the other.

    Args:
        estimates: expected seconds of each run, in order of work. As runs go on, the estimates of
            those still to come are scaled by how right they were so far.
    """

    def __init__(self, estimates: Sequence[float], stream: TextIO | None = None):
        self._estimates = list(estimates)
        self._stream = stream or sys.stderr
        self._index = -1
        self._spent = 0.0  # seconds of runs that are over
        self._run: RunProgress | None = None

    def begin(self, label: str, start: int, max_iters: int) -> RunProgress:
        """Show the next run, which goes from iteration ``start`` to ``max_iters``."""
        self.end()
        self._index += 1
        self._run = RunProgress(self, label, start, max_iters, self._stream)
        return self._run

    def end(self, label: str = "") -> None:  # noqa: ARG002
        """Finish the line of the current run."""
        if self._run is not None:
            self._spent += self._run.close()
            self._run = None

    def remaining(self, run_elapsed: float, run_remaining: float) -> float:
        """Seconds the whole job still needs, given the current run's own figures."""
        done = sum(self._estimates[: self._index + 1])
        later = sum(self._estimates[self._index + 1 :])
        spent = self._spent + run_elapsed + run_remaining
        return run_remaining + later * (spent / done if done else 1.0)

    @property
    def position(self) -> str:
        """Which run of how many this is; empty for a single one."""
        count = len(self._estimates)
        return f"[{self._index + 1}/{count}] " if count > 1 else ""


class RunProgress:
    """Progress of one run."""

    def __init__(self, job: JobProgress, label: str, start: int, max_iters: int, stream: TextIO):
        self._job, self._label, self._start, self._max = job, label, start, max_iters
        self._began = self._printed = time.monotonic()
        self._stream = stream
        self._bar: tqdm[Never] | None = None
        if is_redrawn(stream):
            from tqdm import tqdm

            bar = f"|{{bar:{BAR}}}|" if shutil.get_terminal_size().columns >= BAR_COLUMNS else ""
            self._bar = tqdm(
                total=max_iters,
                initial=start,
                desc=job.position + label,
                file=stream,
                bar_format="{desc} {percentage:.0f}%" + bar + " {n_fmt}/{total_fmt}{postfix}",
                mininterval=0.2,
                dynamic_ncols=True,
            )

    def enter(self, phase: str, iteration: int) -> None:
        """Do nothing."""

    def update(self, iteration: int, top1_err: float | None, lr: float) -> None:
        """Show an iteration; ``top1_err`` is the last logged training error, percent."""
        now = time.monotonic()
        self._start = min(self._start, iteration - 1)  # a damaged checkpoint was set aside
        if self._bar is not None:
            facts = self._facts(iteration, top1_err, lr, now)
            self._bar.set_postfix_str(self._fitting(facts), refresh=False)
            self._bar.update(iteration - self._bar.n)
        elif now - self._printed >= self._pause(now) or iteration == self._max:
            self._printed = now
            where = f"{self._job.position}{self._label} {iteration}/{self._max}"
            facts = self._facts(iteration, top1_err, lr, now)
            print(", ".join([where, *facts]), file=self._stream, flush=True)

    def _pause(self, now: float) -> float:
        share = QUIET_SHARE * (now - self._began)
        return min(max(QUIET_SECONDS, share), QUIET_AT_MOST)

    def _facts(self, iteration: int, top1_err: float | None, lr: float, now: float) -> list[str]:
        """What is said of the run, what one most wants to know first."""
        elapsed = now - self._began
        rate = (iteration - self._start) / elapsed if elapsed else 0.0
        left = (self._max - iteration) / rate if rate else 0.0
        facts = [f"{duration(left)} left"]
        if self._job.position:
            facts.append(f"all runs: {duration(self._job.remaining(elapsed, left))}")
        if top1_err is not None:
            facts.append(f"train err {top1_err:.1f} %")
        return [*facts, f"lr {lr:g}", f"{rate:.1f} it/s"]

    def _fitting(self, facts: Sequence[str]) -> str:
        """As many facts as the line has room for, after label, bar and counts."""
        counts = len(f" 100% {self._max}/{self._max}, ")
        columns = shutil.get_terminal_size().columns
        bar = BAR + 2 if columns >= BAR_COLUMNS else 0
        room = columns - 1 - len(self._job.position + self._label) - bar - counts
        fit = [n for n in range(len(facts) + 1) if len(", ".join(facts[:n])) <= room]
        return ", ".join(facts[: fit[-1]] if fit else [])

    def close(self) -> float:
        """End the line; return the seconds the run took."""
        if self._bar is not None:
            self._bar.close()
        return time.monotonic() - self._began
