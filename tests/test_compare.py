"""Sweeps: which runs belong together, their table, figure and command."""

import re

import pandas as pd
import pytest

import resnet_repro.analysis as ra
from fabricate import fabricate
from refusals import refused
from resnet_repro.analysis.load import Logged
from resnet_repro.analysis.logged_run import load_run
from resnet_repro.compare import find_sweeps, main, settings, sweep_figure, swept_keys
from resnet_repro.runs.folder import RunFolderError

pytestmark = pytest.mark.usefixtures("coarse_figures")
RATES = {0.01: 40.0, 0.05: 30.0, 0.1: 28.0, 0.5: 60.0}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    runs = tmp_path_factory.mktemp("results") / "runs"
    for rate, test in RATES.items():
        name, changes = f"cifar10_resnet20-lr{rate}", {"recipe.lr": rate}
        if rate == 0.1:
            name, changes = "cifar10_resnet20", {}
        how = {"profile": "quick", "name": name, "changes": changes}
        for seed in range(3):
            error = test + seed
            fabricate(runs, "ResNet-20", seed=seed, test=error, train=error - 2, **how)
    nesterov = {"recipe.nesterov": True}
    name = "cifar10_resnet20-nesterovTrue"
    fabricate(runs, "ResNet-20", profile="quick", name=name, changes=nesterov)
    fabricate(runs, "plain-20", profile="quick")
    return runs


@pytest.fixture
def root(made, monkeypatch):
    monkeypatch.setenv("RESNET_REPRO_RUNS", str(made))
    return made


def test_a_sweep_is_the_runs_that_differ_in_that_key_alone(root):
    runs = Logged(root).runs
    found = find_sweeps(runs, "recipe.lr")
    assert len(found) == 12
    assert swept_keys(found) == ["recipe.lr"]
    both = {"cifar10_resnet20", "cifar10_resnet20-nesterovTrue"}
    assert {run.name for run in find_sweeps(runs, "recipe.nesterov")} == both
    assert find_sweeps(runs, "data.pad") == []
    assert [len(group) for group in settings(found)] == [3] * 4


def test_the_tidy_table(root):
    table = ra.sweep("recipe.lr")
    assert len(table) == 12
    means = table.groupby("recipe.lr")["test error"].mean()
    assert means.to_dict() == pytest.approx({rate: test + 1 for rate, test in RATES.items()})
    assert set(table["net"]) == {"ResNet-20"}
    assert ra.sweep("recipe.momentum").empty


def test_the_figure_draws_every_seed_mean_and_interval(root):
    left, right = sweep_figure(find_sweeps(Logged(root).runs, "recipe.lr"), ["recipe.lr"]).axes
    dots = [line for line in left.lines if line.get_marker() == "."]
    assert sorted(y for line in dots for y in line.get_ydata()) == pytest.approx(
        sorted(test + seed for test in RATES.values() for seed in range(3))
    )
    assert len(left.containers) == 4  # error bars
    means = [container.lines[0] for container in left.containers]
    assert [line.get_markerfacecolor() == "white" for line in means] == [True, True, False, True]
    assert left.get_xscale() == "log"
    assert len(right.lines) == 4
    assert len(right.collections) == 4  # bands over seeds


def test_each_value_of_a_second_key_has_a_line_of_its_own(tmp_path):
    grid = [(rate, momentum) for rate in (0.05, 0.1) for momentum in (0.8, 0.9)]
    for rate, momentum in grid:
        changes = {"recipe.lr": rate, "recipe.momentum": momentum}
        how = {"profile": "quick", "name": f"lr{rate}-momentum{momentum}", "changes": changes}
        fabricate(tmp_path, "ResNet-20", **how)
    left, right = sweep_figure(Logged(tmp_path).runs, ["recipe.lr"]).axes
    assert {text.get_text() for text in left.texts} == {"momentum 0.8", "momentum 0.9"}
    assert len(set(right.get_legend_handles_labels()[1])) == 4


def test_curves_of_two_schedules_are_on_one_axis(tmp_path):
    both = [load_run(fabricate(tmp_path, "plain-20", profile=name)) for name in ("short", "paper")]
    *_, right = sweep_figure(both, ["recipe.max_iters"]).axes
    assert [line.get_xdata()[-1] for line in right.lines] == [6.4, 0.32]


