"""The measurements themselves, on the smallest net: what they write and what they compare."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks import (
    __main__,
    baseline_loop,
    growth,
    harness,
    kernel_time,
    limit,
    record,
    schedule,
    start,
    training,
)
from benchmarks.fake_runs import write_runs
from benchmarks.growth import Point
from benchmarks.harness_run import Training
from benchmarks.kernel_time import CONV, NORM, OTHER, UPDATE, WAITING, kind_of, time_spent
from benchmarks.measured import Measured
from benchmarks.min_traffic import least
from benchmarks.page import page
from benchmarks.record import Scope
from benchmarks.turns import Spread, take_turns, times_faster
from resnet_repro.data.synthetic import make
from resnet_repro.models.build import build_meta
from resnet_repro.models.count import count_multiply_adds
from resnet_repro.models.spec import NetSpec
from resnet_repro.runs.folder import RunFolder

WORDS = ("data=synthetic", "model.depth=8", "recipe.batch_size=8", "trainer.threads=1")
WORDS += ("trainer.device=cpu", "evaluation.batch_size=500", "probes.response_images=8")
SCOPE = Scope(experiments=("cifar10_resnet20",), rounds=2, iterations=2)


def measured_by(
    part: str, measure: Callable[[Scope, Sequence[str]], Mapping[str, Any]], out: Path, *words: str
) -> dict[str, Any]:
    """The file that the command line of a part writes."""
    scopes = {"cpu": SCOPE, "cuda": SCOPE}
    path = record.command(part, measure, scopes, ["--out", str(out), *WORDS, *words])
    assert path == out / f"{part}_cpu.json"
    kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    assert {"made", "hardware", "versions", "precision", "threads", "command"} <= kept.keys()
    assert torch.__version__.startswith(kept["versions"]["torch"].partition("+")[0])
    assert kept["threads"] == 1
    assert f"benchmarks.{part}" in kept["command"]
    assert page([Measured(part, "cpu", kept)])  # the page takes what the part writes
    return kept


def test_training_is_compared_with_the_usual_loop(tmp_path: Path) -> None:
    (row,) = measured_by("training", training.measure, tmp_path)["rows"]
    assert row["net"] == "ResNet-8"
    assert row["times_faster_lowest"] <= row["times_faster"] <= row["times_faster_highest"]
    assert row["usual_workers"] in baseline_loop.worker_choices()
    assert 0 < row["data_share"] < 1
    assert row["times_less_work"] > 0
    assert torch.get_num_threads() == row["threads"] == 1
    assert 0 < row["busy_cores"] < 1.2


def test_the_usual_loop_is_the_usual_one() -> None:
    arrays = make((64, 8))
    data = baseline_loop.usual_data(arrays)
    image, label = data[3]
    assert len(data) == 64
    assert (tuple(image.shape), image.dtype) == ((3, 32, 32), torch.float32)
    assert label == arrays.train_labels[3]
    torch.manual_seed(0)
    assert not torch.equal(data[3][0], data[3][0])  # cropped and flipped anew


def test_harness_is_counted_part_by_part(tmp_path: Path) -> None:
    kept = measured_by("harness", harness.measure, tmp_path, f"runs_dir={tmp_path / 'runs'}")
    parts = {row["part"]: row for row in kept["rows"]}
    assert (parts["logging"]["times"], parts["evaluation"]["times"]) == (640, 64)
    assert {"looking", "progress", "checkpoints", "probes: gradients"} < parts.keys()
    assert parts["W&B offline: processor time of its process"]["seconds_each"] > 0.1
    assert kept["notes"] == []
    (net,) = kept["nets"]
    own = [row["share"] for row in kept["rows"] if row["kind"] == "harness"]
    assert net["share_of_harness"] == pytest.approx(sum(own), abs=1e-4)
    assert net["share_with_evaluation"] > net["share_of_harness"] > 0
    assert list((tmp_path / "runs").iterdir()) == []  # nothing is left behind


def test_the_paper_runs_are_projected(tmp_path: Path) -> None:
    (row,) = measured_by("schedule", schedule.measure, tmp_path)["rows"]
    assert row["iterations"] == 64_000
    done = row["ready_seconds"] + 64_000 * row["step_seconds"] + 64 * row["evaluation_seconds"]
    clean = 2_000 / 500 * row["evaluation_seconds"]
    assert row["run_seconds"] == pytest.approx(done + clean, rel=1e-3)


def test_limit_tells_where_the_time_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limit, "SHRINK", 16)
    kept = measured_by("limit", limit.measure, tmp_path)
    (row,) = kept["rows"]
    assert kept["copy_bytes_per_second"] > 1e8
    least_seconds = max(row["least_seconds_moving"], row["least_seconds_computing"])
    assert row["fraction"] == pytest.approx(least_seconds / row["seconds"], abs=1e-4)
    shares = {spent["on"]: spent["share"] for spent in row["spent"]}
    assert sum(shares.values()) == pytest.approx(1, abs=0.01)
    assert shares[CONV] > 0 and shares[NORM] > 0 and shares[UPDATE] > 0  # noqa: PT018


def test_kernels_are_told_apart() -> None:
    kinds = {
        "aten::mkldnn_convolution": CONV,
        "aten::convolution_backward": CONV,
        "sm90_xmma_fprop_implicit_gemm_tf32f32": CONV,
        "cutlass_80_wgrad_optimized": CONV,
        "cudnn::bn_fw_tr_1C11_kernel_NHWC": NORM,
        "aten::native_batch_norm_backward": NORM,
        "aten::threshold_backward": NORM,
        "aten::add": NORM,
        "triton_red_fused__native_batch_norm_legit_relu": NORM,
        "aten::_fused_sgd_": UPDATE,
        "void at::native::FusedSgdMathFunctor": UPDATE,
        "nchwToNhwcKernel": OTHER,
        "cudnn::convertTensor_kernel": OTHER,
        "aten::addmm": OTHER,
        "aten::copy_": OTHER,
    }
    assert {name: kind_of(name) for name in kinds} == kinds


def test_only_kernels_count_on_a_gpu() -> None:
    def event(name: str, device: torch.profiler.DeviceType, note: bool = False) -> SimpleNamespace:
        took = SimpleNamespace(elapsed_us=lambda: 1_000)
        return SimpleNamespace(
            name=name, device_type=device, is_user_annotation=note, time_range=took
        )

    kinds = torch.profiler.DeviceType
    events = [
        event("sm90_xmma_fprop", kinds.CUDA),
        event("aten::conv2d", kinds.CPU),
        event("Optimizer.step", kinds.CUDA, note=True),
    ]
    seen: Any = SimpleNamespace(events=lambda: events)
    assert list(kernel_time._on_device(seen)) == [("sm90_xmma_fprop", 0.001)]


def test_time_of_nothing_is_waiting() -> None:
    found = time_spent(lambda: None, 1, torch.device("cpu"))
    assert found[WAITING] > 0.5


@pytest.mark.parametrize(("depth", "gigabytes"), [(20, 0.5), (56, 1.5), (110, 3.0)])
def test_least_bytes_by_hand(depth: int, gigabytes: float) -> None:
    """Eleven passes over every conv output in two bytes, for batches of 128."""
    net = build_meta(NetSpec("cifar", depth, "A"), 10)
    found = least(net, 128, 32, "bf16")
    n = (depth - 2) // 6
    outputs = 16 * 32**2 * (2 * n + 1) + 32 * 16**2 * 2 * n + 64 * 8**2 * 2 * n
    assert found.conv_bytes + found.norm_bytes == 11 * 2 * 128 * outputs
    assert found.bytes / 1e9 == pytest.approx(gigabytes, rel=0.1)
    assert found.operations == 2 * 3 * 128 * count_multiply_adds(net, 32)
    twice = least(net, 128, 32, "fp32")
    assert twice.conv_bytes == 2 * found.conv_bytes
    assert twice.operations == found.operations


def test_growth_has_time_and_memory_of_every_point(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "train_apart", growth.train_here)
    grid = [Point("cifar10_resnet20", size) for size in (4, 64)]
    rows = growth.measure(Scope((), rounds=1, iterations=1), WORDS, grid)["rows"]
    assert [(row["batch_size"], row["depth"], row["runs"]) for row in rows] == [
        (4, 8, 1),
        (64, 8, 1),
    ]
    assert all(row["seconds_per_image"] > 0 for row in rows)
    if sys.platform == "linux":
        taken = [row["bytes_per_image"] * row["batch_size"] for row in rows]
        assert taken[1] > taken[0]


@pytest.mark.slow
def test_a_point_has_a_process_of_its_own() -> None:
    row = growth.train_apart(Point("cifar10_resnet20", 4), Scope((), 1, 1), WORDS)
    assert row["seconds_per_image"] > 0
    if sys.platform == "linux":
        assert row["bytes_per_image"] > 0


def test_growth_leaves_out_what_was_not_asked_for(tmp_path: Path) -> None:
    kept = measured_by("growth", growth.measure, tmp_path, "--experiments", "cifar10_plain20")
    assert kept["rows"] == []


def test_a_process_that_is_killed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "train_here", end_myself)
    row = growth.train_apart(Point("cifar10_resnet20", 4), SCOPE, WORDS)
    assert row["seconds_per_image"] is None
    assert "ended" in row["failed"]


def end_myself(*_: object) -> dict[str, Any]:
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


def test_no_memory_on_the_device_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> dict[str, Any]:
        raise torch.OutOfMemoryError("no")

    monkeypatch.setattr(growth, "_train", full)
    row = growth.train_here(Point("cifar10_resnet20", 4), SCOPE, WORDS)
    assert row["failed"] == "out of memory"


def test_commands_and_figures_are_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The two that take seconds are stood in for; the slow test below calls all."""

    def timed(words: Sequence[str], code: int = 0) -> float:
        if words[1].endswith("fig4.py"):
            raise start.CommandError("no finished run to draw from")
        return 0.5 if words[1].endswith(".py") else started(words, code)

    started = start.timed
    monkeypatch.setattr(start, "timed", timed)
    monkeypatch.setattr(start, "first_iteration", lambda *_: 9.0)
    check_times(tmp_path, monkeypatch, ["fig1", "fig4"])


