"""What a device can do: bytes it copies and operations its matrix units make, in a second."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from benchmarks.turns import seconds_each, synchroniser
from resnet_repro.training.device import Setup

COPIED = {"cpu": 256 << 20, "cuda": 2 << 30}  # bytes, far more than any cache holds
SIDE = {"cpu": 2_048, "cuda": 8_192}  # of the matrices
ROUNDS, WARM = 7, 2


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