def test_the_command_writes_figure_and_table(root, tmp_path, call, capsys):
    out = ["--figures", tmp_path / "f", "--tables", tmp_path / "t"]
    assert call(main, "recipe.lr", *out) == 0
    printed = capsys.readouterr().out
    assert "| 0.05 " in printed
    assert "as the experiment" in printed
    figures = sorted(path.name for path in (tmp_path / "f").iterdir())
    assert figures == ["compare_lr.png", "compare_lr.svg"]
    table = pd.read_csv(tmp_path / "t" / "compare_lr.csv").set_index("recipe.lr")
    assert table.loc[0.5, "test error"] == pytest.approx(61.0)
    assert table.loc[0.5, "low"] == pytest.approx(61.0 - 4.302653 / 3**0.5, abs=1e-3)
    assert (table["seeds"] == 3).all()
    # folders instead of keys: whatever they differ in
    folders = [root / "quick" / f"cifar10_resnet20{end}" for end in ("", "-nesterovTrue")]
    assert call(main, *folders, *out) == 0
    table = pd.read_csv(tmp_path / "t" / "compare_nesterov.csv")
    assert table["seeds"].tolist() == [3, 1]
    assert table["sd"].isna().tolist() == [False, True]


@pytest.mark.parametrize("words", [["recipe.lr"], ["{root}/quick"]])
def test_runs_that_did_not_finish_are_named_below_a_sweep(
    tmp_path, words, monkeypatch, call, capsys
):
    monkeypatch.setenv("RESNET_REPRO_RUNS", str(tmp_path))
    for rate, seed, state in ((0.1, 0, "finished"), (0.5, 0, "finished"), (0.5, 1, "diverged")):
        how = {"profile": "quick", "name": f"lr{rate}", "changes": {"recipe.lr": rate}}
        fabricate(tmp_path, "ResNet-20", seed=seed, state=state, **how)
    out = ["--figures", tmp_path / "f", "--tables", tmp_path / "t"]
    call(main, *(word.format(root=tmp_path) for word in words), *out)
    assert "Not finished, in no number: quick/lr0.5/seed1 (diverged)." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "output"),
    [
        (["recipe.rl"], "recipe.rl: no folder and no key to compare; did you mean 'recipe.lr'?"),
        (["data.pad"], "no finished runs of one experiment differ in data.pad alone"),
        (["{root}/quik"], "{root}/quik: no such folder"),
        (["{root}/quick/cifar10_plain20"], "1 finished runs, which differ in nothing"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused_in_one_line(root, args, output, call, capsys):
    assert call(main, *(word.format(root=root) for word in args)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert output.format(root=root) in line


def test_a_bad_run_does_not_stop_a_comparison_but_a_folder_that_cannot_be_written_does(
    root, tmp_path, call, capsys
):
    bad = root / "quick" / "cifar10_resnet20-lr0.5" / "seed1" / "meta.json"
    bad.rename(bad.with_name("away"))
    call(main, "recipe.lr", "--figures", tmp_path, "--tables", tmp_path)
    bad.with_name("away").rename(bad)
    assert str(bad) in capsys.readouterr().err
    table = pd.read_csv(tmp_path / "compare_lr.csv").set_index("recipe.lr")
    assert table["seeds"].to_dict() == {0.01: 3, 0.05: 3, 0.1: 3, 0.5: 2}
    (tmp_path / "file").touch()
    assert call(main, "recipe.lr", "--figures", tmp_path / "file" / "x") == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"error: {tmp_path}/file/x: cannot be written (")


def test_runs_of_a_notebook_have_variants_and_figures_leave_them_out(root, capsys):
    runs = ra.runs("quick")
    assert len(runs) == 14
    assert {run.name for run in ra.runs(where={"recipe.lr": 0.05})} == {"cifar10_resnet20-lr0.05"}
    figure = ra.fig6(runs)
    assert figure.axes
    said = "left out: quick/cifar10_resnet20-lr0.05 seeds 0-2: recipe.lr=0.05, not 0.1"
    assert said in capsys.readouterr().err
    table = ra.table6(runs).set_index("net")
    assert table.loc["ResNet-20", "test error"] == pytest.approx(29.0)
    assert table.loc["ResNet-20", "seeds"] == 3
    assert callable(ra.fig4)


@pytest.mark.parametrize(
    ("call", "output"),
    [
        (lambda: ra.sweep("recipe.rl"), "recipe.rl: did you mean 'recipe.lr'?"),
        (lambda: ra.runs("quik"), "no profile is called quik; did you mean 'quick'?"),
        (lambda: ra.runs("quick", ["cifar10_resent20"]), "did you mean 'cifar10_resnet20'?"),
        (lambda: ra.runs(where={"lr": 0.1}), "lr: did you mean 'recipe.lr'?"),
        (lambda: ra.run("quick", "no"), "no run in quick is called no; allowed: cifar10_plain20"),
        (lambda: ra.run("quik", "nope"), "no profile is called quik; did you mean 'quick'?"),
        (lambda: ra.run("quick", "cifar10_plain20", 7), "is called seed7; did you mean 'seed0'?"),
    ],
)
def test_a_misspelt_name_is_answered_in_one_line(root, call, output):
    assert root.exists()
    refused(call, match=re.escape(output), kind=(ValueError, RunFolderError))
