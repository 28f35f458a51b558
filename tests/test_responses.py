"""Layer responses on request from a checkpoint."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from test_training import StopAt, do, small_job


def ask(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "resnet_repro.responses", *words],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_responses_of_a_run_that_is_not_finished(tmp_path: Path) -> None:
    job = small_job(tmp_path)
    assert do(job, StopAt(5)) == "preempted"
    assert job.folder.table("responses") == []
    done = ask(f"run={job.folder.path}", "images=100", "threads=1")
    assert done.returncode == 0, done.stderr
    assert "100 test images, iteration 5" in done.stdout
    assert len(job.folder.table("responses")) == 7
    assert do(job) == "finished"  # the run goes on as if nothing had happened
    finished = job.folder.table("responses")
    assert ask(f"run={job.folder.path}", "images=500", "threads=1").returncode == 0
    assert job.folder.table("responses") == finished  # the synthetic set has 500 test images


def test_refusals_are_one_line(tmp_path: Path) -> None:
    for words, message in (
        (("images=5",), "run is not set"),
        (("run=nowhere", "images=0"), "images=0: must be an integer >= 1"),
        ((f"run={tmp_path}",), "config.yaml: cannot be read"),
    ):
        done = ask(*words)
        assert done.returncode == 2
        assert message in done.stderr
        assert len(done.stderr.splitlines()) == 1
