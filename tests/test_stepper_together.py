"""Several runs turn about in one thread are the runs one after the other, bit for bit."""

from __future__ import annotations

import io
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from resnet_repro.options import ConfigError
from resnet_repro.runs.folder import RunFolderError
from resnet_repro.runs.lock import owned
from resnet_repro.training import concurrent, jobs
from resnet_repro.training import run as run_module
from resnet_repro.training.concurrent import Together, at_once
from resnet_repro.training.graph import GraphedStepper
from resnet_repro.training.lanes import AHEAD, Lane, finish, turn_about
from resnet_repro.training.launch import Job
from resnet_repro.training.parts import Parts
from resnet_repro.training.state import TrainState
from resnet_repro.training.stepper import Stepper
from test_training import do, fingerprint, never, small_job

TOGETHER = "trainer.concurrent=2"


@pytest.fixture(autouse=True)
def no_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    """How long runs take is not asked here."""
    monkeypatch.setattr(jobs, "estimate", lambda missing: [1.0] * len(missing))


def three(root: Path, *words: str) -> list[Job]:
    """Runs of different nets and schedules."""
    return [
        small_job(root, "name=a", *words),
        small_job(root, "name=b", "model.shortcut=none", "seed=1", *words),
        small_job(root, "name=c", "recipe.max_iters=7", "recipe.milestones=[5]", *words),
    ]


