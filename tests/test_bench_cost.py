"""Costs of the paper's experiments against numbers worked out by hand."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from benchmarks import cost
from benchmarks.cost import Host, Pace, Workload, hours
from benchmarks.schedule import measure_few, measure_one
from fabricate import fabricate
from resnet_repro.analysis.load import load_runs
from resnet_repro.runs.provenance import cpu_description, gpu_name, usable_cores
from resnet_repro.training import estimate

WORKS = cost.paper_workloads()
NETS = {work.name: work for work in WORKS}
WORK = Workload("imagenet_x", "ImageNet", 36_000, 256, 10**9, loads=True)
HOST = Host(16, 100.0, "another", same_cores=False)  # 1,600 pictures a second


def test_hours_are_as_measured_and_decoding_is_added_where_it_was_not():
    assert hours(WORK, Pace(1.0), HOST) == pytest.approx(10.0)
    assert hours(WORK, Pace(0.01), HOST) == pytest.approx(1.6)  # 160 ms of decoding a batch
    assert hours(WORK, Pace(0.01, "logged", with_decoding=True), HOST) == pytest.approx(0.1)
    cpu = HOST._replace(same_cores=True)
    assert hours(WORK, Pace(1.0), cpu) == pytest.approx(11.6)
    assert hours(replace(WORK, loads=False), Pace(1.0), cpu) == pytest.approx(10.0)


def test_table_gives_hours_only_where_something_was_measured(tmp_path):
    paces = {"imagenet_resnet50": Pace(0.3)}
    table = cost.cost_table(WORKS, paces, HOST).set_index("experiment")
    ours = table.loc["imagenet_resnet50"]
    assert ours["hours"] == pytest.approx(50.0)
    assert ours["images (1e6)"] == pytest.approx(153.6)
    assert table.drop("imagenet_resnet50")["hours"].isna().all()
    markdown = cost.save_cost(paces, tmp_path, HOST, "a guess")[0].read_text()
    assert "Seconds on one device: a guess;" in markdown
    assert "decodes 100 full-size pictures a second (another), 16 cores" in markdown
    assert "nan" not in markdown


def test_other_nets_take_the_seconds_of_the_most_similar_one():
    measured = {"imagenet_resnet34_A": 2.0, "imagenet_resnet50": 3.0, "cifar10_resnet20": 0.1}
    paces = cost.scaled(WORKS, measured)
    assert set(paces) == set(NETS)
    assert paces["imagenet_resnet50"] == Pace(3.0, "measured")
    assert {name for name, pace in paces.items() if pace.basis == "measured"} == set(measured)
    plain = paces["imagenet_plain34"]  # the same multiply-adds
    assert (plain.seconds, plain.basis) == (pytest.approx(2.0), "from imagenet_resnet34_A")
    deepest = paces["imagenet_resnet152"]
    assert deepest.seconds == pytest.approx(3.0 * 11_282_415_616 / 3_857_973_248, rel=1e-3)
    assert deepest.basis == "from imagenet_resnet50"
    assert paces["imagenet_resnet34_C"].basis == "from imagenet_resnet34_A"  # the same blocks
    assert paces["cifar10_resnet110"].basis == "from cifar10_resnet20"
    assert set(cost.scaled(WORKS, {"cifar10_resnet20": 0.1})) == {
        name for name in NETS if name.startswith("cifar10")
    }


def test_every_experiment_of_the_paper_is_there():
    full_size = ["plain18", "resnet18_A", "plain34", *(f"resnet34_{option}" for option in "ABC")]
    full_size += ["resnet50", "resnet101", "resnet152"]
    cifar = [f"plain{depth}" for depth in (20, 32, 44, 56, 110)]
    cifar += [f"resnet{depth}" for depth in (20, 32, 44, 56, 110, 1202)]
    assert list(NETS) == [*(f"imagenet_{x}" for x in full_size), *(f"cifar10_{x}" for x in cifar)]


def test_seconds_of_logged_runs(tmp_path):
    fabricate(tmp_path, "ResNet-56", seed=0)
    fabricate(tmp_path, "ResNet-56", seed=1)
    fabricate(tmp_path, "plain-20", changes={"recipe.batch_size": 64})
    fabricate(tmp_path, "plain-32", changes={"trainer.concurrent": 4})
    old = fabricate(tmp_path, "ResNet-20") / "meta.json"
    old.write_text(old.read_text().replace("images_per_second", "unknown"))
    seconds, device = cost.paces_of_runs(load_runs(tmp_path), WORKS)
    (pace,) = seconds.values()
    assert list(seconds) == ["cifar10_resnet56"]
    assert (pace.seconds, pace.basis, pace.with_decoding) == (pytest.approx(0.128), "logged", True)
    assert device == "2 CPU cores, AMD EPYC, bf16"
    for label in ("plain-56", "ResNet-110"):
        fabricate(tmp_path, label, hardware="1x NVIDIA H200", precision="tf32")
    seconds, device = cost.paces_of_runs(load_runs(tmp_path), WORKS)
    assert list(seconds) == ["cifar10_plain56", "cifar10_resnet110"]  # never of two devices
    assert device == "1x NVIDIA H200, tf32"
    seconds, _ = cost.paces_of_runs(load_runs(tmp_path), WORKS, "2 CPU cores")
    assert list(seconds) == ["cifar10_resnet56"]
    assert cost.paces_of_runs([], WORKS) == ({}, "no logged run")


def test_the_command(tmp_path, capsys):
    given = ("--seconds", "imagenet_resnet152=0.9", "--loader-rate", "300")
    cost.main(["--runs", str(tmp_path), "--out", str(tmp_path), *given])
    output = capsys.readouterr().out
    assert "| imagenet_resnet152 " in output
    assert "150.00" in output
    assert "decodes 300 full-size pictures a second (as given)" in output
    assert (tmp_path / "cost.csv").exists()


def test_the_loaders_rate_is_the_benchmarked_one(tmp_path):
    def measured(device, cpu, rate):
        rows = [
            {"what": "decoding, this project", "cores": 1, "images_per_second": 999.0},
            {"what": "the loader alone, in one process", "cores": 1, "images_per_second": rate},
            {"what": "the loader alone, 16 processes", "cores": None, "images_per_second": 2000.0},
        ]
        kept = {"rows": rows, "hardware": {"cpu": cpu}, "photographs": {"kind": "photographs"}}
        kept |= {"part": "pictures", "device": device}
        (tmp_path / f"pictures_{device}.json").write_text(json.dumps(kept))

    assert cost.loader_rate(tmp_path) is None
    measured("cpu", "another one", 150.5)
    assert cost.loader_rate(tmp_path) == (150.5, "photographs, measured on another one")
    here = cpu_description()[0]
    measured("cuda", here, 181.5)
    assert cost.loader_rate(tmp_path) == (181.5, f"photographs, measured on {here}")


def measured(folder, part="cost", **hardware):
    """A file as bench.cost writes it on this machine."""
    folder.mkdir(exist_ok=True)
    here = {"gpu": None, "cpu": cpu_description()[0], "cores": usable_cores(), "label": "this one"}
    seconds = {"imagenet_resnet50": 36.0, "cifar10_resnet20": 0.5}
    rows = [{"experiment": name, "seconds": each} for name, each in seconds.items()]
    kept = {"part": part, "device": "cpu", "hardware": here | hardware, "precision": "fp32"}
    kept |= {"made": "2026-01-02T03:04:05Z", "load_before": 0.0, "rows": rows}
    (folder / f"{part}_cpu.json").write_text(json.dumps(kept))


def test_a_second_call_is_answered_from_the_file_and_needs_no_torch(tmp_path):
    if gpu_name() is not None:
        pytest.skip("a machine with a GPU asks torch for its name")
    measured(tmp_path / "bench")
    code = (
        "import sys; from benchmarks import cost\n"
        f"cost.main(['--bench', '{tmp_path / 'bench'}', '--out', '{tmp_path}'])\n"
        "sys.exit(9 if 'torch' in sys.modules else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = {line.split("|")[1].strip(): line for line in done.stdout.splitlines() if "|" in line}
    assert "| measured " in lines["imagenet_resnet50"]
    assert "| from imagenet_resnet50 " in lines["imagenet_plain34"]
    decoding = 256 / (150 * usable_cores())  # on the cores that train
    assert f"| {600_000 * (36 + decoding) / 3600:.2f} " in lines["imagenet_resnet50"]
    assert f"| {64_000 * 0.5 / 3600:.2f} " in lines["cifar10_resnet20"]
    assert "measured on this one, fp32, 2026-01-02;" in done.stdout


def test_what_another_machine_measured_is_measured_again(tmp_path, monkeypatch):
    monkeypatch.setattr(cost, "gpu_name", lambda: None)
    assert cost.measured_here(tmp_path, "cost") is None
    for other in ({"cpu": "another"}, {"cores": 999}, {"gpu": "H200"}):
        measured(tmp_path, **other)
        assert cost.measured_here(tmp_path, "cost") is None
    measured(tmp_path)
    assert len(cost.measured_here(tmp_path, "cost").rows) == 2
    assert cost.measured_here(tmp_path, "schedule") is None


@pytest.mark.parametrize("word", ["imagenet_resnet50", "imagenet_resnet50=fast", "resnet5=1"])
def test_seconds_that_are_none_are_refused(word, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        cost.main(["--out", str(tmp_path), "--seconds", word])
    assert stopped.value.code == 2
    assert f"--seconds {word}: " in capsys.readouterr().err


def test_measuring_halves_a_batch_that_does_not_fit(monkeypatch):
    asked = []

    def pace(config):
        asked.append(config.recipe.batch_size)
        if config.recipe.batch_size > 64:
            raise torch.OutOfMemoryError
        return estimate.RunPace(0.5, 0.0, estimate.SETS[config.data.name])

    monkeypatch.setattr(estimate, "measure", pace)
    row = measure_one("imagenet_resnet50")
    assert asked == [256, 128, 64]
    assert (row["seconds"], row["batch_size"], row["measured"]) == (2.0, 256, 64)


def test_measuring_writes_what_is_recalled(tmp_path, monkeypatch):
    monkeypatch.setattr(estimate, "PIXELS", 4 * 32 * 32)  # four images, on a CPU
    measured(tmp_path, cores=999)
    other = (tmp_path / "cost_cpu.json").read_text()
    kept = measure_few(tmp_path, ["cifar10_resnet20"], ["trainer.threads=1", "model.depth=8"])
    assert (tmp_path / "cost_cpu.json").read_text() == other  # another machine's stay
    (row,) = kept.rows
    assert (row["experiment"], row["batch_size"]) == ("cifar10_resnet20", 128)
    assert row["seconds"] > 0
    assert cost.measured_here(tmp_path, "cost") == kept
    assert {"made", "hardware", "versions", "git", "precision"} <= set(kept.content)
