"""Which runs count, which may be averaged, and how fast they load."""

import json
import os
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import yaml

from fabricate import fabricate
from resnet_repro.analysis import protocol
from resnet_repro.analysis.load import Logged, load_runs, profile_to_show
from resnet_repro.analysis.logged_run import load_run
from resnet_repro.options import shown
from resnet_repro.runs.folder import RunFolder

plain20 = partial(fabricate, label="plain-20", profile="quick")


def test_a_run_knows_its_net_and_its_curves_also_below_a_tilde(tmp_path, monkeypatch):
    path = fabricate(tmp_path / "runs", "ResNet-56", seed=3, test=7.0)
    monkeypatch.setenv("HOME", str(tmp_path))
    (run,) = load_runs(Path("~/runs"))
    assert load_run(Path("~") / path.relative_to(tmp_path)).path == run.path == path
    assert (run.label, run.depth, run.is_plain, run.seed) == ("ResNet-56", 56, False, 3)
    test = run.curve("test")
    assert list(test.index) == list(range(1_000, 65_000, 1_000))
    assert test.iloc[-1] == pytest.approx(7.0)
    assert len(run.curve("train", "lr")) == 640
    assert run.curve("val").empty
    assert run.curve("train", "no such column").empty


def test_curves_leave_out_nulls_and_other_views(tmp_path):
    path = plain20(tmp_path, test=50.0)
    with (path / "metrics.jsonl").open("a") as file:
        file.write(
            '{"kind":"train","iter":400,"top1_err":null,"num_samples":0}\n'
            '{"kind":"test","iter":400,"top1_err":1.0,"protocol":"10-crop","bn":"running"}\n'
            '{"kind":"test","iter":400,"top1_err":2.0,"protocol":"1-crop","bn":"precise"}\n'
        )
    (run,) = load_runs(tmp_path)
    assert run.curve("test").iloc[-1] == pytest.approx(50.0)
    assert run.curve("train").notna().all()


@pytest.mark.parametrize("state", ["created", "running", "preempted", "diverged", "failed"])
def test_only_finished_runs_count_and_those_given_up_are_named(tmp_path, state, capsys):
    plain20(tmp_path, state=state, until=200)
    assert load_runs(tmp_path) == []
    given_up = state in ("diverged", "failed")
    said = f"left out: quick/cifar10_plain20/seed0: {state}\n"
    assert capsys.readouterr().err == said * given_up
    assert len(load_runs(tmp_path, finished_only=False)) == (0 if given_up else 1)


def test_variants_are_not_the_experiment_and_filters(tmp_path):
    plain20(tmp_path, name="plain20_lr0.2")
    for label in ("plain-20", "plain-56"):
        for profile in ("quick", "smoke"):
            fabricate(tmp_path, label, profile=profile)
    assert len(load_runs(tmp_path)) == 4
    assert len(load_runs(tmp_path, profile="quick")) == 2
    (run,) = load_runs(tmp_path, profile="quick", experiments=["cifar10_plain56"])
    assert run.experiment == "cifar10_plain56"
    assert load_runs(tmp_path, profile="paper") == []
    assert load_runs(tmp_path / "nowhere") == []


def test_the_papers_profile_is_shown_from_two_nets_on_before_that_the_one_with_most(tmp_path):
    assert profile_to_show(load_runs(tmp_path)) is None
    fabricate(tmp_path, "plain-20", profile="paper", seed=0)
    for label, seed in (("plain-20", 1), ("plain-20", 2), ("plain-56", 2)):
        fabricate(tmp_path, label, profile="quick", seed=seed)
    assert profile_to_show(load_runs(tmp_path)) == "quick"
    fabricate(tmp_path, "plain-56", profile="paper", state="running", until=1_000)
    assert profile_to_show(load_runs(tmp_path)) == "quick"
    fabricate(tmp_path, "plain-20", profile="short")
    fabricate(tmp_path, "ResNet-20", profile="short")
    assert profile_to_show(load_runs(tmp_path)) == "short"  # the longer of two with two nets
    fabricate(tmp_path, "ResNet-56", profile="quick")
    fabricate(tmp_path, "plain-56", profile="paper")
    assert profile_to_show(load_runs(tmp_path)) == "paper"


