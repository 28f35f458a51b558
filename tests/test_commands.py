"""The real commands, as a user says them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from resnet_repro.runs.folder import RunFolder

REPO = Path(__file__).resolve().parents[1]
SMALL = (
    "data=synthetic",
    "model.depth=8",
    "recipe.batch_size=16",
    "evaluation.clean_train_images=100",
    "trainer.threads=1",
)


def say(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        cwd=REPO,
        env=os.environ | more,
        capture_output=True,
        text=True,
        timeout=300,
    )


def train(*words: str) -> subprocess.CompletedProcess[str]:
    return say("-m", "resnet_repro.train", *words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("experiment=cifar10_plain20", "recipe.lrr=1"), "unknown option 'recipe.lrr'; did you"),
        (("experiment=cifar10_plain20", "recipe.lr=-1"), "recipe.lr=-1: must be a finite number"),
        (("experiment=cifar10_plain21",), "experiment=cifar10_plain21: must be one of"),
        (("experiment=cifar10_plain20", "seed=0,1"), "add -m to sweep"),
        (("-m", "item=fig9"), "item=fig9: must be one of blocks, claims"),
        (("-m", "item=fig1", "seed=0,-1"), "seed=-1: must be an integer in"),
    ],
)
def test_bad_words_are_refused_in_one_line_before_anything_is_written(
    tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    done = train(*words, f"runs_dir={tmp_path}/runs")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert message in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "module", ["train", "items.command", "compose", "items.fig6", "runs.folder"]
)
def test_no_torch_before_it_is_needed(module: str) -> None:
    """--help, refusals and drawing do not pay for torch's import."""
    code = f"import sys, resnet_repro.{module}; sys.exit('torch' in sys.modules)"
    assert say("-c", code).returncode == 0


def test_an_impossible_device_is_refused_in_one_line(tmp_path: Path) -> None:
    done = train(
        "experiment=cifar10_plain20", "profile=smoke", *SMALL, f"runs_dir={tmp_path}",
        "trainer.precision=tf32", "trainer.device=cpu",
    )  # fmt: skip
    assert done.returncode == 2
    assert "error: trainer.precision=tf32: needs a CUDA device" in done.stderr
    assert "Traceback" not in done.stderr


def test_sweep_trains_each_once_and_saying_it_again_trains_nothing(tmp_path: Path) -> None:
    words = ("-m", "item=fig1", "profile=smoke", *SMALL, f"runs_dir={tmp_path}", "seed=0,1")
    done = train(*words)
    assert done.returncode == 0, done.stderr
    runs = sorted(path.parent for path in tmp_path.glob("*/*/*/metrics.jsonl"))
    assert [str(path.relative_to(tmp_path)) for path in runs] == [
        f"smoke/cifar10_plain{depth}/seed{seed}" for depth in (20, 56) for seed in (0, 1)
    ]
    again = train(*words)
    assert again.returncode == 0
    assert again.stderr.count(": skipped, ") == 4


def test_one_failure_is_told_at_the_end_and_stops_no_other(tmp_path: Path) -> None:
    words = ("-m", "experiment=cifar10_plain20", "profile=smoke", *SMALL, f"runs_dir={tmp_path}")
    done = train(*words, "recipe.lr=1e30,0.1", "name=lr${recipe.lr}")
    assert done.returncode == 5, done.stderr
    assert "2 of 2 runs to train: about" in done.stderr
    told = done.stderr.splitlines()[-1]
    assert told.startswith("failed: lr1e+30 smoke seed 0: the loss is not finite at iteration")
    states = {
        path.parent.name: RunFolder(path).status()["state"]
        for path in tmp_path.glob("smoke/*/seed0")
    }
    assert states == {"lr1e+30": "diverged", "lr0.1": "finished"}


def test_hydras_own_launcher_does_the_same_runs(tmp_path: Path) -> None:
    done = train(
        "-m", "item=fig1", "profile=smoke", *SMALL, f"runs_dir={tmp_path}",
        "hydra/launcher=basic", f"hydra.sweep.dir={tmp_path}/sweep",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert {path.parent.name for path in tmp_path.glob("smoke/*/seed0")} == {
        "cifar10_plain20",
        "cifar10_plain56",
    }


def figure(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return say(
        "experiments/fig1.py", "--profile", "smoke", "--out", f"{root}/figures", *words,
        *(word for word in SMALL if word != "model.depth=8"), f"runs_dir={root}/runs",
    )  # fmt: skip


def test_figure_one_from_nothing_then_again_without_training(tmp_path: Path) -> None:
    empty = figure(tmp_path, "--no-train")
    assert empty.returncode == 1
    assert "fig1: nothing to draw" in empty.stderr
    first = figure(tmp_path)
    assert first.returncode == 0, first.stderr
    assert "2 of 2 runs to train: about" in first.stderr
    assert "all runs" in first.stderr
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {"fig1.png", "fig1.svg"}
    assert "C2 " in first.stdout
    assert "training error of plain-" in first.stdout
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/*/*/*")}
    second = figure(tmp_path)
    assert second.returncode == 0
    assert "to train" not in second.stderr
    assert second.stdout == first.stdout
    assert stamps == {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/*/*/*")}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGKILL])
def test_signals_lose_nothing(tmp_path: Path, number: signal.Signals) -> None:
    words = (
        "experiment=cifar10_plain20", "profile=smoke", *SMALL, f"runs_dir={tmp_path}",
        "recipe.max_iters=400", "recipe.milestones=[]", "trainer.checkpoint_every_iters=20",
        "evaluation.every_iters=400",
    )  # fmt: skip
    folder = RunFolder(tmp_path / "smoke" / "cifar10_plain20" / "seed0")
    process = subprocess.Popen(
        [sys.executable, "-m", "resnet_repro.train", *words],
        cwd=REPO,
        stderr=subprocess.PIPE,
        text=True,
    )
    until = time.monotonic() + 120
    while folder.status().get("iter", 0) < 40:
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < until
        time.sleep(0.02)
    process.send_signal(number)
    _, said = process.communicate(timeout=120)
    status = folder.status()
    if number == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
        assert status["state"] == "running"
    else:
        assert process.returncode == 75, said
        assert status["state"] == "preempted"
        assert "saving after this iteration" in said
    done = train(*words)
    assert done.returncode == 0, done.stderr
    records = folder.metrics()
    assert [r["iter"] for r in records if r["kind"] == "train"] == list(range(2, 401, 2))
    assert json.loads((folder.path / "status.json").read_text())["state"] == "finished"
