"""What the figures show and say, read from their artists; Table 1; the style of all."""

import re
import shutil
import sys
from itertools import combinations
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from fabricate import fabricate, imagenet_run
from resnet_repro.analysis import counted, paper, style
from resnet_repro.analysis.curves import bin_width, mean_curve, with_gaps
from resnet_repro.analysis.load import load_runs
from resnet_repro.analysis.logged_run import load_run
from resnet_repro.items import DRAWINGS, gradients
from resnet_repro.items.command import main
from resnet_repro.items.fig1 import fig1
from resnet_repro.items.fig2_fig5 import fig2, fig5
from resnet_repro.items.fig3 import Cell, cells, fig3
from resnet_repro.items.fig4 import fig4
from resnet_repro.items.fig6 import fig6
from resnet_repro.items.fig7 import fig7
from resnet_repro.items.gradients import end_ratios, gradient_figure
from resnet_repro.items.table1 import table1
from resnet_repro.items.table6 import table6

NETS = ("plain-18", "plain-34", "ResNet-18 A", "ResNet-34 A")
FIG6 = [f"plain-{depth}" for depth in (20, 32, 44, 56, 110)]
FIG6 += [f"ResNet-{depth}" for depth in (20, 32, 44, 56, 110, 1202)]


def pair(root, profile, seeds=1):
    for seed in range(seeds):
        fabricate(root, "plain-20", profile=profile, seed=seed)
        fabricate(root, "plain-56", profile=profile, seed=seed)
    return load_runs(root)


def imagenet_runs(root, data="imagenet", nets=NETS, **more):
    for label in nets:
        imagenet_run(root, label, data=data, **more)
    return load_runs(root)


@pytest.fixture(scope="module")
def paper_pair(tmp_path_factory):
    return pair(tmp_path_factory.mktemp("paper"), "paper", seeds=3)


@pytest.fixture(scope="module")
def quick_pair(tmp_path_factory):
    return pair(tmp_path_factory.mktemp("quick"), "quick", seeds=2)


def caption(figure):
    (text,) = [t for t in figure.texts if t.get_gid() == "caption"]
    return text.get_text().replace("\n", " ")


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts() if text.get_text()]


def curves_of(axes):
    labels = [str(line.get_label()) for line in axes.lines]
    return [label for label in labels if not label.startswith("_")]


def lines_of(axes):
    return {str(line.get_label()): line for line in axes.lines}


def lines_as(axes, look):
    return [line for line in axes.lines if line.get_linewidth() == look["linewidth"]]


def errors(line):
    return np.asarray(line.get_ydata(), float)


def texts(axes):
    return [text.get_text() for text in axes.texts]


def notes_of(axes):
    return " ".join(texts(axes)).replace("\n", " ")


def test_fig1_of_the_paper_profile_lies_over_the_papers_which_is_thin_pale_and_below(paper_pair):
    figure = fig1(paper_pair)
    left, right = figure.axes
    ours = ["plain-20, 3 seeds, paper profile", "plain-56, 3 seeds, paper profile"]
    papers = ["plain-20 in the paper", "plain-56 in the paper"]
    for axes in (left, right):
        assert sorted(curves_of(axes)) == sorted(ours + papers)
        assert axes.get_ylim() == (0.0, 20.0)
        assert axes.get_xlim() == (0.0, 6.4)
        assert len(axes.collections) == 2  # a band per net
        assert axes.get_xlabel() == "iter. (1e4)"
    assert (left.get_title(), right.get_title()) == ("training error", "test error")
    assert sorted(legend(figure)) == sorted(ours + papers)
    text = caption(figure)
    assert "CIFAR-10, paper profile (64,000 iterations of 128); seeds 0-2;" in text
    assert "2 CPU cores, AMD EPYC, bf16" in text
    assert "lowest to highest seed" in text
    assert "not drawn" not in text
    our, their = lines_of(right)[ours[0]], lines_of(right)[papers[0]]
    tests = [run.curve("test").to_numpy() for run in paper_pair if run.depth == 20]
    np.testing.assert_allclose(errors(our), np.mean(tests, axis=0))
    np.testing.assert_allclose(np.asarray(our.get_xdata(), float), np.arange(1, 65) / 10)
    known = errors(their)
    assert known[~np.isnan(known)][-1] == paper.curve(1, "plain-20", "test").iloc[-1]
    assert our.get_linewidth() > 2 * their.get_linewidth()
    assert our.get_zorder() > their.get_zorder()
    assert to_hex(our.get_color()) == style.depth_colour(20).lower()
    assert to_hex(their.get_color()) == to_hex(style.pale(style.depth_colour(20)))


