"""Images that could not be used: each is named in the log, whichever worker met it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import torch

from resnet_repro.data.images import LeavesOut
from resnet_repro.runs.metrics import Record
from resnet_repro.training.parts import Log, Parts
from resnet_repro.training.state import TrainState

EVENT = "left_out"


def tell_left_out(
    parts: Parts, state: TrainState, log: Log, held_out: LeavesOut | None = None
) -> None:
    """Write an event for each image left out since the last time, in order; all workers call it.

    Called wherever the state is saved, so that a resumed run names each use once, as one that was
    never stopped does. The event's iteration is that of the update that lacked the image.

    Args:
        parts: of the run.
        state: of the run.
        log: where to.
        held_out: the images an evaluation has just shown; by default those of training.
    """
    images, world = held_out or parts.images, parts.world
    mine = list(images.gone)
    images.gone.clear()
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
            event=EVENT,
            value=images.name_of(row),
            time=round(state.time, 3),
        )


def count_left_out(records: Iterable[Record]) -> dict[str, int]:
    """How often each image was left out of a batch or of an evaluation."""
    names = (str(record["value"]) for record in records if record.get("event") == EVENT)
    return dict(sorted(Counter(names).items()))
