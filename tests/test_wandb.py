"""The W&B mirror: everything arrives there, and nothing that happens there reaches the run."""

import importlib.util
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fabricate import fabricate, make_config, make_meta
from ranks import do, finished, small_job
from resnet_repro import mirror
from resnet_repro.mirror import Mirror, as_metrics, init_arguments, run_id
from resnet_repro.runs.folder import RunFolder
from resnet_repro.runs.metrics import MetricsWriter

pytestmark = pytest.mark.usefixtures("few_images")
real_wandb = pytest.mark.skipif(
    importlib.util.find_spec("wandb") is None, reason="the package wandb is not installed"
)


@pytest.fixture(autouse=True)
def _nothing_from_outside(monkeypatch):
    for key in [key for key in os.environ if key.startswith("WANDB")]:
        monkeypatch.delenv(key)
    monkeypatch.setattr(mirror, "CLOSE_SECONDS", 120.0)  # a busy machine is no fault


def begun(root: Path, mode: str = "offline", kind: str = "wandb") -> RunFolder:
    config = make_config("ResNet-20", "quick", 3, None, {})
    config["logger"] = {"kind": kind, "mode": mode, "project": "mine"}
    folder = RunFolder.at(root, config)
    folder.write_config(config)
    folder.write_meta(make_meta(config, "ResNet-20", "fp32", "1 CPU core"))
    return folder


def log_some(folder: RunFolder, keep: int | None = 0, state: str = "finished") -> bytes:
    """Log what a run would from the checkpoint at ``keep`` bytes; return the metrics file."""
    with MetricsWriter(folder.metrics_path, keep) as log:
        ours = Mirror(folder)
        ours.start()
        for it in range(len(folder.metrics()) + 1, 6):
            log.write("train", iter=it, epoch=it / 4, loss=2.0 / it, top1_err=50.0, lr=0.1)
        log.write("test", iter=5, loss=float("nan"), top1_err=40.0, protocol="1-crop")
        folder.write_status(state)
        ours.close()
        ours.close()  # the second time there is nothing left to close
    return folder.metrics_path.read_bytes()


def asked_of_wandb(folder: RunFolder, part: int = -1) -> list[dict[str, Any]]:
    files = sorted((folder.path / "wandb").glob("*-run-*/run-*.wandb"))
    return [json.loads(line) for line in files[part].read_text().splitlines()]


def records(folder: RunFolder, part: int = -1) -> list[dict[str, Any]]:
    logged = [e["values"] for e in asked_of_wandb(folder, part) if e["what"] == "log"]
    return [values for values in logged if "record" in values]


def until(condition: Callable[[], object]) -> None:
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < 60
        time.sleep(0.02)


# The stand-in, a log that grows.


@pytest.mark.parametrize(("kind", "mode"), [("none", "offline"), ("wandb", "disabled")])
def test_without_a_mirror_nothing_is_started(tmp_path, kind, mode, monkeypatch):
    monkeypatch.setattr(mirror, "follower", lambda *_: pytest.fail("started"))
    folder = begun(tmp_path, mode, kind)
    log_some(folder)
    assert not (folder.path / "wandb").exists()


@pytest.mark.usefixtures("break_as")
def test_records_arrive_while_the_run_trains(tmp_path):
    folder = begun(tmp_path)
    ours = Mirror(folder)
    with MetricsWriter(folder.metrics_path) as log:
        ours.start()
        log.write("train", iter=1, loss=2.0)
        until(lambda: list(folder.path.glob("wandb/*-run-*/run-*")) and records(folder))
        log.write("train", iter=2, loss=1.0)
        until(lambda: len(records(folder)) == 2)
    process = ours._process
    assert os.getpgid(process.pid) != os.getpgid(0), "Ctrl-C is not for it"
    process.send_signal(signal.SIGTERM)
    assert process.poll() is None
    process.stdin.close()  # as the death of the run does
    assert process.wait(30) == 0
    assert asked_of_wandb(folder)[-1] == {"what": "finish", "exit_code": 1}