def test_fig1_of_another_profile_says_that_the_paper_is_not_drawn(quick_pair):
    one_seed = [run for run in quick_pair if run.seed == 0]
    figure = fig1(one_seed)
    for axes in figure.axes:
        assert curves_of(axes) == [f"plain-{n}, 1 seed, quick profile" for n in (20, 56)]
        assert len(axes.collections) == 0  # one seed has no band
        assert axes.get_xlim() == (0.0, 400.0)
        assert axes.get_xlabel() == "iteration"
        low, high = axes.get_ylim()
        assert low <= min(np.nanmin(errors(line)) for line in axes.lines[:2])
        assert high > 76.0
        drops = [x for x in axes.lines if x.get_linestyle() == ":"]
        assert [np.asarray(x.get_xdata(), float)[0] for x in drops] == [200, 300]
    text = caption(figure)
    assert "quick profile (400 iterations of 128); seed 0;" in text
    assert "The paper's curves are not drawn (quick profile;" in text
    assert f"axis 0 to 20 %; here {low:g} to {high:g} %" in text


def test_fig1_reports_what_is_missing_mixed_or_unfinished(tmp_path):
    fabricate(tmp_path / "one", "plain-20", profile="quick", state="preempted", until=200)
    figure = fig1(load_runs(tmp_path / "one", finished_only=False))
    assert "no finished runs: plain-56" in notes_of(figure.axes[0])
    assert "plain-20 seed 0 is not finished (iteration 200)." in caption(figure)
    fabricate(tmp_path / "two", "plain-20", profile="quick", precision="fp32")
    fabricate(tmp_path / "two", "plain-20", profile="quick", precision="fp32", seed=4)
    often = {"trainer.log_every_iters": 10}
    fabricate(tmp_path / "two", "plain-56", profile="quick", seed=1, changes=often)
    text = caption(fig1(load_runs(tmp_path / "two")))
    assert "of each 10 or 20 iterations" in text
    assert "Mixed precision:" in text
    assert "plain-20 seeds 0, 4, plain-56 seed 1" in text


def test_nothing_covers_anything(paper_pair, quick_pair, tmp_path):
    imagenet_runs(tmp_path)
    two_data_sets = imagenet_runs(tmp_path, "tiny_imagenet")
    for figure in (fig1(paper_pair), fig1(quick_pair), fig4(two_data_sets), fig6(paper_pair)):
        figure.draw_without_rendering()
        (text,) = [t for t in figure.texts if t.get_gid() == "caption"]
        below, legend_box = text.get_window_extent(), figure.legends[0].get_window_extent()
        panels = [box for axes in figure.axes if (box := axes.get_tightbbox()) is not None]
        assert below.y0 >= 0
        assert min(below.x0, legend_box.x0) >= 0
        assert max(below.x1, legend_box.x1) <= figure.bbox.x1
        assert below.y1 <= legend_box.y0 + 1
        assert all(legend_box.y1 <= box.y0 + 1 for box in panels)
        for one, other in combinations(panels, 2):
            assert not one.shrunk(0.999, 0.999).overlaps(other)


