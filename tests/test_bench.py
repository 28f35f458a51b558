"""The measurements on the smallest net, and that ways of training agree."""

import importlib
import json
import os
import signal
import sys
from collections import Counter
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from benchmarks import __main__, cost, growth, limit, parity, pictures, record, start, training
from benchmarks.growth import Point
from benchmarks.limit import CONV, NORM, OTHER, UPDATE, WAITING, kind_of, least, time_spent
from benchmarks.measured import Measured
from benchmarks.page import page
from benchmarks.precision import main
from benchmarks.record import Scope
from benchmarks.timing import Turn, ratios, spread, take_turns
from pictures import SMALL_CROP, encoded, photograph, shrink
from ranks import StopAt, do, small_job
from resnet_repro.data.synthetic import make
from resnet_repro.models.build import build_meta
from resnet_repro.models.count import count_multiply_adds
from resnet_repro.models.spec import NetSpec
from resnet_repro.options import ConfigError
from resnet_repro.paths import REPOSITORY as REPO
from resnet_repro.runs.folder import RunFolder
from resnet_repro.training import estimate, graph, stepper

TINY = ("data=synthetic", "model.depth=8", "recipe.batch_size=8", "trainer.threads=1")
TINY += ("trainer.device=cpu",)
WORDS = (*TINY, "evaluation.batch_size=500", "probes.response_images=8")
SMOKE = (*TINY, "profile=smoke")
SCOPE = Scope(experiments=("cifar10_resnet20",), rounds=2, iterations=2)


def measured_by(name, out, *args):
    """What a part writes, of what a part of this name has to write."""
    part = importlib.import_module(f"benchmarks.{name}")
    arguments = ["--out", str(out), *WORDS, *args]
    kept = record.command(name, part.measure, {"cpu": SCOPE}, arguments)
    path = out / f"{name}_cpu.json"
    assert json.loads(path.read_text(encoding="utf-8")) == json.loads(json.dumps(kept))
    committed = json.loads((REPO / "results" / "bench" / path.name).read_text(encoding="utf-8"))
    assert kept.keys() | {"notes"} == committed.keys() | {"notes"}
    assert {frozenset(row) for row in kept["rows"]} == {frozenset(r) for r in committed["rows"]}
    assert torch.__version__.startswith(kept["versions"]["torch"].partition("+")[0])
    assert kept["threads"] == 1
    assert f"benchmarks.{name}" in kept["command"]
    assert page([Measured(name, "cpu", kept)])  # the page takes what the part writes
    return kept


def test_training_is_compared_with_the_usual_loop(tmp_path, monkeypatch):
    assert training.worker_choices()[0] >= 1
    monkeypatch.setattr(training, "worker_choices", lambda: [1])
    (row,) = measured_by("training", tmp_path, "--rounds", "1")["rows"]
    assert (row["net"], row["usual_workers"], row["threads"]) == ("ResNet-8", 1, 1)
    assert row["times_faster_lowest"] <= row["times_faster"] <= row["times_faster_highest"]
    assert 0 < row["data_share"] < 1
    assert row["times_less_work"] > 0
    assert torch.get_num_threads() == 1
    assert 0 < row["busy_cores"] < 1.2


def test_the_usual_loop_is_the_usual_one():
    arrays = make((64, 8))
    data = training.usual_data(arrays)
    image, label = data[3]
    assert len(data) == 64
    assert (tuple(image.shape), image.dtype) == ((3, 32, 32), torch.float32)
    assert label == arrays.train_labels[3]
    torch.manual_seed(0)
    assert not torch.equal(data[3][0], data[3][0])  # cropped and flipped each time


@pytest.mark.usefixtures("break_as")
def test_harness_is_counted_part_by_part(tmp_path):
    kept = measured_by("harness", tmp_path, f"runs_dir={tmp_path / 'runs'}", "--rounds", "1")
    parts = {row["part"]: row for row in kept["rows"]}
    assert (parts["logging"]["times"], parts["evaluation"]["times"]) == (640, 64)
    some = {"check for a stop and divergence", "progress", "checkpoints", "probes: gradients"}
    assert some < parts.keys()
    assert parts["W&B offline: processor time of its process"]["seconds_each"] > 0.01
    assert kept["notes"] == []
    (net,) = kept["nets"]
    own = [row["share"] for row in kept["rows"] if row["kind"] == "harness"]
    assert net["share_of_harness"] == pytest.approx(sum(own), abs=1e-4)
    assert net["share_with_evaluation"] > net["share_of_harness"] > 0
    assert list((tmp_path / "runs").iterdir()) == []  # nothing is left behind


