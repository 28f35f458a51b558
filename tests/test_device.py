"""What a run computes on: CUDA's index, rate and precision switches, no silent CPU; its memory."""

import gc
import platform
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

from ranks import StopAt, do, small_job
from refusals import refused
from resnet_repro.config import TrainerConfig
from resnet_repro.options import ConfigError
from resnet_repro.study import default_device
from resnet_repro.training import DivergedError, device
from resnet_repro.training import run as run_module
from resnet_repro.training.device import choose, free_after_run, set_fp32_precision, set_up
from resnet_repro.training.graph import GraphedStep
from resnet_repro.training.stepper import make


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "a GPU")


@pytest.mark.usefixtures("two_gpus")
def test_a_gpu_always_has_an_index_and_more_devices_than_there_are_are_refused():
    """One GPU a machine and several machines, too: ``set_device`` refuses one without."""
    for rank, size in ((0, 1), (0, 2), (1, 2)):
        assert choose(TrainerConfig(), rank, size).device == torch.device("cuda", rank)
    message = "trainer.devices=4: 2 CUDA devices are visible here"
    refused(choose, TrainerConfig(devices=4), local_size=4, match=message, kind=ConfigError)


@pytest.fixture
def host(tmp_path, monkeypatch):
    """The root folder of a machine without CUDA, and without anything of NVIDIA's."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setattr(device, "DEV", tmp_path)
    monkeypatch.setattr(device, "NVIDIA_DRIVER", tmp_path / "version")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tmp_path


def device_files(host: Path) -> None:
    (host / "nvidia0").touch()
    driver = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 2023"
    (host / "version").write_text(driver)


def nvidia_smi(host: Path, line: str = "echo 535.104.05") -> None:
    path = host / "bin" / "nvidia-smi"
    path.write_text(f"#!/bin/sh\n{line}")
    path.chmod(0o755)


@pytest.mark.parametrize("cuda", ["13.2", None])
@pytest.mark.parametrize("shown_by", [device_files, nvidia_smi])
def test_a_gpu_that_torch_cannot_use_stops_the_run(host, monkeypatch, shown_by, cuda):
    """Not silently weeks on the CPU; the versions to compare are named."""
    shown_by(host)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    built = f"built for CUDA {cuda}" if cuda else "built without CUDA"
    expected = f"(driver 535.104.05), but torch {torch.__version__}, {built}, cannot use it"
    for asked in ("auto", "cuda"):
        message = f"trainer.device={asked}: an NVIDIA GPU is here {expected}"
        config = TrainerConfig(device=asked)
        assert message in refused(choose, config, match="trainer.device=cpu", kind=ConfigError)
    with monkeypatch.context() as driver:
        driver.setattr(Path, "exists", lambda _: True)
        refused(default_device, match="an NVIDIA GPU is here", kind=ConfigError)
    assert choose(TrainerConfig(device="cpu")).device.type == "cpu"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # hidden on purpose
    assert choose(TrainerConfig()).device.type == "cpu"


@pytest.mark.parametrize("smi", [None, "exit 9", "true"])
def test_a_host_without_a_gpu_trains_on_the_cpu(host, smi):
    if smi:
        nvidia_smi(host, smi)
    assert choose(TrainerConfig()).device.type == default_device() == "cpu"
    message = "trainer.device=cuda: no CUDA device is visible"
    refused(choose, TrainerConfig(device="cuda"), match=message, kind=ConfigError)


@pytest.fixture
def switches():
    yield
    set_fp32_precision("ieee")
    torch.backends.cudnn.allow_tf32 = True  # torch's own default
    torch.backends.cudnn.benchmark = False


@pytest.mark.usefixtures("two_gpus", "switches")
@pytest.mark.parametrize("precision", ["tf32", "fp32", "bf16"])
def test_old_and_new_precision_switches_agree(precision):
    """Whoever reads an old one, as compilers do, would raise if only the new ones were set."""
    set_up(TrainerConfig(precision=precision, threads=1))
    tf32, now = precision == "tf32", torch.backends
    assert now.cuda.matmul.fp32_precision == ("tf32" if tf32 else "ieee")
    assert now.cudnn.conv.fp32_precision == ("tf32" if tf32 else "ieee")
    assert now.cuda.matmul.allow_tf32 == now.cudnn.allow_tf32 == tf32
    assert torch.get_float32_matmul_precision() == ("high" if tf32 else "highest")
    with now.cudnn.flags(enabled=True):  # reads and restores all of them
        pass


AGAIN = """
import resource
import torch
from resnet_repro.config import TrainerConfig
from resnet_repro.training.device import set_up

def faults():
    for _ in range(10):  # until the blocks lie where they stay
        torch.ones(64 << 20, dtype=torch.uint8)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(64 << 20, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(faults())
set_up(TrainerConfig(device="cpu"))
print(faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_freed_memory_is_used_again():
    """Pages that the system has to bring for a block as large as one freed a moment ago."""
    done = subprocess.run([sys.executable, "-c", AGAIN], check=True, capture_output=True, text=True)
    as_it_comes, set_up_before = map(int, done.stdout.split())
    assert set_up_before < 100 < as_it_comes


@pytest.fixture
def no_collector():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def replayed(parts: Any, state: Any) -> tuple[GraphedStep, Any]:
    return GraphedStep(parts, state, lambda work: work), {}


@pytest.fixture(params=[make, replayed], ids=["eager", "graph"])
def held(request, monkeypatch):
    found: list[Any] = []

    def noting(parts: Any, state: Any) -> Any:
        made = request.param(parts, state)
        images = parts.images.train_set
        found.extend(map(weakref.ref, (made[0], state, state.model, state.window, images)))
        found.extend(weakref.ref(p) for p in state.model.parameters())
        return made

    monkeypatch.setattr(run_module, "make", noting)
    return found


def alive(held: list[Any]) -> list[str]:
    return [type(ref()).__name__ for ref in held if ref() is not None]


@pytest.mark.parametrize("stop", [None, 5])
def test_a_run_that_has_ended_holds_nothing(tmp_path, held, stop):
    do(small_job(tmp_path, "recipe.max_iters=6", "recipe.milestones=[4]"), StopAt(stop or 999))
    free_after_run()
    assert len(held) > 20
    assert alive(held) == []


@pytest.mark.usefixtures("no_collector")
def test_the_error_of_a_run_does_not_keep_its_memory(tmp_path, held):
    """It is kept for the report at the end, while the other runs train."""
    with pytest.raises(DivergedError) as caught:
        do(small_job(tmp_path, "recipe.lr=1e30"))
    assert alive(held)
    free_after_run(caught.value)
    assert alive(held) == []
