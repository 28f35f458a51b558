"""Runs of a list trained at the same time on one device, and what a person sees of them."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from typing import TextIO

from resnet_repro.options import ConfigError, shown
from resnet_repro.progress import QUIET_SECONDS, duration
from resnet_repro.training.launch import Job

# What torch sets for a whole process: runs in one must agree in it.
SHARED = ("device", "precision", "deterministic", "threads", "concurrent")


def at_once(jobs: Sequence[Job]) -> int:
    """How many of these runs are to be trained at the same time.

    Raises:
        ConfigError: they do not agree in what they would share.
    """
    together = max(job.config.trainer.concurrent for job in jobs)
    for key in SHARED:
        values = {getattr(job.config.trainer, key) for job in jobs}
        if len(values) > 1 and together > 1:
            listed = " and ".join(sorted(shown(value) for value in values))
            raise ConfigError(
                f"trainer.concurrent={together}: runs trained at the same time must agree in "
                f"trainer.{key}, which is {listed}"
            )
    return min(together, len(jobs))


class _Seen:
    """Watches one of the runs."""

    def __init__(self, together: Together, start: int, max_iters: int, seconds: float):
        self._together, self._start, self._max, self._seconds = together, start, max_iters, seconds
        self.iteration, self.top1_err = start, math.nan
        self.state = "waiting"

    def enter(self, phase: str, iteration: int) -> None:
        """Do nothing."""

    def update(self, iteration: int, top1_err: float | None, lr: float) -> None:  # noqa: ARG002
        """Take note of an iteration."""
        self.iteration, self.state = iteration, "under way"
        self.top1_err = math.nan if top1_err is None else top1_err
        self._together.show()

    @property
    def new_iterations(self) -> int:
        """Iterations done here and now."""
        return self.iteration - self._start

    @property
    def done(self) -> float:
        """Seconds of work done, as they would be if the run were alone."""
        share = self.new_iterations / max(1, self._max - self._start)
        return self._seconds * (1.0 if self.state == "ended" else share)

    def __str__(self) -> str:
        err = "" if math.isnan(self.top1_err) else f", train err {self.top1_err:.1f} %"
        return f"{self.iteration}/{self._max}{err}"


class Together:
    """A line now and then on all runs that are under way, with the time the whole job needs."""

    def __init__(
        self,
        jobs: Sequence[Job],
        starts: Sequence[int],
        estimates: Sequence[float],
        stream: TextIO | None = None,
    ):
        self._seen = {
            job.label: _Seen(self, start, job.config.recipe.max_iters, seconds)
            for job, start, seconds in zip(jobs, starts, estimates, strict=True)
        }
        self._work = sum(estimates)
        self._began = self._printed = time.monotonic()
        self._stream = stream or sys.stderr

    def begin(self, label: str, start: int, max_iters: int) -> _Seen:  # noqa: ARG002
        """What watches this run."""
        return self._seen[label]

    def end(self, label: str = "") -> None:
        """Take note that a run is over, however it ended."""
        if label:
            self._seen[label].state = "ended"

    def show(self) -> None:
        """Print the line, if the last was some time ago."""
        now = time.monotonic()
        if now - self._printed < QUIET_SECONDS:
            return
        self._printed, elapsed = now, now - self._began
        all_seen = self._seen.values()
        ended = sum(seen.state == "ended" for seen in all_seen)
        under_way = [f"{k} {v}" for k, v in self._seen.items() if v.state == "under way"]
        rate = sum(seen.new_iterations for seen in all_seen) / elapsed
        done = sum(seen.done for seen in all_seen)
        left = duration((self._work - done) / done * elapsed) if done else "unknown time"
        facts = f"{rate:.1f} it/s, all runs: {left}"
        head = f"[{ended} of {len(self._seen)} over]"
        print(f"{head} {'; '.join(under_way)}; {facts}", file=self._stream, flush=True)
