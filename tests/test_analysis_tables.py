"""Tables 2 to 6 and of variants: numbers, verdicts, protocols, quoted rows, the three formats."""

import json

import pandas as pd
import pytest

from fabricate import fabricate, imagenet_run
from resnet_repro.analysis.evaluations import load_evaluations, not_used, score_of
from resnet_repro.analysis.load import load_runs
from resnet_repro.analysis.logged_run import load_run
from resnet_repro.analysis.tables import write_table
from resnet_repro.items import ITEMS
from resnet_repro.items.deviations import deviations_figure, deviations_table, variants
from resnet_repro.items.fig4 import fig4
from resnet_repro.items.table6 import NETS, table6
from resnet_repro.items.tables2_5 import net_table, paper_rows, table5
from resnet_repro.runs.folder import RunFolder


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """CIFAR runs by the paper's protocol."""
    root = tmp_path_factory.mktemp("cifar")
    for seed, error in enumerate((8.5, 8.7, 8.9)):
        fabricate(root, "ResNet-20", seed=seed, test=error, train=0.8)
        fabricate(root, "ResNet-56", seed=seed, test=(8.9, 9.0, 9.1)[seed])
    fabricate(root, "plain-20", test=9.6)
    return load_runs(root)


def test_rows_numbers_and_verdicts(runs, tmp_path):
    table = table6(runs).set_index("net")
    assert list(table.index[-len(NETS) :]) == list(NETS)
    ours = table.loc["ResNet-20"]
    assert (ours["seeds"], ours["profile"], ours["paper"]) == (3, "paper", "8.75")
    assert ours["test error"] == pytest.approx(8.7)
    assert ours["sd"] == pytest.approx(0.2)
    assert ours["low"] == pytest.approx(8.7 - 4.302653 * 0.2 / 3**0.5, abs=1e-5)
    assert ours["best seed"] == pytest.approx(8.5)
    lowest = [run.curve("test").min() for run in runs if run.label == "ResNet-20"]
    assert ours["best on test"] == pytest.approx(sum(lowest) / 3)
    late = [run.curve("test").loc[55_000:].mean() for run in runs if run.label == "ResNet-20"]
    assert ours["mean of last ten"] == pytest.approx(sum(late) / 3)
    assert ours["clean training error"] == pytest.approx(0.72)
    assert ours["public runs"] == "8.41 (8.04-9.18, 10)"
    assert ours["verdict"].startswith("reproduced (-0.05 points, 95 % interval ")
    assert table.loc["ResNet-56", "verdict"].startswith("differs (+2.03 points")
    assert table.loc["plain-20", "verdict"].startswith("reproduced (-0.10 points")
    assert table.loc["ResNet-32", "verdict"] == "no runs"
    quick = table6([load_run(fabricate(tmp_path, "ResNet-20", profile="quick"))])
    assert "not comparable: quick profile" in quick["verdict"].tolist()


def test_trap_16_values_the_paper_does_not_print_are_labelled():
    table = table6([]).set_index("net")
    assert table.loc["plain-20", "paper"] == "9.7 (read off Fig. 6)"
    for depth in (20, 32, 44, 56):
        assert "Fig. 6" in table.loc[f"plain-{depth}", "paper"]
        assert "Fig. 6" not in table.loc[f"ResNet-{depth}", "paper"]
    assert table.loc["plain-110", "paper"] == "> 60 (caption of Fig. 6)"
    assert table.loc["ResNet-110", "paper"] == "6.43 (6.61 +- 0.16)"
    quoted = table[table["verdict"] == "quoted, not run"]
    layers = ("FitNet, 19 layers", "Highway, 19 layers", "Highway, 32 layers")
    assert list(quoted.index) == ["Maxout", "NIN", "DSN", *layers]
    assert quoted["paper"].str.endswith(", quoted").all()
    assert quoted["test error"].isna().all()


