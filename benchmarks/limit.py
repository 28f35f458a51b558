"""How far training is from what the device could do: ``python -m benchmarks.limit``.

For each net what an iteration must move and compute at least (:mod:`benchmarks.min_traffic`),
what the device copies and multiplies in a second (:mod:`benchmarks.rates`), what an
iteration takes, and which kernels take it (:mod:`benchmarks.kernel_time`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.harness_run import Training
from benchmarks.kernel_time import CONV, NORM, UPDATE, time_spent
from benchmarks.min_traffic import Least, least
from benchmarks.rates import Rates, measure_rates
from benchmarks.record import Scope, command, device_of
from benchmarks.turns import Spread, seconds_each, synchroniser
from resnet_repro.compose import compose_run
from resnet_repro.training.assemble import load_data

RESIDUAL = tuple(f"cifar10_resnet{depth}" for depth in (20, 32, 44, 56, 110, 1202))
SCOPES = {
    "cpu": Scope(experiments=RESIDUAL[:5], rounds=3, iterations=2),
    "cuda": Scope(experiments=RESIDUAL, rounds=5, iterations=20),
}
SHRINK = 1  # of what the device is measured with


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
    batch, _, _, side = training.parts.share_shape
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
