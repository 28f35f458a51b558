"""How far training is from what the device could do: ``python -m benchmarks.limit``.

For each net what an iteration must move and compute at least (:mod:`benchmarks.min_traffic`),
what the device copies and multiplies in a second, what an iteration takes, and which kernels take
it (:mod:`benchmarks.kernel_time`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.harness_run import Training
from benchmarks.kernel_time import CONV, NORM, UPDATE, time_spent
from benchmarks.min_traffic import Least, least
from benchmarks.record import Scope, command, device_of
from benchmarks.turns import Spread, seconds_each, synchroniser
from resnet_repro.compose import compose_run
from resnet_repro.training.build import load_data
from resnet_repro.training.device import Setup

RESIDUAL = tuple(f"cifar10_resnet{depth}" for depth in (20, 32, 44, 56, 110, 1202))
SCOPES = {
    "cpu": Scope(experiments=RESIDUAL[:5], rounds=3, iterations=2),
    "cuda": Scope(experiments=RESIDUAL, rounds=5, iterations=20),
}
COPIED = {"cpu": 256 << 20, "cuda": 2 << 30}  # bytes, far more than any cache holds
SIDE = {"cpu": 2_048, "cuda": 8_192}  # of the matrices
ROUNDS, WARM = 7, 2
SHRINK = 1  # of what the device is measured with


@dataclass(frozen=True)
class Rates:
    """Bytes a second, reads and writes counted; operations a second in the precision of training.

    A multiplication and an addition are two operations.
    """

    copy: float
    matrix: float


def measure_rates(setup: Setup, rounds: int = ROUNDS, shrink: int = 1) -> Rates:
    """The best of several measurements: a limit, not a mean.

    Args:
        setup: device, precision and threads.
        rounds: how often each is measured.
        shrink: divides the bytes and the side of the matrices.
    """
    kind = setup.device.type
    count, side = COPIED[kind] // shrink, SIDE[kind] // shrink
    source = torch.ones(count // 4, device=setup.device)
    target = torch.empty_like(source)
    dtype = torch.bfloat16 if setup.precision == "bf16" else torch.float32
    left = torch.randn(side, side, device=setup.device).to(dtype)
    right = torch.randn(side, side, device=setup.device).to(dtype)
    out = torch.empty_like(left)
    copying = _best(lambda: target.copy_(source), setup, rounds)
    with torch.no_grad():
        multiplying = _best(lambda: torch.mm(left, right, out=out), setup, rounds)
    return Rates(copy=2 * 4 * source.numel() / copying, matrix=2 * side**3 / multiplying)


def _best(work: Callable[[], object], setup: Setup, rounds: int) -> float:
    synchronise = synchroniser(setup.device)
    seconds_each(work, WARM, synchronise)
    return min(seconds_each(work, WARM, synchronise) for _ in range(rounds))


def measure(scope: Scope, words: Sequence[str]) -> dict[str, Any]:
    """Measure the device, then every net of ``scope``."""
    rates = measure_rates(device_of(words), shrink=SHRINK)
    rows = [distance(name, rates, scope, words) for name in scope.experiments]
    return {
        "copy_bytes_per_second": rates.copy,
        "operations_per_second": rates.matrix,
        "rows": rows,
    }


def distance(experiment: str, rates: Rates, scope: Scope, words: Sequence[str]) -> dict[str, Any]:
    """One net: the least it must do, what it takes, and where its time goes.

    ``fraction`` is the least time over the time taken. It can exceed one: what lies in a cache
    need not be moved.
    """
    arrays = load_data(compose_run(f"experiment={experiment}", *words))
    training = Training.of(experiment, words, arrays)
    batch, _, _, side = training.parts.images.share_shape
    need = least(training.state.model, batch, side, training.setup.precision)
    synchronise = synchroniser(training.setup.device)
    times = [
        seconds_each(training.iterate, scope.iterations, synchronise) for _ in range(scope.rounds)
    ]
    seconds = Spread.of(times).median
    shares = time_spent(training.iterate, scope.iterations, training.setup.device)
    moving, computing = need.bytes / rates.copy, need.operations / rates.matrix
    return {
        "net": training.label,
        "experiment": experiment,
        "batch_size": batch,
        "engine": training.stepper.engine,
        "bytes": need.bytes,
        "operations": need.operations,
        "seconds": seconds,
        "least_seconds_moving": moving,
        "least_seconds_computing": computing,
        "limited_by": "memory" if moving > computing else "matrix units",
        "fraction": round(max(moving, computing) / seconds, 4),
        "spent": [
            {
                "on": kind,
                "share": round(share, 4),
                "least_share": round(least_seconds(kind, need, rates) / seconds, 4),
            }
            for kind, share in sorted(shares.items(), key=lambda found: -found[1])
        ],
    }


def least_seconds(kind: str, need: Least, rates: Rates) -> float:
    """The least time of one kind of kernel; zero for what could be done without."""
    if kind == CONV:
        return max(need.conv_bytes / rates.copy, need.operations / rates.matrix)
    return {NORM: need.norm_bytes, UPDATE: need.update_bytes}.get(kind, 0) / rates.copy


if __name__ == "__main__":
    command("limit", measure, SCOPES)