def test_the_paper_runs_are_projected(tmp_path):
    (row,) = measured_by("cost", tmp_path)["rows"]
    assert row["iterations"] == 64_000
    done = row["start_seconds"] + 64_000 * row["step_seconds"] + 64 * row["evaluation_seconds"]
    clean = 2_000 / 500 * row["evaluation_seconds"]
    assert row["run_seconds"] == pytest.approx(done + clean, rel=1e-3)


def test_a_net_that_does_not_fit_is_named_and_the_others_are_projected(
    tmp_path, monkeypatch, capsys
):
    def pace(config, _):
        if config.model.depth == 152:
            raise torch.OutOfMemoryError
        return estimate.RunPace(1.0, 0.5, 0.001, estimate.SETS["imagenet"])

    monkeypatch.setattr(estimate, "measure", pace)
    scope = Scope(("imagenet_resnet152", "imagenet_resnet50"))
    kept = record.command("cost", cost.measure, {"cpu": scope}, ["--out", str(tmp_path)])
    (row,) = kept["rows"]
    assert row["experiment"] == "imagenet_resnet50"
    for output in (capsys.readouterr().out, page([Measured("cost", "cpu", kept)])):
        assert "imagenet_resnet152: does not fit in memory" in output


def test_every_training_of_the_paper_is_projected_on_a_gpu():
    full_size = ["plain18", "resnet18_A", "plain34", *(f"resnet34_{option}" for option in "ABC")]
    full_size += ["resnet50", "resnet101", "resnet152"]
    cifar = [f"plain{depth}" for depth in (20, 32, 44, 56, 110)]
    cifar += [f"resnet{depth}" for depth in (20, 32, 44, 56, 110, 1202)]
    names = {*(f"imagenet_{net}" for net in full_size), *(f"cifar10_{net}" for net in cifar)}
    assert set(cost.SCOPES["cuda"].experiments) == names
    assert set(cost.SCOPES["cpu"].experiments) == names - {cost.TOO_LARGE}


def test_limit_tells_where_the_time_goes(tmp_path, monkeypatch):
    monkeypatch.setitem(limit.COPIED, "cpu", 16 << 20)
    monkeypatch.setitem(limit.SIDE, "cpu", 128)
    kept = measured_by("limit", tmp_path)
    (row,) = kept["rows"]
    assert kept["copy_bytes_per_second"] > 1e8
    least_seconds = max(row["least_seconds_moving"], row["least_seconds_computing"])
    assert row["fraction"] == pytest.approx(least_seconds / row["seconds"], abs=1e-4)
    shares = {spent["on"]: spent["share"] for spent in row["spent"]}
    assert sum(shares.values()) == pytest.approx(1, abs=0.01)
    assert min(shares[CONV], shares[NORM], shares[UPDATE]) > 0


def test_kernels_are_distinguished():
    kernels = {
        CONV: "aten::mkldnn_convolution aten::convolution_backward cutlass_80_wgrad_optimized "
        "sm90_xmma_fprop_implicit_gemm_tf32f32",
        NORM: "cudnn::bn_fw_tr_1C11_kernel_NHWC aten::native_batch_norm_backward aten::add "
        "aten::threshold_backward triton_red_fused__native_batch_norm_legit_relu",
        UPDATE: "aten::_fused_sgd_ at::native::FusedSgdMathFunctor",
        OTHER: "nchwToNhwcKernel cudnn::convertTensor_kernel aten::addmm aten::copy_",
    }
    for kind, listed in kernels.items():
        for name in listed.split():
            assert kind_of(name) == kind, name
    assert time_spent(lambda: None, 1, torch.device("cpu"))[WAITING] > 0.5


def test_only_kernels_count_on_a_gpu():
    kinds = torch.profiler.DeviceType
    events = [
        SimpleNamespace(name=name, device_type=device, is_user_annotation=note,
                        time_range=SimpleNamespace(elapsed_us=lambda: 1_000))
        for name, device, note in (
            ("sm90_xmma_fprop", kinds.CUDA, False),
            ("aten::conv2d", kinds.CPU, False),
            ("Optimizer.step", kinds.CUDA, True),
        )
    ]  # fmt: skip
    profiled = SimpleNamespace(events=lambda: events)
    assert list(limit._on_device(profiled)) == [("sm90_xmma_fprop", 0.001)]