def test_fig6_has_both_curves_of_each_net_or_what_is_missing_and_no_empty_third_panel(tmp_path):
    fabricate(tmp_path, "plain-20")
    figure = fig6(load_runs(tmp_path))
    left, middle = map(notes_of, figure.axes)
    assert "no finished runs: plain-32, plain-44, plain-56" in left
    assert "no finished runs ResNet-20, ResNet-32, ResNet-44" in middle
    assert "No third panel: no finished runs of ResNet-110 and ResNet-1202." in caption(figure)
    for label in FIG6:
        fabricate(tmp_path, label)
    figure = fig6(load_runs(tmp_path))
    left, middle, right = figure.axes
    titles = ["plain nets", "residual nets", "residual nets, 110 and 1202 layers"]
    assert [axes.get_title() for axes in figure.axes] == titles
    for axes, nets, papers in ((left, 5, 4), (middle, 5, 5), (right, 2, 2)):
        assert len(curves_of(axes)) == 2 * (nets + papers)
        assert axes.get_ylim() == (0.0, 20.0)
    assert right.get_xlim() == (3.5, 6.4)
    assert "plain-110 ends at 65.0\N{NO-BREAK SPACE}%, above the axis" in notes_of(left)
    bold, thin = lines_as(middle, style.TEST), lines_as(middle, style.TRAIN)
    assert len(bold) == len(thin) == 5
    assert {line.get_linestyle() for line in bold} == {"-"}
    assert {line.get_linestyle() for line in thin} == {"--"}
    assert legend(figure)[:2] == ["20 layers", "test error"]


def test_fig7_draws_both_orders_over_the_paper(tmp_path):
    for label in ("plain-20", "ResNet-56", "ResNet-32"):
        fabricate(tmp_path, label, profile="quick", probes=True)
    figure = fig7(load_runs(tmp_path))
    above, below = figure.axes
    drawn = ["ResNet-56 in the paper", "ResNet-56, 1 seed"]
    drawn += ["plain-20 in the paper", "plain-20, 1 seed"]
    for axes in (above, below):
        assert sorted(curves_of(axes)) == drawn
        assert "no finished runs: plain-56, ResNet-20, ResNet-110" in notes_of(axes)
        assert axes.get_yscale() == "linear"
    residual, plain = (lines_of(below)[f"{net}, 1 seed"] for net in ("ResNet-56", "plain-20"))
    assert len(errors(residual)) == 55
    assert (np.diff(errors(residual)) <= 0).all()
    assert (residual.get_linestyle(), plain.get_linestyle()) == ("-", "--")
    assert "These nets were not trained as the paper's (quick profile)." in caption(figure)
    for seed, first in enumerate((10.0, 1.0)):  # one seed would hide the others, if not the mean
        layers = [first] + [1.0] * 54
        fabricate(tmp_path, "plain-56", profile="quick", seed=seed, responses=layers)
    figure = fig7(load_runs(tmp_path))
    assert {axes.get_yscale() for axes in figure.axes} == {"log"}
    assert "Logarithmic axes" in caption(figure)


def test_the_gradient_figure_has_first_over_last_layer_of_the_nets_that_logged_them(tmp_path):
    fabricate(tmp_path, "plain-56", profile="quick", probes=True)
    fabricate(tmp_path, "ResNet-56", profile="quick", probes=True)
    fabricate(tmp_path, "ResNet-20", profile="quick")  # logged none: not drawn
    figure = gradient_figure(load_runs(tmp_path))
    at_outputs, start, _end, _size, outputs, bare, scaled, _forward = figure.axes
    for axes in (at_outputs, start):
        assert curves_of(axes) == ["plain-56, 1 seed", "ResNet-56, 1 seed"]
    for axes in (outputs, bare, scaled):  # the weights did not grow
        assert errors(lines_of(axes)["plain-56, 1 seed"])[0] == pytest.approx(1200, rel=1e-3)
        assert axes.get_yscale() == "log"
    assert "Last logged iteration: 400." in caption(figure)


