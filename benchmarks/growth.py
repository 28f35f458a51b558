"""Time and memory against depth, batch size, runs at once: ``python -m benchmarks.growth``.

Each net of a grid is trained for a few iterations on synthetic images, in turn. On a CPU every
point has a process of its own, whose peak memory is its own; several runs at once are for a GPU.
"""

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch

from benchmarks.record import Row, Scope, command, device_of
from benchmarks.timing import WARM, Training, seconds_each
from resnet_repro.compose import compose_run
from resnet_repro.config import Config
from resnet_repro.options import ConfigError
from resnet_repro.training.build import load_data
from resnet_repro.training.device import free_after_run, return_freed_memory

SCOPES = {
    "cpu": Scope(experiments=(), rounds=3, iterations=2),
    "cuda": Scope(experiments=(), rounds=3, iterations=20),
}


class Point(NamedTuple):
    """Concurrent runs of an experiment, each with this batch size."""

    experiment: str
    batch_size: int
    runs: int = 1

    def config(self, overrides: Sequence[str]) -> Config:
        """The configuration of each of the runs."""
        words = ("data=synthetic", f"recipe.batch_size={self.batch_size}")
        return compose_run(f"experiment={self.experiment}", *overrides, *words)


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


def measure(scope: Scope, overrides: Sequence[str]) -> Row:
    """Measure the points of the device's grid, of ``scope.experiments`` if any are named."""
    kind = device_of(overrides).device.type
    points = [p for p in GRIDS[kind] if p.experiment in (scope.experiments or [p.experiment])]
    if not points:  # a file without rows would take the place of the one there is
        known = ", ".join(dict.fromkeys(point.experiment for point in GRIDS[kind]))
        raise ConfigError(f"--experiments {','.join(scope.experiments)}: growth has only {known}")
    return {"rows": [row(p, scope, overrides, alone=kind == "cpu") for p in points]}


def row(point: Point, scope: Scope, overrides: Sequence[str], *, alone: bool) -> Row:
    """Seconds and bytes per image of a point, measured ``alone`` in a process or in this one."""
    found: Row = {
        "experiment": point.experiment,
        "depth": point.config(overrides).model.depth,
        "batch_size": point.batch_size,
        "runs": point.runs,
        "seconds_per_image": None,
        "bytes_per_image": None,
    }
    try:
        if not alone:
            return found | train(point, scope, overrides)
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            return found | pool.submit(train, point, scope, overrides).result()
    except torch.OutOfMemoryError:
        return found | {"failed": "out of memory"}
    except BrokenProcessPool:  # where the system has no memory left
        return found | {"failed": "its process was ended"}


def train(point: Point, scope: Scope, overrides: Sequence[str]) -> Row:
    """Train, on synthetic images, and measure.

    The bytes are those a step takes beyond what stays between steps (weights, images).
    """
    config = point.config(overrides)
    data = load_data(config)
    free_after_run()  # the runs of the point before, and their graphs
    trainings = [Training(config, data, warm=0) for _ in range(point.runs)]
    device = trainings[0].setup.device
    before = forget_peak(device)

    def iterate() -> None:
        for training in trainings:
            training.iterate()

    seconds_each(iterate, WARM, device)
    times = [seconds_each(iterate, scope.iterations, device) for _ in range(scope.rounds)]
    images = point.batch_size * point.runs
    if device.type == "cuda":
        before = torch.cuda.memory_allocated()
    return {
        "engine": trainings[0].engine,
        "seconds_per_image": median(times) / images,
        "bytes_per_image": None if before is None else round((peak(device) - before) / images),
    }


def forget_peak(device: torch.device) -> int | None:
    """Reset the peak; return what is in use, ``None`` where the system does not report it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        return_freed_memory()
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            return None
    return peak(device)


def peak(device: torch.device) -> int:
    """Peak bytes of torch on a GPU, or of this process by Linux."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return 1024 * int(line.split()[1])


if __name__ == "__main__":
    command("growth", measure, SCOPES)
