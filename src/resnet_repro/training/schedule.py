"""The learning rate as a pure function of the iteration and its drops (Sec. 3.4, 4.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

WARMUP_ITERS = 400  # the follow-up paper's fixed warm-up (arXiv:1603.05027, appendix)
WARMUP_ERROR = 80.0  # percent; Sec. 4.2, the 110-layer net


def lr_at(
    iteration: int,
    *,
    lr: float,
    milestones: Sequence[int],
    gamma: float,
    warmup: str = "none",
    warmup_lr: float = 0.01,
    warmup_exit: int | None = None,
) -> float:
    """Learning rate of the update that follows ``iteration`` finished updates.

    After ``m`` updates, for every milestone ``m``, the rate is multiplied by ``gamma``: with a
    milestone of 32000, update number 32001 is the first at the lower rate (Caffe's reading of "at
    32k iterations"). During a warm-up the rate is ``warmup_lr``; drops always start from ``lr``.

    Args:
        iteration: updates done so far, from 0.
        lr: rate before the first drop.
        milestones: numbers of updates, increasing; those planned, or those a plateau has given.
        gamma: factor of one drop.
        warmup: ``none``; ``iters400``; ``error80``, which lasts until ``warmup_exit``.
        warmup_lr: rate of the warm-up.
        warmup_exit: for ``error80``, the number of updates at which the smoothed training error
            was first seen below 80 %; ``None`` while it has not been.
    """
    if warmup == "iters400" and iteration < WARMUP_ITERS:
        return warmup_lr
    if warmup == "error80" and (warmup_exit is None or iteration < warmup_exit):
        return warmup_lr
    drops = sum(iteration >= milestone for milestone in milestones)
    return round(lr * gamma**drops, 12)  # 0.01, not 0.010000000000000002


@dataclass
class Plateau:
    """When "the error plateaus" (Sec. 3.4), in full: what has been seen decides, nothing else.

    An evaluation is an improvement if its error is lower than every one before. After ``patience``
    evaluations in a row without one the rate drops and the counting begins anew; the best error is
    kept, so that a lower rate has to earn its improvements.

    Attributes:
        best: lowest error so far, percent.
        waited: evaluations since it last fell, or since the last drop.
        drops: updates after which the rate dropped: the milestones of :func:`lr_at`.
    """

    best: float = math.inf
    waited: int = 0
    drops: list[int] = field(default_factory=list)

    def drops_after(self, error: float, iteration: int, *, patience: int, most: int) -> bool:
        """Take in an evaluation; whether the rate drops with it.

        Args:
            error: held-out top-1 error, percent.
            iteration: updates done before the evaluation.
            patience: evaluations without improvement that make a plateau.
            most: drops after which there are no more.
        """
        if error < self.best:
            self.best, self.waited = error, 0
            return False
        self.waited += 1
        if self.waited < patience or len(self.drops) >= most:
            return False
        self.waited = 0
        self.drops.append(iteration)
        return True
