"""The W&B mirror: everything arrives, and nothing that happens there reaches the run."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fabricate import make_config
from resnet_repro.runs import wandb_pipe
from resnet_repro.runs.folder import RunFolder
from resnet_repro.runs.metrics import MetricsWriter, read_metrics
from resnet_repro.runs.wandb_names import as_metrics, run_id
from resnet_repro.runs.wandb_pipe import WandbSink
from resnet_repro.runs.wandb_sink import Mirrored, NullSink, open_sink

HERE = Path(__file__).resolve().parent
real_wandb = pytest.mark.skipif(
    importlib.util.find_spec("wandb") is None, reason="the package wandb is not installed"
)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    config = make_config("ResNet-20", "quick", 3, None, {})
    made = RunFolder.at(tmp_path, config)
    made.write_config(config)
    return made


@pytest.fixture
def break_as(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Put the stand-in in the place of wandb and say what goes wrong."""
    place = tmp_path / "packages"
    place.mkdir()
    (place / "wandb.py").write_text((HERE / "fake_wandb.py").read_text())
    monkeypatch.setenv("PYTHONPATH", str(place))
    monkeypatch.setenv("FAKE_WANDB", "")
    return lambda how: monkeypatch.setenv("FAKE_WANDB", how)


def train(
    folder: RunFolder,
    said: list[str],
    mode: str = "offline",
    keep: int | None = 0,
    kind: str = "wandb",
) -> bytes:
    """Write some records with a mirror; return the metrics file."""
    with MetricsWriter(folder.metrics_path, keep) as log:
        sink = open_sink(kind, mode, folder, folder.config(), said.append)
        mirrored = Mirrored(log, sink)
        first = len(read_metrics(folder.metrics_path))
        for it in range(first + 1, 6):
            mirrored.write("train", iter=it, epoch=it / 4, loss=2.0 / it, top1_err=50.0, lr=0.1)
            time.sleep(0.01)
        mirrored.write("test", iter=5, loss=float("nan"), top1_err=40.0, protocol="1-crop")
        sink.summary({"test error": 40.0})
        sink.close("finished")
    return folder.metrics_path.read_bytes()


def logged(folder: RunFolder, part: int = -1) -> list[dict[str, Any]]:
    """What the stand-in was asked in one part of the run."""
    files = sorted((folder.path / "wandb").glob("*-run-*/run-*.wandb"))
    return [json.loads(line) for line in files[part].read_text().splitlines()]


@pytest.mark.parametrize("how", ["none", "disabled", "rank 1"])
def test_without_a_mirror_nothing_is_started(
    folder: RunFolder, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wandb_pipe, "_start_process", lambda: pytest.fail("started"))
    if how == "rank 1":
        monkeypatch.setenv("RANK", "1")
    kind, mode = (
        ("none" if how == "none" else "wandb"),
        "disabled" if how == "disabled" else "online",
    )
    sink = open_sink(kind, mode, folder, folder.config())
    assert isinstance(sink, NullSink)
    sink.record({"kind": "train"})
    sink.summary({})
    sink.close("finished")
    assert not (folder.path / "wandb").exists()


@pytest.mark.parametrize(("kind", "mode"), [("wnadb", "offline"), ("wandb", "ofline")])
def test_an_unknown_kind_or_mode_is_refused(folder: RunFolder, kind: str, mode: str) -> None:
    with pytest.raises(ValueError, match="must be one of"):
        open_sink(kind, mode, folder, folder.config())


def test_everything_arrives(folder: RunFolder, break_as: Callable[[str], None]) -> None:
    said: list[str] = []
    train(folder, said)
    assert said == []
    init, *rest = logged(folder)
    assert init["config"] == folder.config()
    assert init["mode"] == "offline"
    assert init["group"] == "cifar10_resnet20"
    assert init["tags"] == ["quick", "cifar", "shortcut A"]
    assert init["id"] == run_id(folder.config())
    assert {"what": "define_metric", "name": "*", "step_metric": "iter"} in rest
    values = [entry["values"] for entry in rest if entry["what"] == "log"]
    records = folder.metrics()
    assert [v["record"] for v in values] == list(range(1, len(records) + 1))
    assert values[1]["train/loss"] == records[1]["loss"]
    assert values[-1] == {"iter": 5, "test/top1_err": 40.0, "record": 6}  # null is left out
    ended = {"what": "finish", "exit_code": 0}
    assert rest[-2:] == [{"what": "summary", "values": {"test error": 40.0}}, ended]


def test_a_resumed_run_keeps_its_id_and_its_newest_part_is_whole(
    folder: RunFolder, break_as: Callable[[str], None]
) -> None:
    train(folder, [])
    cut = folder.metrics_path.read_bytes().find(b"\n") + 1  # back to a checkpoint
    said: list[str] = []
    train(folder, said, keep=cut)
    assert said == []
    assert logged(folder, 0)[0]["id"] == logged(folder, 1)[0]["id"]
    parts = [[e["values"] for e in logged(folder, n) if e["what"] == "log"] for n in (0, 1)]
    assert parts[0] == parts[1]
    kept = folder.path / "wandb" / "run_id"
    kept.write_text("another\n")
    train(folder, said, keep=cut)
    assert logged(folder)[0]["id"] == "another", "the folder's id wins"


