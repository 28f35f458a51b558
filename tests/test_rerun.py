"""A run made again by the command in its folder gives the same numbers; all deviations run."""

import runpy
import shlex
import sys
from pathlib import Path

import pandas as pd
import pytest

from ranks import fingerprint
from resnet_repro.conf import load_item
from resnet_repro.runs.folder import find_runs
from resnet_repro.train import main

pytestmark = pytest.mark.usefixtures("few_images")
REPO = Path(__file__).resolve().parents[1]
CHANGED = ("data=synthetic", "model.depth=8", "evaluation.clean_train_images=50",
           "recipe.max_iters=2", "recipe.milestones=[1]", "evaluation.every_iters=2")  # fmt: skip
SMALL = (*CHANGED, "profile=smoke", "trainer.threads=1")


def test_the_command_in_a_run_gives_the_same_numbers_again(tmp_path, monkeypatch):
    words = ["experiment=cifar10_resnet20", *SMALL, "seed=3", f"runs_dir={tmp_path}/a"]
    found = []
    for name in ("first", "again"):
        monkeypatch.setattr(sys, "argv", ["train", *words])
        main()
        (run,) = find_runs(tmp_path / "a")
        found.append(fingerprint(run))
        command, words = (said := shlex.split(run.meta()["command"]))[:3], said[3:]
        assert command == ["python", "-m", "resnet_repro.train"]
        (tmp_path / "a").rename(tmp_path / name)  # or the next would skip it
    assert found[1] == found[0]
    assert len(found[0]["metrics"]) == 3
    assert all(found[0][table] for table in ("gradients", "responses", "signal"))


def test_every_deviation_but_the_split_of_cifar_trains_and_is_drawn(tmp_path, monkeypatch, capsys):
    listed = load_item("deviations").experiments
    # Synthetic images have no 45k split.
    experiments = [name for name in listed if not name.endswith("_45k")]
    assert len(experiments) == len(listed) - 2
    runs, sweep = f"runs_dir={tmp_path}/runs", f"experiment={','.join(experiments)}"
    unseen = ("probes.signals=false", "probes.response_images=0")
    monkeypatch.setattr(sys, "argv", ["train", "-m", sweep, *SMALL, *unseen, runs])
    main()
    script = str(REPO / "experiments" / "deviations.py")
    drawing = [script, "--profile", "smoke", "--no-train", "--out", f"{tmp_path}/figures"]
    monkeypatch.setattr(sys, "argv", [*drawing, runs, *CHANGED])
    runpy.run_path(script, run_name="__main__")
    missing = "no finished smoke run of cifar10_resnet56_45k, cifar10_plain56_45k"
    assert missing in capsys.readouterr().err
    table = pd.read_csv(tmp_path / "tables" / "deviations.csv")
    assert len(table) == len(experiments)
    baselines = table[table["change"] == "as the paper"]
    assert baselines["net"].tolist() == ["ResNet-8", "plain-8"]
    assert table["test diff"].notna().sum() == len(experiments) - 2
    # A key in its own words means that nothing was said about it.
    assert not [change for change in table["change"] if "=" in change]
    assert (tmp_path / "figures" / "deviations.png").stat().st_size > 10_000