@pytest.mark.slow
def test_first_iteration_and_figures_are_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_times(tmp_path, monkeypatch, ["fig1", "fig4"])


def check_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, items: list[str]) -> None:
    monkeypatch.setattr(start, "names", lambda _: items)
    monkeypatch.setattr(start, "write_runs", lambda root, _: two_runs(root))
    kept = measured_by("start", start.measure, tmp_path, "--rounds", "1")
    took = {row["what"]: row["seconds"] for row in kept["rows"]}
    commands = ["python alone", "--help", "configuration error", "first iteration", "fig1"]
    assert list(took) == commands
    assert 0 < took["python alone"] < took["--help"] < took["first iteration"]
    assert kept["notes"] == ["not drawn, of other data: fig4"]


def two_runs(root: Path) -> list[Path]:
    return write_runs(root, 2, ["cifar10_plain20", "cifar10_plain56"])


def test_a_command_that_fails_is_no_measurement() -> None:
    with pytest.raises(start.CommandError, match="exit code 0"):
        start.timed([sys.executable, "-c", "pass"], code=2)


def test_made_up_runs_have_what_real_ones_have(tmp_path: Path) -> None:
    paths = write_runs(tmp_path, 3, ["cifar10_plain20", "cifar10_resnet20"])
    assert [path.parts[-2:] for path in paths] == [
        ("cifar10_plain20", "seed0"),
        ("cifar10_resnet20", "seed0"),
        ("cifar10_plain20", "seed1"),
    ]
    folder = RunFolder(paths[0])
    kinds = [record["kind"] for record in folder.metrics()]
    assert (kinds.count("train"), kinds.count("test"), kinds.count("train_clean")) == (640, 64, 1)
    assert folder.is_finished
    assert len(folder.table("responses")) == 19
    assert len(folder.table("gradients")) == 7 * 19