@pytest.mark.usefixtures("break_as")
def test_a_resumed_run_keeps_its_id_and_its_newest_part_is_whole(tmp_path, capfd):
    folder = begun(tmp_path)
    log_some(folder)
    cut = folder.metrics_path.read_bytes().find(b"\n") + 1  # back to a checkpoint
    log_some(folder, keep=cut)
    assert capfd.readouterr().err == ""
    assert asked_of_wandb(folder, 0)[0]["id"] == asked_of_wandb(folder, 1)[0]["id"]
    assert records(folder, 0) == records(folder, 1)
    (folder.path / "wandb" / "run_id").write_text("another\n")
    log_some(folder, keep=cut)
    assert asked_of_wandb(folder)[0]["id"] == "another", "the folder's id wins"


def test_a_resumed_online_run_does_not_log_twice(tmp_path, break_as):
    break_as("resumed")  # and holds two records
    folder = begun(tmp_path, "online")
    log_some(folder)
    assert [values["record"] for values in records(folder)] == [3, 4, 5, 6]


BROKEN = {
    "not installed": "the package wandb is not installed",
    "crashes at once": "its process ended",
    "black hole": "did not finish",
    "deaf": "did not finish",
    "process killed": "its process ended",
    "service killed": "Connection lost",
    "disk full": "holds no data",
    "elsewhere": "cannot be written",
    "never finishes": "did not finish",
    "no key": "logging offline",
    "no network": "logging offline",
    "folder in the way": "File exists",
    "no picture": "no picture of the curves",
}


@pytest.mark.parametrize("how", BROKEN)
def test_whatever_breaks_costs_one_line_and_no_record(tmp_path, how, break_as, monkeypatch, capfd):
    if BROKEN[how] == "did not finish":
        monkeypatch.setattr(mirror, "CLOSE_SECONDS", 0.5)
    break_as(how)
    folder = begun(tmp_path, "online")
    if how == "folder in the way":
        (folder.path / "wandb").write_text("in the way")
    elif how == "no picture":
        (folder.path / "wandb" / "overview.png").mkdir(parents=True)
    written = log_some(folder)
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("W&B: ")
    assert BROKEN[how] in line
    assert written == log_some(begun(tmp_path / "other", kind="none"))
    if BROKEN[how] in ("logging offline", "no picture of the curves"):
        assert len(records(folder)) == 6


def test_a_run_that_makes_room_waits_for_nothing(tmp_path, break_as, capfd, monkeypatch):
    """Made up, in each state; and one that trains, stopped once W&B is there."""
    break_as("never finishes")
    monkeypatch.setattr(mirror, "CLOSE_SECONDS", 600.0)
    began = time.monotonic()
    for state in ("preempted", "failed", "diverged"):
        log_some(begun(tmp_path / state), state=state)
    job = small_job(tmp_path, "recipe.max_iters=400", "recipe.milestones=[]", "logger=wandb")

    def wandb_is_there() -> bool:
        time.sleep(0.02)
        return any(job.folder.path.glob("wandb/*-run-*"))

    assert do(job, wandb_is_there) == "preempted"
    assert time.monotonic() - began < mirror.CLOSE_SECONDS / 2
    assert capfd.readouterr().err == ""


# A run that was logged, sent later.


def test_a_logged_run_is_sent_later_or_named_and_the_exit_code_says_so(
    tmp_path, break_as, call, capfd
):
    folder = RunFolder(fabricate(tmp_path, "plain-20", profile="smoke"))
    break_as("not installed")
    assert call(mirror.main, folder.path) == 1
    expected = ["W&B: the package wandb is not installed", f"{folder.path}: not sent"]
    assert capfd.readouterr().err.splitlines() == expected
    assert call(mirror.main, folder.path, tmp_path / "nothing") == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"error: {tmp_path / 'nothing'}")
    break_as("")
    assert call(mirror.main, folder.path) == 0
    assert capfd.readouterr().err == f"{folder.path}; wandb sync of its wandb/latest-run sends it\n"
    assert len(records(folder)) == len(folder.metrics())
    logged = [e["values"] for e in asked_of_wandb(folder) if e["what"] == "log"]
    assert logged[-1]["curves"]["bytes"] > 5_000


# Names.


