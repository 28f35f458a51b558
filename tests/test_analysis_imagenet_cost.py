"""The cost model against numbers worked out by hand."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from fabricate import fabricate, forget
from resnet_repro.analysis.cost import (
    Machine,
    Workload,
    hours,
    iteration,
    paper_workloads,
    stops_helping,
    what_stops,
)
from resnet_repro.analysis.cost_table import cost_table, save_cost, seconds_of_runs
from resnet_repro.analysis.load import load_runs

# 100 M parameters: 400 MB of gradients; 1e9 multiply-adds an image
WORK = Workload("imagenet_x", "X", "ImageNet", 36_000, 256, 100_000_000, 10**9, loads=True)
MACHINE = Machine(
    devices_per_host=4,
    link_inside=100e9,
    link_between=10e9,
    cores_per_host=16,
    loader_rate=100.0,
    busy=8e9,  # eight images
)


def test_training_size() -> None:
    assert WORK.images == 9_216_000
    assert WORK.total_multiply_adds == 3 * 9_216_000 * 10**9


def test_parts_of_an_iteration_inside_a_host() -> None:
    four = iteration(WORK, 1.0, 4, MACHINE)
    assert four.compute == pytest.approx(0.25)
    assert four.exchange == pytest.approx(2 * 3 / 4 * 400e6 / 100e9)  # 6 ms, hidden by backward
    assert four.load == pytest.approx(256 / (100 * 16))  # 160 ms
    assert four.seconds == pytest.approx(0.25)
    assert four.limit == "compute"


def test_parts_of_an_iteration_between_hosts() -> None:
    sixteen = iteration(WORK, 1.0, 16, MACHINE)
    assert sixteen.compute == pytest.approx(1 / 16)
    assert sixteen.exchange == pytest.approx(2 * 15 / 16 * 400e6 / 10e9)  # 75 ms
    assert sixteen.load == pytest.approx(0.04)  # the cores of four hosts
    assert sixteen.seconds == pytest.approx(1 / 48 + 0.075)
    assert sixteen.limit == "link"


def test_one_device_exchanges_nothing_and_hours_are_as_measured() -> None:
    one = iteration(WORK, 1.0, 1, MACHINE)
    assert (one.exchange, one.compute) == (0.0, 1.0)
    assert hours(WORK, 1.0, 1, MACHINE) == pytest.approx(10.0)
    assert hours(WORK, 1.0, 4, MACHINE) == pytest.approx(2.5)
    assert hours(WORK, 0.01, 1, MACHINE) == pytest.approx(0.1)  # as measured, whatever is assumed


def test_a_slow_loader_is_the_limit() -> None:
    slow = replace(MACHINE, loader_rate=20.0)
    four = iteration(WORK, 1.0, 4, slow)
    assert four.seconds == pytest.approx(0.8)
    assert four.limit == "loader"
    assert iteration(replace(WORK, loads=False), 1.0, 4, slow).load == 0.0


def test_a_small_share_of_the_batch_is_the_limit() -> None:
    fast = replace(MACHINE, link_between=1e15, loader_rate=1e6)
    sixty_four = iteration(WORK, 1.0, 64, fast)  # four images a device, eight keep it busy
    assert sixty_four.compute == pytest.approx(8 / 256)
    assert sixty_four.limit == "batch"
    assert iteration(WORK, 1.0, 16, fast).compute == pytest.approx(1 / 16)
    tiny = replace(WORK, multiply_adds=1000)  # even the whole batch keeps no device busy
    assert iteration(tiny, 1.0, 2, fast).compute == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("machine", "devices", "limit"),
    [
        # 8 devices: 42 ms + 70 ms = 112 ms, 16: 96 ms, 32: 31 / 3 + 77.5 = 88 ms
        (MACHINE, 16, "link"),
        (replace(MACHINE, link_between=1e15, loader_rate=1e6), 32, "batch"),
        (replace(MACHINE, loader_rate=20.0), 2, "loader"),  # 0.8 s of loading on one host
        (replace(MACHINE, link_between=1e15, loader_rate=1e6, busy=0.0), 256, "one image a device"),
    ],
)
def test_where_more_devices_stop_helping(machine: Machine, devices: int, limit: str) -> None:
    assert stops_helping(WORK, 1.0, machine).devices == devices
    assert what_stops(WORK, 1.0, machine) == limit


def test_more_devices_than_images_are_refused() -> None:
    for devices in (0, 257):
        with pytest.raises(ValueError, match=f"{devices} devices for a batch of 256 images"):
            iteration(WORK, 1.0, devices, MACHINE)


def test_every_experiment_of_the_paper_is_there() -> None:
    works = {work.name: work for work in paper_workloads()}
    assert list(works) == [
        "imagenet_plain18",
        "imagenet_resnet18_A",
        "imagenet_plain34",
        *(f"imagenet_resnet34_{option}" for option in "ABC"),
        *(f"imagenet_resnet{depth}" for depth in (50, 101, 152)),
        *(f"cifar10_plain{depth}" for depth in (20, 32, 44, 56, 110)),
        *(f"cifar10_resnet{depth}" for depth in (20, 32, 44, 56, 110, 1202)),
    ]
    deepest = works["imagenet_resnet152"]
    assert deepest.images == 153_600_000  # 600k iterations of 256
    assert deepest.total_multiply_adds == 3 * 153_600_000 * 11_282_415_616
    assert deepest.loads
    assert works["cifar10_resnet110"].images == 8_192_000  # 64k iterations of 128
    assert not works["cifar10_resnet110"].loads


def test_table_gives_hours_only_where_something_was_measured(tmp_path: Path) -> None:
    table = cost_table(paper_workloads(), {"imagenet_resnet50": 0.3}, MACHINE, (4, 8))
    table = table.set_index("experiment")
    ours = table.loc["imagenet_resnet50"]
    assert ours["hours on 1"] == pytest.approx(50.0)
    assert ours["hours on 4"] == pytest.approx(600_000 * 0.16 / 3600)  # the loader's 1,600 a second
    assert ours["images (1e6)"] == pytest.approx(153.6)
    assert ours["gradients (MB)"] == pytest.approx(4 * 25.557032)
    assert ours["then"] == "loader"
    others = table.drop("imagenet_resnet50")
    assert others[["hours on 1", "hours on 8", "helps up to"]].isna().all().all()
    paths = save_cost({"imagenet_resnet50": 0.3}, tmp_path, MACHINE, "a guess")
    markdown = paths[0].read_text()
    assert "4 devices a host, 100 GB/s inside and 10 GB/s between hosts" in markdown
    assert "(a guess)" in markdown
    assert "nan" not in markdown


def test_seconds_of_logged_runs(tmp_path: Path) -> None:
    fabricate(tmp_path, "ResNet-56", seed=0)
    fabricate(tmp_path, "ResNet-56", seed=1)
    fabricate(tmp_path, "plain-20", changes={"recipe.batch_size": 64})
    forget(fabricate(tmp_path, "ResNet-20"), "images_per_second")
    seconds, device = seconds_of_runs(load_runs(tmp_path), paper_workloads())
    assert seconds == {"cifar10_resnet56": pytest.approx(0.128)}
    assert device == "2 CPU cores, AMD EPYC, bf16"
    for label in ("plain-56", "ResNet-110"):
        fabricate(tmp_path, label, hardware="1x NVIDIA H200", precision="tf32")
    seconds, device = seconds_of_runs(load_runs(tmp_path), paper_workloads())
    assert list(seconds) == ["cifar10_plain56", "cifar10_resnet110"]  # never of two devices
    assert device == "1x NVIDIA H200, tf32"
    seconds, _ = seconds_of_runs(load_runs(tmp_path), paper_workloads(), "2 CPU cores")
    assert list(seconds) == ["cifar10_resnet56"]
    assert seconds_of_runs([], paper_workloads()) == ({}, "no logged run")


def test_the_command(tmp_path: Path) -> None:
    script = Path(__file__).parents[1] / "experiments" / "cost.py"
    words = ["--runs", str(tmp_path), "--out", str(tmp_path), "--seconds", "imagenet_resnet152=0.9"]
    done = subprocess.run(
        [sys.executable, str(script), *words, "--devices", "8", "--loader-rate", "300"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "| imagenet_resnet152 " in done.stdout
    assert "150.00" in done.stdout
    assert "decoding 300 images/s" in done.stdout
    assert (tmp_path / "cost.csv").exists()