def test_the_growth_of_weights_is_taken_out_of_gradients(tmp_path):
    """Weights that grow tenfold behind a batch norm leave the net as it is, not its gradients."""
    norms = {it: [4.0] + [1.0] * 18 for it in (1, 100, 400)}
    path = fabricate(tmp_path, "plain-20", profile="quick", gradients=norms)
    table = pd.read_csv(path / "gradients.csv").astype({"grad_norm": float, "weight_norm": float})
    grown = (table["layer"] == 1) & (table["iter"] > 1)
    table.loc[grown, "weight_norm"] *= 10
    table.loc[grown, "grad_norm"] /= 10
    table.to_csv(path / "gradients.csv", index=False)
    (run,) = load_runs(tmp_path)
    bare, scaled = end_ratios(run), end_ratios(run, gradients.scaled_gradients)
    assert bare.tolist() == pytest.approx([4.0, 0.4, 0.4])
    assert scaled.tolist() == pytest.approx([4.0, 4.0, 4.0])
    assert end_ratios(run, gradients.bn_output_gradients) is None  # as in runs of an older version
    sizes = gradients.weights(run)
    assert sizes[1].tolist() == pytest.approx([10.01, 100.1, 100.1])  # before the first update


def test_training_curve_is_thinned_by_weighted_means(paper_pair, quick_pair):
    run, quick = paper_pair[0], quick_pair[0]
    assert (bin_width(run), bin_width(quick)) == (1_000, 20)
    thin = mean_curve([run], "train")["mean"]
    assert list(thin.index) == list(range(1_000, 65_000, 1_000))
    assert thin.loc[5_000] == pytest.approx(run.curve("train").loc[4_100:5_000].mean())
    assert len(mean_curve([quick], "train")) == 20


def test_no_line_bridges_what_the_paper_does_not_show():
    curve = paper.curve(1, "plain-56", "test", clipped=True)
    holes = with_gaps(curve)
    assert holes.isna().any()
    assert holes.dropna().equals(curve)


def test_columns_of_fig3_are_the_layers_of_the_nets():
    vgg = cells(counted.layers("VGG-19"), 224)
    assert [cell.text for cell in vgg].count("pool, /2") == 5
    assert vgg[:3] == [Cell("3x3 conv, 64", 224), Cell("3x3 conv, 64", 224), Cell("pool, /2", 112)]
    assert vgg[-4:] == [Cell("pool, /2", 7), *(Cell(f"fc {n}", 1) for n in (4096, 4096, 1000))]
    plain = cells(counted.layers("plain-34"), 224)
    assert plain[:2] == [Cell("7x7 conv, 64, /2", 112), Cell("pool, /2", 56)]
    assert plain[-2:] == [Cell("average pool", 1), Cell("fc 1000", 1)]
    assert len(plain) == 34 + 2
    assert [cell.size for cell in plain if cell.text.endswith("/2")] == [112, 56, 28, 14, 7]
    residual = cells(counted.layers("ResNet-34 C"), 224)  # projections are no boxes
    assert [cell.text for cell in residual] == [cell.text for cell in plain]


def test_fig3_draws_every_layer_and_shortcut_in_boxes_that_hold_their_text():
    figure = fig3()
    figure.draw_without_rendering()
    (axes,) = figure.axes
    columns = [cells(counted.layers(net), 224) for net in ("VGG-19", "plain-34", "ResNet-34 A")]
    boxes = [p.get_window_extent() for p in axes.patches if isinstance(p, FancyBboxPatch)]
    assert len(boxes) == sum(map(len, columns))
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    arrows = [patch for patch in axes.patches if isinstance(patch, FancyArrowPatch)]
    bent = [arrow for arrow in arrows if len(arrow._path_original.vertices) > 2]
    assert len(bent) == 16
    assert len([arrow for arrow in bent if arrow.get_linestyle() not in ("-", "solid")]) == 3
    text = texts(axes)
    for size in (224, 112, 56, 28, 14, 7, 1):
        assert f"{size}x{size}" in text
    assert "19.63e9 multiply-adds\n143.7M parameters" in text
    assert text.count("3.64e9 multiply-adds\n21.6M parameters") == 2
    assert "18.6 %" in caption(figure)
    for shown in axes.texts:
        extent = shown.get_window_extent()
        around = [box for box in boxes if box.overlaps(extent)]
        assert len(around) <= 1
        if around:
            assert around[0].x0 < extent.x0
            assert extent.x1 < around[0].x1
        assert figure.bbox.x0 <= extent.x0
        assert extent.x1 <= figure.bbox.x1


