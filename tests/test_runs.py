"""The run folder: atomic files, metrics that survive any cut, one owner."""

from __future__ import annotations

import json
import multiprocessing
import signal
from pathlib import Path

import pytest

from resnet_repro.runs.atomic import write_atomic, write_text_atomic
from resnet_repro.runs.folder import RunFolder, RunFolderError, find_runs
from resnet_repro.runs.lock import owned
from resnet_repro.runs.metrics import MetricsError, MetricsWriter, read_metrics


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_text_atomic(path, "old")

    def fail(file: object) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="space"):
        write_atomic(path, fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_metrics_cut_at_every_byte_lose_at_most_one_record(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with MetricsWriter(path) as log:
        for i in range(4):
            log.write("train", iter=i, loss=1.5, top1_err=90.0)
    whole = path.read_bytes()
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        complete = whole[:length].count(b"\n")
        records = read_metrics(path)
        assert [r["iter"] for r in records] == list(range(complete))
        with MetricsWriter(path) as log:  # going on after a torn line repeats and joins nothing
            log.write("train", iter=9)
        assert [r["iter"] for r in read_metrics(path)] == [*range(complete), 9]


def test_metrics_with_a_damaged_middle_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"kind": "train"}\n{"kind": "tra\n{"kind": "train"}\n')
    with pytest.raises(MetricsError, match="line 2"):
        read_metrics(path)


def test_metrics_go_back_to_the_checkpoint(tmp_path: Path) -> None:
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


def test_metrics_are_plain_json_even_where_numbers_are_not(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with MetricsWriter(path) as log:
        log.write("train", iter=1, loss=float("nan"), top1_err=float("inf"))
        with pytest.raises(ValueError, match="unknown kind"):
            log.write("tets", iter=1)
    assert json.loads(path.read_text()) == {
        "kind": "train",
        "iter": 1,
        "loss": None,
        "top1_err": None,
    }


def test_folder_depends_on_the_configuration_alone(tmp_path: Path) -> None:
    config = {"profile": "quick", "name": "net", "seed": 3, "lr": 1e-5}
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
    with owned(path):
        ready.set()  # type: ignore[attr-defined]
        release.wait(30)  # type: ignore[attr-defined]


def test_second_owner_is_told_who_the_first_is(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready, release = context.Event(), context.Event()
    holder = context.Process(target=_hold, args=(tmp_path, ready, release))
    holder.start()
    assert ready.wait(30)
    with pytest.raises(RunFolderError, match=f"process {holder.pid} on "), owned(tmp_path):
        pass
    assert holder.pid is not None
    holder.kill()  # a killed owner leaves nothing to clean up
    holder.join()
    assert holder.exitcode == -signal.SIGKILL
    with owned(tmp_path, patience=5):
        pass
