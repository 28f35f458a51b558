"""The real commands, as a user says them."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

from ranks import BRIEF, WORDS, do, show_few
from resnet_repro.compose import compose_run, make_job
from resnet_repro.paths import REPOSITORY as REPO
from resnet_repro.runs.folder import RunFolder
from resnet_repro.train import main
from resnet_repro.training.jobs import notify_places

RUN = "experiment=cifar10_plain20"
SMALL = (*WORDS, *BRIEF)
MADE_UP = (RUN, "data=synthetic", "profile=smoke")


def named(experiment, *args):
    """How a run is named by what SMALL and the words change."""
    return compose_run(f"experiment={experiment}", *SMALL, *args).name


def say(*args, **more):
    env, command = os.environ | more, [sys.executable, *args]
    return subprocess.run(command, cwd=REPO, env=env, capture_output=True, text=True, timeout=300)


@pytest.fixture
def few(monkeypatch):
    """For one test alone: commands in processes of their own have all images."""
    show_few(monkeypatch)


@pytest.fixture
def train(few, call, capsys):
    """Train on few images as the command does, in this process: exit code and stderr."""
    return lambda *args: (call(main, *args), capsys.readouterr().err)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((RUN, "trainer.precision=tf32", "trainer.device=cpu"), "tf32: needs a CUDA device"),
        ((RUN, "trainer.graph=always", "trainer.device=cpu"), "graph=always: needs a CUDA device"),
        ((*MADE_UP, "recipe.batch_size=2001"), "recipe.batch_size=2001: must be at most the 2000"),
        ((*MADE_UP, "trainer.threads=4096"), "trainer.threads=4096: this process may use"),
        ((RUN, "~model.depth"), "~model.depth: an option cannot be taken away"),
        (("-m", "item=fig9"), "item=fig9: did you mean fig7?"),
        # Hydra's own words
        ((RUN, "--resolve"), "--resolve: only with --cfg"),
        ((RUN, "--package", "model"), "--package: only with --cfg"),
        ((RUN, "-m", "--cfg", "job"), "--multirun and --cfg: only one of them"),
        ((RUN, "--cfgg", "job"), "unrecognized arguments: --cfgg"),
        (("--config-name", "nope"), "Cannot find primary config 'nope'"),
        (("--config-dir", "nope", RUN), "Additional config directory '"),
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


FILES = [  # text of an experiment's file after its first line, what is said of it
    ("model:\n\tdepth: 20\n", "{file}:3:1: not YAML ("),
    ("model: {depth: 20, depth: 32}\n", "{file}:2:20: not YAML ("),
    ("recipe:\n  milestones: [1,2,\n", "{file}:4:1: not YAML ("),
    ("recipe:\n  nesterov: 'n'\n", "recipe.nesterov=n: must be true or"),
    ("", "experiment=mine: its file must begin with"),
]


@pytest.mark.parametrize(("text", "message"), FILES)
def test_what_is_wrong_in_a_file_of_ones_own_is_named(tmp_path, text, message, call, capsys):
    file = tmp_path / "experiment" / "mine.yaml"
    file.parent.mkdir()
    file.write_text(f"# @package _global_\n{text}" if text else "recipe:\n  lr: 0.2\n")
    args = ("--config-dir", tmp_path, "experiment=mine", f"runs_dir={tmp_path}/runs")
    assert call(main, *args) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {message.format(file=file)}")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("words", [(), ("-m",)])
def test_torchrun_is_told_what_it_starts(tmp_path, words, monkeypatch, call, capsys):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    assert call(main, *words, *MADE_UP, f"runs_dir={tmp_path}/runs") == 2
    assert "error: torchrun starts resnet_repro.worker" in capsys.readouterr().err
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
    no_cache = shutil.ignore_patterns("__pycache__")
    shutil.copytree(REPO / "src" / "resnet_repro", tmp_path / "resnet_repro", ignore=no_cache)
    command = say("-m", "resnet_repro.train", "--help", PYTHONPATH=str(tmp_path))
    assert command.returncode == 2
    assert command.stderr.startswith("error: resnet_repro is installed without its repository")
    program = "import resnet_repro.compose as c; c.compose_run('experiment=cifar10_resnet20')"
    for done in (command, say("-c", program, PYTHONPATH=str(tmp_path))):
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
    *(f"resnet_repro.{name}" for name in ("evaluate", "export", "responses")),
    *(f"benchmarks.{name}" for name in ("gpu_check", "page")),
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
        (["resnet_repro.train", "resnet_repro.study", "resnet_repro.models.spec"], "torch numpy"),
    ],
    ids=["commands", "readers", "help"],
)
def test_what_need_not_be_imported_is_not(modules, absent):
    done = say("-c", IMPORTED, " ".join(modules), absent)
    assert done.stdout == "[]\n", done.stderr


def test_a_failure_in_a_sweep_stops_no_other_run_and_a_rerun_trains_nothing(tmp_path, train):
    small = (*SMALL, "seed=1", f"runs_dir={tmp_path}")
    sweep = ("-m", "item=fig1", *small)
    code, output = train(*sweep, "recipe.lr=1e30,0.2")  # a run of each rate, named by it
    assert code == 5, output
    assert "4 of 4 runs to train" in output
    names = [named(f"cifar10_plain{depth}", "recipe.lr=1e30") for depth in (20, 56)]
    for name, line in zip(names, output.splitlines()[-2:], strict=True):
        expected = f"failed: {name} smoke seed 1: the loss is not finite at iteration"
        assert line.startswith(expected)
    states = dict.fromkeys(names, "diverged")
    states |= {named(f"cifar10_plain{d}", "recipe.lr=0.2"): "finished" for d in (20, 56)}
    folders = map(RunFolder, tmp_path.glob("smoke/*/seed1"))
    assert {folder.path.parent.name: folder.status()["state"] for folder in folders} == states
    assert len([*tmp_path.glob("*/*/*/metrics.jsonl")]) == 4
    code, output = train(*sweep, "recipe.lr=0.2")
    assert (code, output.count(": skipped, ")) == (0, 2), output
    code, output = train(RUN, *small, "recipe.lr=1e30")  # alone
    assert code == 5
    assert [line[:38] for line in output.splitlines()] == ["error: the loss is not finite at itera"]


TRAIN = """
import pathlib, sys
from resnet_repro import hydra_cli
from resnet_repro.train import main
hydra_cli.REPOSITORY = pathlib.Path(sys.argv.pop(1))
main()
print([name for name in ("torch._dynamo", "sympy", "pandas") if name in sys.modules])
"""


def test_hydras_own_launcher_does_the_same_runs_and_imports_no_compiler(tmp_path):
    """Also where the repository's path is no plain word to Hydra."""
    args = ("-m", "item=fig1", *SMALL, f"runs_dir={tmp_path}")
    done = say("-c", TRAIN, f"{tmp_path}/a (1), ü", *args, "hydra/launcher=basic")
    assert done.returncode == 0, done.stderr
    found = {path.parent.name for path in tmp_path.glob("smoke/*/seed0")}
    assert found == {named("cifar10_plain20"), named("cifar10_plain56")}
    assert done.stdout.splitlines()[-1] == "[]", "seconds of every start"


