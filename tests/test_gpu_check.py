"""The check of a GPU: what fails, crashes or hangs costs no other check, and is turned off."""

import dataclasses
import json
import sys
import unittest
from pathlib import Path

import pytest
import torch

from benchmarks import gpu_check, gpu_checks
from benchmarks.gpu_check import CHECKS, GpuCheck
from ranks import show_few
from resnet_repro import study
from resnet_repro.compose import make_job
from resnet_repro.runs.provenance import versions

HERE = {"state": "passed", "remark": "a GPU, 80 GiB"}
ANSWERS = dict.fromkeys((check.name for check in CHECKS), HERE)
ALL_OFF = {"graph": "never", "compile": "never", "concurrent": 1}


def stand_in(patch: pytest.MonkeyPatch, **scripts: str) -> None:
    """Checks that answer at once; ``scripts`` are what some of them do instead."""

    def start(check: GpuCheck, _: Path) -> list[str]:
        output = gpu_check.PREFIX + json.dumps(ANSWERS[check.name])
        return [sys.executable, "-c", scripts.get(check.name, f"print({output!r})")]

    patch.setattr(gpu_check, "start", start)


def run_all() -> dict[str, dict[str, object]]:
    rows = gpu_check.run_all(gpu_check.CHECKS)
    assert [row["check"] for row in rows] == [check.name for check in CHECKS]
    return {row["check"]: row for row in rows}


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(gpu_check, "DEADLINE", 60.0)
    checks = [
        dataclasses.replace(check, limit=1.0 if check.name == "graph" else 30.0) for check in CHECKS
    ]
    monkeypatch.setattr(gpu_check, "CHECKS", tuple(checks))


@pytest.mark.usefixtures("short")
def test_what_fails_hangs_or_crashes_is_turned_off_and_the_rest_is_done(
    tmp_path, monkeypatch, capsys
):
    failed = gpu_check.PREFIX + json.dumps({"state": "failed", "remark": "no g++"})
    scripts = {
        "graph": "import subprocess, time; subprocess.Popen(['sleep', '99']); time.sleep(99)",
        "compile": f"print({failed!r})",
        "together": "import os; os.abort()",
    }
    stand_in(monkeypatch, **scripts)
    found = run_all()
    assert found["graph"]["remark"] == "still running after 1 s"
    assert found["compile"]["remark"] == "no g++"
    assert found["together"]["remark"] == "exit code -6"
    assert {n for n, row in found.items() if row["state"] == "failed"} == set(scripts)
    out = tmp_path / "check.json"
    gpu_check.report(list(found.values()), out)
    assert json.loads(out.read_text())["settings"] == ALL_OFF
    table = capsys.readouterr().out
    assert "instead: eager steps" in table
    assert "trainer.graph=never trainer.compile=never trainer.concurrent=1" in table


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize(("state", "why"), [("skipped", "no CUDA"), ("failed", "the GPU cannot")])
def test_without_a_gpu_only_what_needs_none_is_done(monkeypatch, state, why):
    monkeypatch.setitem(ANSWERS, "device", {"state": state, "remark": "no CUDA"})
    stand_in(monkeypatch)
    found = run_all()
    skipped = {n for n, row in found.items() if row["state"] == "skipped"} - {"device"}
    assert skipped == {check.name for check in CHECKS if check.cuda}
    assert all(str(found[name]["remark"]).startswith(why) for name in skipped)
    assert found["resume"]["state"] == "passed"


def test_time_that_is_used_up_fails_a_check(monkeypatch):
    stand_in(monkeypatch, precision="import time; time.sleep(9)")
    row = gpu_check.run_check(CHECKS[1], -3.0)
    assert row["state"] == "failed"
    assert row["settings"] == {"precision": "fp32"}


def test_a_check_finds_the_packages_that_the_caller_finds(tmp_path, monkeypatch):
    """As those of a cluster's modules, which set ``PYTHONPATH``."""
    (tmp_path / "elsewhere.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    answer = gpu_check.PREFIX + json.dumps(HERE)
    stand_in(monkeypatch, device=f"import elsewhere, resnet_repro; print({answer!r})")
    assert gpu_check.run_check(CHECKS[0], 60.0)["state"] == "passed"


def test_checks_that_need_no_gpu_pass_here(tmp_path, monkeypatch):
    """Each in this process, as its own process would; the device is answered for."""
    show_few(monkeypatch)
    monkeypatch.setattr(gpu_checks, "ITERATIONS", 12)
    monkeypatch.setattr(gpu_checks, "DROP", 6)
    if not torch.cuda.is_available():
        with pytest.raises(unittest.SkipTest, match="no CUDA"):
            gpu_checks.check_device(tmp_path)
    assert "same bits" in gpu_checks.check_resume(tmp_path / "resume")
    assert "same bits" in gpu_checks.check_together(tmp_path / "together")
    torch.use_deterministic_algorithms(False)


def test_a_check_that_finds_other_bits_fails(tmp_path, monkeypatch, capsys):
    digests, states = iter("ab"), iter(("finished", "preempted", "finished"))
    monkeypatch.setattr(gpu_checks, "run", lambda *_: next(states))
    monkeypatch.setattr(gpu_checks, "weights", lambda _: next(digests))
    gpu_checks.answer("resume", tmp_path)
    output = json.loads(capsys.readouterr().out.removeprefix(gpu_check.PREFIX))
    assert output["state"] == "failed"
    assert "weights of the resumed run: a, expected b" in output["remark"]


def test_the_study_uses_what_was_found(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    path = tmp_path / "gpu_check.json"
    args = ("experiment=cifar10_plain20", "trainer.concurrent=4")
    jobs = [make_job(*args), make_job(*args, "trainer.compile=always")]
    assert study.checked(jobs, path) == jobs
    kept = {"device": "a GPU, 80 GiB", "versions": versions(), "settings": ALL_OFF}
    path.write_text(json.dumps(kept))
    first, second = (job.config.trainer for job in study.checked(jobs, path))
    assert (first.graph, first.compile, first.concurrent) == ("never", "never", 1)
    assert (second.graph, second.compile, second.concurrent) == ("never", "always", 1)
    assert "trainer.graph=never trainer.compile=never" in capsys.readouterr().err
    path.write_text(json.dumps(kept | {"device": "another GPU"}))
    assert study.checked(jobs, path) == jobs
    assert "is of another machine" in capsys.readouterr().err
