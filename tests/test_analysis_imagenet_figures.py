"""Figures 2 to 5 and Table 1: what they show is what was counted and logged."""

import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from fabricate_imagenet import imagenet_run
from resnet_repro.analysis import counted, paper, style
from resnet_repro.analysis.load import Run, load_run, load_runs
from resnet_repro.items import DRAWINGS
from resnet_repro.items.command import main
from resnet_repro.items.fig2 import fig2
from resnet_repro.items.fig3 import Cell, cells, fig3
from resnet_repro.items.fig4 import fig4
from resnet_repro.items.fig5 import fig5
from resnet_repro.items.table1 import table1

NETS = ("plain-18", "plain-34", "ResNet-18 A", "ResNet-34 A")


def texts(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def caption(figure: Figure) -> str:
    (text,) = [t for t in figure.texts if t.get_gid() == "caption"]
    return text.get_text().replace("\n", " ")


def runs_of(
    root: Path, data: str = "imagenet", nets: tuple[str, ...] = NETS, **more: object
) -> list[Run]:
    for label in nets:
        imagenet_run(root, label, data=data, **more)
    return load_runs(root)


# ---- diagrams


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


def test_fig3_draws_every_layer_and_shortcut():
    figure = fig3()
    (axes,) = figure.axes
    boxes = [patch for patch in axes.patches if isinstance(patch, FancyBboxPatch)]
    columns = [cells(counted.layers(net), 224) for net in ("VGG-19", "plain-34", "ResNet-34 A")]
    assert len(boxes) == sum(map(len, columns))
    bent = [
        patch
        for patch in axes.patches
        if isinstance(patch, FancyArrowPatch) and len(patch._path_original.vertices) > 2
    ]
    assert len(bent) == 16
    dotted = [patch for patch in bent if patch.get_linestyle() not in ("-", "solid")]
    assert len(dotted) == 3
    words = texts(axes)
    for size in (224, 112, 56, 28, 14, 7, 1):
        assert f"{size}x{size}" in words
    assert "19.63e9 multiply-adds\n143.7M parameters" in words
    assert words.count("3.64e9 multiply-adds\n21.6M parameters") == 2
    assert "18.6 %" in caption(figure)


def test_fig3_boxes_hold_their_text_and_do_not_touch():
    figure = fig3()
    figure.draw_without_rendering()
    (axes,) = figure.axes
    boxes = [p.get_window_extent() for p in axes.patches if isinstance(p, FancyBboxPatch)]
    for one, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[one + 1 :])
    for text in axes.texts:
        extent = text.get_window_extent()
        around = [box for box in boxes if box.overlaps(extent)]
        assert len(around) <= 1
        if around:
            assert around[0].x0 < extent.x0
            assert extent.x1 < around[0].x1
        assert figure.bbox.x0 <= extent.x0
        assert extent.x1 <= figure.bbox.x1


def test_fig2_and_fig5_show_blocks():
    assert texts(fig2().axes[0]).count("weight layer") == 2
    words = texts(fig5().axes[0])
    assert {"64-d", "256-d", "1x1, 64", "1x1, 256"} <= set(words)
    assert words.count("3x3, 64") == 3
    assert "73.7k weights, 231M multiply-adds" in words  # 2 x 9 x 64 x 64, times 56 x 56
    assert "69.6k weights, 218M multiply-adds" in words  # (2 x 256 + 9 x 64) x 64
    assert words.count("relu") == 5


@pytest.mark.parametrize("item", ["fig2", "fig3", "fig5", "table1"])
def test_items_without_runs_are_the_same_bytes_each_time(item, tmp_path, monkeypatch, capsys):
    once = DRAWINGS[item].draw(None, tmp_path / "a")
    monkeypatch.setattr(sys, "argv", [item, "--out", str(tmp_path / "b")])
    main(item)  # as experiments/fig2.py does
    again = capsys.readouterr().out.split()
    assert [path.name for path in once] == [Path(path).name for path in again]
    assert [path.read_bytes() for path in once] == [Path(p).read_bytes() for p in again]
    assert b"<dc:date>" not in once[1].read_bytes()


# ---- Table 1


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
    widths = {line.count("|") for line in markdown.splitlines() if line.startswith("|")}
    assert widths == {8}
    assert "prints 3.858 as 3.8" in markdown