def test_three_formats(runs, tmp_path):
    paths = ITEMS["table6"].draw(runs, tmp_path)
    assert [path.name for path in paths] == ["table6.md", "table6.tex", "table6.csv"]
    markdown, latex, _ = (path.read_text() for path in paths)
    assert markdown.startswith("| net")
    assert "read off Fig. 6" in markdown
    assert "nan" not in markdown.lower()
    assert "- Quoted:" in markdown
    assert "bf16" in markdown
    assert "bf16" in latex
    assert r"\begin{tabular}" in latex
    assert r"95 \% interval" in latex
    assert r"6.61 $\pm$ 0.16" in latex
    back = pd.read_csv(paths[2]).set_index("net")
    assert back.loc["ResNet-20", "test error"] == pytest.approx(8.7)
    assert back.loc["ResNet-20", "seeds"] == 3


def test_any_table_can_be_written(tmp_path):
    table = pd.DataFrame({"net": ["a_b & c", "d"], "error": [1.234, None]})
    markdown, latex, numbers = write_table(table, "any", tmp_path)
    assert "| 1.23" in markdown.read_text()
    assert r"a\_b \& c & 1.23" in latex.read_text()
    assert numbers.read_text() == "net,error\na_b & c,1.234\nd,\n"


def variant(root, suffix, key, value, test, seed):
    name = f"cifar10_resnet56_{suffix}"
    changes = {"experiment": name, "name": name, key: value}
    fabricate(root, "ResNet-56", seed=seed, test=test, changes=changes)


def test_each_variant_is_compared_with_the_net_its_name_begins_with(tmp_path):
    variant(tmp_path, "45k", "data.train_split", "45k", 7.6, 0)
    figure = deviations_figure(load_runs(tmp_path))
    assert "No variant with a logged baseline." in figure.texts[0].get_text()
    fabricate(tmp_path, "ResNet-56")
    figure = deviations_figure(load_runs(tmp_path))
    assert "Last test error; no bars:" in figure.texts[0].get_text()
    for seed in range(3):
        fabricate(tmp_path, "ResNet-56", seed=seed, test=7.0 + 0.1 * seed)
        variant(tmp_path, "45k", "data.train_split", "45k", 7.6 + 0.1 * seed, seed)
        variant(tmp_path, "nesterov", "recipe.nesterov", True, 7.0 + 0.1 * seed, seed)
        fabricate(tmp_path, "plain-20", seed=seed)  # no variant of it
    changed = load_runs(tmp_path)
    nesterov, fewer = variants(changed)
    assert (nesterov.change, fewer.change) == ("Nesterov momentum", "45,000 training images")
    assert fewer.test.value == pytest.approx(0.6)
    assert fewer.test.low > 0  # sd 0.1 over three seeds on both sides
    assert nesterov.test.low < 0 < nesterov.test.high
    assert fewer.test.basis == "noise of our seeds and public runs"
    table = deviations_table(changed).frame
    assert set(table["net"]) == {"ResNet-56"}
    assert table["change"].tolist() == ["as the paper", nesterov.change, fewer.change]
    assert table["test diff"].isna().tolist() == [True, False, False]
    assert table["test error"].tolist() == pytest.approx([7.1, 7.1, 7.7])
    (axes,) = deviations_figure(changed).axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == [f"ResNet-56: {found.change} (3 seeds)" for found in (fewer, nesterov)]
    assert len(axes.containers) == 2  # the intervals


def net_entry(run):
    folder = RunFolder(run)
    iteration = folder.config()["recipe"]["max_iters"]
    return {
        "net": {"label": "?"},
        "run": str(run),
        "iter": iteration,
        "metrics_sha256": folder.metrics_digest(iteration),
    }


def evaluated(*runs, protocol, top1, **more):
    """Write what an evaluation of these runs found beside them."""
    entry = {
        "schema": 1,
        "models": [net_entry(run) for run in runs],
        "kind": "test",
        "protocol": protocol,
        "bn": "running",
        "data": {"name": "imagenet", "digests": {}},
        "loss": 1.0,
        "top1_err": top1,
        "top5_err": top1 / 4,
        "num_samples": 50_000,
        "left_out": 0,
    }
    folder = runs[0].parents[3] / "evaluations"
    folder.mkdir(exist_ok=True)
    number = len(list(folder.iterdir()))
    (folder / f"{number:03d}.json").write_text(json.dumps(entry | more))


