"""Several runs alternating in one thread give the bits of the runs one after the other."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from ranks import UNSEEN, fingerprint, finished, never, small_job
from refusals import refused
from resnet_repro import api
from resnet_repro.options import ConfigError
from resnet_repro.progress import Progress
from resnet_repro.runs.folder import RunFolderError
from resnet_repro.runs.lock import RunBusyError, run_lock
from resnet_repro.training import DivergedError, jobs
from resnet_repro.training import run as run_module
from resnet_repro.training.build import RunContext
from resnet_repro.training.graph import GraphedStep
from resnet_repro.training.launch import Job
from resnet_repro.training.state import TrainState
from resnet_repro.training.stepper import Step

pytestmark = pytest.mark.usefixtures("few_images")
TOGETHER = "trainer.concurrent=2"


@pytest.fixture(autouse=True)
def no_measuring(monkeypatch):
    monkeypatch.setattr(jobs, "estimate", lambda missing: [1.0] * len(missing))


def three(root: Path, *args: str) -> list[Job]:
    args = ("recipe.max_iters=8", "recipe.milestones=[6]", *UNSEEN, *args)
    return [
        small_job(root, *args, "name=a"),
        small_job(root, *args, "name=b", "model.shortcut=none", "seed=1"),
        small_job(root, *args, "name=c", "recipe.max_iters=5", "recipe.milestones=[3]"),
    ]


def test_concurrent_runs_give_the_same_folders(tmp_path, monkeypatch):
    """The third begins when one of the first two is done; the replayed run is one of them."""
    steps: list[str] = []
    make = run_module.make

    def noting(parts: RunContext, state: TrainState) -> tuple[Step, Any]:
        name, (step, engine) = parts.config.name, make(parts, state)
        if name == "b":
            step = GraphedStep(parts, state, lambda work: work)
        return lambda lr: (steps.append(name), step(lr))[1], engine

    monkeypatch.setattr(run_module, "make", noting)
    monkeypatch.setattr("resnet_repro.training.graph.AHEAD", 5)
    together = three(tmp_path / "together", TOGETHER)
    outcomes = jobs.run_all(together, never)
    assert [(o.job.config.name, o.state) for o in outcomes] == [(n, "finished") for n in "abc"]
    assert "".join(steps) == "ab" * 8 + "c" * 5
    for job, alone in zip(together, three(tmp_path / "alone"), strict=True):
        assert fingerprint(job.folder) == finished(alone)
    assert {o.state for o in jobs.run_all(together, never)} == {"skipped"}


def test_one_that_fails_stops_no_other(tmp_path):
    first, second, third = three(tmp_path, TOGETHER)
    bad = small_job(tmp_path, TOGETHER, "name=bad", "recipe.lr=1e30")
    third.folder.path.mkdir(parents=True)
    with run_lock(third.folder.path):  # another process works on the third
        outcomes = {o.job.config.name: o for o in jobs.run_all([first, bad, third, second], never)}
    assert outcomes["a"].state == outcomes["b"].state == "finished"
    assert "not finite" in str(outcomes["bad"].error)
    assert bad.folder.status()["state"] == "diverged"
    assert isinstance(outcomes["c"].error, RunFolderError)
    with pytest.raises(SystemExit, match="5"):
        jobs.report(list(outcomes.values()))
    assert outcomes["c"].state == "elsewhere"  # processes may share a sweep
    jobs.report([outcomes["a"], outcomes["c"]])


def test_in_python_a_failure_or_a_stop_is_not_hidden_by_a_run_elsewhere(tmp_path, monkeypatch):
    job = small_job(tmp_path)
    busy = jobs.Outcome(job, "elsewhere", RunBusyError("theirs"))
    monkeypatch.setattr(api, "compose_sweep", lambda _: [job])
    for more, raised in (
        ([jobs.Outcome(job, "failed", DivergedError("ours"))], DivergedError),
        ([jobs.Outcome(job, "not begun")], KeyboardInterrupt),
        ([], RunBusyError),
    ):
        monkeypatch.setattr(api, "run_all", lambda *_, more=more: [busy, *more])
        with pytest.raises(raised):
            api.train()
    other = small_job(tmp_path, "seed=1")
    monkeypatch.setattr(api, "compose_sweep", lambda _: [job, other])
    done = [jobs.Outcome(other, "skipped"), jobs.Outcome(job, "finished")]
    monkeypatch.setattr(api, "run_all", lambda *_: done)
    assert api.train() == [job.folder.path, other.folder.path]  # as they were asked for


def test_a_stop_saves_all_that_are_under_way_and_an_interrupt_releases_them(tmp_path):
    """No other run begins then; a later command finishes them all, with the same bits."""
    looks, runs = count(), three(tmp_path, TOGETHER)
    outcomes = jobs.run_all(runs, lambda: next(looks) >= 9)
    states = sorted((o.job.config.name, o.state) for o in outcomes)
    assert states == [("a", "preempted"), ("b", "preempted"), ("c", "not begun")]
    with pytest.raises(SystemExit, match="75"):  # what was asked for is not all done
        jobs.report([outcome for outcome in outcomes if outcome.state == "not begun"])
    assert not runs[2].folder.path.exists()
    for job in runs[:2]:
        reached = job.folder.status()["iter"]
        assert 0 < reached < 8
        assert (job.folder.checkpoints / f"iter_{reached:08d}.pt").exists()
    looks = count()

    def interrupt() -> bool:
        if next(looks) == 4:
            raise KeyboardInterrupt
        return False

    with pytest.raises(KeyboardInterrupt):
        jobs.run_all(runs, interrupt)
    assert {o.state for o in jobs.run_all(runs, never)} == {"finished"}
    assert fingerprint(runs[1].folder) == finished(three(tmp_path / "alone")[1])


def test_runs_that_need_other_switches_are_refused(tmp_path):
    mixed = [
        small_job(tmp_path, TOGETHER, f"name={precision}", f"trainer.precision={precision}")
        for precision in ("fp32", "bf16")
    ]
    message = "concurrent=2: .* must agree in trainer.precision, which is bf16 and fp32$"
    refused(jobs.run_all, mixed, never, match=message, kind=ConfigError)
    assert not any(tmp_path.iterdir())
    assert jobs.concurrency(mixed[:1]) == 1  # there is nothing to share


class Mark:
    """Stands in for a CUDA event on a GPU that does nothing until someone waits for it."""

    made: ClassVar[list["Mark"]] = []

    def __init__(self) -> None:
        self.reached = False
        self.made.append(self)

    def query(self) -> bool:
        return self.reached

    def synchronize(self) -> None:
        self.reached = True


class Stream:
    used: ClassVar[list["Stream"]] = []

    def record_event(self) -> Mark:
        return Mark()


@pytest.fixture
def gpu(monkeypatch):
    @contextmanager
    def on(stream: Stream) -> Iterator[None]:
        Stream.used.append(stream)
        yield

    monkeypatch.setattr(Mark, "made", [])
    monkeypatch.setattr(Stream, "used", [])
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", on)
    monkeypatch.setattr(run_module, "sees_cuda", lambda trainer: trainer.device != "cpu")


@pytest.mark.usefixtures("gpu")
def test_a_run_neither_gets_far_ahead_of_its_gpu_nor_holds_up_another(tmp_path):
    """The fast one needs no GPU at all; the slow one proceeds when there is nothing else to do."""
    slow = small_job(tmp_path, *UNSEEN, TOGETHER, "name=slow")
    fast = small_job(tmp_path, *UNSEEN, TOGETHER, "name=fast", "trainer.device=cpu")
    ahead = []

    def stop() -> bool:
        if fast.folder.is_finished:
            ahead.append(sum(not mark.reached for mark in Mark.made))
        return False

    outcomes = jobs.train_together([slow, fast], 2, Progress([1.0, 1.0]), stop)
    assert [(o.job, o.state) for o in outcomes] == [(fast, "finished"), (slow, "finished")]
    assert ahead[0] == max(ahead) == jobs.MAX_QUEUED - 1  # the oldest was waited for just before
    assert len(Mark.made) == 1 + 12  # the beginning and each iteration
    assert len(set(Stream.used)) == 1
    assert len(Stream.used) == 1 + 12 + 1  # and the end
