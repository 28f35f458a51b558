"""Several runs: what is missing, how long it takes, what came of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from resnet_repro import paths
from resnet_repro.config import Config
from resnet_repro.exits import PREEMPTED, exit_code, notify
from resnet_repro.options import ConfigError, shown
from resnet_repro.progress import Progress, RunProgress, written
from resnet_repro.runs.provenance import cpu_description, usable_cores
from resnet_repro.training.launch import Job, begin

if TYPE_CHECKING:
    import torch

    from resnet_repro.training.run import Run

# What torch sets for a whole process: runs in one must agree in it.
SHARED = ("device", "precision", "deterministic", "threads", "concurrent")
AHEAD = 8  # iterations of a run that may wait for the device while other runs share it


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
    if jobs:
        say_places(jobs[0].config)
    done = [Outcome(job, "skipped") for job in jobs if job.is_done()]
    missing = [job for job in jobs if not job.is_done()]
    if not missing:
        return done
    most = at_once(missing)
    begun = sum(bool(job.folder.resumes_at) for job in missing)
    also = f" ({begun} of them begun before)" if begun else ""
    if len({_kind(job) for job in missing}) > 1:
        weights = estimate(missing)
        also += f": {written(sum(weights), young=True)}"
    else:  # the progress will know better in a moment
        weights = [job.config.recipe.max_iters - job.folder.resumes_at for job in missing]
    notify(f"{len(missing)} of {len(jobs)} runs to train{also} on {_device_name()}")
    return done + train_together(missing, most, Progress(weights), stop_asked)


def at_once(jobs: Sequence[Job]) -> int:
    """How many of these runs are to be trained at the same time.

    Raises:
        ConfigError: they do not agree in what they would share.
    """
    most = max(job.config.trainer.concurrent for job in jobs)
    for key in SHARED:
        values = {getattr(job.config.trainer, key) for job in jobs}
        if len(values) > 1 and most > 1:
            listed = " and ".join(sorted(shown(value) for value in values))
            raise ConfigError(
                f"trainer.concurrent={most}: runs trained at the same time must agree in "
                f"trainer.{key}, which is {listed}"
            )
    return min(most, len(jobs))


def train_together(
    jobs: Sequence[Job], most: int, progress: Progress, stop_asked: Callable[[], bool]
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
            # The first begins even so: its state then says that it was stopped.
            none_begun = not under_way and not outcomes
            while waiting and len(under_way) < most and (none_begun or not stop_asked()):
                none_begun = False
                job = waiting.popleft()
                watcher = progress.begin(job.label, job.config.recipe.max_iters)
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
                    progress.end(work.watcher)
    finally:
        for work in under_way:
            work.close()


class _UnderWay:
    """A run that takes turns with others; its first turn begins it."""

    def __init__(self, job: Job, watcher: RunProgress, stop_asked: Callable[[], bool]):
        self.job, self.watcher, self._stop_asked = job, watcher, stop_asked
        self._run: Run | None = None
        self._marks: deque[torch.cuda.Event] = deque()  # of iterations in the device's queue

    def is_ready(self) -> bool:
        """Whether the device has caught up so far that it needs more of it to do.

        Without this the host would fill the queue of a run with long iterations and then wait for
        it, while the other runs starve.
        """
        while self._marks and self._marks[0].query():  # type: ignore[no-untyped-call]
            self._marks.popleft()
        return len(self._marks) < AHEAD

    def wait(self) -> None:
        """Wait until the device has done its oldest iteration."""
        if self._marks:
            self._marks[0].synchronize()

    def advance(self) -> Outcome | None:
        """Do one iteration; where the run ends with it, let go of it and return its outcome."""
        made: Run | str | None
        try:
            if self._run is None:
                made = begin(self.job, self.watcher, self._stop_asked)
                if not isinstance(made, str):
                    self._run = made
                    return None
            elif (made := self._run.advance()) is None:
                if self._run.stream is not None:
                    self._marks.append(self._run.stream.record_event())
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
    """Seconds that each run still needs here, alone; each kind of net is measured once."""
    from resnet_repro.training.estimate import Pace, measure

    paces: dict[str, Pace] = {}
    for job in jobs:
        if (kind := _kind(job)) not in paces:
            paces[kind] = measure(job.config)
    return [paces[_kind(job)].seconds(job.config, job.folder.resumes_at) for job in jobs]


def _kind(job: Job) -> str:
    """What the seconds of an iteration depend on."""
    config = job.config
    return f"{config.model} {config.data} {config.recipe.batch_size}"


def _device_name() -> str:
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{usable_cores()} CPU cores, {cpu_description()[0]}"


def say_places(config: Config) -> None:
    """Say where runs and data are, if that is in the repository and a command is called elsewhere.

    Nothing is said of a place that the words or the environment name, or of one that is not used:
    synthetic images have no folder.
    """
    places = {"runs": paths.runs(config.runs_dir)}
    if config.data.name != "synthetic":
        places["data"] = paths.data(config.data.root)
    for what, place in places.items():
        if place.is_relative_to(paths.REPOSITORY) and place.is_absolute():
            notify(f"{what}: {place}")


def report(outcomes: Sequence[Outcome]) -> None:
    """Say which runs failed, after all were tried; leave if any failed or was stopped."""
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    for outcome in failed:
        notify(f"failed: {outcome.job.label}: {outcome.error}")
    if failed:
        error = failed[0].error
        assert error is not None
        code = exit_code(error)
        if code is None:
            raise error
        raise SystemExit(code)
    if any(outcome.state == "preempted" for outcome in outcomes):
        notify("stopped; checkpoint saved. Rerun the same command to resume.")
        raise SystemExit(PREEMPTED)
