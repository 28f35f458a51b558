"""The study: its order, its budget, and its way to a host that has only torch."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from resnet_repro import study
from resnet_repro.bundle import load_jobs, pack_runs, write_bundle
from resnet_repro.compose import make_job
from resnet_repro.runs.folder import RunFolder, find_runs

SMALL = (
    "data=synthetic", "profile=smoke", "model.depth=8", "recipe.batch_size=16",
    "evaluation.clean_train_images=100", "trainer.threads=1",
)  # fmt: skip


def test_order_of_work_is_that_of_the_list() -> None:
    jobs = study.plan("cuda")
    labels = [job.label for job in jobs]
    assert labels[:2] == ["cifar10_plain20 paper seed 0", "cifar10_plain56 paper seed 0"]
    assert len(labels) == len(set(labels))
    assert labels.index("cifar10_resnet110 paper seed 0") < labels.index(
        "cifar10_plain20 paper seed 1"
    )
    short = [job.label for job in study.plan("cpu")]
    assert short == [
        f"cifar10_{n} short seed 0" for n in ("plain20", "plain56", "resnet20", "resnet56")
    ]
    only = {job.config.experiment for job in study.plan("cuda", item="fig1")}
    assert only == {"cifar10_plain20", "cifar10_plain56"}


def test_list_tells_done_begun_and_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = [
        make_job("experiment=cifar10_plain20", f"seed={s}", f"runs_dir={tmp_path}") for s in "012"
    ]
    for job, state, iteration in ((jobs[0], "finished", 64_000), (jobs[1], "preempted", 500)):
        job.folder.write_config(job.config.as_mapping())
        job.folder.write_status(state, iter=iteration)
    study.show(jobs)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[-1].strip() for line in lines[:3]] == [
        "done",
        "begun, 500 of 64000",
        "missing",
    ]
    assert lines[3] == "1 of 3 done, 2 to do"


def test_budget_stops_saves_and_goes_on(tmp_path: Path) -> None:
    job = make_job(
        "experiment=cifar10_plain20", *SMALL, f"runs_dir={tmp_path}", "recipe.max_iters=60",
        "recipe.milestones=[]", "evaluation.every_iters=60",
    )  # fmt: skip
    with pytest.raises(SystemExit) as left:
        study.run([job], budget=1e-6)
    assert left.value.code == 75
    assert job.folder.status()["state"] == "preempted"
    study.run([job], budget=None)
    assert job.folder.is_finished


@pytest.mark.parametrize(("text", "expected"), [("90s", 90), ("25m", 1500), ("1.5h", 5400)])
def test_budgets_are_read(text: str, expected: float) -> None:
    assert study.seconds(text) == expected


def test_budgets_that_are_none_are_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "resnet_repro.study", "--budget", "soon"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "soon: must be like 90s, 25m or 2h" in done.stderr


# What a host with torch and little else lacks.
ABSENT = ("hydra", "omegaconf", "yaml", "tqdm", "pandas", "matplotlib", "scipy", "wandb")
BARE = f"""
import importlib.machinery, runpy, sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {ABSENT!r}:
            return importlib.machinery.ModuleSpec(name, self)
    def create_module(self, spec):
        raise ModuleNotFoundError(f"No module named {{spec.name!r}}", name=spec.name)
    def exec_module(self, module):
        pass
sys.meta_path.insert(0, Absent())
sys.argv = ["study", "run", "--bundle", ".", "--runs-dir", "runs"]
runpy.run_module("resnet_repro.study", run_name="__main__")
"""


def test_bundle_runs_where_only_torch_is_and_its_runs_come_home(tmp_path: Path) -> None:
    jobs = [make_job("experiment=cifar10_plain20", *SMALL, "trainer.precision=fp32")]
    there = tmp_path / "there"
    with tarfile.open(write_bundle(jobs, tmp_path / "study.tar")) as tar:
        tar.extractall(there, filter="data")
    env = os.environ | {"PYTHONPATH": str(there / "src")}
    done = subprocess.run(
        [sys.executable, "-c", BARE],
        cwd=there,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (run,) = find_runs(there / "runs")
    assert run.is_finished
    assert run.meta()["git"]["revision"]
    archive = pack_runs(there / "runs", tmp_path / "home.tar.gz")
    with tarfile.open(archive) as tar:
        names = tar.getnames()
        tar.extractall(tmp_path / "home", filter="data")
    assert not any("checkpoints" in name or ".lock" in name for name in names)
    home = tmp_path / "home" / "results" / "runs" / "smoke" / "cifar10_plain20" / "seed0"
    assert RunFolder(home).config()["model"]["depth"] == 8
    assert RunFolder(home).metrics() == run.metrics()
    again = load_jobs(there, tmp_path / "home" / "results" / "runs")
    assert all(job.is_done() for job in again)