@pytest.fixture(scope="module")
def some_runs(tmp_path_factory):
    """ResNet-34 B thrice with 10-crop, plain-34 with 1-crop only, ResNet-34 A on Tiny ImageNet."""
    root = tmp_path_factory.mktemp("imagenet")
    for seed, error in enumerate((24.4, 24.5, 24.6)):
        imagenet_run(root, "ResNet-34 B", seed=seed, protocols={"10-crop": (error, 7.4)})
    imagenet_run(root, "plain-34", test=30.5)
    imagenet_run(root, "ResNet-34 A", data="tiny_imagenet", test=50.0)
    imagenet_run(root, "ResNet-34 A", data="tiny_imagenet", seed=1, test=51.0)
    return load_runs(root)


def test_rows_are_the_papers_with_runs_or_without():
    nets = ["plain-18", "plain-34", "ResNet-18 A", "ResNet-34 A"]
    assert [row.net for row in paper_rows(2)] == nets
    assert [row.top1 for row in paper_rows(2)] == [27.94, 28.54, 27.88, 25.03]
    three = {row.name: row for row in paper_rows(3)}
    assert (three["ResNet-152"].top1, three["ResNet-152"].top5) == (21.43, 5.71)
    quoted = ["VGG-16", "GoogLeNet", "PReLU-net"]
    assert [name for name, row in three.items() if row.quoted] == quoted
    four = {row.name: row for row in paper_rows(4)}
    assert four["VGG (ILSVRC'14)"].images == "test"
    assert four["VGG (v5)"].images == four["ResNet-50"].images == "validation"
    assert [row.top5 for row in paper_rows(5)][-1] == 3.57
    table = net_table(3, []).frame
    assert len(table) == 10
    assert set(table["verdict"]) == {"quoted, not run", "no runs"}


def table_of(number, runs):
    return net_table(number, runs).frame.set_index("net")


def test_table3_puts_each_number_where_it_belongs(some_runs):
    table = table_of(3, some_runs)
    ours = table.loc["ResNet-34 B"]
    assert ours["ImageNet top-1"] == pytest.approx(24.5)
    assert ours["ImageNet top-5"] == pytest.approx(7.4)
    assert ours["ImageNet 95 %"] == "24.25-24.75"  # 4.303 x 0.1 / sqrt(3)
    assert ours["ImageNet runs"] == "10-crop, seeds 0-2, paper profile"
    assert ours["verdict"].startswith("reproduced (-0.02 points, 95 % interval ")
    assert ours["Tiny ImageNet runs"] == "no runs"
    tiny = table.loc["ResNet-34 A"]
    assert tiny["Tiny ImageNet top-1"] == pytest.approx(50.5)
    assert tiny["Tiny ImageNet runs"] == "1-crop only, seeds 0, 1, paper profile"
    assert tiny["ImageNet runs"] == tiny["verdict"] == "no runs"
    assert pd.isna(tiny["ImageNet top-1"])
    assert table.loc["VGG-16", "verdict"] == "quoted, not run"
    assert pd.isna(table.loc["GoogLeNet", "paper top-1"])


def test_a_number_of_another_protocol_or_schedule_is_not_compared(some_runs, tmp_path):
    two = table_of(2, some_runs).loc["plain-34"]
    assert two["ImageNet top-1"] == pytest.approx(30.5)
    assert two["ImageNet runs"] == "1-crop only, seed 0, paper profile"
    assert two["verdict"] == "not comparable: 1-crop, the table's is 10-crop"
    four = table_of(4, some_runs).loc["ResNet-34 B"]
    assert four["ImageNet top-1"] == pytest.approx(27.6)  # 10-crop is no better stand-in
    assert four["verdict"] == "not comparable: 1-crop, the table's is multi-scale"
    changes, logged = {"recipe.batch_size": 128}, {"10-crop": (22.9, 6.7)}
    run = load_run(imagenet_run(tmp_path, "ResNet-50", changes=changes, protocols=logged))
    said = "not comparable: recipe.batch_size=128, the paper's is 256"
    assert table_of(3, [run]).loc["ResNet-50", "verdict"] == said


