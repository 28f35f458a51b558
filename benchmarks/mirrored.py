"""What a mirror in W&B costs a run, offline: opening it, its records, and the process it starts."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from benchmarks.turns import children_seconds
from resnet_repro.runs.folder import RunFolder
from resnet_repro.runs.wandb_sink import open_sink

PATIENCE = 60.0  # seconds that its process may take to end
RECORD = {"kind": "train", "iter": 100, "epoch": 0.256, "loss": 1.5, "top1_err": 55.0}
RECORD |= {"top5_err": 6.0, "lr": 0.1, "num_samples": 12_800, "time": 10.0}


@dataclass(frozen=True)
class Cost:
    """Seconds on the clock of opening and of one record; processor time of W&B's own process."""

    opening: float
    record: float
    process: float


def cost_of_wandb(folder: RunFolder, config: Mapping[str, Any], records: int) -> Cost | str:
    """Mirror so many records of a run; or why that cannot be done.

    Args:
        folder: of a run; W&B's files go to ``wandb/`` in it.
        config: of the run.
        records: that a whole run has.
    """
    if find_spec("wandb") is None:
        return "wandb is not installed"
    said: list[str] = []
    before = children_seconds()
    began = time.perf_counter()
    sink = open_sink("wandb", "offline", folder, config, said.append)
    opened = time.perf_counter()
    for _ in range(records):
        sink.record(RECORD)
    sent = time.perf_counter()
    sink.close("preempted", PATIENCE)
    if said:
        return said[0]
    return Cost(opened - began, (sent - opened) / records, children_seconds() - before)
