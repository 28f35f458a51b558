"""The run folder: atomic files, metrics that survive any cut, one owner."""

import contextlib
import errno
import fcntl
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from fabricate import make_config
from resnet_repro.data.cache import locked
from resnet_repro.paths import REPOSITORY
from resnet_repro.runs import provenance
from resnet_repro.runs.atomic import write_text_atomic
from resnet_repro.runs.folder import RunFolder, RunFolderError, find_runs
from resnet_repro.runs.lock import run_lock
from resnet_repro.runs.metrics import MetricsError, MetricsWriter, read_metrics


def test_a_bundle_inside_another_repository_keeps_its_own_revision(tmp_path, monkeypatch):
    def git(*args: str) -> None:
        who = ("-c", "user.name=x", "-c", "user.email=x@x.org")
        subprocess.run(["git", "-C", str(tmp_path), *who, *args], check=True, capture_output=True)

    (tmp_path / "package" / "runs").mkdir(parents=True)
    monkeypatch.setattr(provenance, "HERE", tmp_path / "package" / "runs")
    assert provenance.git_state() == {"revision": None, "dirty": None}
    git("init")
    git("commit", "--allow-empty", "-m", "theirs")
    assert provenance.git_state() == {"revision": None, "dirty": None}
    state = {"revision": "ours", "dirty": False}
    (tmp_path / "package" / provenance.REVISION).write_text(json.dumps(state))
    assert provenance.git_state() == state


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to(path)])
def test_anything_but_a_regular_file_is_not_replaced(tmp_path, make):
    path = tmp_path / "file"
    make(path)
    kind = path.lstat().st_mode
    with pytest.raises(OSError, match=r"not a regular file|symbolic links"):
        write_text_atomic(path, "new")
    assert path.lstat().st_mode == kind
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EIO])
@pytest.mark.parametrize("of_folder", [True, False])
def test_files_are_written_where_they_cannot_be_forced_to_the_disk(
    tmp_path, monkeypatch, error, of_folder
):
    fsync = os.fsync

    def refuse(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").resolve().is_dir() == of_folder:
            raise OSError(error, "refused")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refuse)
    path = tmp_path / "file"
    fails = error == errno.EIO and not of_folder
    with pytest.raises(OSError, match="refused") if fails else contextlib.nullcontext():
        write_text_atomic(path, "new")
    assert fails or path.read_text() == "new"
    assert path.exists() is not fails
    if error != errno.EIO:
        with MetricsWriter(tmp_path / "metrics.jsonl") as log:
            log.write("train", iter=1)
            assert log.sync() == (tmp_path / "metrics.jsonl").stat().st_size


@pytest.mark.parametrize("error", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
@pytest.mark.parametrize("lock", [run_lock, locked])
def test_a_file_system_without_locks_costs_one_warning(tmp_path, monkeypatch, error, lock):
    def refuse(*_: object) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with warnings.catch_warnings(record=True) as caught, lock(tmp_path):
        pass
    (warning,) = caught
    assert str(warning.message).startswith(f"{tmp_path}: this file system has no locks")


def test_metrics_cut_at_every_byte_lose_at_most_one_record(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricsWriter(path) as log:
        for i in range(4):
            log.write("train", iter=i, loss=1.5, top1_err=90.0)
    whole = path.read_bytes()
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        complete = whole[:length].count(b"\n")
        assert [r["iter"] for r in read_metrics(path)] == list(range(complete))
        with MetricsWriter(path, whole.rfind(b"\n", 0, length) + 1) as log:  # without the torn line
            log.write("train", iter=9)
        assert [r["iter"] for r in read_metrics(path)] == [*range(complete), 9]


def test_metrics_with_a_damaged_middle_are_refused(tmp_path):
    path = tmp_path / "metrics.jsonl"
    whole = '{"kind": "train", "iter": 1}\n'
    for damaged in ('{"kind": "tra\n', "[]\n", '{"kind": "train"}\n', '{"iter": 1}\n'):
        path.write_text(whole + damaged + whole)
        with pytest.raises(MetricsError, match="line 2"):
            read_metrics(path)


def test_metrics_go_back_to_the_checkpoint(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricsWriter(path) as log:
        log.write("train", iter=1)
        kept = log.sync()
        log.write("train", iter=2)
    with MetricsWriter(path, kept) as log:
        log.write("train", iter=2)
    assert [r["iter"] for r in read_metrics(path)] == [1, 2]
    with pytest.raises(MetricsError, match="cut after the checkpoint"):
        MetricsWriter(path, 10_000)


def test_metrics_are_plain_json_even_where_numbers_are_not(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricsWriter(path) as log:
        log.write("train", iter=1, loss=float("nan"), top1_err=float("inf"))
        with pytest.raises(ValueError, match="unknown kind"):
            log.write("tets", iter=1)
    plain = {"kind": "train", "iter": 1, "loss": None, "top1_err": None}
    assert json.loads(path.read_text()) == plain


def test_folder_depends_on_the_configuration_alone(tmp_path):
    config = make_config("plain-20", "quick", 3, None, {"name": "net", "recipe.lr": 1e-5})
    folder = RunFolder.at(tmp_path, config)
    assert folder.path == tmp_path / "quick" / "net" / "seed3"
    assert folder.status() == {}
    assert not folder.is_finished
    folder.write_config(config)
    folder.write_status("finished", iter=5)
    assert find_runs(tmp_path) == [folder]
    assert folder.config() == config
    assert folder.is_finished
    with pytest.raises(ValueError, match="unknown state"):
        folder.write_status("done")


def _hold(path: Path, ready: object, release: object) -> None:
    with run_lock(path):
        ready.set()
        release.wait(30)


def test_the_second_process_is_refused_with_the_name_of_the_first(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready, release = context.Event(), context.Event()
    holder = context.Process(target=_hold, args=(tmp_path, ready, release))
    holder.start()
    assert ready.wait(30)
    with pytest.raises(RunFolderError, match=f"process {holder.pid} on "), run_lock(tmp_path):
        pass
    assert holder.pid is not None
    holder.kill()  # a killed owner leaves nothing to clean up
    holder.join()
    assert holder.exitcode == -signal.SIGKILL
    with run_lock(tmp_path, patience=5):
        pass


STOPPED = """
import os, signal
from resnet_repro.runs.signals import stop_on_signals
with open("log", "w") as log, stop_on_signals() as stop_asked:
    os.kill(os.getpid(), signal.%s)
    log.write(str(stop_asked()))
"""


@pytest.mark.parametrize(
    ("where", "number"),
    [("2>&-", "SIGTERM"), ("2>/dev/full", "SIGINT"), ("2>&1 | true", "SIGUSR1")],
)
def test_a_stop_that_nobody_can_read_of_is_still_a_stop(tmp_path, where, number):
    """Not in a file either that got the number of the closed standard error."""
    line = f"set -o pipefail; {sys.executable} -c '{STOPPED % number}' {where}"
    env = os.environ | {"PYTHONPATH": str(REPOSITORY / "src")}
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, env=env, check=False)
    assert done.returncode == 0
    assert (tmp_path / "log").read_text() == "True"