def test_turns_are_taken_in_both_orders() -> None:
    order: list[str] = []
    turns = {name: (lambda name=name: order.append(name) or 1.0) for name in "ab"}
    assert take_turns(turns, 2) == {"a": [1.0, 1.0], "b": [1.0, 1.0]}
    assert order == ["a", "b", "b", "a"]


def test_the_ratio_is_that_of_the_rounds() -> None:
    """A machine that is slow in one round is slow for both."""
    assert times_faster([2.0, 20.0, 4.0], [1.0, 10.0, 1.0]) == Spread(2.0, 2.0, 4.0)


def test_a_step_is_that_of_a_run() -> None:
    ours = Training.of("cifar10_resnet20", WORDS, make(), warm=0)
    before = [p.clone() for p in ours.state.model.parameters()]
    ours.iterate()
    assert ours.state.iteration == 1
    moved = zip(before, ours.state.model.parameters(), strict=True)
    assert not all(torch.equal(a, b) for a, b in moved)


def test_a_wrong_word_is_refused_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        record.command("training", training.measure, training.SCOPES, ["recipe.lr=-1"])
    assert stopped.value.code == 2
    assert "recipe.lr=-1" in capsys.readouterr().err


def test_one_command_measures_all_and_tells_what_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[str, list[str]]] = []

    def run_part(part: str, words: list[str]) -> bool:
        asked.append((part, words))
        return part != "limit"

    monkeypatch.setattr(__main__, "run_part", run_part)
    words = ["--out", str(tmp_path), "--docs", str(tmp_path / "docs"), "--rounds", "2"]
    assert __main__.main([*words, "data=synthetic"]) == 1
    assert [part for part, _ in asked] == __main__.there()
    assert {"training", "harness", "start", "limit", "growth", "schedule"} <= set(__main__.there())
    assert asked[0][1] == ["--out", str(tmp_path), "data=synthetic", "--rounds", "2"]
    assert "not measured: limit" in capsys.readouterr().err
    assert (tmp_path / "docs" / "SPEED.md").exists()
    asked.clear()
    assert __main__.main([*words, "training", "growth"]) == 0
    assert [part for part, _ in asked] == ["training", "growth"]


def test_a_part_that_does_not_exist_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        __main__.main(["trainng"])
    assert stopped.value.code == 2
    assert "trainng: must be one of" in capsys.readouterr().err


def test_a_part_that_fails_is_noticed() -> None:
    assert not __main__.run_part("nothing", [])
