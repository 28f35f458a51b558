"""What a run is made of besides its state, and who is told about it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from resnet_repro.config import Config
from resnet_repro.data.images import Images
from resnet_repro.data.order import BatchOrder
from resnet_repro.training.device import Setup
from resnet_repro.training.distributed import SOLO, World
from resnet_repro.training.state import TrainState


class Watcher(Protocol):
    """Whoever wants to see a run go by."""

    def update(self, iteration: int, top1_err: float | None, lr: float) -> None:
        """Take note of an iteration; ``top1_err`` is the last logged training error, percent."""


class Log(Protocol):
    """Where records go: :class:`resnet_repro.runs.metrics.MetricsWriter` on rank 0."""

    def write(self, kind: str, **values: Any) -> object:
        """Append one record."""


class Unheard:
    """Watcher and log of the workers that do not speak for the run."""

    def update(self, iteration: int, top1_err: float | None, lr: float) -> None:
        """Leave it to rank 0."""

    def write(self, kind: str, **values: Any) -> None:
        """Leave it to rank 0."""


@dataclass(frozen=True)
class Parts:
    """What a run is made of besides its state."""

    config: Config
    setup: Setup
    images: Images
    world: World = SOLO

    @property
    def order(self) -> BatchOrder:
        """Which images make up which batch."""
        return self.images.order

    @property
    def share_shape(self) -> tuple[int, int, int, int]:
        """Shape of the images of :meth:`batch`."""
        return self.images.share_shape

    def batch(self, iteration: int) -> tuple[Tensor, Tensor]:
        """The worker's share of the batch after ``iteration`` updates: images and labels."""
        return self.images.batch(iteration)


class Clock:
    """Adds the seconds since it was last asked to the state's running time."""

    def __init__(self, state: TrainState):
        self._state, self._last = state, time.perf_counter()

    def tick(self, *, training: bool = True) -> float:
        """Count the time since the last tick; return the run's total so far, rounded."""
        now = time.perf_counter()
        passed, self._last = now - self._last, now
        self._state.time += passed
        self._state.train_time += passed if training else 0.0
        return round(self._state.time, 3)
