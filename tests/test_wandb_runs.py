"""``logger=wandb`` on the real command: the same run to the bit, and what a person finds there."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fabricate import fabricate
from resnet_repro import mirror
from resnet_repro.compose import compose_run, make_job
from resnet_repro.runs.folder import RunFolder
from resnet_repro.training.launch import launch

HERE = Path(__file__).resolve().parent
REPO = HERE.parent
TINY = (
    "experiment=cifar10_resnet20", "profile=smoke", "data=synthetic", "model.depth=8",
    "recipe.batch_size=16", "evaluation.clean_train_images=100", "trainer.threads=1",
    "probes.response_images=100",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _nothing_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in [key for key in os.environ if key.startswith("WANDB")]:
        monkeypatch.delenv(key)


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Put the stand-in in the place of wandb; say with a word what goes wrong."""
    place = tmp_path / "packages"
    place.mkdir()
    (place / "wandb.py").write_text((HERE / "fake_wandb.py").read_text())
    paths = [str(place), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    monkeypatch.setenv("FAKE_WANDB", "")
    return lambda how: monkeypatch.setenv("FAKE_WANDB", how)


class Nobody:
    def update(self, iteration: int, top1_err: float | None, lr: float) -> None:
        pass


def train(runs: Path, *words: str) -> tuple[RunFolder, str]:
    """Train the tiny run below ``runs``, as the command does; return its folder and the outcome."""
    job = make_job(*TINY, f"runs_dir={runs}", *words)
    return job.folder, launch(job, Nobody(), lambda: False)


def weights(folder: RunFolder) -> dict[str, Any]:
    (newest,) = sorted(folder.checkpoints.glob("*.pt"))[-1:]
    return dict(torch.load(newest, weights_only=True)["model"])


def numbers(folder: RunFolder) -> list[dict[str, Any]]:
    return [{k: v for k, v in record.items() if k != "time"} for record in folder.metrics()]


def asked_of_wandb(folder: RunFolder, part: int = -1) -> list[dict[str, Any]]:
    files = sorted((folder.path / "wandb").glob("*-run-*/run-*.wandb"))
    return [json.loads(line) for line in files[part].read_text().splitlines()]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """The run without a mirror."""
    return train(tmp_path_factory.mktemp("alone"))[0]


def same_run(one: RunFolder, other: RunFolder) -> None:
    assert numbers(one) == numbers(other)
    before, after = weights(one), weights(other)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert one.status()["state"] == other.status()["state"] == "finished"


@pytest.mark.usefixtures("stand_in")
def test_what_a_person_finds_there(
    tmp_path: Path, alone: RunFolder, capfd: pytest.CaptureFixture[str]
) -> None:
    folder, _ = train(tmp_path, "logger=wandb", "logger.project=mine")
    assert "W&B" not in capfd.readouterr().err
    same_run(alone, folder)
    init, *rest = asked_of_wandb(folder)
    assert init["mode"] == "offline"
    assert init["project"] == "mine"
    assert init["group"] == "cifar10_resnet20"
    assert init["config"]["model"]["depth"] == 8
    logged = [entry["values"] for entry in rest if entry["what"] == "log"]
    assert len(logged) == len(folder.metrics()) + 1
    assert logged[-1]["iter"] == 12
    assert logged[-1]["curves"]["bytes"] > 5_000
    (summary,) = [entry["values"] for entry in rest if entry["what"] == "summary"]
    last = [r for r in folder.metrics() if r["kind"] == "test"][-1]
    assert summary["last/test/top1_err"] == last["top1_err"]
    assert summary["params"] == folder.meta()["net"]["params"]
    assert summary["images_per_second"] > 0
    assert rest[-1] == {"what": "finish", "exit_code": 0}
    assert train(tmp_path, "logger=none")[1] == "skipped"


BROKEN = ("not installed", "crashes at once", "process killed", "service killed", "disk full")


@pytest.mark.parametrize("how", [*BROKEN, "no key", "no network"])
def test_whatever_breaks_costs_one_line_and_changes_no_bit(
    tmp_path: Path,
    stand_in: Callable[[str], None],
    alone: RunFolder,
    how: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    stand_in(how)
    mode = "online" if how.startswith("no ") else "offline"
    folder, _ = train(tmp_path, "logger=wandb", f"logger.mode={mode}")
    said = capfd.readouterr().err
    assert said.count("W&B") == 1, said
    assert len(said.splitlines()) == 1, said
    same_run(alone, folder)


def test_a_picture_that_cannot_be_drawn_costs_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(fabricate(tmp_path, "plain-20", profile="smoke"))
    (folder.path / "wandb").mkdir()
    (folder.path / "wandb" / "overview.png").mkdir()  # in the way
    said: list[str] = []
    sink = Heard()
    mirror.send_the_end(sink, folder, said.append)
    assert len(said) == 1
    assert said[0].startswith("W&B: no picture of the curves")
    assert sink.calls == ["summary"]


class Heard:
    """A sink that remembers what it was told."""

    is_open = True

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def record(self, record: dict[str, Any]) -> None:
        self.calls.append("record")

    def summary(self, values: Any) -> None:
        self.calls.append("summary")

    def picture(self, name: str, path: Path) -> None:
        self.calls.append("picture")

    def close(self, state: str, seconds: float | None = None) -> None:
        self.calls.append((state, seconds))


@pytest.mark.parametrize("state", ["preempted", "failed", "diverged"])
def test_a_run_that_makes_room_waits_for_nothing(tmp_path: Path, state: str) -> None:
    folder = RunFolder(fabricate(tmp_path, "plain-20", profile="smoke", state=state))
    ours = mirror.Mirror(folder)
    ours._sink = sink = Heard()
    ours.close()
    ours.close()  # the second time there is nothing left to close
    assert sink.calls == [(state, 0)]


def test_stopped_and_resumed_keeps_one_id_and_the_command_does_not_wait(
    tmp_path: Path, stand_in: Callable[[str], None]
) -> None:
    stand_in("never finishes")
    longer = (
        "recipe.max_iters=400", "recipe.milestones=[]", "trainer.checkpoint_every_iters=20",
        "evaluation.every_iters=400", "logger=wandb",
    )  # fmt: skip
    folder = make_job(*TINY, *longer, f"runs_dir={tmp_path}").folder
    process = subprocess.Popen(
        [sys.executable, "-m", "resnet_repro.train", *TINY, *longer, f"runs_dir={tmp_path}"],
        cwd=REPO, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while folder.status().get("iter", 0) < 40 or not list(folder.path.glob("wandb/*-run-*/run-*")):
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate()
    assert process.returncode == 75, said
    assert "W&B" not in said, "it was not waited for"
    stand_in("")
    train(tmp_path, *longer)
    first, second = asked_of_wandb(folder, 0), asked_of_wandb(folder, 1)
    assert first[0]["id"] == second[0]["id"]
    whole = [e["values"]["record"] for e in second if "record" in e.get("values", {})]
    assert whole == list(range(1, len(folder.metrics()) + 1))


@pytest.mark.usefixtures("stand_in")
def test_a_logged_run_can_be_sent_later(
    tmp_path: Path, alone: RunFolder, capfd: pytest.CaptureFixture[str]
) -> None:
    mirror.main([str(alone.path)])
    assert capfd.readouterr().err == f"{alone.path}\n"
    sent = [entry for entry in asked_of_wandb(alone) if entry["what"] == "log"]
    assert len(sent) == len(alone.metrics()) + 1
    with pytest.raises(SystemExit) as stopped:
        mirror.main([str(tmp_path / "nothing")])
    assert stopped.value.code == 2
    said = capfd.readouterr().err
    assert said.startswith("error: ")
    assert len(said.splitlines()) == 1


def test_the_logger_makes_no_other_run() -> None:
    assert compose_run(*TINY, "logger=wandb").logger.kind == "wandb"
    assert compose_run(*TINY).logger.kind == "none"
    assert not {k for k in make_job(*TINY, "logger=wandb").deviations if k.startswith("logger")}


@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="wandb is not installed")
def test_the_real_package(
    tmp_path: Path,
    alone: RunFolder,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nobody answers there
    folder, _ = train(tmp_path, "logger=wandb")
    assert capfd.readouterr().err == ""
    same_run(alone, folder)
    (file,) = folder.path.glob("wandb/offline-run-*/run-*.wandb")
    content = file.read_bytes()
    for name in (b"test/top1_err", b"train/loss", b"last/test/top1_err", b"multiply_adds"):
        assert name in content
    (picture,) = file.parent.glob("files/media/images/curves_*.png")
    assert picture.read_bytes() == (folder.path / "wandb" / "overview.png").read_bytes()
    for name, key in (("no key", None), ("no network", "0" * 40)):
        if key:
            monkeypatch.setenv("WANDB_API_KEY", key)
        online, _ = train(tmp_path / name, "logger=wandb", "logger.mode=online")
        said = capfd.readouterr().err
        assert "logging offline" in said
        assert len(said.splitlines()) == 1, said
        same_run(alone, online)
