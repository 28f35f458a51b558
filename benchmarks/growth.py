"""How time and memory grow with depth, batch size and runs at once.

``python -m benchmarks.growth`` trains each net of a grid for a few iterations on made-up
images, one after the other. On a CPU every point has a process of its own, whose peak
memory is its own; several runs at once are for a GPU.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness_run import WARM, Training
from benchmarks.record import Scope, command, device_of
from benchmarks.turns import Spread, seconds_each, synchroniser
from resnet_repro.compose import compose_run
from resnet_repro.training.build import load_data
from resnet_repro.training.device import return_freed_memory

SCOPES = {
    "cpu": Scope(experiments=(), rounds=3, iterations=2),
    "cuda": Scope(experiments=(), rounds=3, iterations=20),
}


@dataclass(frozen=True)
class Point:
    """So many runs of an experiment at once, each with this batch size."""

    experiment: str
    batch_size: int
    runs: int = 1


def _residual(depths: Sequence[int], *batch_sizes: int) -> list[Point]:
    return [Point(f"cifar10_resnet{d}", size) for size in batch_sizes for d in depths]


GRIDS = {
    "cpu": [
        *_residual((20, 32, 44, 56, 110), 32),
        *_residual((20, 56, 110, 1202), 2),
        *_residual((20, 56), 8, 128),
    ],
    "cuda": [
        *_residual((20, 32, 44, 56, 110, 1202), 128),
        *_residual((20, 110), 16, 32, 64, 256, 512, 1024),
        *(Point("cifar10_resnet20", 128, runs) for runs in (2, 4, 8, 16)),
    ],
}


def measure(
    scope: Scope, words: Sequence[str], grid: Sequence[Point] | None = None
) -> dict[str, Any]:
    """Measure the points of a grid; that of the device by default.

    ``scope.experiments`` leaves only the points of these, if any are named.
    """
    kind = device_of(words).device.type
    wanted = [
        point
        for point in (GRIDS[kind] if grid is None else grid)
        if not scope.experiments or point.experiment in scope.experiments
    ]
    rows = [
        train_here(point, scope, words) if kind == "cuda" else train_apart(point, scope, words)
        for point in wanted
    ]
    return {"rows": rows}


def train_apart(point: Point, scope: Scope, words: Sequence[str]) -> dict[str, Any]:
    """As :func:`train_here`, in a process that does nothing else."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        try:
            return pool.submit(train_here, point, scope, words).result()
        except BrokenProcessPool:  # what the system does where there is no memory left
            return _row(point, words) | {"failed": "its process was ended"}


def train_here(point: Point, scope: Scope, words: Sequence[str]) -> dict[str, Any]:
    """Seconds and bytes per image of a point.

    The bytes are those a step takes beyond what lies there between steps (weights, images).
    """
    row = _row(point, words)
    asked = [*words, "data=synthetic", f"recipe.batch_size={point.batch_size}"]
    try:
        found = _train(point, scope, asked)
    except torch.OutOfMemoryError:
        return row | {"failed": "out of memory"}
    return row | found


def _train(point: Point, scope: Scope, words: Sequence[str]) -> dict[str, Any]:
    arrays = load_data(compose_run(f"experiment={point.experiment}", *words))
    device = device_of(words).device
    memory = _CudaMemory() if device.type == "cuda" else _ProcessMemory()
    trainings = [Training.of(point.experiment, words, arrays, warm=0) for _ in range(point.runs)]
    memory.begin()
    synchronise = synchroniser(device)

    def iterate() -> None:
        for training in trainings:
            training.iterate()

    seconds_each(iterate, WARM, synchronise)
    times = [seconds_each(iterate, scope.iterations, synchronise) for _ in range(scope.rounds)]
    images = point.batch_size * point.runs
    taken = memory.taken()
    return {
        "engine": trainings[0].stepper.engine,
        "seconds_per_image": Spread.of(times).median / images,
        "bytes_per_image": None if taken is None else round(taken / images),
    }


def _row(point: Point, words: Sequence[str]) -> dict[str, Any]:
    config = compose_run(f"experiment={point.experiment}", *words)
    return {
        "experiment": point.experiment,
        "depth": config.model.depth,
        "batch_size": point.batch_size,
        "runs": point.runs,
        "seconds_per_image": None,
        "bytes_per_image": None,
    }


class _CudaMemory:
    """Memory that torch takes on the GPU."""

    def __init__(self) -> None:
        gc.collect()  # the runs of the point before, and their graphs
        torch.cuda.empty_cache()

    def begin(self) -> None:
        torch.cuda.reset_peak_memory_stats()

    def taken(self) -> int:
        return torch.cuda.max_memory_allocated() - torch.cuda.memory_allocated()


class _ProcessMemory:
    """Memory of this process, as Linux tells it."""

    def begin(self) -> None:
        self._before: int | None = None
        return_freed_memory()
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # forgets the peak
            self._before = self._peak()

    def taken(self) -> int | None:
        return None if self._before is None else self._peak() - self._before

    def _peak(self) -> int:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
        return 1024 * int(line.split()[1])


if __name__ == "__main__":
    command("growth", measure, SCOPES)
