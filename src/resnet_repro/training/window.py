"""The last iterations' losses and wrong counts, kept on the device."""

from __future__ import annotations

import math

import torch
from torch import Tensor

SMOOTHING_ITERS = (
    100  # the training error of the warm-up rule is the mean over this many iterations
)
LOSS, WRONG1, WRONG5 = range(3)


class Window:
    """A ring of per-iteration sums: loss, top-1 and top-5 wrong counts of each mini-batch.

    The step writes without reading back, so the device never waits for the host between log
    points. Shape of ``sums``: (length, 3), float64.
    """

    def __init__(self, batch_size: int, length: int, device: torch.device):
        self.batch_size = batch_size
        self.length = max(length, SMOOTHING_ITERS)
        self.sums = torch.zeros(self.length, 3, dtype=torch.float64, device=device)

    def add(self, iteration: int, loss: Tensor, wrong: Tensor) -> None:
        """Store one iteration: ``loss`` is the batch mean, ``wrong`` the (2,) wrong counts."""
        row = self.sums[iteration % self.length]
        row[LOSS] = loss
        row[WRONG1:] = wrong

    def last(self, iteration: int, count: int) -> Tensor:
        """Rows of the ``count`` iterations before ``iteration``, oldest first, on the host."""
        rows = torch.arange(iteration - count, iteration, device=self.sums.device) % self.length
        return self.sums[rows].cpu()

    def means(self, iteration: int, count: int) -> tuple[float, float, float]:
        """Mean loss, top-1 and top-5 error in percent over the last ``count`` iterations."""
        total = self.last(iteration, count).sum(dim=0)
        seen = count * self.batch_size
        return (
            float(total[LOSS]) / count,
            100 * float(total[WRONG1]) / seen,
            100 * float(total[WRONG5]) / seen,
        )

    def smoothed_error(self, iteration: int) -> float:
        """Top-1 training error in percent over the last 100 iterations; infinite before that."""
        if iteration < SMOOTHING_ITERS:
            return math.inf
        return self.means(iteration, SMOOTHING_ITERS)[1]

    def first_bad(self, iteration: int, count: int) -> int | None:
        """The first of the last ``count`` iterations whose loss is not finite, if any."""
        losses = self.last(iteration, count)[:, LOSS]
        bad = (~torch.isfinite(losses)).nonzero()
        return iteration - count + int(bad[0]) if len(bad) else None