def test_table1_names_what_differs(tmp_path, monkeypatch):
    for stem in ("layers", "summary"):
        text = (counted.COUNTED_DIR / f"{stem}.csv").read_text()
        if stem == "layers":
            text = text.replace(
                "ResNet-18 A,stage3.1.residual.conv1,1,conv,3,",
                "ResNet-18 A,stage3.1.residual.conv1,2,conv,3,",
            ).replace(
                "ResNet-18 A,stage3.1.residual.conv2,1,", "ResNet-18 A,stage3.1.residual.conv2,2,"
            )
        (tmp_path / f"{stem}.csv").write_text(text)
    monkeypatch.setattr(counted, "COUNTED_DIR", tmp_path)
    table = table1().frame.set_index("layer")
    assert table.loc["layout", "18-layer"] == "differs: conv4_x: [3x3,256; 3x3,256] x 2"
    assert table.loc["layout", "34-layer"] == "as the paper's"


# ---- Figure 4


def test_fig4_of_imagenet_lies_over_the_paper(tmp_path):
    figure = fig4(runs_of(tmp_path))
    left, right = figure.axes
    assert left.get_title() == "ImageNet: plain nets"
    assert right.get_title() == "ImageNet: residual nets, option A"
    for axes, nets in ((left, NETS[:2]), (right, NETS[2:])):
        assert axes.get_ylim() == (20.0, 65.0)
        assert axes.get_xlim() == (0.0, 60.0)
        lines = {str(line.get_label()) for line in axes.lines}
        for net in nets:
            assert {f"{net}, 1 seed, paper profile", f"{net} in the paper"} <= lines
        widths = [line.get_linewidth() for line in axes.lines]
        assert widths.count(style.TEST["linewidth"]) == widths.count(style.TRAIN["linewidth"]) == 2
    bold = [
        line
        for line in right.lines
        if line.get_linewidth() == style.TEST["linewidth"]
        and line.get_color() == style.depth_colour(34)
    ]
    assert np.asarray(bold[0].get_ydata(), float)[-1] == pytest.approx(28.2)
    drawn = [np.asarray(line.get_ydata(), float) for line in right.lines]
    papers = paper.curve(4, "ResNet-34 A", "val_center_crop", clipped=True).iloc[-1]
    assert any(papers in line for line in drawn)
    assert "600,000 iterations of 256" in caption(figure)
    assert "not drawn" not in caption(figure)


def test_fig4_keeps_tiny_imagenet_apart(tmp_path):
    runs_of(tmp_path, nets=("plain-18",))
    runs = runs_of(
        tmp_path, "tiny_imagenet", ("plain-18", "plain-34", "ResNet-34 B"), test=55.0, train=50.0
    )
    figure = fig4(runs)
    assert len(figure.axes) == 4
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[2] == "Tiny ImageNet, 64x64, 200 classes:\nplain nets"
    first, _, tiny, empty = figure.axes
    assert [line.get_label() for line in first.lines if "seed" in str(line.get_label())] == [
        "plain-18, 1 seed, paper profile"
    ] * 2
    assert not any("in the paper" in str(line.get_label()) for line in tiny.lines)
    assert tiny.get_ylim()[1] > 65
    assert any("no runs logged\nResNet-18 A, ResNet-34 A" in text for text in texts(empty))
    assert "data.name=tiny_imagenet, the paper's is imagenet" in caption(figure)


def test_fig4_of_another_schedule_is_not_laid_over_the_paper(tmp_path):
    changes = {"recipe.max_iters": 60_000, "recipe.milestones": [15_000]}
    figure = fig4([load_run(imagenet_run(tmp_path, net, changes=changes)) for net in NETS])
    assert not any("in the paper" in str(x.get_label()) for axes in figure.axes for x in axes.lines)
    assert "recipe.max_iters=60000, the paper's is 600000" in caption(figure)


def test_fig4_without_imagenet_runs_says_so(tmp_path):
    figure = fig4(runs_of(tmp_path, "tiny_imagenet", ("plain-18",), profile="short"))
    assert len(figure.axes) == 2
    assert "No ImageNet runs logged." in caption(figure)
    assert "no runs logged: plain-34" in " ".join(texts(figure.axes[0])).replace("\n", " ")
    empty = fig4([])
    assert len(empty.axes) == 2
    assert "No runs logged." in caption(empty)


def test_fig4_hides_nothing(tmp_path):
    runs_of(tmp_path)
    figure = fig4(runs_of(tmp_path, "tiny_imagenet"))
    figure.draw_without_rendering()
    (text,) = [t for t in figure.texts if t.get_gid() == "caption"]
    words, legend = text.get_window_extent(), figure.legends[0].get_window_extent()
    boxes = [box for axes in figure.axes if (box := axes.get_tightbbox()) is not None]
    assert words.y0 >= 0
    assert words.y1 <= legend.y0 + 1
    assert all(legend.y1 <= box.y0 + 1 for box in boxes)
    assert not any(
        box.shrunk(0.999, 0.999).overlaps(other)
        for i, box in enumerate(boxes)
        for other in boxes[i + 1 :]
    )
