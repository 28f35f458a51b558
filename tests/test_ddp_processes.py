"""A command and its workers, and what is left of them when something dies: nothing."""

import os
import signal
import subprocess
import sys
import time
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

import pytest

from ranks import begin_as_is, do, fingerprint, never, small_job, workers
from reliability.runs import at_work, seconds_until_gone
from resnet_repro.data import StoppedError
from resnet_repro.data.jpeg import PictureError
from resnet_repro.data.synthetic import SIZES
from resnet_repro.exits import exit_code
from resnet_repro.paths import REPOSITORY as REPO
from resnet_repro.progress import Watcher
from resnet_repro.runs.atomic import DiskFullError
from resnet_repro.runs.folder import RunFolder
from resnet_repro.train import main
from resnet_repro.training import WorkersLostError
from resnet_repro.training import workers as workers_module
from resnet_repro.training.launch import Job, launch

LONG = ("trainer.devices=2", "recipe.max_iters=70", "recipe.milestones=[]",
        "evaluation.every_iters=70", "probes.response_images=20", "probes.signals=false",
        "trainer.checkpoint_every_iters=5")  # fmt: skip

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs Linux")


def assert_nobody_is_left(folder: RunFolder, limit: float = 1) -> None:
    assert seconds_until_gone(folder.path, limit)[1] == 0, at_work(folder.path)


class Fault(Watcher):
    """Signals a rank once the run has done eight more iterations."""

    def __init__(self, job: Job, whom: str = "nobody", number: int = 0):
        self._job, self._whom, self._number = job, whom, number
        self._from = job.folder.status().get("iter", 0) + 8
        self.at: float | None = None

    def update(self, iteration: int, top1_err: float | None, lr: float) -> None:
        if iteration >= self._from and self.at is None:
            self.at = time.monotonic()
            for pid, what in at_work(self._job.folder.path).items():
                if what == self._whom:
                    os.kill(pid, self._number)

    def assert_nobody_is_left(self) -> None:
        assert self.at is not None
        assert time.monotonic() - self.at < 120
        assert_nobody_is_left(self._job.folder)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    job = small_job(tmp_path_factory.mktemp("whole"), *LONG)
    assert workers(job, images=SIZES) == "finished"
    return job.folder


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """One run, through everything below: it is begun once and resumed from test to test."""
    made = small_job(tmp_path_factory.mktemp("parts"), *LONG)
    yield made
    for pid in at_work(made.folder.path):
        os.kill(pid, signal.SIGKILL)


WARNING = """
import os, signal, sys

os.kill(os.getpid(), signal.SIGUSR1)
sys.path.remove(os.path.dirname(__file__))
del sys.modules["torch"]
import torch
"""


