"""Errors as sums of wrong over seen; never a mean of batch means."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

T = TypeVar("T")


def wrong_counts(logits: Tensor, labels: Tensor) -> Tensor:
    """Top-1 and top-5 wrong counts (2,), int64, of logits (N, classes) and labels (N,), int64."""
    best = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]
    return torch.stack([(~best[:, 0]).sum(), (~best.any(dim=1)).sum()])


@dataclass(frozen=True)
class ErrorCount:
    """Result of a pass over held-out images; ``left_out`` of them could not be shown."""

    loss_sum: float
    wrong1: int
    wrong5: int
    seen: int
    left_out: int = 0

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
    forward: Callable[[T], Tensor],
    batches: Iterable[tuple[T, Tensor]],
    expected: int,
    over_workers: Callable[[Tensor], Tensor] = lambda sums: sums,
    left_out: Callable[[], int] = lambda: 0,
) -> ErrorCount:
    """Count the errors of ``forward``, from N images to logits (N, classes); sums on the device.

    Args:
        forward: the net.
        batches: images as ``forward`` takes them with their labels (N,): those of this worker.
        expected: images there are, over all workers.
        over_workers: adds up a float64 vector over the workers; counts stay exact.
        left_out: called at the end, returns how many images of this worker could not be shown.

    Raises:
        RuntimeError: the batches and what was left out are not exactly ``expected`` images.
    """
    loss_sum, wrong, mine = torch.zeros((), dtype=torch.float64), torch.zeros(2), 0
    for images, labels in batches:
        logits = forward(images).float()
        loss = F.cross_entropy(logits, labels, reduction="sum").double()
        counts = wrong_counts(logits, labels)
        loss_sum, wrong = (loss, counts) if not mine else (loss_sum + loss, wrong + counts)
        mine += len(labels)
    sums = torch.tensor([float(loss_sum), *wrong.tolist(), mine, left_out()], dtype=torch.float64)
    total, *counted = over_workers(sums).tolist()
    top1, top5, seen, missing = map(int, counted)
    if seen + missing != expected or not seen:
        also = f" and left out {missing}" if missing else ""
        raise RuntimeError(f"counted {seen} images{also} where there are {expected}")
    return ErrorCount(total, top1, top5, seen, missing)
