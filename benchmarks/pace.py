"""Measure the time of an iteration on this device, on a few iterations of a handful of nets.

``make cost`` scales the other nets by their multiply-adds. ``results/bench/cost_<device>.json``
keeps what was measured; torch is imported only to measure.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.measured import Measured

NETS = ("cifar10_resnet20", "cifar10_resnet110", "imagenet_resnet34_A", "imagenet_resnet50")
SMALLEST_BATCH = 8


def measure_all(
    folder: Path, nets: Sequence[str] = NETS, overrides: Sequence[str] = ()
) -> Measured:
    """Measure, write the file, return what is in it; ``overrides`` are for every net."""
    from benchmarks.record import provenance, write
    from resnet_repro.compose import compose_run
    from resnet_repro.training.device import set_up

    setup = set_up(compose_run(f"experiment={nets[0]}", *overrides).trainer)
    result = provenance("cost", setup) | {"load_before": round(os.getloadavg()[0], 2)}
    result["rows"] = [measure(net, overrides) for net in nets]
    write(folder, result)
    return Measured("cost", setup.device.type, result)


def measure(experiment: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Measure an iteration of the experiment's batch, halved until it fits in memory; seconds."""
    import torch

    from resnet_repro.compose import compose_run
    from resnet_repro.training import estimate

    # Without pictures: decoding is measured separately.
    overrides = [f"experiment={experiment}", f"data.root={os.devnull}", *overrides]
    batch = full = compose_run(*overrides).recipe.batch_size
    while True:
        try:
            pace = estimate.measure(compose_run(*overrides, f"recipe.batch_size={batch}"))
            break
        except torch.OutOfMemoryError:
            if batch <= SMALLEST_BATCH:
                raise
            batch //= 2
            torch.cuda.empty_cache()
    seconds = pace.per_update * full / batch
    return {"experiment": experiment, "seconds": seconds, "batch_size": full, "measured": batch}