def test_warned_while_torch_is_imported_it_saves_and_leaves(tmp_path):
    """A scheduler's warning comes when it comes; what imports torch here gives it."""
    job = small_job(tmp_path / "runs", "trainer.launcher=external")
    assert do(job) == "created"
    (tmp_path / "torch.py").write_text(WARNING)
    alone = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1",
             "MASTER_ADDR": "localhost", "MASTER_PORT": "0"}  # fmt: skip
    paths = {"PYTHONPATH": f"{tmp_path}:{REPO / 'src'}"}
    done = subprocess.run(
        [sys.executable, "-m", "resnet_repro.worker", str(job.folder.path)],
        env=os.environ | alone | paths, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    status = job.folder.status()
    assert (status["state"], status["iter"]) == ("preempted", 1)


def test_a_stop_before_the_first_worker_is_there_ends_it_at_once(tmp_path, monkeypatch):
    begun: list[subprocess.Popen[bytes]] = []

    def hanging(*_: object) -> tuple[Connection, subprocess.Popen[bytes]]:
        begun.append(subprocess.Popen(["sleep", "600"]))
        return Pipe(duplex=False)[0], begun[-1]

    monkeypatch.setattr(workers_module, "start_worker", hanging)
    job, began = small_job(tmp_path, "trainer.devices=2"), time.monotonic()
    assert do(job, lambda: bool(begun)) == "preempted"
    assert time.monotonic() - began < 60  # it would sleep for 600 s
    assert [process.returncode for process in begun] == [-signal.SIGKILL] * 2
    assert job.folder.status()["state"] == "preempted"


def test_a_stop_while_one_of_several_waits_for_pictures_is_a_stop(tmp_path, monkeypatch):
    """The others may be in the middle of an update: the run resumes from its last checkpoint."""
    entered: list[str] = []
    watcher = Watcher()
    watcher.enter = lambda phase, _: entered.append(phase)

    def reporting(*about: Any) -> tuple[Connection, subprocess.Popen[bytes]]:
        pipe, mouth = Pipe(duplex=False)
        rank = about[2]
        report = ("error", StoppedError("waiting")) if rank else ("enter", "train", 1)
        mouth.send(report)
        return pipe, subprocess.Popen(["sleep", "1"])

    monkeypatch.setattr(workers_module, "start_worker", reporting)
    job = small_job(tmp_path, "trainer.devices=2")
    assert launch(job, watcher, lambda: bool(entered)) == "preempted"
    assert entered == ["train"]
    assert job.folder.status()["state"] == "preempted"


NAMELESS = ["unshare", "--uts", "sh", "-c", 'hostname no-such-name.invalid && exec "$@"', "sh"]


@pytest.fixture
def nameless(monkeypatch):
    """Where a test may do so, it starts processes on a machine whose name does not resolve."""
    start = subprocess.Popen
    if subprocess.run([*NAMELESS, "true"], capture_output=True).returncode == 0:
        monkeypatch.setattr(
            subprocess, "Popen", lambda words, **how: start([*NAMELESS, *words], **how)
        )


@pytest.mark.usefixtures("nameless")
def test_asked_to_stop_it_saves_and_leaves_and_the_machine_needs_no_name_that_resolves(job):
    watcher, until = Fault(job), time.monotonic() + 240  # in vain, it would try to resolve it

    def stop() -> bool:
        return watcher.at is not None or time.monotonic() > until

    assert launch(job, watcher, stop) == "preempted"
    watcher.assert_nobody_is_left()
    status = job.folder.status()
    assert (status["state"], status["restarts"]) == ("preempted", 0)
    assert status["iter"] >= 8


def test_a_killed_worker_ends_the_others(job):
    watcher = Fault(job, "1", signal.SIGKILL)
    with pytest.raises(WorkersLostError, match="worker 1 was killed.*rerun the") as caught:
        launch(job, watcher, never)
    assert exit_code(caught.value) == 1
    watcher.assert_nobody_is_left()
    status = job.folder.status()
    assert (status["state"], status["restarts"]) == ("failed", 1)
    assert "worker 1 was killed" in status["reason"]


def test_a_worker_that_falls_silent_is_given_up(job, monkeypatch):
    monkeypatch.setattr(workers_module, "AFTER_FAILURE", 1.0)
    waiting = small_job(Path(job.config.runs_dir), *LONG, "trainer.timeout_seconds=5")
    watcher = Fault(waiting, "0", signal.SIGSTOP)
    with pytest.raises(WorkersLostError, match=r"worker 0 did not answer within 5 s"):
        launch(waiting, watcher, never)
    watcher.assert_nobody_is_left()


def test_a_killed_command_leaves_nobody_and_the_next_one_resumes(job, whole, call):
    start = job.folder.status()["iter"]
    command = begin_as_is(do, job)
    while job.folder.status()["iter"] < start + 5:
        assert command.is_alive()
        time.sleep(0.05)
    command.kill()
    command.join()
    assert_nobody_is_left(job.folder, 120)
    assert job.folder.status()["state"] == "preempted"
    assert call(main, *job.words) == 0
    assert job.folder.is_finished
    assert fingerprint(job.folder) == fingerprint(whole)
    assert not list(job.folder.path.rglob("*.tmp"))


def test_an_error_arrives_as_it_was_and_a_defect_as_text():
    pipe, mouth = Pipe(duplex=False)
    channel = workers_module.Channel(os.dup(mouth.fileno()))
    full = DiskFullError(28, "no room")
    for error in (PictureError("n1.JPEG"), full, ZeroDivisionError("ours")):
        channel.failed(error)
    picture, disk, defect = (pipe.recv()[1] for _ in range(3))
    assert (type(picture), str(picture)) == (PictureError, "n1.JPEG")
    assert (type(disk), str(disk)) == (DiskFullError, "no room")
    assert str(defect) == "ZeroDivisionError: ours"
    assert "ZeroDivisionError: ours" in defect.__notes__[0]
    pipe.close()
    channel.enter("train", 1)  # the command is gone: no error of the worker's
