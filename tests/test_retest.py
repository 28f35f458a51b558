"""``make table2`` and its like count what their protocol lacks, from a real run to the table."""

import json
import shutil
from pathlib import Path

import pytest

from ranks import do
from resnet_repro.analysis.load import Logged
from resnet_repro.compose import compose_run, make_job
from resnet_repro.items.command import count_missing
from resnet_repro.items.tables2_5 import table5
from resnet_repro.runs.folder import RunFolder
from tiny_files import FEW

NETS = ("tiny_plain18", "tiny_resnet18_A")
NAMES = [make_job(f"experiment={net}", *FEW).config.name for net in NETS]
PLAIN = NAMES[0]


def train(net, data, root):
    job = make_job(f"experiment={net}", *FEW, f"data.root={data}", f"runs_dir={root}")
    assert do(job) == "finished"


@pytest.fixture(scope="module")
def trained(tiny_root, tmp_path_factory):
    root = tmp_path_factory.mktemp("results") / "runs"
    for net in NETS:
        train(net, tiny_root, root)
    return root


@pytest.fixture
def root(trained, tmp_path):
    return Path(shutil.copytree(trained, tmp_path / "results" / "runs"))


@pytest.fixture
def table2(run_script, root, capsys):
    """Make the table from the pictures in a folder: what is said, and the table."""

    def table2(data, *args):
        out = root.parent / "tables"
        runs = (f"runs_dir={root}", f"data.root={data}", "trainer.threads=1")
        run_script("table2", "--out", out, *args, *FEW, *runs)
        return capsys.readouterr().err, (out / "table2.md").read_text(encoding="utf-8")

    return table2


def kept(root):
    return {p.stem: json.loads(p.read_text()) for p in (root.parent / "evaluations").glob("*")}


def test_a_table_counts_what_is_missing_once_and_again_what_was_trained_again(
    root, tmp_path, tiny_root, table2
):
    output, table = table2(tmp_path / "nowhere")
    assert output.count("not tested at 10-crop: smoke/tiny_") == 2
    assert table.count("1-crop only, seed 0, smoke profile") == 2
    assert kept(root) == {}
    output, table = table2(tiny_root)
    assert "counting errors at 10-crop of 2 runs first" in output
    assert table.count("10-crop, seed 0, smoke profile") == 2
    assert "1-crop only" not in table
    first = kept(root)
    assert sorted(first) == [f"{name}_smoke_seed0_10-crop" for name in NAMES]
    for name in NAMES:
        entry = first[f"{name}_smoke_seed0_10-crop"]
        (model,) = entry["models"]
        assert (model["run"], model["iter"]) == (f"smoke/{name}/seed0", 2)
        run = RunFolder(root / "smoke" / name / "seed0")
        assert model["metrics_sha256"] == run.metrics_digest(2)
        assert (entry["protocol"], entry["num_samples"], entry["left_out"]) == ("10-crop", 6, 0)
    output, again = table2(tiny_root)
    assert "counting" not in output
    assert (again, kept(root)) == (table, first)

    shutil.rmtree(root / "smoke" / PLAIN)
    train(NETS[0], tiny_root, root)  # the same weights, but other seconds in its log
    output, table = table2(tiny_root, "--no-train")
    line = f"Not used: evaluations/{PLAIN}_smoke_seed0_10-crop.json is of another training of "
    assert line + f"smoke/{PLAIN}/seed0" in output
    assert "counting" not in output
    assert line in table
    output, table = table2(tiny_root)
    assert "counting errors at 10-crop of 1 run first" in output
    assert "Not used" not in output + table
    after = kept(root)
    assert set(after) == set(first)
    plain, resnet = sorted(first)
    digests = {each[plain]["models"][0]["metrics_sha256"] for each in (first, after)}
    assert len(digests) == 2
    assert after[resnet] == first[resnet]


def test_without_weights_it_says_so_and_shows_what_there_is(root, tiny_root, table2):
    shutil.rmtree(root / "smoke" / PLAIN / "seed0" / "checkpoints")
    output, table = table2(tiny_root)
    reason = "since their final weights are not here"
    assert f"not tested at 10-crop, {reason}: smoke/{PLAIN}/seed0" in output
    assert "counting errors at 10-crop of 1 run first" in output
    assert "| 1-crop only, seed 0, smoke profile" in table
    assert "| 10-crop, seed 0, smoke profile" in table
    assert "Not tested at 10-crop on Tiny ImageNet: plain-18 seed 0." in table


def test_an_ensemble_of_one_run_of_each_net_is_tested_once(root, tiny_root, capsys):
    args = (f"experiment={NETS[0]}", f"data.root={tiny_root}", f"runs_dir={root}")
    config = compose_run(*args, "trainer.threads=1")
    runs = Logged(root).runs
    count_missing(runs[:1], "multi-scale", config, together=True)
    assert kept(root) == {}  # one net is no ensemble
    count_missing(runs, "multi-scale", config, together=True)
    ((name, entry),) = kept(root).items()
    assert name == f"ensemble2_{PLAIN}_smoke_seed0_multi-scale"
    assert [model["run"] for model in entry["models"]] == [f"smoke/{name}/seed0" for name in NAMES]
    assert "counting errors at multi-scale of an ensemble first" in capsys.readouterr().err
    row = table5(runs).frame.iloc[-1]
    assert row["ensemble"] == "2 nets: plain-18 seed 0, ResNet-18 A seed 0"
    assert row["Tiny ImageNet top-1"] == pytest.approx(entry["top1_err"])
    count_missing(runs, "multi-scale", config, together=True)
    assert "counting" not in capsys.readouterr().err