def test_evaluations_fill_what_a_run_did_not_log(tmp_path):
    first, _ = (imagenet_run(tmp_path / "runs", "ResNet-50", seed=seed) for seed in range(2))
    evaluated(first, protocol="10-crop", top1=22.9)
    evaluated(first, protocol="multi-scale", top1=20.8)
    runs = load_runs(tmp_path / "runs")
    row = table_of(3, runs).loc["ResNet-50"]
    assert row["ImageNet top-1"] == pytest.approx(22.9)
    assert row["ImageNet runs"] == "10-crop, seed 0 (of 2), paper profile"
    assert row["verdict"].startswith("reproduced (+0.05 points")
    assert table_of(4, runs).loc["ResNet-50", "ImageNet top-1"] == 20.8


def test_own_pictures_have_panels_and_columns_of_their_own(tmp_path):
    own = {"changes": {"data.name": "folder"}, "test": 40.0}
    paths = [imagenet_run(tmp_path / "runs", net, **own) for net in ("plain-34", "ResNet-34 A")]
    evaluated(*paths, protocol="10-crop", top1=20.0, data={"name": "folder"}, num_samples=10_000)
    runs = [load_run(path) for path in paths]
    assert fig4(runs).axes[0].get_title() == "own pictures:\nplain nets"
    assert table_of(2, runs).loc["plain-34", "own pictures top-1"] == pytest.approx(40.0)
    assert table5(runs).frame["own pictures top-1"].tolist()[-1] == 20.0


RUN = "paper/imagenet_resnet50/seed0"
OTHER_IMAGES = {"name": "imagenet", "digests": {"test_images": "0" * 64}}


@pytest.mark.parametrize(
    ("of_net", "more", "said"),
    [
        ({}, {"kind": "train_clean"}, ""),
        ({}, {"bn": "precise"}, ""),
        ({"run": "paper/imagenet_resnet50/seed1"}, {}, ""),
        ({}, {"models": [{"net": {}, "file": "resnet50.pth"}]}, ""),
        ({}, {"data": {"name": "tiny_imagenet"}}, f"is on tiny_imagenet, {RUN} on imagenet"),
        ({"iter": 300_000}, {}, f"is of iteration 300,000, {RUN} ends at 600,000"),
        ({"iter": None}, {}, "is of an unknown iteration"),
        ({"metrics_sha256": "0" * 64}, {}, f"is of another training of {RUN}"),
        ({"metrics_sha256": None}, {}, f"is of an unknown training of {RUN}"),
        ({}, {"num_samples": 49_999}, f"is on 49,999 of the 50,000 held-out images of {RUN}"),
        ({}, {"data": OTHER_IMAGES}, f"is on other test images than {RUN}"),
    ],
)
def test_trap_08_an_evaluation_of_another_run_or_a_part_is_not_used(of_net, more, said, tmp_path):
    path, folder = imagenet_run(tmp_path / "runs", "ResNet-50"), tmp_path / "evaluations"
    meta = RunFolder(path).meta()
    meta["data"]["digests"] = {"train_images": "1" * 64, "test_images": "2" * 64}
    RunFolder(path).write_meta(meta)
    models = {"models": [net_entry(path) | of_net]}
    evaluated(path, protocol="10-crop", top1=1.0, **models | more)
    (run,) = load_runs(tmp_path / "runs")
    assert score_of(run, "10-crop", load_evaluations(folder)) is None
    warned = not_used([run], load_evaluations(folder))
    expected = [f"Not used: evaluations/000.json {said}"] if said else []
    assert [line[: len(start)] for line, start in zip(warned, expected, strict=True)] == expected
    table = ITEMS["table3"].draw([run], tmp_path)[0].read_text()
    assert ("Not used: evaluations/000.json" in table) == bool(said)
    assert "1-crop only" in table
    assert "| 1.00 " not in table
    evaluated(path, protocol="10-crop", top1=22.9)
    score = score_of(run, "10-crop", load_evaluations(folder))
    assert (score.top1, score.images) == (22.9, 50_000)