def test_an_online_run_that_goes_on_is_not_told_twice(
    folder: RunFolder, break_as: Callable[[str], None]
) -> None:
    break_as("resumed")  # and holds two records
    train(folder, [], mode="online")
    assert [e["values"]["record"] for e in logged(folder) if e["what"] == "log"] == [3, 4, 5, 6]


BROKEN = {
    "not installed": "not installed",
    "crashes at once": "its process ended",
    "black hole": "did not finish",
    "process killed": "its process ended",
    "service killed": "Connection lost",
    "disk full": "holds no data",
    "elsewhere": "cannot be written",
    "never finishes": "did not finish",
    "no key": "logging offline",
    "no network": "logging offline",
}


@pytest.mark.parametrize("how", BROKEN)
def test_whatever_breaks_costs_one_line_and_no_record(
    folder: RunFolder,
    tmp_path: Path,
    how: str,
    break_as: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wandb_pipe, "CLOSE_SECONDS", 1.0)
    break_as(how)
    said: list[str] = []
    began = time.monotonic()
    with_sink = train(folder, said, mode="online")
    assert time.monotonic() - began < 60
    assert len(said) == 1, said
    assert "\n" not in said[0]
    assert BROKEN[how] in said[0]
    other = RunFolder(tmp_path / "other")
    other.write_config(folder.config())
    assert train(other, [], kind="none") == with_sink
    if BROKEN[how] == "logging offline":
        assert [e["what"] for e in logged(folder)].count("log") == 6


def test_a_folder_that_cannot_be_made_costs_one_line(folder: RunFolder) -> None:
    (folder.path / "wandb").write_text("in the way")
    said: list[str] = []
    train(folder, said)
    assert len(said) == 1
    assert "File exists" in said[0]


def test_a_process_that_does_not_read_is_given_up_without_waiting(
    folder: RunFolder, break_as: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wandb_pipe, "MOST_UNSENT", 100_000)
    break_as("deaf")
    said: list[str] = []
    sink = open_sink("wandb", "offline", folder, folder.config(), said.append)
    began = time.monotonic()
    for it in range(3_000):
        sink.record({"kind": "train", "iter": it, "loss": 1.0})
    sink.close("finished")
    assert time.monotonic() - began < 60
    assert said == ["W&B: its process does not answer; the run goes on without it"]


def test_ctrl_c_is_not_for_the_process_and_a_killed_run_does_not_leave_it_behind(
    folder: RunFolder, break_as: Callable[[str], None]
) -> None:
    sink = open_sink("wandb", "offline", folder, folder.config())
    assert isinstance(sink, WandbSink)
    process = sink._process
    assert process is not None
    assert os.getpgid(process.pid) != os.getpgid(0)
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    sink.record({"kind": "train", "iter": 1, "loss": 1.0})
    assert process.stdin is not None
    process.stdin.close()  # as the death of the run does
    assert process.wait(5) == 0
    assert [e["what"] for e in logged(folder)][-2:] == ["log", "finish"]


def test_names_of_metrics_say_the_view() -> None:
    record = {"kind": "test", "iter": 7, "top1_err": 9.0, "protocol": "10-crop", "bn": "precise"}
    assert as_metrics(record) == {"iter": 7, "test/10-crop/precise/top1_err": 9.0}
    event = {"kind": "event", "iter": 9, "event": "warmup_end", "value": 79.5, "time": 3.0}
    assert as_metrics(event) == {"iter": 9, "event/warmup_end": 79.5}


def test_the_id_is_of_the_run_not_of_its_place() -> None:
    config = make_config("plain-20", "quick", 0, None, {})
    same = make_config("plain-20", "quick", 0, None, {"trainer.threads": 3, "runs_dir": "x"})
    assert run_id(config) == run_id(same)
    others = [make_config("plain-20", "quick", 1, None, {})]
    others += [make_config("plain-20", "quick", 0, None, {"recipe.lr": 0.05})]
    assert len({run_id(config), *map(run_id, others)}) == 3


@real_wandb
def test_real_wandb_offline(folder: RunFolder) -> None:
    said: list[str] = []
    for keep in (0, None):
        train(folder, said, keep=keep)
    assert said == []
    place = folder.path / "wandb"
    runs = sorted(place.glob("offline-run-*/run-*.wandb"))
    assert {path.stem for path in runs} == {f"run-{run_id(folder.config())}"}
    assert runs[-1].read_bytes().count(b"train/top1_err") >= 5


@real_wandb
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc")
def test_real_wandb_whose_service_is_killed(folder: RunFolder) -> None:
    said: list[str] = []
    sink = open_sink("wandb", "offline", folder, folder.config(), said.append)
    assert isinstance(sink, WandbSink)
    assert sink._process is not None
    while not list(folder.path.glob("wandb/offline-run-*/run-*.wandb")):
        assert sink.is_open
        sink.record({"kind": "train", "iter": 0, "loss": 1.0})
        time.sleep(0.05)
    services = [pid for pid in children(sink._process.pid) if b"core" in command_of(pid)]
    for service in services:
        os.kill(service, signal.SIGKILL)
    for it in range(50):
        sink.record({"kind": "train", "iter": it, "loss": 1.0})
        time.sleep(0.02)
    sink.close("finished")
    assert services
    assert len(said) == 1, said


def command_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