def test_turn_about_gives_the_same_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The third begins when one of the first two is done; the replayed run is one of them."""
    steps: list[str] = []
    make = run_module.make

    def noting(parts: Parts, state: TrainState) -> Stepper:
        name = parts.config.name
        graphed = GraphedStepper(parts, state, {}, capture=lambda work: work, ahead=5)
        stepper = graphed if name == "b" else make(parts, state)
        plain_step = stepper.step
        stepper.step = lambda lr: (steps.append(name), plain_step(lr))[1]  # type: ignore[method-assign]
        return stepper

    monkeypatch.setattr(run_module, "make", noting)
    together = three(tmp_path / "together", TOGETHER)
    outcomes = jobs.run_all(together, never)
    assert [(o.job.config.name, o.state) for o in outcomes] == [
        ("a", "finished"),
        ("b", "finished"),
        ("c", "finished"),
    ]
    assert "".join(steps) == "ab" * 12 + "c" * 7
    for job, alone in zip(together, three(tmp_path / "alone"), strict=True):
        assert do(alone) == "finished"
        assert fingerprint(job.folder) == fingerprint(alone.folder)
    assert {o.state for o in jobs.run_all(together, never)} == {"skipped"}


def test_one_that_fails_stops_no_other(tmp_path: Path) -> None:
    first, second, third = three(tmp_path, TOGETHER)
    bad = small_job(tmp_path, TOGETHER, "name=bad", "recipe.lr=1e30")
    with owned(make_folder(third)):  # another process works on the third
        outcomes = {o.job.config.name: o for o in jobs.run_all([first, bad, third, second], never)}
    assert outcomes["a"].state == outcomes["b"].state == "finished"
    assert "not finite" in str(outcomes["bad"].error)
    assert bad.folder.status()["state"] == "diverged"
    assert isinstance(outcomes["c"].error, RunFolderError)
    with pytest.raises(SystemExit) as left:
        jobs.report(list(outcomes.values()))
    assert left.value.code in (2, 5)


def make_folder(job: Job) -> Path:
    job.folder.path.mkdir(parents=True)
    return job.folder.path


def test_a_stop_saves_all_that_are_under_way_and_begins_no_other(tmp_path: Path) -> None:
    looks = 0

    def stop() -> bool:
        nonlocal looks
        looks += 1
        return looks > 12

    runs = three(tmp_path, TOGETHER)
    outcomes = jobs.run_all(runs, stop)
    assert [(o.job.config.name, o.state) for o in outcomes] == [
        ("a", "preempted"),
        ("b", "preempted"),
    ]
    assert not runs[2].folder.path.exists()
    for job in runs[:2]:
        reached = job.folder.status()["iter"]
        assert 0 < reached < 12
        assert (job.folder.checkpoints / f"iter_{reached:08d}.pt").exists()
    assert {o.state for o in jobs.run_all(runs, never)} == {"finished"}
    alone = three(tmp_path / "alone")[1]
    assert do(alone) == "finished"
    assert fingerprint(runs[1].folder) == fingerprint(alone.folder)


def test_runs_that_need_other_switches_are_refused(tmp_path: Path) -> None:
    mixed = [
        small_job(tmp_path, TOGETHER, "name=x"),
        small_job(tmp_path, TOGETHER, "name=y", "trainer.precision=bf16"),
    ]
    with pytest.raises(ConfigError) as caught:
        jobs.run_all(mixed, never)
    assert str(caught.value) == (
        "trainer.concurrent=2: runs trained at the same time must agree in trainer.precision, "
        "which is bf16 and fp32"
    )
    assert not any(tmp_path.iterdir())
    with pytest.raises(ConfigError, match=r"trainer.concurrent=2: only with trainer.devices=1"):
        small_job(tmp_path, TOGETHER, "trainer.devices=2")
    assert at_once(mixed[:1]) == 1  # there is nothing to share


def test_the_line_tells_all_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(concurrent.time, "monotonic", lambda: clock[0])
    runs, stream = three(tmp_path, TOGETHER), io.StringIO()
    together = Together(runs, [0, 6, 0], [60.0, 30.0, 30.0], stream)
    together.watcher(runs[0]).update(6, 81.25, 0.1)
    assert stream.getvalue() == ""  # too early
    clock[0] += 20
    together.watcher(runs[1]).update(9, None, 0.1)
    together.end(runs[0])
    # 6 + 3 iterations in 20 s; 30 + 15 of 120 s of work are done, 75 s are left.
    assert stream.getvalue() == (
        "[0 of 3 over] a smoke seed 0 6/12, train err 81.2 %; b smoke seed 1 9/12; "
        "0.5 it/s, all runs: 33 s\n"
    )


def counting(name: str, count: int, said: list[str]) -> Generator[None, None, str]:
    try:
        for number in range(count):
            said.append(f"{name}{number}")
            yield
        if name == "bad":
            raise ValueError(name)
        return name
    finally:
        said.append(f"{name} over")


def test_lanes_take_turns_and_end_by_themselves() -> None:
    said: list[str] = []
    counts = {"a": 3, "bad": 1, "c": 2}
    ways = [lambda n=n, k=k: Lane(counting(n, k, said), on_cuda=False) for n, k in counts.items()]
    ended = [(number, str(result)) for number, result in turn_about(ways, 2, never)]
    assert ended == [(1, "bad"), (0, "a"), (2, "c")]
    assert said == ["a0", "bad0", "a1", "bad over", "a2", "c0", "a over", "c1", "c over"]
    assert finish(counting("d", 2, said)) == "d"


def test_what_is_left_unfinished_lets_go() -> None:
    said: list[str] = []
    ways = [lambda n=n: Lane(counting(n, 9, said), on_cuda=False) for n in "ab"]
    ways.append(lambda: Lane(counting("bad", 0, said), on_cuda=False))
    for _ in turn_about(ways, 3, never):  # the bad one ends first
        break
    assert said[-2:] == ["a over", "b over"]


class Mark:
    """Stands in for a CUDA event."""

    made: ClassVar[list[Mark]] = []

    def __init__(self) -> None:
        self.reached = False
        self.made.append(self)

    def record(self) -> None:
        pass

    def query(self) -> bool:
        return self.reached

    def synchronize(self) -> None:
        self.reached = True


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a lane does on a GPU that is as slow as one likes; returns the streams it was on."""
    streams: list[str] = []

    @contextmanager
    def on(stream: str) -> Iterator[None]:
        streams.append(stream)
        yield

    monkeypatch.setattr(Mark, "made", [])
    monkeypatch.setattr(torch.cuda, "Stream", lambda: "a stream of its own")
    monkeypatch.setattr(torch.cuda, "stream", on)
    monkeypatch.setattr(torch.cuda, "Event", Mark)
    return streams


def test_a_lane_does_not_run_far_ahead_of_its_gpu(gpu: list[str]) -> None:
    lane = Lane(counting("a", 99, []), on_cuda=True)
    for _ in range(AHEAD):
        assert lane.is_ready()
        lane.advance()
    assert gpu == ["a stream of its own"] * AHEAD
    assert not lane.is_ready()
    lane.wait()  # for the oldest
    assert [mark.reached for mark in Mark.made] == [True] + [False] * (AHEAD - 1)
    assert lane.is_ready()
    lane.advance()
    assert not lane.is_ready()


def test_a_slow_lane_does_not_hold_up_a_fast_one(
    gpu: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The GPU is at once done with what the fast one asks for, and never with the slow one's."""
    said: list[str] = []
    slow = Lane(counting("slow", 99, said), on_cuda=True)
    fast = Lane(counting("fast", 30, said), on_cuda=False)
    ended = turn_about([lambda: slow, lambda: fast], 2, never)
    assert next(ended) == (1, "fast")
    assert [word for word in said if word.startswith("slow")] == [f"slow{n}" for n in range(AHEAD)]
    ended.close()
    assert said[-1] == "slow over"
