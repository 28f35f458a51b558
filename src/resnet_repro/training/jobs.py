"""Several runs: what is missing, how long it takes, what came of it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from resnet_repro.exits import PREEMPTED, exit_code
from resnet_repro.progress import JobProgress, RunProgress, duration
from resnet_repro.runs.provenance import cpu_description, usable_cores
from resnet_repro.training.concurrent import at_once, run_together
from resnet_repro.training.launch import Job, launch


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
        ended = run_together(missing, starts, estimates, stop_asked)
        return done + [_outcome(job, result) for job, result in ended]
    progress = JobProgress(estimates)
    outcomes = []
    for job in missing:
        watcher = progress.begin(job.label, job.folder.resumes_at, job.config.recipe.max_iters)
        outcomes.append(_try(job, watcher, stop_asked))
        if stop_asked():
            break
    progress.end()
    return done + outcomes


def _outcome(job: Job, result: str | Exception) -> Outcome:
    if isinstance(result, Exception):
        return Outcome(job, "failed", result)
    return Outcome(job, result)


def _try(job: Job, watcher: RunProgress, stop_asked: Callable[[], bool]) -> Outcome:
    try:
        return Outcome(job, launch(job, watcher, stop_asked))
    except Exception as error:
        return Outcome(job, "failed", error)


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
