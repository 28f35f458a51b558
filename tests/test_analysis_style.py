"""The look of all figures: no traces, equal bytes, no training code behind them."""

import subprocess
import sys

import matplotlib as mpl
import pytest

from fabricate import fabricate
from resnet_repro.analysis import style
from resnet_repro.analysis.load import load_runs
from resnet_repro.items import ITEMS
from resnet_repro.items.fig1 import fig1
from resnet_repro.items.fig6 import fig6
from resnet_repro.items.fig7 import fig7
from resnet_repro.items.gradients import gradient_figure


@pytest.mark.parametrize("draw", [fig1, fig6, fig7, gradient_figure])
def test_no_figure_needs_runs(draw, tmp_path):
    png, svg = style.save(draw([]), "figure", tmp_path)
    assert png.stat().st_size > 1_000
    assert svg.read_text().startswith("<?xml")


def test_saved_figures_are_the_same_bytes(tmp_path):
    for label in ("plain-20", "plain-56"):
        fabricate(tmp_path / "runs", label, profile="quick", probes=True)
    runs = load_runs(tmp_path / "runs")
    first = ITEMS["fig1"].draw(runs, tmp_path / "a")
    second = ITEMS["fig1"].draw(runs, tmp_path / "b")
    assert [path.name for path in first] == ["fig1.png", "fig1.svg"]
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]
    assert "<dc:date>" not in first[1].read_text()


def test_style_leaves_nothing_behind_and_colours_of_one_figure_differ():
    before = dict(mpl.rcParams)
    with style.style():
        assert mpl.rcParams["svg.hashsalt"] == "resnet_repro"
    assert dict(mpl.rcParams) == before
    for depths in ((20, 32, 44, 56, 110, 1202), (18, 34, 50, 101, 152)):
        assert len({style.depth_colour(depth) for depth in depths}) == len(depths)


def test_analysis_pulls_in_no_training_code():
    code = (
        "import sys, pkgutil, importlib, resnet_repro.analysis as a\n"
        "names = [m.name for m in pkgutil.iter_modules(a.__path__)]\n"
        "[importlib.import_module('resnet_repro.analysis.' + name) for name in names]\n"
        "print(len(names), [m for m in ('torch', 'hydra', 'omegaconf', 'wandb', 'torchvision',\n"
        "    'matplotlib.pyplot') if m in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    count, _, found = done.stdout.partition(" ")
    assert int(count) >= 10
    assert found.strip() == "[]"