def test_names_of_metrics_say_the_view():
    record = {"kind": "test", "iter": 7, "top1_err": 9.0, "protocol": "10-crop", "bn": "precise"}
    assert as_metrics(record) == {"iter": 7, "test/10-crop/precise/top1_err": 9.0}
    event = {"kind": "event", "iter": 9, "event": "warmup_end", "value": 79.5, "time": 3.0}
    assert as_metrics(event) == {"iter": 9, "event/warmup_end": 79.5}


# The real command.


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return finished(small_job(tmp_path_factory.mktemp("alone")))


def test_what_a_person_finds_there(tmp_path, alone, break_as, capfd):
    break_as("")
    job = small_job(tmp_path, "logger=wandb", "logger.project=mine")
    assert finished(job) == alone
    assert capfd.readouterr().err == ""  # neither of W&B nor of how it is trained
    folder = job.folder
    init, *rest = asked_of_wandb(folder)
    assert (init["mode"], init["project"]) == ("offline", "mine")
    assert init["group"] == "cifar10_resnet20"
    assert init["tags"] == ["smoke", "cifar", "shortcut A"]
    assert init["id"] == run_id(folder.config(), folder.meta()["started"])
    assert init["id"] != run_id(folder.config(), "trained again")
    assert init["config"] == folder.config()
    assert {"what": "define_metric", "name": "*", "step_metric": "iter"} in rest
    logged = records(folder)
    assert [values["record"] for values in logged] == list(range(1, len(folder.metrics()) + 1))
    tests = [r["top1_err"] for r in folder.metrics() if r["kind"] == "test"]
    assert [v["test/top1_err"] for v in logged if "test/top1_err" in v] == tests
    (summary,) = [entry["values"] for entry in rest if entry["what"] == "summary"]
    assert summary["last/test/top1_err"] == tests[-1]
    assert summary["params"] == folder.meta()["net"]["params"]
    assert summary["images_per_second"] > 0
    assert rest[-1] == {"what": "finish", "exit_code": 0}


@real_wandb
def test_the_real_package(tmp_path, alone, monkeypatch, capfd):
    """Offline; and online without a key or a network, begun before, since W&B waits for seconds."""
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nobody answers there
    online = []
    for name in ("no key", "no network"):
        if name == "no network":
            monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        folder = begun(tmp_path / name, "online")
        with MetricsWriter(folder.metrics_path) as log:
            log.write("train", iter=1, loss=1.0)
        folder.write_status("finished")
        online.append(Mirror(folder))
        online[-1].start()
    monkeypatch.delenv("WANDB_API_KEY")
    job = small_job(tmp_path, "logger=wandb")
    assert finished(job) == alone
    for ours in online:
        ours.close()
    lines = capfd.readouterr().err.splitlines()  # the run itself had nothing to say
    assert ["logging offline" in line for line in lines] == [True, True]
    folder = job.folder
    (file,) = folder.path.glob("wandb/offline-run-*/run-*.wandb")
    assert file.stem == f"run-{init_arguments(folder.path / 'wandb', folder)['id']}"
    content = file.read_bytes()
    for name in (b"test/top1_err", b"train/loss", b"last/test/top1_err", b"multiply_adds"):
        assert name in content
    (picture,) = file.parent.glob("files/media/images/curves_*.png")
    assert picture.read_bytes() == (folder.path / "wandb" / "overview.png").read_bytes()


@real_wandb
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc")
def test_the_real_package_whose_service_is_killed(tmp_path, capfd):
    folder = begun(tmp_path)
    ours = Mirror(folder)
    with MetricsWriter(folder.metrics_path) as log:
        ours.start()
        log.write("train", iter=0, loss=1.0)
        until(lambda: list(folder.path.glob("wandb/offline-run-*/run-*.wandb")))
        children = Path(f"/proc/{ours._process.pid}/task/{ours._process.pid}/children")
        for child in map(int, children.read_text().split()):
            assert b"wandb" in Path(f"/proc/{child}/cmdline").read_bytes()
            os.kill(child, signal.SIGKILL)
        for it in range(50):
            log.write("train", iter=it, loss=1.0)
        folder.write_status("finished")
    ours.close()
    assert len(capfd.readouterr().err.splitlines()) == 1