@pytest.mark.parametrize(("depth", "gigabytes"), [(20, 0.5), (110, 3.0)])
def test_least_bytes_by_hand(depth, gigabytes):
    """Eleven passes over every conv output in two bytes, for batches of 128."""
    net = build_meta(NetSpec("cifar", depth, "A"), 10)
    found = least(net, 128, 32, "bf16")
    n = (depth - 2) // 6
    outputs = 16 * 32**2 * (2 * n + 1) + 32 * 16**2 * 2 * n + 64 * 8**2 * 2 * n
    assert found.bytes[CONV] + found.bytes[NORM] == 11 * 2 * 128 * outputs
    assert sum(found.bytes.values()) / 1e9 == pytest.approx(gigabytes, rel=0.1)
    assert found.operations == 2 * 3 * 128 * count_multiply_adds(net, 32)
    twice = least(net, 128, 32, "fp32")
    assert twice.bytes[CONV] == 2 * found.bytes[CONV]
    assert twice.operations == found.operations


POINT = Point("cifar10_resnet20", 4)


def test_growth_has_time_and_memory_of_every_point(tmp_path, monkeypatch):
    here = partial(growth.row, alone=False)
    monkeypatch.setattr(growth, "row", lambda *args, alone: here(*args))
    points = [Point("cifar10_plain20", 4), POINT, Point("cifar10_resnet20", 64)]
    monkeypatch.setitem(growth.GRIDS, "cpu", points)
    rows = measured_by("growth", tmp_path, "--rounds", "1")["rows"]
    found = [(row["batch_size"], row["depth"], row["runs"]) for row in rows]
    assert found == [(4, 8, 1), (64, 8, 1)]
    assert all(row["seconds_per_image"] > 0 for row in rows)
    if sys.platform == "linux":
        taken = [row["bytes_per_image"] * row["batch_size"] for row in rows]
        assert taken[1] > taken[0]
    with pytest.raises(ConfigError, match="--experiments a,b: growth has only cifar10_plain20, "):
        growth.measure(Scope(("a", "b")), SMOKE)


@pytest.mark.slow
def test_a_point_has_a_process_of_its_own():
    row = growth.row(POINT, Scope((), 1, 1), WORDS, alone=True)
    assert row["seconds_per_image"] > 0
    if sys.platform == "linux":
        assert row["bytes_per_image"] > 0


