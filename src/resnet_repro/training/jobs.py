"""Do several runs: what is missing, how long it takes, the outcomes."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from resnet_repro import paths
from resnet_repro.config import Config
from resnet_repro.exits import PREEMPTED, exit_code, notify
from resnet_repro.options import ConfigError, shown
from resnet_repro.progress import Progress, RunProgress, written
from resnet_repro.runs.lock import RunBusyError
from resnet_repro.runs.provenance import gpu_name, hardware, usable_cores
from resnet_repro.training.launch import Job, begin

if TYPE_CHECKING:
    import torch

    from resnet_repro.training.run import TrainingRun

# What torch sets for a whole process: runs in one must agree in it.
SHARED = ("device", "precision", "deterministic", "threads", "concurrent")
MAX_QUEUED = 8  # iterations of a run that may wait for the device while other runs share it


@dataclass(frozen=True)
class Outcome:
    """The outcome of one run, and why it failed.

    Besides what :func:`begin` says it is ``failed``, ``not begun`` because of a stop, or
    ``elsewhere`` where another process works on it.
    """

    job: Job
    state: str
    error: Exception | None = None

    @property
    def is_stopped(self) -> bool:
        """Whether a stop has left some of the run to do."""
        return self.state in ("preempted", "not begun")


def run_all(jobs: Sequence[Job], stop_asked: Callable[[], bool]) -> list[Outcome]:
    """Do what is missing of ``jobs``; a failure is reported at the end and stops no other run.

    One after the other or, with ``trainer.concurrent``, several at the same time. ConfigError: they
    cannot be; RunFolderError: before anything is trained, a folder holds another configuration.
    """
    if jobs:
        notify_places(jobs[0].config)
    done = [Outcome(job, "skipped") for job in jobs if job.is_done()]
    missing = [job for job in jobs if not job.is_done()]
    if not missing:
        return done
    concurrent = concurrency(missing)
    begun = sum(bool(job.folder.resumes_at) for job in missing)
    remark = f" ({begun} of them begun before)" if begun else ""
    if len(set(map(_kind, missing))) > 1:
        weights = estimate(missing)
        remark += f": {written(sum(weights), young=True)}"
    else:  # the progress line soon has better ones
        weights = [job.config.recipe.max_iters - job.folder.resumes_at for job in missing]
    if len(jobs) > 1:
        gpu = gpu_name() if missing[0].config.trainer.device != "cpu" else None
        device = hardware(gpu, 1, usable_cores())["label"]
        notify(f"{len(missing)} of {len(jobs)} runs to train{remark} on {device}")
    return done + train_together(missing, concurrent, Progress(weights), stop_asked)


def concurrency(jobs: Sequence[Job]) -> int:
    """How many of these runs to train at the same time; ConfigError: they must not be."""
    concurrent = max(job.config.trainer.concurrent for job in jobs)
    for key in SHARED:
        values = {getattr(job.config.trainer, key) for job in jobs}
        if len(values) > 1 and concurrent > 1:
            listed = " and ".join(sorted(shown(value) for value in values))
            raise ConfigError(
                f"trainer.concurrent={concurrent}: runs trained at the same time must agree in "
                f"trainer.{key}, which is {listed}"
            )
    return min(concurrent, len(jobs))


def train_together(
    jobs: Sequence[Job], concurrent: int, progress: Progress, stop_asked: Callable[[], bool]
) -> list[Outcome]:
    """Train up to ``concurrent`` runs at the same time, an iteration of each in turn.

    An error ends its own run alone. After a stop no other run begins; those that have begun end by
    themselves.
    """
    from resnet_repro.training.device import free_after_run

    waiting, active, outcomes = deque(jobs), list[_ActiveRun](), list[Outcome]()
    try:
        while True:
            while waiting and len(active) < concurrent:
                # The first always begins: its state then says that it was stopped.
                if len(waiting) < len(jobs) and stop_asked():
                    break
                job = waiting.popleft()
                watcher = progress.begin(job.config.label, job.config.recipe.max_iters)
                active.append(_ActiveRun(job, watcher, stop_asked))
            if not active:
                return [*outcomes, *(Outcome(job, "not begun") for job in waiting)]
            ready = [work for work in active if work.is_ready()]
            if not ready:
                active[0].marks[0].synchronize()  # until the device has done its oldest
            for work in ready:
                if outcome := work.advance():
                    work.run = None
                    free_after_run(outcome.error)
                    active.remove(work)
                    outcomes.append(outcome)
                    progress.end(work.watcher)
    finally:
        for work in active:
            if work.run is not None:
                work.run.close()


@dataclass(eq=False)
class _ActiveRun:
    """A run that takes turns with others; its first turn begins it."""

    job: Job
    watcher: RunProgress
    stop_asked: Callable[[], bool]
    run: "TrainingRun | None" = None
    marks: "deque[torch.cuda.Event]" = field(default_factory=deque)  # in the device's queue

    def is_ready(self) -> bool:
        """Whether the device has caught up; else its queue would fill, and other runs starve."""
        while self.marks and self.marks[0].query():  # type: ignore[no-untyped-call]
            self.marks.popleft()
        return len(self.marks) < MAX_QUEUED

    def advance(self) -> Outcome | None:
        """Do one iteration; if it ends the run, return its outcome."""
        try:
            if self.run is None:
                begun = begin(self.job, self.watcher, self.stop_asked)
                if isinstance(begun, str):
                    return Outcome(self.job, begun)
                self.run = begun
            elif state := self.run.advance():
                return Outcome(self.job, state)
            elif self.run.stream is not None:
                self.marks.append(self.run.stream.record_event())
        except Exception as error:
            state = "elsewhere" if isinstance(error, RunBusyError) else "failed"
            return Outcome(self.job, state, error)
        return None


def estimate(jobs: Sequence[Job]) -> list[float]:
    """Seconds that each run still needs here, alone; each kind of net is measured once."""
    from resnet_repro.training.estimate import measure

    first = {_kind(job): job.config for job in reversed(jobs)}
    paces = {kind: measure(config) for kind, config in first.items()}
    return [paces[_kind(job)].seconds(job.config, job.folder.resumes_at) for job in jobs]


def _kind(job: Job) -> str:
    """Return what the seconds of an iteration depend on."""
    config = job.config
    return f"{config.model} {config.data} {config.recipe.batch_size}"


def notify_places(config: Config) -> None:
    """Print the default folders of runs and data when called from elsewhere."""
    places = {"runs": paths.runs(config.runs_dir)}
    if config.data.name != "synthetic":  # which has no folder
        places["data"] = paths.data(config.data.root)
    for what, place in places.items():
        if place.is_relative_to(paths.REPOSITORY) and place.is_absolute():
            notify(f"{what}: {place}")


def name_failed(outcomes: Sequence[Outcome]) -> None:
    """Name the runs of several that failed, or that other processes work on."""
    for outcome in outcomes if len(outcomes) > 1 else ():
        if outcome.error:
            notify(f"{outcome.state}: {outcome.job.config.label}: {outcome.error}")


def report(outcomes: Sequence[Outcome]) -> None:
    """Name the runs that failed, after all were tried; exit if any failed or was stopped.

    Processes that do the same sweep share its runs: for each, those of the others are no failure.
    """
    name_failed(outcomes)
    alone = len(outcomes) == 1
    errors = [o.error for o in outcomes if o.error and (alone or o.state == "failed")]
    if errors:
        if (code := exit_code(errors[0])) is None or alone:
            raise errors[0]
        raise SystemExit(code)
    if any(outcome.is_stopped for outcome in outcomes):
        notify("stopped; rerun the same command to resume.")
        raise SystemExit(PREEMPTED)