@pytest.mark.usefixtures("few", "coarse_figures")
def test_figure_one_from_nothing_then_again_without_training(tmp_path, run_script, capsys):
    kept = {*SMALL} - {"model.depth=8", "profile=smoke", "recipe.batch_size=16"}
    args = ("--profile", "smoke", "--out", f"{tmp_path}/figures", *kept, "recipe.batch_size=4")

    def fig1(*more):
        run_script("fig1", *args, f"runs_dir={tmp_path}/runs", *more)
        return capsys.readouterr()

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


def test_a_signal_loses_nothing(tmp_path):
    args = (RUN, *SMALL, f"runs_dir={tmp_path}", "recipe.max_iters=60", "recipe.milestones=[]")
    args += ("trainer.checkpoint_every_iters=10", "evaluation.every_iters=60", "name=stopped")
    folder = RunFolder(tmp_path / "smoke" / "stopped" / "seed0")
    command = [sys.executable, "-m", "resnet_repro.train", *args]
    process = subprocess.Popen(command, cwd=REPO, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 120
    while folder.status().get("iter", 0) < 20:
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < until
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, output = process.communicate(timeout=120)
    assert (process.returncode, folder.status()["state"]) == (75, "preempted"), output
    assert "saving after this iteration" in output
    assert do(make_job(*args)) == "finished"
    trained = [record["iter"] for record in folder.metrics() if record["kind"] == "train"]
    assert trained == list(range(2, 61, 2))
    assert folder.status()["state"] == "finished"
