"""What changes while a run is trained, and the one step that changes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnet_repro.config import RecipeConfig
from resnet_repro.evaluation.counting import wrong_counts
from resnet_repro.training.device import Setup
from resnet_repro.training.schedule import WARMUP_ERROR, lr_at
from resnet_repro.training.window import Window


@dataclass
class TrainState:
    """Everything a run must remember to go on; its configuration says the rest.

    ``iteration`` counts finished updates; ``warmup_exit`` is the iteration at which the smoothed
    training error was first seen below 80 %; times are seconds over all parts of the run.
    """

    model: nn.Module
    optimizer: torch.optim.SGD
    window: Window
    iteration: int = 0
    warmup_exit: int | None = None
    time: float = 0.0
    train_time: float = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain Python only, so that it loads with ``weights_only=True``."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "window": self.window.sums,
            "iteration": self.iteration,
            "warmup_exit": self.warmup_exit,
            "time": self.time,
            "train_time": self.train_time,
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Go back to a saved state."""
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.window.sums.copy_(saved["window"])
        self.iteration = saved["iteration"]
        self.warmup_exit = saved["warmup_exit"]
        self.time = saved["time"]
        self.train_time = saved["train_time"]


def sgd(model: nn.Module, recipe: RecipeConfig) -> torch.optim.SGD:
    """SGD as the paper: v := momentum v + g; w := w - lr v (Sec. 3.4).

    Equal to Caffe's v := momentum v + lr g while the rate is constant.
    """
    scales = [p for p in model.parameters() if p.ndim <= 1]
    weights = [p for p in model.parameters() if p.ndim > 1]
    groups = [
        {"params": weights, "weight_decay": recipe.weight_decay},
        {"params": scales, "weight_decay": recipe.weight_decay if recipe.decay_bn else 0.0},
    ]
    return torch.optim.SGD(
        groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.nesterov, fused=True
    )


def current_lr(state: TrainState, recipe: RecipeConfig) -> float:
    """Learning rate of the next update."""
    return lr_at(
        state.iteration,
        lr=recipe.lr,
        milestones=recipe.milestones,
        gamma=recipe.gamma,
        warmup=recipe.warmup,
        warmup_lr=recipe.warmup_lr,
        warmup_exit=state.warmup_exit,
    )


def step(state: TrainState, setup: Setup, images: Tensor, labels: Tensor, lr: float) -> None:
    """One update: forward, loss, backward, SGD; counts the batch's errors on the way.

    Args:
        state: is changed in place.
        setup: precision of the forward pass; the loss is taken in fp32.
        images: (N, 3, H, W).
        labels: (N,), int64.
        lr: learning rate of this update.
    """
    state.model.train()
    for group in state.optimizer.param_groups:
        group["lr"] = lr
    with setup.autocast():
        logits = state.model(images)
    loss = F.cross_entropy(logits.float(), labels)
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    state.optimizer.step()
    state.window.add(state.iteration, loss.detach(), wrong_counts(logits.detach(), labels))
    state.iteration += 1


def in_warmup(state: TrainState, recipe: RecipeConfig) -> bool:
    """Whether the rule of Sec. 4.2 still waits for the training error to fall below 80 %."""
    return recipe.warmup == "error80" and state.warmup_exit is None


def leave_warmup(state: TrainState) -> float | None:
    """End the warm-up if the smoothed training error is below 80 %; return that error if so."""
    error = state.window.smoothed_error(state.iteration)
    if error >= WARMUP_ERROR:
        return None
    state.warmup_exit = state.iteration
    return error
