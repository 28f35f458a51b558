"""Several runs: what is missing, how long it takes, what came of it."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from resnet_repro.exits import PREEMPTED, exit_code
from resnet_repro.progress import JobProgress, Watcher, duration
from resnet_repro.runs.provenance import cpu_description, usable_cores
from resnet_repro.training.concurrent import Together, at_once
from resnet_repro.training.launch import Job, begin

if TYPE_CHECKING:
    from resnet_repro.training.run import Run


@dataclass(frozen=True)
class Outcome:
    """What became of one run: ``skipped``, ``finished``, ``preempted`` or ``failed``, and why."""

    job: Job
    state: str
    error: Exception | None = None


def run_all(jobs: Sequence[Job], stop_asked: Callable[[], bool]) -> list[Outcome]:
    """Do what is missing of ``jobs``; a failure is kept for the end and stops no other run.

    One after the other or, with ``trainer.concurrent``, several at the same time.

    Raises:
        ConfigError: runs that are to be trained at the same time cannot be.
        RunFolderError: before anything is trained, a folder holds another configuration.
    """
    done = [Outcome(job, "skipped") for job in jobs if job.is_done()]
    missing = [job for job in jobs if not job.is_done()]
    if not missing:
        return done
    together = at_once(missing)
    estimates = estimate(missing)
    begun = sum(bool(job.folder.resumes_at) for job in missing)
    also = f" ({begun} of them begun before)" if begun else ""
    total = duration(sum(estimates))
    say(f"{len(missing)} of {len(jobs)} runs to train{also}: about {total} on {_device_name()}")
    if together > 1:
        starts = [job.folder.resumes_at for job in missing]
        progress: JobProgress | Together = Together(missing, starts, estimates)
    else:
        progress = JobProgress(estimates)
    outcomes = train_together(missing, together, progress, stop_asked)
    progress.end()
    return done + outcomes


def train_together(
    jobs: Sequence[Job], most: int, progress: JobProgress | Together, stop_asked: Callable[[], bool]
) -> list[Outcome]:
    """Train up to ``most`` runs at the same time, an iteration of each in turn.

    The next begins as one ends. An error ends its own run alone. Once a stop is asked for, no other
    run begins; those that have begun see it too and end by themselves.
    """
    from resnet_repro.training.memory import free_after_run

    waiting, outcomes = deque(jobs), list[Outcome]()
    under_way: list[_UnderWay] = []
    try:
        while True:
            while waiting and len(under_way) < most and not stop_asked():
                job = waiting.popleft()
                first, last = job.folder.resumes_at, job.config.recipe.max_iters
                watcher = progress.begin(job.label, first, last)
                under_way.append(_UnderWay(job, watcher, stop_asked))
            if not under_way:
                return outcomes
            ready = [work for work in under_way if work.is_ready()]
            if not ready:
                under_way[0].wait()
            for work in ready:
                if outcome := work.advance():
                    free_after_run(outcome.error)
                    under_way.remove(work)
                    outcomes.append(outcome)
                    progress.end(work.job.label)
    finally:
        for work in under_way:
            work.close()


class _UnderWay:
    """A run that takes turns with others; its first turn begins it."""

    def __init__(self, job: Job, watcher: Watcher, stop_asked: Callable[[], bool]):
        self.job, self._watcher, self._stop_asked = job, watcher, stop_asked
        self._run: Run | None = None

    def is_ready(self) -> bool:
        """Whether the device needs more of it to do."""
        return self._run is None or self._run.is_ready()

    def wait(self) -> None:
        """Wait until the device has done more of it."""
        if self._run is not None:
            self._run.wait()

    def advance(self) -> Outcome | None:
        """Do one iteration; where the run ends with it, let go of it and return its outcome."""
        made: Run | str | None
        try:
            if self._run is None:
                made = begin(self.job, self._watcher, self._stop_asked)
                if not isinstance(made, str):
                    self._run = made
                    return None
            elif (made := self._run.advance()) is None:
                self._run.mark()
                return None
            outcome = Outcome(self.job, str(made))
        except Exception as error:
            outcome = Outcome(self.job, "failed", error)
        self._run = None
        return outcome

    def close(self) -> None:
        """Leave it where it is."""
        if self._run is not None:
            self._run.close()


def estimate(jobs: Sequence[Job]) -> list[float]:
    """Seconds that each run still needs on this device; each experiment is measured once."""
    from resnet_repro.training.estimate import Pace, measure

    paces: dict[str, Pace] = {}
    for job in jobs:
        name = f"{job.config.name} {job.config.profile}"
        if name not in paces:
            paces[name] = measure(job.config)
    return [
        paces[f"{job.config.name} {job.config.profile}"].seconds(job.config, job.folder.resumes_at)
        for job in jobs
    ]


def _device_name() -> str:
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{usable_cores()} CPU cores, {cpu_description()[0]}"


def report(outcomes: Sequence[Outcome]) -> None:
    """Say which runs failed, after all were tried; leave if any failed or was stopped."""
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    for outcome in failed:
        say(f"failed: {outcome.job.label}: {outcome.error}")
    if failed:
        error = failed[0].error
        assert error is not None
        code = exit_code(error)
        if code is None:
            raise error
        raise SystemExit(code)
    if any(outcome.state == "preempted" for outcome in outcomes):
        say("stopped and saved; say it again to go on")
        raise SystemExit(PREEMPTED)


def say(message: str) -> None:
    """Tell the person at the terminal; standard output is left to results."""
    print(message, file=sys.stderr, flush=True)
