"""A run made again by the command in its folder gives the same numbers; all deviations run."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from resnet_repro.conf import load_item
from resnet_repro.runs.folder import RunFolder, find_runs

REPO = Path(__file__).resolve().parents[1]
CHANGED = ("data=synthetic", "model.depth=8", "evaluation.clean_train_images=100")
SMALL = (*CHANGED, "profile=smoke", "trainer.threads=1")


def say(*words: str) -> subprocess.CompletedProcess[str]:
    """Say a command of the project from its root."""
    path = os.pathsep.join(filter(None, [str(REPO / "src"), os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(
        [sys.executable, *words],
        cwd=REPO,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


def numbers(run: RunFolder) -> list[dict[str, Any]]:
    """What was logged, without the seconds it took."""
    return [{k: v for k, v in record.items() if k != "time"} for record in run.metrics()]


def test_the_command_in_a_run_gives_the_same_metrics_again(tmp_path: Path) -> None:
    asked = ("experiment=cifar10_resnet20", *SMALL, "recipe.batch_size=16", "seed=3")
    say("-m", "resnet_repro.train", *asked, "trainer.deterministic=true", f"runs_dir={tmp_path}/a")
    (first,) = find_runs(tmp_path / "a")
    before = {path.name: path.read_bytes() for path in first.path.glob("*.csv")}
    told = numbers(first)
    assert len(told) > 5
    assert {"gradients.csv", "responses.csv", "signal.csv"} <= before.keys()

    (tmp_path / "a").rename(tmp_path / "before")  # or the second command would skip it
    python, *words = shlex.split(first_meta(tmp_path / "before")["command"])
    assert python == "python"
    say(*words)
    (again,) = find_runs(tmp_path / "a")
    assert numbers(again) == told
    assert {path.name: path.read_bytes() for path in again.path.glob("*.csv")} == before


def first_meta(root: Path) -> dict[str, Any]:
    (path,) = root.glob("*/*/*/meta.json")
    meta: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return meta


def test_every_deviation_but_the_split_of_cifar_trains_and_is_drawn(tmp_path: Path) -> None:
    listed = load_item("deviations").experiments
    # Synthetic images have no 45k split.
    experiments = [name for name in listed if not name.endswith("_45k")]
    assert len(experiments) == len(listed) - 2
    sweep = f"experiment={','.join(experiments)}"
    say("-m", "resnet_repro.train", "-m", sweep, *SMALL, f"runs_dir={tmp_path}/runs")
    done = say(
        "experiments/deviations.py", "--profile", "smoke", "--no-train",
        "--out", f"{tmp_path}/figures", f"runs_dir={tmp_path}/runs", *CHANGED,
    )  # fmt: skip
    assert "no finished smoke run of cifar10_resnet56_45k, cifar10_plain56_45k" in done.stderr
    table = pd.read_csv(tmp_path / "tables" / "deviations.csv")
    assert len(table) == len(experiments)
    baselines = table[table["change"] == "as the paper"]
    assert baselines["net"].tolist() == ["ResNet-8", "plain-8"]
    assert table["test diff"].notna().sum() == len(experiments) - 2
    # A key in its own words means that nothing was said about it.
    assert not [change for change in table["change"] if "=" in change]
    assert (tmp_path / "figures" / "deviations.png").stat().st_size > 10_000