def test_undecodable_images_are_reported_and_the_number_is_not_compared(tmp_path):
    path = imagenet_run(tmp_path / "runs", "ResNet-50")
    gone = {"num_samples": 49_998, "left_out": 2}
    evaluated(path, protocol="10-crop", top1=22.9, **gone)
    row = table_of(3, [load_run(path)]).loc["ResNet-50"]
    said = "10-crop (2 undecodable images left out), seed 0, paper profile"
    assert (row["ImageNet top-1"], row["ImageNet runs"]) == (22.9, said)
    assert row["verdict"] == "not comparable: 2 undecodable images left out"


def test_tables_are_written_with_their_protocol_and_the_nets_it_is_missing_of(some_runs, tmp_path):
    said = " ".join(net_table(3, some_runs).notes)
    assert said.count("bf16") == 2  # a sentence for each data set
    assert "Not tested at 10-crop on ImageNet: plain-34 seed 0. A net none of" in said
    assert "Not tested at 10-crop on Tiny ImageNet: ResNet-34 A seeds 0, 1. A net" in said
    projections = [run for run in some_runs if run.label == "ResNet-34 B"]
    assert not [line for line in net_table(3, projections).notes if line.startswith("Not tested")]
    for number, protocol in ((2, "10-crop"), (3, "10-crop"), (4, "multi-scale")):
        written = ITEMS[f"table{number}"].draw(some_runs, tmp_path)
        markdown = written[0].read_text()
        assert f"the table's protocol is {protocol}" in markdown
        assert "nan" not in markdown.lower()
        header = next(path for path in written if path.suffix == ".csv").read_text().split(",")
        assert header.index("verdict") < header.index("Tiny ImageNet top-1")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"models": [{"run": "a/b/seed0"}], "top1_err"', "not an evaluation (Expecting"),
        ('{"models": [{"run": "a/b/seed0"}], "top1_err": 1}', "(has no 'protocol')"),
        ("[]", "not an evaluation ("),
    ],
)
def test_a_damaged_evaluation_is_named_and_the_others_are_used(tmp_path, text, why, capsys):
    folder = tmp_path / "evaluations"
    evaluated(imagenet_run(tmp_path / "runs", "ResNet-50"), protocol="10-crop", top1=22.9)
    (folder / "torn.json").write_text(text)
    for _ in range(2):
        assert [found.score.top1 for found in load_evaluations(folder)] == [22.9]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"left out: {folder}/torn.json: not an evaluation (")
    assert why in line
    assert load_evaluations(tmp_path / "nowhere") == []


def test_table5_lists_ensembles_of_logged_runs(tmp_path):
    root = tmp_path / "runs"
    nets = [imagenet_run(root, label) for label in ("ResNet-50", "ResNet-101")]
    stranger = imagenet_run(tmp_path / "elsewhere" / "runs", "ResNet-152")
    evaluated(*nets, protocol="ensemble of 2, multi-scale", top1=19.0)
    evaluated(nets[0], stranger, protocol="ensemble of 2, multi-scale", top1=18.0)
    evaluated(nets[0], protocol="multi-scale", top1=20.0)
    runs = load_runs(root)
    table = table5(runs).frame.set_index("ensemble")
    assert table["paper top-5 (test)"].dropna().iloc[-1] == 3.57
    assert list(table.index[6:]) == ["2 nets: ResNet-50 seed 0, ResNet-101 seed 0"]
    ours = table.iloc[-1]
    assert (ours["ImageNet top-1"], ours["ImageNet top-5"]) == (19.0, 4.75)
    assert ours["runs"] == "ensemble of 2, multi-scale, paper profile"
    assert table.loc["PReLU-net", "runs"] == "quoted, not run"
    text = ITEMS["table5"].draw(runs, tmp_path)[0].read_text()
    assert "No ensemble" not in text
    assert "bf16" in text
    assert "No ensemble of logged runs" in ITEMS["table5"].draw([], tmp_path)[0].read_text()