def test_a_killed_process_and_a_device_without_memory_are_reported(monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("no")

    for train, alone, failed in ((end_myself, True, "ended"), (full, False, "out of memory")):
        monkeypatch.setattr(growth, "train", train)
        row = growth.row(POINT, SCOPE, WORDS, alone=alone)
        assert row["seconds_per_image"] is None
        assert failed in row["failed"]


def end_myself(*_):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("quick", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_commands_and_figures_are_timed(quick, tmp_path, monkeypatch):
    """The two that take seconds are stood in for, unless slow tests are run."""

    def timed(args, code=0):
        return Turn(0.5, 0.4) if args[1].endswith(".py") else started(args, code)

    started = start.timed
    if quick:
        monkeypatch.setattr(start, "timed", timed)
        monkeypatch.setattr(start, "first_iteration", lambda *_: Turn(9.0, 8.0))
    monkeypatch.setattr(start, "names", lambda _: ["fig1", "fig4"])
    monkeypatch.setattr(start, "RUNS", 2)
    kept = measured_by("start", tmp_path, "--rounds", "1")
    took = {row["what"]: row["seconds"] for row in kept["rows"]}
    commands = ["python alone", "--help", "configuration error", "first iteration", "fig1"]
    assert list(took) == commands
    assert 0 < took["python alone"] < took["--help"] < took["first iteration"]
    assert kept["notes"] == ["not drawn, of other data: fig4"]
    with pytest.raises(start.CommandError, match="exit code 0"):
        started([sys.executable, "-c", "pass"], code=2)


def test_made_up_runs_have_what_real_ones_have(tmp_path):
    paths = start.write_runs(tmp_path, ["cifar10_plain20", "cifar10_resnet20"], 3)
    places = ["cifar10_plain20/seed0", "cifar10_resnet20/seed0", "cifar10_plain20/seed1"]
    assert ["/".join(path.parts[-2:]) for path in paths] == places
    folder = RunFolder(paths[0])
    kinds = Counter(record["kind"] for record in folder.metrics())
    assert kinds == {"train": 640, "test": 64, "train_clean": 1}
    assert folder.is_finished
    assert len(folder.table("responses")) == 19
    assert len(folder.table("gradients")) == 7 * 19


def test_turns_are_taken_in_both_orders_and_compared_by_round():
    order = []
    turns = {name: (lambda name=name: order.append(name) or 1.0) for name in "ab"}
    assert take_turns(turns, 2) == {"a": [1.0, 1.0], "b": [1.0, 1.0]}
    assert order == ["a", "b", "b", "a"]
    found = ratios([2.0, 20.0, 4.0], [1.0, 10.0, 1.0])
    assert spread("x", found, 1) == {"x": 2.0, "x_lowest": 2.0, "x_highest": 4.0}


@pytest.mark.parametrize(
    ("args", "message"),
    [(["recipe.lr=-1"], "recipe.lr=-1"), (["--rounds", "0"], "0: must be at least 1")],
)
def test_a_wrong_word_is_refused(args, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        record.command("training", training.measure, training.SCOPES, args)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_one_command_measures_all_and_tells_what_failed(tmp_path, monkeypatch, capsys):
    asked = {}

    def run_part(part, args):
        asked[part] = args
        return part != "limit"

    assert not __main__.run_part("nothing", [])
    monkeypatch.setattr(__main__, "run_part", run_part)
    monkeypatch.chdir(tmp_path)  # where the page is written
    args = ["--out", str(tmp_path), "--rounds", "2"]
    assert __main__.main([*args, "data=synthetic"]) == 1
    assert tuple(asked) == __main__.PARTS
    assert asked["start"] == [*args, "data=synthetic"]
    assert "failed: limit" in capsys.readouterr().err
    assert (tmp_path / "docs" / "SPEED.md").exists()
    asked.clear()
    words = ("--experiments", "a,b", "data=synthetic")  # also after an option
    assert __main__.main(["training", "growth", *args, *words]) == 0
    assert list(asked) == ["training", "growth"]
    assert asked["growth"] == [*args, *words]
    with pytest.raises(SystemExit) as stopped:
        __main__.main(["trainng"])
    assert stopped.value.code == 2
    assert "trainng: must be one of" in capsys.readouterr().err


@pytest.fixture
def tiny(monkeypatch):
    """Few iterations are compared, and what is compiled runs the same kernels as ever."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    monkeypatch.setattr(parity, "BITS", 6)
    monkeypatch.setitem(parity.TIMED, "cpu", 1)
    torch._dynamo.reset()
    yield parity.Subject("cifar10_resnet20", SMOKE, 3)
    torch._dynamo.reset()
    torch.use_deterministic_algorithms(False)


def passed(rows):
    return [row["passed"] for row in rows]


@pytest.mark.usefixtures("tiny")
def test_ways_that_agree_pass_and_are_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(parity, "SCOPES", {"cpu": Scope(("cifar10_resnet20",), 1, 3)})
    monkeypatch.setattr("sys.argv", ["parity", "--out", str(tmp_path), *SMOKE])
    monkeypatch.setitem(parity.TIMES, "bf16", 1e9)  # three iterations have not gone apart yet
    assert parity.main() == 0
    (path,) = tmp_path.glob("parity_*.json")
    rows = json.loads(path.read_text())["rows"]
    assert all(passed(rows)), rows
    ways = {
        "batches": ["ahead"],
        "losses": ["rounding", "compiled", "eager", "compiled"],
        "first loss": ["compiled", "eager", "compiled"],
        "rerun": ["eager", "compiled"],
        "compiling": ["compiled", "compiled"],
    }
    found = [(row["check"], row["way"]) for row in rows]
    assert sorted(found) == sorted((check, way) for check in ways for way in ways[check])
    assert capsys.readouterr().out.count("ok  ") == len(rows)


def test_other_batches_and_other_losses_fail(monkeypatch, tiny):
    monkeypatch.setattr(parity, "nudge", lambda *_: None)  # nothing may be off at all
    found = {(row["way"], row["precision"]): row for row in parity.losses(tiny)}
    assert found["rounding", "fp32"]["found"] == 0
    assert not found["eager", "bf16"]["passed"]
    monkeypatch.setattr(
        graph.BatchesAhead, "at", lambda self, row: (self._images[0], self._labels[0])
    )
    assert parity.batches(tiny)["found"] == 3


def test_a_rerun_with_other_bits_fails(monkeypatch, tiny):
    made, trainings = parity.Subject.training, []

    def changing(self, *args, **more):
        trainings.append(made(self, *args, **more))
        if len(trainings) == 2:
            parity.nudge(trainings[-1], 0)
        return trainings[-1]

    monkeypatch.setattr(parity.Subject, "training", changing)
    assert passed(parity.rerun(tiny, parity.EAGER, 1)) == [False]


def test_a_check_that_cannot_run_neither_passes_nor_fails(monkeypatch, tiny):
    monkeypatch.setattr(stepper, "compile_obstacle", lambda *_, **__: "there is no compiler")
    monkeypatch.setattr(parity, "losses", lambda _: ())
    rows = [row for row in parity.checks(tiny, 1) if row["way"] == "compiled"]
    assert [row["check"] for row in rows] == ["rerun", "compiling", "compiling"]
    assert passed(rows) == [None] * 3
    assert rows[0]["why_not"] == "trainer.compile=always: there is no compiler"


def test_every_part_of_the_path_has_its_speed_on_photographs_or_made_up_ones(tmp_path, monkeypatch):
    shrink(monkeypatch)
    monkeypatch.setattr(pictures, "CROP", SMALL_CROP)
    monkeypatch.setattr(pictures, "BATCH", {"cpu": 4})
    monkeypatch.setattr(pictures, "MADE_UP", 2)
    monkeypatch.setattr(pictures, "SIZE", (90, 80))
    for number in range(3):  # fewer than a batch
        (tmp_path / f"{number}.JPEG").write_bytes(encoded(photograph(90, 80, seed=number)))
    monkeypatch.setenv("RESNET_REPRO_DATA", str(tmp_path))
    words = ("trainer.threads=1", "trainer.loader_workers=1", "trainer.device=cpu")
    found = pictures.measure(Scope(("imagenet_plain18",), rounds=1, iterations=2), words)
    assert found["photographs"] == {"count": 3, "kind": "photographs"}
    speeds = {(row["what"], row["cores"]): row["images_per_second"] for row in found["rows"]}
    assert list(speeds) == [
        ("decoding, this project", 1),
        ("decoding, torchvision's recipe", 1),
        ("the loader alone, 1 process", None),
        ("the loader alone, in the training process", 1),
        ("updates alone, on the CPU", 1),
        ("a run, its training", None),
    ]
    assert all(speed > 0 for speed in speeds.values())
    (run,) = found["runs"]
    assert (run["net"], run["iterations"], run["batch_size"]) == ("plain-18", 2, 4)
    assert (run["test_images"], run["left_out"]) == (3, {})
    assert 0 < run["loss_of_the_last"] < 50
    monkeypatch.setenv("RESNET_REPRO_DATA", str(tmp_path / "nothing"))
    paths, kind = pictures.find((), tmp_path / "made-up")
    assert kind == "made-up pictures"
    assert [path.name for path in paths] == ["000.JPEG", "001.JPEG"]
    assert pictures.decode(paths, 1)["pictures"] == 2


def test_continuations_start_at_the_checkpoint_and_differ(tmp_path, capsys):
    job = small_job(tmp_path)
    assert do(job, StopAt(6)) == "preempted"
    args = [str(job.folder.path), str(job.folder.checkpoints), "--iterations", "2"]
    main([*args, "--out", str(tmp_path)])
    path = tmp_path / "precision_cifar10_resnet20_cpu.json"
    text = path.read_text()
    main([*args, "--out", str(tmp_path)])
    assert path.read_text() == text  # nothing is measured twice
    kept = json.loads(text)
    (compared,) = kept["gradients"]
    assert (compared["from"], compared["rounding"]) == (6, 0.0)  # the run is in fp32
    meta = job.folder.meta()
    job.folder.write_meta(meta | {"precision": "bf16"})  # as if another machine had chosen it
    main([*args[:3], "0", "--out", str(tmp_path / "bf16")])
    other = json.loads((tmp_path / "bf16" / path.name).read_text())
    (bf16,) = other["gradients"]
    assert (kept["precision"], other["precision"], other["rows"]) == ("fp32", "bf16", [])
    assert 0.001 < bf16["rounding"] < bf16["sampling"] == compared["sampling"]
    job.folder.write_meta(meta)
    rows = kept["rows"]
    assert kept["net"] == "ResNet-8"
    assert [row["from"] for row in rows] == [6] * 4
    by_name = {row["continuation"]: row for row in rows}
    own, again = by_name["fp32, channels last, seed 0"], by_name["fp32, NCHW, seed 0"]
    assert do(job) == "finished"
    records = {(r["kind"], r["iter"]): r for r in job.folder.metrics()}
    assert own["loss"] == round(records["train", 8]["loss"], 4)  # what the run itself did next
    assert abs(again["loss"] - own["loss"]) < 1e-2
    assert by_name["fp32, channels last, seed 1001"]["loss"] != own["loss"]
    path.write_text(text.replace('"run": "smoke/', '"run": "paper/'))
    with pytest.raises(SystemExit):  # another run's rows are neither kept under this name nor taken
        main([*args, "--out", str(tmp_path)])
    assert "/seed0, not smoke/" in capsys.readouterr().err