def test_a_copied_or_linked_run_stands_for_no_net_but_can_be_loaded(tmp_path, capsys):
    path = plain20(tmp_path)
    copy = tmp_path / "paper" / "cifar10_plain20" / "seed0"
    shutil.copytree(path, copy)
    (path.parent / "seed7").symlink_to(path)
    assert [run.place for run in load_runs(tmp_path)] == ["quick/cifar10_plain20/seed0"]
    output = capsys.readouterr().err.splitlines()
    assert len(output) == 2
    assert f"left out: {copy}: its config.yaml says quick/cifar10_plain20/seed0" in output[0]
    (tmp_path / "mine").symlink_to(path)
    for place in (copy, path.parent / "seed7", tmp_path / "mine"):
        assert load_run(place).curve("test").iloc[-1] == pytest.approx(55.0)


def without(key):
    def change(path):
        group, _, last = key.rpartition(".")
        values = yaml.safe_load(path.read_text())
        del (values[group] if group else values)[last]
        path.write_text(json.dumps(values))

    return change


def fifo(path):
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("config.yaml", without("seed"), "has no 'seed'"),
        ("config.yaml", without("model.depth"), "has no 'model.depth'"),
        ("config.yaml", without("recipe"), "has no 'recipe.batch_size'"),
        ("config.yaml", lambda path: path.write_text("- 1"), "not a mapping"),
        ("config.yaml", lambda path: path.write_text("a: [1"), "expected"),
        ("config.yaml", fifo, "cannot be read (not a regular file)"),
        ("meta.json", without("net"), "has no 'net.label'"),
        ("meta.json", Path.unlink, "cannot be read (there is no such file)"),
        ("meta.json", lambda path: path.write_text('{"net": {"label": 20}}'), "must be text"),
        ("meta.json", lambda path: path.write_bytes(b"\xff"), "cannot be read (not UTF-8)"),
        ("status.json", without("state"), "has no 'state'"),
        ("status.json", lambda path: path.write_text("[" * 100_000), "recursion"),
        ("status.json", lambda path: path.write_text("[]"), "not a mapping"),
        ("metrics.jsonl", lambda path: path.write_text('{"kind": "train"}\n{}\n'), "line 1 is not"),
        ("metrics.jsonl", fifo, "cannot be read (not a regular file)"),
    ],
)
def test_a_damaged_file_is_named_and_other_runs_are_still_loaded(
    tmp_path, name, damage, message, capsys
):
    path = plain20(tmp_path) / name
    plain20(tmp_path, seed=1)
    damage(path)
    (run,) = load_runs(tmp_path)
    assert run.seed == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"left out: {path}: ")
    assert message in line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("layer,std\n1,2\n3\n", "line 3 has not the columns of the first"),
        ("layer,std\n1,2,4\n", "line 2 has not the columns of the first"),
        ("layer,std\n1,many\n", "not a table of numbers"),
    ],
)
def test_a_damaged_table_is_named_and_counts_as_missing(tmp_path, text, message, capsys):
    path = plain20(tmp_path, probes=True)
    (path / "responses.csv").write_text(text)
    (run,) = load_runs(tmp_path)
    assert run.table("responses") is None
    assert run.table("responses") is None
    assert run.table("gradients") is not None
    assert capsys.readouterr().err == f"left out: {path}/responses.csv: {message}\n"


@pytest.mark.parametrize(
    ("key", "value"),
    [("recipe.milestones", [100, 200]), ("data.pad", "zero"), ("evaluation.unknown", "precise")],
)
def test_runs_that_differ_in_what_matters_are_not_averaged(tmp_path, key, value, capsys):
    for seed, changes in ((0, {}), (4, {key: value})):
        plain20(tmp_path, seed=seed, changes=changes)
    (run,) = load_runs(tmp_path)  # that which is the experiment's own
    assert run.seed == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("left out: quick/cifar10_plain20 seed 4: ")
    assert f"{key}={shown(value)}, not " in line
    variants = Logged(tmp_path).runs
    assert [kept.seed for kept in protocol.by_net(variants)["plain-20"]] == [0]
    assert [kept.seed for kept in protocol.by_net(variants[1:])["plain-20"]] == [4]


