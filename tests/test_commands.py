"""The real commands, as a user says them."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ranks import BRIEF, FEW_IMAGES, WORDS, Silent, never
from resnet_repro.compose import compose_run, make_job
from resnet_repro.data import synthetic
from resnet_repro.runs.folder import RunFolder
from resnet_repro.train import main
from resnet_repro.training.jobs import notify_places
from resnet_repro.training.launch import launch

REPO = Path(__file__).resolve().parents[1]
SMALL = (*WORDS, *BRIEF)


def named(experiment: str, *args: str) -> str:
    """How a run is named by what SMALL and the words change."""
    return compose_run(f"experiment={experiment}", *SMALL, *args).name


def say(*args: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *args], cwd=REPO, env=os.environ | more, capture_output=True, text=True,
        timeout=300,
    )  # fmt: skip


@pytest.fixture
def few(monkeypatch):
    """For one test alone: commands in processes of their own have all images."""
    monkeypatch.setattr(synthetic, "SIZES", FEW_IMAGES)


@pytest.fixture
def train(few, call, capsys):
    """Train on few images as the command does, in this process: exit code and stderr."""
    return lambda *args: (call(main, *args), capsys.readouterr().err)


RUN = "experiment=cifar10_plain20"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((RUN, "recipe.lrr=1"), "unknown option 'recipe.lrr'; did you"),
        ((RUN, "trainer.precision=tf32", "trainer.device=cpu"), "tf32: needs a CUDA device"),
        ((RUN, "trainer.graph=always", "trainer.device=cpu"), "graph=always: needs a CUDA device"),
        (("-m", "item=fig9"), "item=fig9: must be one of blocks, claims"),
        # Hydra's own words
        ((RUN, "--resolve"), "--resolve: only with --cfg"),
        ((RUN, "--package", "model"), "--package: only with --cfg"),
        ((RUN, "-m", "--cfg", "job"), "--multirun and --cfg: only one of them"),
        ((RUN, "--cfgg", "job"), "unrecognized arguments: --cfgg"),
        ((RUN, "hydra.run.dir=x"), "hydra.run.dir=x: nothing is written there"),
        ((RUN, "-m", "hydra.sweep.dir=x"), "hydra.sweep.dir=x: nothing is written there"),
        ((RUN, "seed=0,1", "-m", "hydra/launcher=submitit_local"), "submitit is not installed"),
        ((RUN, "seed=0,1", "-m", "hydra/launcher=nope"), "hydra/launcher=nope: must be one of"),
        ((RUN, "-m", "hydra/launcher=basic", "recipe.lr=0.1,0.2", "name=x"), "name=x: two runs"),
        (("-sc", "install=bash"), "-sc: only of the installed command"),
    ],
)
def test_bad_words_are_refused_in_one_line_before_anything_is_written(
    tmp_path, args, message, monkeypatch, call, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RESNET_REPRO_DATA", str(tmp_path))  # else a line says where data are
    assert call(main, *args, f"runs_dir={tmp_path}/runs") == 2
    output = capsys.readouterr().err
    assert message in output
    assert len(output.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("args", "shown"),
    [
        (("--hydra-help", RUN), "Hydra (1."),
        ((RUN, "--cfg", "job", "--resolve"), "lr: 0.1"),
        (("--resolve", "-c", "job", RUN, "-p", "recipe"), "lr: 0.1"),
        (("--help",), "experiments: cifar10_plain110, "),
        (("--help",), "recipe.lr [0.1]  learning rate before the first drop; a finite number > 0"),
    ],
)
def test_hydras_words_work_in_any_order(args, shown, call, capsys):
    assert call(main, *args) == 0
    output = capsys.readouterr()
    assert shown in output.out
    assert output.err == ""


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("resnet-repro experiment=cifar10_res", "experiment=cifar10_resnet20"),
        ("resnet-repro -m profile=quick experiment=", "experiment=tiny_plain18"),
        ("resnet-repro exp", "experiment="),
        ("resnet-repro experiment=tiny_plain18 profile=q", "profile=quick"),
        ("resnet-repro recipe.warmup_", "recipe.warmup_lr="),
    ],
)
def test_the_installed_command_completes(line, word, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["/bin/resnet-repro", "-sc", "query=bash"])
    monkeypatch.setenv("COMP_LINE", line)
    main()
    assert word in capsys.readouterr().out.split()


def test_without_its_repository_it_says_how_to_install(tmp_path):
    shutil.copytree(
        REPO / "src" / "resnet_repro", tmp_path / "site" / "resnet_repro",
        ignore=shutil.ignore_patterns("__pycache__"),
    )  # fmt: skip
    done = say("-m", "resnet_repro.train", "--help", PYTHONPATH=str(tmp_path / "site"))
    assert done.returncode == 2
    assert done.stderr.startswith("error: resnet_repro is installed without its repository")
    assert done.stderr.rstrip().endswith("pip install -e .")
    program = "import resnet_repro.compose as c; c.compose_run('experiment=cifar10_resnet20')"
    done = say("-c", program, PYTHONPATH=str(tmp_path / "site"))
    assert done.stderr.rstrip().endswith("pip install -e .")


def test_from_another_folder_runs_go_to_the_repository_with_a_note(tmp_path, monkeypatch, capsys):
    for variable in ("RESNET_REPRO_RUNS", "RESNET_REPRO_DATA"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)
    notify_places(compose_run(RUN))
    assert capsys.readouterr().err == f"runs: {REPO}/results/runs\ndata: {REPO}/data\n"
    notify_places(compose_run(RUN, "runs_dir=here", "data.root=/there"))
    notify_places(compose_run(RUN, "runs_dir=here", "data=synthetic", "profile=smoke"))
    monkeypatch.chdir(REPO)
    notify_places(compose_run(RUN))
    assert capsys.readouterr().err == ""


COMMANDS = [
    *(f"resnet_repro.{name}" for name in ("train", "study", "mirror", "items.command", "compose")),
    *(f"benchmarks.{name}" for name in ("cost", "gpu_check")),
]
READERS = [
    f"resnet_repro.{folder}.{path.stem}"
    for folder in ("analysis", "items")
    for path in (REPO / "src" / "resnet_repro" / folder).glob("*.py")
    if path.stem not in ("__init__", "command")  # which trains what is missing
]
IMPORTED = """
import importlib, sys
[importlib.import_module(name) for name in sys.argv[1].split()]
print([name for name in sys.argv[2].split() if name in sys.modules])
"""


@pytest.mark.parametrize(
    ("modules", "absent"),
    [
        (COMMANDS, "torch"),
        (READERS, "torch torchvision hydra omegaconf wandb matplotlib.pyplot"),
        (["benchmarks.page"], "torch"),
        (["resnet_repro.models.spec"], "torch numpy"),
    ],
    ids=["commands", "readers", "benchmarks", "spec"],
)
def test_what_need_not_be_imported_is_not(modules, absent):
    done = say("-c", IMPORTED, " ".join(modules), absent)
    assert done.stdout == "[]\n", done.stderr


def test_sweep_trains_each_once_and_a_rerun_nothing(tmp_path, train):
    args = ("-m", "item=fig1", *SMALL, f"runs_dir={tmp_path}", "seed=0,1")
    code, output = train(*args)
    assert code == 0, output
    runs = sorted(path.parent for path in tmp_path.glob("*/*/*/metrics.jsonl"))
    names = [named(f"cifar10_plain{depth}") for depth in (20, 56)]
    assert [str(path.relative_to(tmp_path)) for path in runs] == [
        f"smoke/{name}/seed{seed}" for name in names for seed in (0, 1)
    ]
    assert train(*args)[1].count(": skipped, ") == 4


def test_one_failure_is_reported_at_the_end_and_stops_no_other_run(tmp_path, train):
    args = ("-m", "experiment=cifar10_plain20", *SMALL, f"runs_dir={tmp_path}")
    code, output = train(*args, "recipe.lr=1e30,0.2")  # a run of each rate, named by it
    assert code == 5, output
    assert "2 of 2 runs to train" in output
    first, second = (named("cifar10_plain20", f"recipe.lr={rate}") for rate in ("1e30", "0.2"))
    expected = f"failed: {first} smoke seed 0: the loss is not finite at iteration"
    assert output.splitlines()[-1].startswith(expected)
    states = {
        path.parent.name: RunFolder(path).status()["state"]
        for path in tmp_path.glob("smoke/*/seed0")
    }
    assert states == {first: "diverged", second: "finished"}
    code, output = train(*args[1:], "recipe.lr=1e30")  # alone
    assert code == 5
    assert [line[:38] for line in output.splitlines()] == ["error: the loss is not finite at itera"]


TRAIN = """
import sys
from resnet_repro.train import main
main()
print([name for name in ("torch._dynamo", "sympy", "pandas") if name in sys.modules])
"""


def test_hydras_own_launcher_does_the_same_runs_and_imports_no_compiler(tmp_path):
    args = ("-m", "item=fig1", *SMALL, f"runs_dir={tmp_path}")
    done = say("-c", TRAIN, *args, "hydra/launcher=basic")
    assert done.returncode == 0, done.stderr
    found = {path.parent.name for path in tmp_path.glob("smoke/*/seed0")}
    assert found == {named("cifar10_plain20"), named("cifar10_plain56")}
    assert done.stdout.splitlines()[-1] == "[]", "seconds of every start"


@pytest.mark.usefixtures("few")
def test_figure_one_from_nothing_then_again_without_training(tmp_path, run_script, capsys):
    small = [word for word in SMALL if word not in ("model.depth=8", "profile=smoke")]
    args = ("--profile", "smoke", "--out", f"{tmp_path}/figures", *small)

    def fig1(*more: str) -> tuple[str, str]:
        run_script("fig1", *args, f"runs_dir={tmp_path}/runs", *more)
        return capsys.readouterr()

    with pytest.raises(SystemExit, match="1"):
        fig1("--no-train")
    assert "fig1: nothing to draw" in capsys.readouterr().err
    first, output = fig1()
    assert re.search(r"^2 of 2 runs to train: .* s on ", output)
    assert "\n[1/2] cifar10_plain20" in output
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {"fig1.png", "fig1.svg"}
    assert "fig1: drawn from variants, which test no claim of the paper" in output
    assert "C2" not in first
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/*/*/*")}
    again, output = fig1()
    assert "to train" not in output
    assert again == first
    assert stamps == {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/*/*/*")}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_signals_lose_nothing(tmp_path, number):
    args = (
        "experiment=cifar10_plain20", *SMALL, f"runs_dir={tmp_path}",
        "recipe.max_iters=100", "recipe.milestones=[]", "trainer.checkpoint_every_iters=10",
        "evaluation.every_iters=100", "name=stopped",
    )  # fmt: skip
    folder = RunFolder(tmp_path / "smoke" / "stopped" / "seed0")
    command = [sys.executable, "-m", "resnet_repro.train", *args]
    process = subprocess.Popen(command, cwd=REPO, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 120
    while folder.status().get("iter", 0) < 20:
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < until
        time.sleep(0.02)
    process.send_signal(number)
    _, output = process.communicate(timeout=120)
    status = folder.status()
    if number == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
        assert status["state"] == "running"
    else:
        assert process.returncode == 75, output
        assert status["state"] == "preempted"
        assert "saving after this iteration" in output
    assert launch(make_job(*args), Silent(), never) == "finished"
    records = folder.metrics()
    assert [r["iter"] for r in records if r["kind"] == "train"] == list(range(2, 101, 2))
    assert json.loads((folder.path / "status.json").read_text())["state"] == "finished"
