"""What a step frees stays with the process; what a run held is freed when it has ended."""

from __future__ import annotations

import gc
import platform
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from resnet_repro.training import run as run_module
from resnet_repro.training.graph import GraphedStepper
from resnet_repro.training.memory import free_after_run
from resnet_repro.training.stepper import make
from test_training import DivergedError, StopAt, do, small_job

AGAIN = """
import resource, sys
import torch
from resnet_repro.config import TrainerConfig
from resnet_repro.training.device import set_up

if sys.argv[1] == "set up":
    set_up(TrainerConfig(device="cpu"))
for _ in range(10):  # until the blocks lie where they stay
    torch.ones(64 << 20, dtype=torch.uint8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
torch.ones(64 << 20, dtype=torch.uint8)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    """Pages that the system had to bring for a block as large as one freed a moment ago."""
    words = [sys.executable, "-c", AGAIN, how]
    return int(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_freed_memory_is_used_again() -> None:
    assert faults("set up") < 100 < faults("as it comes")


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def replayed(parts: Any, state: Any) -> GraphedStepper:
    return GraphedStepper(parts, state, {}, capture=lambda work: work, ahead=4)


@pytest.fixture(params=[make, replayed], ids=["eager", "graph"])
def held(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Weak references to what runs hold that is large."""
    found: list[Any] = []

    def noting(parts: Any, state: Any) -> Any:
        made = request.param(parts, state)
        images = parts.images.train_set
        found.extend(map(weakref.ref, (made, state, state.model, state.window, images)))
        found.extend(weakref.ref(p) for p in state.model.parameters())
        return made

    monkeypatch.setattr(run_module, "make", noting)
    return found


def alive(held: list[Any]) -> list[str]:
    return [type(ref()).__name__ for ref in held if ref() is not None]


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("stop", [None, 5])
def test_a_run_that_has_ended_holds_nothing(
    tmp_path: Path, held: list[Any], stop: int | None
) -> None:
    """Without the garbage collector, which comes when it likes."""
    do(small_job(tmp_path), StopAt(stop or 999))
    assert len(held) > 20
    assert alive(held) == []


@pytest.mark.usefixtures("no_collector")
def test_the_error_of_a_run_does_not_keep_its_memory(tmp_path: Path, held: list[Any]) -> None:
    """It is kept for the report at the end, while the other runs train."""
    with pytest.raises(DivergedError) as caught:
        do(small_job(tmp_path, "recipe.lr=1e30"))
    assert alive(held)
    free_after_run(caught.value)
    assert alive(held) == []