def test_runs_of_two_profiles_are_not_averaged_even_where_they_compute_the_same(tmp_path):
    run = load_run(plain20(tmp_path))
    as_other = replace(run, profile="short", seed=1)
    assert protocol.by_net([run, as_other])["plain-20"] == [run]


def test_a_configured_precision_matters_only_if_the_result_differs(tmp_path):
    plain20(tmp_path, seed=0, precision="bf16")
    plain20(tmp_path, seed=1, precision="bf16", changes={"trainer.precision": "bf16"})
    plain20(tmp_path, seed=2, precision="fp32", changes={"trainer.precision": "fp32"})
    logged = Logged(tmp_path)
    assert [run.seed for run in logged.finished] == [0, 1]
    assert logged.left_out == [
        "quick/cifar10_plain20 seed 2: trainer.precision=fp32, not auto as seed 0; "
        "stands for no net"
    ]


def test_mixed_precision_and_hardware_are_reported_also_of_a_run_resumed_on_other(tmp_path):
    path = plain20(tmp_path, precision="bf16", hardware="2 CPU cores")
    fabricate(tmp_path, "plain-56", profile="quick", precision="tf32", hardware="1x B")
    assert protocol.comparison_notes(load_runs(tmp_path)) == [
        "Mixed precision: bf16 (plain-20 seed 0); tf32 (plain-56 seed 0).",
        "Mixed hardware: 1x B (plain-56 seed 0); 2 CPU cores (plain-20 seed 0).",
    ]
    assert protocol.comparison_notes(load_runs(tmp_path)[:1]) == []
    labels = {2: "1x A", 5: "2 CPU cores"}
    parts = [{"until": until, "hardware": {"label": label}} for until, label in labels.items()]
    RunFolder(path).write_meta(RunFolder(path).meta() | {"earlier": parts})
    mixed, alone = load_runs(tmp_path)
    assert (mixed.device, alone.device) == ("1x A, then 2 CPU cores, bf16", "1x B, tf32")
    note = "Mixed hardware: 1x A, then 2 CPU cores (plain-20 seed 0); 1x B (plain-56 seed 0)."
    assert protocol.comparison_notes([mixed, alone])[1] == note
    parts.append({"until": 7, "hardware": {"label": "1x C"}})
    RunFolder(path).write_meta(RunFolder(path).meta() | {"earlier": parts})
    assert load_runs(tmp_path)[0].hardware == "1x A, then 2 other kinds"


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({}, ""),
        ({"deviations": {"trainer.threads": [0, 1]}}, ""),  # does not change what is trained
        ({"deviations": {"recipe.nesterov": [0, 1]}}, "recipe.nesterov=1, the paper's is 0"),
        ({"changes": {"data.name": "synthetic"}}, "data.name=synthetic, the paper's is cifar10"),
        ({"changes": {"data.train_split": "45k"}}, "data.train_split=45k, the paper's is all"),
        ({"changes": {"recipe.batch_size": 64}}, "recipe.batch_size=64, the paper's is 128"),
        ({"changes": {"recipe.lr": 0.05}}, "recipe.lr=0.05, the paper's is 0.1"),
        (  # as that experiment is, but not the paper's net
            {"changes": {"experiment": "mine", "recipe.nesterov": True}},
            "recipe.nesterov=True, the paper's is False",
        ),
    ],
)
def test_only_the_paper_protocol_may_be_compared_with_the_paper(tmp_path, how, reason):
    run = load_run(fabricate(tmp_path, "plain-20", **how))
    assert protocol.why_not_comparable([run]) == reason
    assert protocol.paper_horizon(run) == (0 if reason else 64_000, reason)


def test_another_length_is_the_papers_until_its_first_drop(tmp_path):
    fabricate(tmp_path, "plain-20", changes={"recipe.max_iters": 65_000})
    fabricate(tmp_path, "plain-20", profile="short")
    longer, short = runs = Logged(tmp_path).runs
    assert protocol.why_not_comparable([longer]) == "recipe.max_iters=65000, the paper's is 64000"
    assert protocol.why_not_comparable([short]) == "short profile"
    assert [protocol.paper_horizon(run) for run in runs] == [(64_000, ""), (1_600, "")]
