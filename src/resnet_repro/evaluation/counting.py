"""Errors as sums of wrong over seen; never a mean of batch means."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


def wrong_counts(logits: Tensor, labels: Tensor) -> Tensor:
    """Top-1 and top-5 wrong counts of a batch, shape (2,), int64, without a host round trip.

    Args:
        logits: (N, classes), any real type.
        labels: (N,), int64.
    """
    best = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]
    return torch.stack([(~best[:, 0]).sum(), (~best.any(dim=1)).sum()])


@dataclass(frozen=True)
class ErrorCount:
    """What a pass over held-out images found."""

    loss_sum: float
    wrong1: int
    wrong5: int
    seen: int

    @property
    def loss(self) -> float:
        """Mean cross-entropy, nats."""
        return self.loss_sum / self.seen

    @property
    def top1_err(self) -> float:
        """Top-1 error, percent."""
        return 100 * self.wrong1 / self.seen

    @property
    def top5_err(self) -> float:
        """Top-5 error, percent."""
        return 100 * self.wrong5 / self.seen


@torch.no_grad()
def count_errors(
    forward: Callable[[Tensor], Tensor],
    batches: Iterable[tuple[Tensor, Tensor]],
    expected: int,
    over_workers: Callable[[Tensor], Tensor] = lambda sums: sums,
) -> ErrorCount:
    """Count the errors of ``forward`` over ``batches`` of (images, labels).

    Sums stay on the device until the end.

    Args:
        forward: (N, 3, H, W) to logits (N, classes).
        batches: those of this worker, if there are several.
        expected: images there are, over all workers.
        over_workers: adds up a float64 vector over the workers; counts stay exact.

    Raises:
        RuntimeError: the batches did not hold exactly ``expected`` images.
    """
    sums: Tensor | None = None
    wrong: Tensor | None = None
    mine = 0
    for images, labels in batches:
        logits = forward(images).float()
        loss = F.cross_entropy(logits, labels, reduction="sum").double()
        counts = wrong_counts(logits, labels)
        sums = loss if sums is None else sums + loss
        wrong = counts if wrong is None else wrong + counts
        mine += len(labels)
    found = [0.0, 0, 0] if sums is None or wrong is None else [float(sums), *wrong.tolist()]
    total = over_workers(torch.tensor([*found, mine], dtype=torch.float64)).tolist()
    top1, top5, seen = (int(value) for value in total[1:])
    if seen != expected or not seen:
        raise RuntimeError(f"counted {seen} images where there are {expected}")
    return ErrorCount(total[0], top1, top5, seen)