def test_fig2_and_fig5_show_blocks():
    assert texts(fig2().axes[0]).count("weight layer") == 2
    text = texts(fig5().axes[0])
    assert {"64-d", "256-d", "1x1, 64", "1x1, 256"} <= set(text)
    assert text.count("3x3, 64") == 3
    assert "73.7k weights, 231M multiply-adds" in text  # 2 x 9 x 64 x 64, times 56 x 56
    assert "69.6k weights, 218M multiply-adds" in text  # (2 x 256 + 9 x 64) x 64
    assert text.count("relu") == 5


@pytest.mark.usefixtures("coarse_figures")
@pytest.mark.parametrize("item", ["fig2", "fig3", "fig5", "table1"])
def test_items_without_runs_are_the_same_bytes_each_time(item, tmp_path, monkeypatch, capsys):
    once = DRAWINGS[item].draw(None, tmp_path / "a")
    monkeypatch.setattr(sys, "argv", [item, "--out", str(tmp_path / "b")])
    main(item)  # as experiments/fig2.py does
    again = capsys.readouterr().out.split()
    assert [path.name for path in once] == [Path(path).name for path in again]
    assert [path.read_bytes() for path in once] == [Path(p).read_bytes() for p in again]
    assert b"<dc:date>" not in once[1].read_bytes()


def test_table1_is_counted_and_agrees_with_the_paper(tmp_path):
    table = table1().frame.set_index("layer")
    assert table.loc["conv4_x", "101-layer"] == "[1x1,256; 3x3,256; 1x1,1024] x 23"
    assert table.loc["conv3_x", "34-layer"] == "[3x3,128; 3x3,128] x 4"
    assert list(table["output"])[:6] == ["112x112", "56x56", "28x28", "14x14", "7x7", "1x1"]
    assert set(table.loc["layout"][1:]) == {"as the paper's"}
    ours = table.loc["multiply-adds (1e9)"][1:].astype(float)
    papers = table.loc["in the paper (1e9)"][1:].astype(float)
    moved = table.loc["stride in 3x3 instead (1e9)"][3:].astype(float)
    assert (abs(ours - papers) < 0.06).all()
    assert (moved - papers[2:] > 0.15).all()
    markdown = DRAWINGS["table1"].draw(None, tmp_path)[0].read_text()
    assert {line.count("|") for line in markdown.splitlines() if line.startswith("|")} == {8}
    assert "prints 3.858 as 3.8" in markdown


def test_table1_names_what_differs(tmp_path, monkeypatch):
    layers = (counted.COUNTED_DIR / "layers.csv").read_text()
    convs = "ResNet-18 A,stage3.1.residual"
    for before, after in (("conv1,1,conv,3,", "conv1,2,conv,3,"), ("conv2,1,", "conv2,2,")):
        layers = layers.replace(f"{convs}.{before}", f"{convs}.{after}")
    (tmp_path / "layers.csv").write_text(layers)
    shutil.copy(counted.COUNTED_DIR / "summary.csv", tmp_path)
    monkeypatch.setattr(counted, "COUNTED_DIR", tmp_path)
    table = table1().frame.set_index("layer")
    assert table.loc["layout", "18-layer"] == "differs: conv4_x: [3x3,256; 3x3,256] x 2"
    assert table.loc["layout", "34-layer"] == "as the paper's"


