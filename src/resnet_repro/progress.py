"""What a person sees while runs are trained: one line for the run, with the time the job needs.

On a terminal the line is redrawn; elsewhere (CI, cluster logs) a line is printed now and then.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Never, TextIO

if TYPE_CHECKING:
    from tqdm import tqdm

QUIET_SECONDS = 10.0  # between two lines where the output is not a terminal


def duration(seconds: float) -> str:
    """Seconds as people say them: ``45 s``, ``3 min 20 s``, ``2 h 05 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


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

    def end(self) -> None:
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
        if stream.isatty():
            from tqdm import tqdm

            self._bar = tqdm(
                total=max_iters,
                initial=start,
                desc=job.position + label,
                file=stream,
                bar_format="{desc} {percentage:3.0f}%|{bar:20}| {n_fmt}/{total_fmt}{postfix}",
                mininterval=0.2,
            )

    def update(self, iteration: int, top1_err: float | None, lr: float) -> None:
        """Show an iteration; ``top1_err`` is the last logged training error, percent."""
        now = time.monotonic()
        if self._bar is not None:
            self._bar.set_postfix_str(self._facts(iteration, top1_err, lr, now), refresh=False)
            self._bar.update(iteration - self._bar.n)
        elif now - self._printed >= QUIET_SECONDS or iteration == self._max:
            self._printed = now
            where = f"{self._job.position}{self._label} {iteration}/{self._max}"
            facts = self._facts(iteration, top1_err, lr, now)
            print(f"{where}, {facts}", file=self._stream, flush=True)

    def _facts(self, iteration: int, top1_err: float | None, lr: float, now: float) -> str:
        elapsed = now - self._began
        rate = (iteration - self._start) / elapsed if elapsed else 0.0
        left = (self._max - iteration) / rate if rate else 0.0
        facts = [f"lr {lr:g}", f"{rate:.1f} it/s", f"{duration(left)} left"]
        if top1_err is not None:
            facts.insert(0, f"train err {top1_err:.1f} %")
        if self._job.position:
            facts.append(f"all runs: {duration(self._job.remaining(elapsed, left))}")
        return ", ".join(facts)

    def close(self) -> float:
        """End the line; return the seconds the run took."""
        if self._bar is not None:
            self._bar.close()
        return time.monotonic() - self._began
