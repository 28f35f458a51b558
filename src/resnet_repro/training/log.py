"""What a run writes: records with their time, checkpoints, and which images were skipped."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from typing import Any, Protocol

import torch

from resnet_repro.data import MaySkip
from resnet_repro.runs.folder import RunFolder
from resnet_repro.runs.metrics import MetricsWriter, Record
from resnet_repro.training import checkpoint
from resnet_repro.training.assemble import RunContext
from resnet_repro.training.state import TrainState

SKIPPED = "left_out"  # name of the event in ``metrics.jsonl``


class Log(Protocol):
    """Where records and checkpoints go."""

    @property
    def folder(self) -> RunFolder | None:
        """The run folder, where there is one to write to."""

    def write(self, kind: str, **values: Any) -> object:
        """Append one record."""

    def save(self, content: dict[str, Any]) -> None:
        """Save a checkpoint."""

    def sync(self) -> None:
        """Force all records to the disk."""


class NullLog:
    """No-op log and progress for ranks > 0."""

    folder = None

    def write(self, kind: str, **values: Any) -> None:
        """Do nothing."""

    def save(self, content: dict[str, Any]) -> None:
        """Do nothing."""

    def sync(self) -> None:
        """Do nothing."""

    def update(self, iteration: int, top1_err: float | None, lr: float) -> None:
        """Do nothing."""

    def enter(self, phase: str, iteration: int) -> None:
        """Do nothing."""


class RunLog:
    """Rank 0's log: the run folder.

    Args:
        folder: of the run.
        metrics_bytes: length to cut ``metrics.jsonl`` to: what the checkpoint remembers.
    """

    def __init__(self, folder: RunFolder, metrics_bytes: int):
        self.folder = folder
        self._file = MetricsWriter(folder.metrics_path, metrics_bytes)

    def write(self, kind: str, **values: Any) -> object:
        """Append one record."""
        return self._file.write(kind, **values)

    def save(self, content: dict[str, Any]) -> None:
        """Save a checkpoint, then report in ``status.json`` that the run can resume there."""
        content = content | {"metrics_bytes": self._file.sync()}
        checkpoint.save(self.folder.checkpoints, content["iteration"], content)
        self.folder.update_status("running", iter=content["iteration"])

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def sync(self) -> None:
        """Force all records to the disk."""
        self._file.sync()


class Clock:
    """Adds the seconds since its last tick to the running time of the state."""

    def __init__(self, state: TrainState):
        self._state, self._last = state, time.perf_counter()

    def tick(self, *, training: bool = True) -> float:
        """Add the time since the last tick; return the run's total so far, rounded."""
        now = time.perf_counter()
        passed, self._last = now - self._last, now
        self._state.time += passed
        self._state.train_time += passed if training else 0.0
        return round(self._state.time, 3)


def log_skipped(
    context: RunContext, state: TrainState, log: Log, held_out: MaySkip | None = None
) -> None:
    """Write an event for each image skipped since the last call, in order; all workers call it.

    Called wherever the state is saved, so that a resumed run names each use once, as a run that was
    never stopped does. The event's iteration is that of the update that lacked the image.

    Args:
        context: of the run.
        state: of the run.
        log: where to write.
        held_out: the images that were just evaluated; by default those of training.
    """
    images, world = held_out or context.images, context.world
    mine = list(images.skipped)
    images.skipped.clear()
    counts = torch.zeros(world.size, dtype=torch.int64)
    counts[world.rank] = len(mine)
    there = world.sum(counts).tolist()
    if not sum(there):
        return
    table = torch.zeros(world.size, max(there), 2, dtype=torch.int64)
    if mine:
        table[world.rank, : len(mine)] = torch.tensor(mine)
    tables = world.sum(table).tolist()
    for batch, row in sorted(
        pair for part, count in zip(tables, there, strict=True) for pair in part[:count]
    ):
        log.write(
            "event",
            iter=state.iteration if held_out else batch + 1,
            event=SKIPPED,
            value=images.name_of(row),
            time=round(state.time, 3),
        )


def count_skipped(records: Iterable[Record]) -> dict[str, int]:
    """How often each image was skipped in a batch or an evaluation."""
    names = (str(record["value"]) for record in records if record.get("event") == SKIPPED)
    return dict(sorted(Counter(names).items()))