def test_fig4_of_imagenet_lies_over_the_paper(tmp_path):
    figure = fig4(imagenet_runs(tmp_path))
    left, right = figure.axes
    assert left.get_title() == "ImageNet: plain nets"
    assert right.get_title() == "ImageNet: residual nets, option A"
    for axes, nets in ((left, NETS[:2]), (right, NETS[2:])):
        assert axes.get_ylim() == (20.0, 65.0)
        assert axes.get_xlim() == (0.0, 60.0)
        for net in nets:
            assert {f"{net}, 1 seed, paper profile", f"{net} in the paper"} <= {*lines_of(axes)}
        assert len(lines_as(axes, style.TEST)) == len(lines_as(axes, style.TRAIN)) == 2
    deep = style.depth_colour(34)
    (bold,) = [line for line in lines_as(right, style.TEST) if line.get_color() == deep]
    assert errors(bold)[-1] == pytest.approx(28.2)
    papers = paper.curve(4, "ResNet-34 A", "val_center_crop", clipped=True).iloc[-1]
    assert any(papers in errors(line) for line in right.lines)
    assert "600,000 iterations of 256" in caption(figure)
    assert "not drawn" not in caption(figure)


def test_fig4_keeps_tiny_imagenet_apart(tmp_path):
    nets = ("plain-18", "plain-34", "ResNet-34 B")
    figure = fig4(imagenet_runs(tmp_path, "tiny_imagenet", nets, test=55.0, train=50.0))
    assert len(figure.axes) == 2
    assert "No ImageNet runs logged." in caption(figure)
    figure = fig4(imagenet_runs(tmp_path, nets=("plain-18",)))
    assert len(figure.axes) == 4
    first, _, tiny, empty = figure.axes
    assert tiny.get_title() == "Tiny ImageNet, 64x64, 200 classes:\nplain nets"
    ours = [line for line in curves_of(first) if "seed" in line]
    assert ours == ["plain-18, 1 seed, paper profile"] * 2
    assert "no finished runs: plain-34" in notes_of(first)
    assert not any("in the paper" in line for line in curves_of(tiny))
    assert tiny.get_ylim()[1] > 65
    assert "no finished runs ResNet-18 A, ResNet-34 A" in notes_of(empty)
    assert "data.name=tiny_imagenet, the paper's is imagenet" in caption(figure)
    assert len(fig4([]).axes) == 2


def test_figures_and_the_table_of_cifar_leave_imagenet_nets_out(tmp_path):
    runs = imagenet_runs(tmp_path, "tiny_imagenet")
    assert caption(fig1(runs)) == caption(fig6(runs)) == "No finished runs."
    assert table6(runs)["seeds"].sum() == 0


def test_fig4_of_another_schedule_is_not_laid_over_the_paper(tmp_path):
    changes = {"recipe.max_iters": 60_000, "recipe.milestones": [15_000]}
    figure = fig4([load_run(imagenet_run(tmp_path, net, changes=changes)) for net in NETS])
    assert not any("in the paper" in line for axes in figure.axes for line in curves_of(axes))
    assert "recipe.max_iters=60000, the paper's is 600000" in caption(figure)


@pytest.mark.usefixtures("coarse_figures")
@pytest.mark.parametrize("draw", [fig1, fig4, fig6, fig7, gradient_figure])
def test_no_figure_needs_runs(draw, tmp_path):
    figure = draw([])
    assert re.search(r"No (finished )?runs", caption(figure))
    png, svg = style.save(figure, "figure", tmp_path)
    assert png.stat().st_size > 1_000
    assert svg.read_text().startswith("<?xml")


def test_style_leaves_nothing_behind_and_colours_of_one_figure_differ():
    before = dict(mpl.rcParams)
    with style.style():
        assert mpl.rcParams["svg.hashsalt"] == "resnet_repro"
    assert dict(mpl.rcParams) == before
    for depths in ((20, 32, 44, 56, 110, 1202), (18, 34, 50, 101, 152)):
        assert len({style.depth_colour(depth) for depth in depths}) == len(depths)
