"""Items from the command line: which runs they are drawn from, and what they say of the others."""

from functools import partial

import pandas as pd
import pytest

from fabricate import fabricate
from resnet_repro.items import DRAWINGS, command
from resnet_repro.items.command import main

pytestmark = pytest.mark.usefixtures("coarse_figures")
NETS = ("plain-20", "plain-56", "ResNet-20", "ResNet-56")
SHORTER = {"recipe.max_iters": 100, "recipe.milestones": [50, 75], "evaluation.every_iters": 20}


@pytest.fixture
def root(tmp_path):
    """Runs of four nets, and beside them what must not be averaged with them."""
    runs = tmp_path / "runs"
    for label in NETS:
        fabricate(runs, label, profile="quick", probes=True)
    fabricate(runs, "plain-20", profile="quick", seed=1, changes={"recipe.lr": 0.001})
    fabricate(runs, "ResNet-20", profile="quick", seed=1, changes=SHORTER)
    fabricate(runs, "plain-56", profile="quick", seed=1, changes={"model.depth": 8})
    fabricate(runs, "ResNet-56", profile="quick", seed=1).joinpath("meta.json").unlink()
    name = "cifar10_resnet56-lr0.05"
    fabricate(runs, "ResNet-56", profile="quick", name=name, changes={"recipe.lr": 0.05})
    return runs


@pytest.fixture
def make(root, call):
    """Draw an item; return the exit code."""

    def make(item, *args):
        if item not in DRAWINGS:
            args = (f"runs_dir={root}", "--no-train", *args, "trainer.threads=1")  # words anywhere
        return call(partial(main, item), "--out", root.parent / "out" / "figures", *args)

    return make


@pytest.mark.parametrize("item", ["fig1", "fig7", "table6"])
def test_an_item_is_drawn_from_what_stands_and_the_rest_is_named(item, root, make, capsys):
    assert make(item) == 0
    out, err = capsys.readouterr()
    assert f"{item}." in out
    assert "left out: quick/cifar10_plain20 seed 1: recipe.lr=0.001, not 0.1; stands for" in err
    assert "left out: quick/cifar10_plain56 seed 1: model.depth=8, not 56" in err
    if item != "fig1":
        assert "recipe.max_iters=100, not 400" in err
        assert "left out: quick/cifar10_resnet56-lr0.05 seed 0: recipe.lr=0.05, not 0.1" in err
        assert f"left out: {root}/quick/cifar10_resnet56/seed1/meta.json: cannot be read" in err
    if item == "table6":
        table = pd.read_csv(root.parent / "out" / "figures" / "table6.csv").set_index("net")
        assert table.loc[table["seeds"] > 0, "seeds"].to_dict() == dict.fromkeys(NETS, 1)


def test_without_the_runs_that_are_asked_for_nothing_is_drawn(root, make, capsys):
    assert make("fig1", "recipe.lr=0.7") == 1
    assert capsys.readouterr().err.endswith("fig1: nothing to draw\n")
    assert make("highway") == 1  # instead of an empty axis
    err = capsys.readouterr().err
    assert "make highway PROFILE=quick trains what is missing" in err
    assert err.endswith("highway: nothing to compare\n")
    assert not (root.parent / "out").exists()


def test_seeds_are_trained_at_the_profile_that_is_drawn(root, call, monkeypatch):
    trained = []
    monkeypatch.setattr(command, "train_missing", lambda _, *how: trained.append(how[:2]))
    for label in NETS[:2]:
        fabricate(root, label, profile="short")
    assert call(partial(main, "fig1"), "--seeds", 2, "--out", root, f"runs_dir={root}") == 0
    assert trained == [("short", 2)]


def test_an_output_folder_that_cannot_be_written_is_one_line(root, make, capsys):
    (root.parent / "out").write_text("")
    for item in ("fig1", "fig2", "table1", "table6"):
        assert make(item) == 2
        last = capsys.readouterr().err.splitlines()[-1]
        assert last == f"error: {root.parent}/out/figures: cannot be written (Not a directory)"
