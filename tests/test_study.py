"""The study: its order, its budget, and its way to a host that has only torch."""

import itertools
import os
import subprocess
import sys
import tarfile
from shutil import unpack_archive
from types import SimpleNamespace

import pytest

from ranks import BRIEF, WORDS
from refusals import refused
from resnet_repro import study
from resnet_repro.compose import make_job
from resnet_repro.conf import load_item, names
from resnet_repro.options import ConfigError
from resnet_repro.runs.folder import RunFolder, find_runs
from resnet_repro.training.jobs import Outcome
from resnet_repro.training.launch import Job


def test_order_of_work_is_that_of_the_list_and_shorter_on_a_cpu():
    jobs = study.plan("cuda")
    labels = [job.config.label for job in jobs]
    assert labels[:2] == ["cifar10_plain20 paper seed 0", "cifar10_plain56 paper seed 0"]
    assert len(labels) == len(set(labels))
    first_of_next_seed = labels.index("cifar10_plain20 paper seed 1")
    assert labels.index("cifar10_resnet110 paper seed 0") < first_of_next_seed
    tiny = [job for job in jobs if job.config.data.name == "tiny_imagenet"]
    assert [job.config.seed for job in tiny] == sorted(job.config.seed for job in tiny)
    nets = ("plain18", "plain34", "resnet18_A", "resnet34_A")
    assert [job.config.experiment for job in tiny[:4]] == [f"tiny_{net}" for net in nets]
    only = {job.config.experiment for job in study.plan("cuda", item="fig1")}
    assert only == {"cifar10_plain20", "cifar10_plain56"}
    wanted = {name for item in names("item") for name in load_item(item).experiments}
    # Whole ImageNet is beyond one GPU; a gated net of 110 layers is a side question.
    beyond = {name for name in wanted if name.startswith("imagenet_")}
    planned = {job.config.experiment for job in jobs}
    assert wanted - planned - beyond <= {"cifar10_resnet110_highway"}
    on_cpu = [job.config.label for job in study.plan("cpu")]
    cifar = [f"cifar10_{n}" for n in ("plain20", "plain56", "resnet20", "resnet56")]
    tiny = [f"tiny_{n}" for n in ("resnet18_A", "plain18", "resnet34_A", "plain34", "resnet34_B")]
    assert on_cpu[:9] == [f"{name} short seed 0" for name in cifar + tiny]
    more = [f"{n} short seed {seed}" for seed in (1, 2) for n in cifar]
    assert sorted(on_cpu[9:-4]) == sorted(more)
    assert on_cpu[-4:] == [f"{name} paper seed 0" for name in cifar]


def test_list_tells_where_runs_stand_and_the_time_that_is_left(tmp_path, capsys, monkeypatch):
    args = ("experiment=cifar10_plain20", f"runs_dir={tmp_path}")
    jobs = [make_job(*args, f"seed={seed}") for seed in range(6)]
    states = {"finished": 64_000, "running": 700, "preempted": 500, "failed": 400, "diverged": 300}
    for job, (state, iteration) in zip(jobs, states.items(), strict=False):
        job.folder.write_config(job.config.as_mapping())
        job.folder.write_status(state, iter=iteration, reason="loss")
    jobs[3].folder.write_status("preempted", iter=400)
    jobs[2].folder.checkpoints.mkdir()
    (jobs[2].folder.checkpoints / "iter_00000500.pt").touch()
    study.show(jobs)
    *lines, counts, hint = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[-1].strip() for line in lines] == [
        "done", "running, 700 of 64000", "begun, 500 of 64000",
        "begun, 400 of 64000, but without a checkpoint", "diverged: loss", "missing",
    ]  # fmt: skip
    assert counts == "6 runs: 1 done, 1 running, 2 begun, 1 missing, 1 diverged"
    assert hint == "--time measures how long the rest takes on this machine"
    monkeypatch.setattr(study, "estimate", lambda left: [65.0] * (list(left) == jobs[5:]))
    study.show([jobs[0], jobs[5]], timed=True)
    assert "what is left takes about 1 min 05 s on this machine" in capsys.readouterr().out


def test_a_study_does_not_mix_engines(tmp_path):
    def job(seed: int, *args: str) -> Job:
        return make_job("experiment=cifar10_plain20", f"seed={seed}", f"runs_dir={tmp_path}", *args)

    def logged(seed: int, device: str, step: str, blocks: str) -> None:
        folder = job(seed).folder
        folder.path.mkdir(parents=True)
        folder.write_meta({"device": device, "engine": {"step": step, "blocks": blocks}})

    jobs = [job(seed) for seed in range(4)]
    logged(0, "cpu", "eager", "eager")
    assert study.one_engine(jobs) == jobs
    logged(1, "cuda", "graph", "compiled")
    tiny = make_job("experiment=tiny_plain18", f"runs_dir={tmp_path}")
    *demanded, other = study.one_engine([*jobs, tiny])
    engines = {(j.config.trainer.graph, j.config.trainer.compile) for j in demanded}
    assert engines == {("always", "always")}
    assert other == tiny  # another data set
    mixed = [jobs[1], job(2, "trainer.compile=never")]
    message = "^trainer.compile=never: the logged runs of cifar10"
    refused(study.one_engine, mixed, match=message, kind=ConfigError)
    logged(2, "cuda", "graph", "eager")
    message = "were trained with different engines"
    refused(study.one_engine, jobs, match=message, kind=ConfigError)


