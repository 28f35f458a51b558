"""The learning rate as a pure function of the iteration and its drops (Sec. 3.4, 4.2)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from resnet_repro.config import RecipeConfig

WARMUP_ITERS = 400  # the follow-up paper's fixed warm-up (arXiv:1603.05027, appendix)
WARMUP_ERROR = 80.0  # percent; Sec. 4.2, the 110-layer net


def lr_at(
    recipe: RecipeConfig,
    iteration: int,
    warmup_exit: int | None = None,
    drops: Sequence[int] = (),
) -> float:
    """Learning rate of the update that follows ``iteration`` finished updates.

    After ``m`` updates, for every milestone ``m``, the rate is multiplied by ``gamma``: with a
    milestone of 32000, update number 32001 is the first at the lower rate (Caffe's reading of "at
    32k iterations"). During a warm-up the rate is ``warmup_lr``; drops always start from ``lr``.
    ``warmup_exit``: with ``warmup=error80``, updates until the error was below 80 %, if it was;
    ``drops``: with ``schedule=plateau``, the updates after which the rate has dropped.
    """
    if recipe.warmup == "iters400" and iteration < WARMUP_ITERS:
        return recipe.warmup_lr
    if recipe.warmup == "error80" and (warmup_exit is None or iteration < warmup_exit):
        return recipe.warmup_lr
    milestones = drops if recipe.schedule == "plateau" else recipe.milestones
    count = sum(iteration >= milestone for milestone in milestones)
    return round(recipe.lr * recipe.gamma**count, 12)  # 0.01, not 0.010000000000000002


@dataclass
class Plateau:
    """When "the error plateaus" (Sec. 3.4): a function of the evaluations so far, nothing else.

    An evaluation is an improvement if its error, in percent, is lower than every one before
    (``best``). After ``patience`` evaluations in a row without one the rate drops and the count
    (``waited``) starts again from 0; ``best`` is kept, so that a lower rate has to earn its
    improvements. ``drops`` are the updates after which the rate dropped.
    """

    best: float = math.inf
    waited: int = 0
    drops: list[int] = field(default_factory=list)

    def drops_after(self, error: float, iteration: int, *, patience: int, max_drops: int) -> bool:
        """Record the held-out error after ``iteration`` updates; whether the rate drops now."""
        if error < self.best:
            self.best, self.waited = error, 0
            return False
        self.waited += 1
        if self.waited < patience or len(self.drops) >= max_drops:
            return False
        self.waited = 0
        self.drops.append(iteration)
        return True
