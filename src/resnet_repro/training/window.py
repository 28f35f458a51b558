"""The last iterations' losses and wrong counts, kept on the device."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from resnet_repro.training.distributed import SOLO, World

SMOOTHING_ITERS = 100  # over which the warm-up rule takes the mean training error
LOSS, WRONG1, WRONG5, SEEN = range(4)


class Means(NamedTuple):
    """Mean loss in nats, errors in percent, and the number of images behind them."""

    loss: float
    top1_err: float
    top5_err: float
    seen: int


class Window:
    """A ring of per-iteration sums: loss, top-1 and top-5 wrong counts, images of each mini-batch.

    The step writes without reading back, so the device never waits for the host between log
    points. Shape of ``sums``: (length, 4), float64. Each worker keeps those of its own share; they
    are summed when they are read, which all workers do together.
    """

    def __init__(self, batch_size: int, length: int, device: torch.device, world: World = SOLO):
        self.batch_size, self.world = batch_size, world
        self.length = max(length, SMOOTHING_ITERS)
        self.sums = torch.zeros(self.length, 4, dtype=torch.float64, device=device)

    def add(self, iteration: int, loss: Tensor, wrong: Tensor, seen: int) -> None:
        """Store one iteration's share.

        Args:
            iteration: updates done before it.
            loss: summed over the share's images and divided by the images of the whole batch.
            wrong: (2,), the wrong counts of the share.
            seen: images of the share.
        """
        row = self.sums[iteration % self.length]
        row[LOSS] = loss
        row[WRONG1:SEEN] = wrong
        row[SEEN] = seen

    def add_at(self, row: Tensor, loss: Tensor, wrong: Tensor, seen: int) -> None:
        """Store a share as :meth:`add` does, in row ``row``, a tensor (1,) int64 on the device."""
        values = torch.cat([loss.double().view(1), wrong.double(), self.sums.new_full((1,), seen)])
        # Not index_copy_: deterministic algorithms would make a sort of it.
        mine = torch.arange(self.length, device=self.sums.device) == row
        torch.where(mine[:, None], values, self.sums, out=self.sums)

    def total(self) -> Tensor:
        """Return all rows, summed over the workers; a checkpoint keeps them."""
        return self.world.sum(self.sums)

    def restore(self, total: Tensor) -> None:
        """Restore what :meth:`total` returned, on any number of workers."""
        self.sums.zero_()
        if self.world.rank == 0:
            self.sums[:, SEEN] = self.batch_size  # older checkpoints lack it: none was skipped
            self.sums[:, : total.shape[1]] = total

    def last(self, iteration: int, count: int) -> Tensor:
        """Return the ``count`` rows before ``iteration``, oldest first, on the host."""
        rows = torch.arange(iteration - count, iteration, device=self.sums.device) % self.length
        return self.world.sum(self.sums[rows]).cpu()

    def means(self, iteration: int, count: int) -> Means:
        """Means over the images of the last ``count`` iterations."""
        total = self.last(iteration, count).sum(dim=0)
        seen = int(total[SEEN])
        return Means(
            float(total[LOSS]) / (seen / self.batch_size),
            100 * float(total[WRONG1]) / seen,
            100 * float(total[WRONG5]) / seen,
            seen,
        )

    def smoothed_error(self, iteration: int) -> float:
        """Top-1 training error in percent over the last 100 iterations; infinite before that."""
        if iteration < SMOOTHING_ITERS:
            return math.inf
        return self.means(iteration, SMOOTHING_ITERS).top1_err

    def share_is_finite(self, iteration: int) -> bool:
        """Return whether this worker's last of ``iteration`` losses was finite."""
        return math.isfinite(float(self.sums[(iteration - 1) % self.length, LOSS]))

    def first_bad(self, iteration: int) -> int | None:
        """Return the first iteration in the window whose loss is not finite, if any."""
        count = min(iteration, self.length)
        bad = (~torch.isfinite(self.last(iteration, count)[:, LOSS])).nonzero()
        return iteration - count + int(bad[0]) if len(bad) else None