@pytest.mark.usefixtures("few_images")
def test_budget_stops_saves_and_resumes(tmp_path, monkeypatch):
    job = make_job(
        "experiment=cifar10_plain20", *WORDS, f"runs_dir={tmp_path}", "recipe.max_iters=20",
        "recipe.milestones=[]", "evaluation.every_iters=20",
    )  # fmt: skip
    clock = itertools.count()
    monkeypatch.setattr(study, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    for budget in (0.5, 9):  # over at once, after the first iteration; in the middle of the run
        with pytest.raises(SystemExit) as left:
            study.run([job], budget)
        assert left.value.code == 75
        assert job.folder.status().get("state") == "preempted"
    study.run([job], budget=None)
    assert job.folder.is_finished


def test_a_failure_under_a_budget_is_named(monkeypatch, capsys):
    job = make_job("experiment=cifar10_plain20", *WORDS)
    outcomes = [Outcome(job, "failed", OSError("out of memory")), Outcome(job, "not begun")]
    monkeypatch.setattr(study, "run_all", lambda *_: outcomes)
    with pytest.raises(SystemExit, match="75"):
        study.run([job, job], budget=1.0)
    assert f"failed: {job.config.label}: out of memory\n" in capsys.readouterr().err


def test_budgets_are_read_or_refused(call, capsys):
    assert [study.seconds(text) for text in ("90s", "25m", "1.5h")] == [90, 1500, 5400]
    assert call(study.main, "--budget", "soon") == 2
    assert "soon: must be like 90s, 25m or 2h" in capsys.readouterr().err


def test_words_may_stand_before_and_after_options(tmp_path, call, capsys):
    options = ("--item", "fig1", "--device", "cuda", "--runs-dir", tmp_path)
    assert call(study.main, "list", *WORDS[:1], *options, *WORDS[1:2], "trainer.threads=1") == 0
    assert "cifar10_plain20-data_synthetic smoke seed 4" in capsys.readouterr().out


# What a host with torch and little else lacks.
ABSENT = ("hydra", "omegaconf", "yaml", "tqdm", "pandas", "matplotlib", "scipy", "wandb", "PIL")
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
import benchmarks.gpu_check, benchmarks.gpu_checks
sys.argv = ["study", "run", "--bundle", ".", "--runs-dir", "runs"]
runpy.run_module("resnet_repro.study", run_name="__main__")
"""


def test_bundle_holds_the_data_of_its_runs_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RESNET_REPRO_DATA", str(tmp_path))
    study.write_bundle([make_job("experiment=cifar10_plain20")], tmp_path / "study.tar")
    assert f"without cifar10, which was not prepared in {tmp_path}" in capsys.readouterr().err
    for name in ("cifar10.npz", "tiny-imagenet-200.npz"):
        (tmp_path / name).write_bytes(b"data")
    for experiment, expected in (
        ("cifar10_plain20", "cifar10"),
        ("tiny_plain18", "tiny-imagenet-200"),
    ):
        archive = study.write_bundle([make_job(f"experiment={experiment}")], tmp_path / "study.tar")
        with tarfile.open(archive) as tar:
            names = tar.getnames()
        assert [name for name in names if name.startswith("data/")] == [f"data/{expected}.npz"]
        assert "src/resnet_repro/study.py" in names
        assert "jobs.json" in names


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ("list", "--bundle", ".", "trainer.concurrent=4"),
            "trainer.concurrent=4: runs are chosen",
        ),
        (("run", "--bundle", "."), "--bundle=.: has no jobs.json"),
        (("pack", "--runs-dir", "nowhere"), "--runs-dir=nowhere: holds no runs to pack"),
        (("bundle", "--item", "fig1", "--out", "nowhere/x.tar"), "--out=nowhere/x.tar: cannot be"),
    ],
)
def test_words_that_a_bundle_cannot_heed_are_refused(
    args, message, tmp_path, monkeypatch, call, capsys
):
    monkeypatch.chdir(tmp_path)
    assert call(study.main, *args) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_cpu_can_be_chosen_where_a_gpu_is_of_no_use(monkeypatch):
    monkeypatch.setattr(study, "has_gpu_driver", lambda: True)
    assert study.default_device(["trainer.device=cpu"]) == "cpu"


def test_bundle_runs_where_only_torch_is_and_its_runs_come_home(tmp_path):
    jobs = [make_job("experiment=cifar10_plain20", *WORDS, *BRIEF)]
    there = tmp_path / "there"
    unpack_archive(study.write_bundle(jobs, tmp_path / "study.tar"), there)
    env = os.environ | {"PYTHONPATH": str(there / "src")}
    args = [sys.executable, "-c", BARE]
    done = subprocess.run(args, cwd=there, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (run,) = find_runs(there / "runs")
    assert run.is_finished
    assert run.meta()["git"]["revision"]
    archive = study.pack_runs(there / "runs", tmp_path / "home.tar.gz")
    with tarfile.open(archive) as tar:
        names = tar.getnames()
    unpack_archive(archive, tmp_path / "home")
    assert not any("checkpoints" in name or ".lock" in name for name in names)
    home = tmp_path / "home" / "results" / "runs" / "smoke" / jobs[0].config.name / "seed0"
    assert RunFolder(home).config()["model"]["depth"] == 8
    assert RunFolder(home).metrics() == run.metrics()
    again = study.load_jobs(there, tmp_path / "home" / "results" / "runs")
    assert all(job.is_done() for job in again)
