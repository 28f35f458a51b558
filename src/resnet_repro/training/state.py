"""What changes while a run is trained, and the one step that changes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnet_repro.config import RecipeConfig
from resnet_repro.evaluation.count import wrong_counts
from resnet_repro.training.device import Setup
from resnet_repro.training.schedule import WARMUP_ERROR, WARMUP_ITERS, Plateau, lr_at
from resnet_repro.training.window import Window


@dataclass
class TrainState:
    """Everything that a run needs to resume, beside its configuration.

    ``train_net`` is the forward pass in training: ``model`` itself, with several workers its
    DistributedDataParallel, or the same net with compiled blocks. ``graphed_eval`` is the captured
    forward pass of evaluation, where there is one; it counts what ``model`` would.
    ``iteration`` counts finished updates;
    ``warmup_exit`` is the iteration at which the smoothed training error was first seen below 80 %;
    ``plateau`` is what the evaluations so far mean for the rate (``recipe.schedule=plateau``);
    times are seconds over all parts of the run.
    """

    model: nn.Module
    optimizer: torch.optim.SGD
    window: Window
    train_net: nn.Module
    graphed_eval: Callable[[Tensor], Tensor] | None = None
    iteration: int = 0
    warmup_exit: int | None = None
    plateau: Plateau = field(default_factory=Plateau)
    time: float = 0.0
    train_time: float = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain Python only, so that it loads with ``weights_only=True``.

        With several workers all call it. Weights and momentum are the same on all of them; the
        batch-norm statistics are rank 0's, as everywhere they are used (``World``).
        """
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "window": self.window.total(),
            "iteration": self.iteration,
            "warmup_exit": self.warmup_exit,
            "plateau": asdict(self.plateau),
            "time": self.time,
            "train_time": self.train_time,
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Restore a saved state."""
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.window.restore(saved["window"])
        self.iteration = saved["iteration"]
        self.warmup_exit = saved["warmup_exit"]
        self.plateau = Plateau(**saved.get("plateau", {}))  # older checkpoints have none
        self.time = saved["time"]
        self.train_time = saved["train_time"]


def sgd(model: nn.Module, recipe: RecipeConfig) -> torch.optim.SGD:
    """SGD as in the paper: v := momentum v + g; w := w - lr v (Sec. 3.4).

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


def current_lr(state: TrainState, recipe: RecipeConfig, iteration: int | None = None) -> float:
    """Learning rate of the next update, or of the one after ``iteration`` updates."""
    return lr_at(
        state.iteration if iteration is None else iteration,
        lr=recipe.lr,
        milestones=state.plateau.drops if recipe.schedule == "plateau" else recipe.milestones,
        gamma=recipe.gamma,
        warmup=recipe.warmup,
        warmup_lr=recipe.warmup_lr,
        warmup_exit=state.warmup_exit,
    )


def step(state: TrainState, setup: Setup, images: Tensor, labels: Tensor, lr: float) -> None:
    """Do one update: forward, loss, backward, SGD; count the batch's errors.

    The gradient is that of the mean loss over the whole batch, of which ``images`` are this
    worker's share; shares may differ in size.

    Args:
        state: is changed in place.
        setup: precision of the forward pass; the loss is taken in fp32.
        images: (N, 3, H, W).
        labels: (N,), int64.
        lr: learning rate of this update.
    """
    set_rate(state.optimizer, setup.rate(lr))
    loss, logits = forward_backward(state, setup, images, labels)
    state.optimizer.step()
    state.window.add(state.iteration, loss, wrong_counts(logits, labels), len(labels))
    state.iteration += 1


def set_rate(optimizer: torch.optim.SGD, lr: float | Tensor) -> None:
    """Have the next update use this rate."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def forward_backward(
    state: TrainState, setup: Setup, images: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor]:
    """Set the gradients; return the share's part of the batch's mean loss, and its logits."""
    state.train_net.train()
    with setup.autocast():
        logits = state.train_net(images)
    part, workers = len(labels) / state.window.batch_size, state.window.world.size
    loss = F.cross_entropy(logits.float(), labels)
    if part != 1:
        loss = loss * part
    state.optimizer.zero_grad(set_to_none=True)
    # DistributedDataParallel takes the mean of the workers' gradients; their sum is needed.
    (loss * workers if workers > 1 else loss).backward()  # type: ignore[no-untyped-call]
    return loss.detach(), logits.detach()


def settle_ddp_buckets(state: TrainState, setup: Setup, shape: tuple[int, int, int, int]) -> None:
    """Run two dummy steps so that DistributedDataParallel fixes its bucket order.

    It sorts its buckets after its first pass. A process that resumes from a checkpoint would take
    one step with unsorted buckets and add gradients in another order than a run that was never
    stopped: other bits, from three workers on.

    Args:
        state: its gradients are dropped; its batch-norm statistics do not change.
        setup: of the run.
        shape: of this worker's share of a batch, (N, 3, H, W).
    """
    if state.train_net is state.model:
        return
    before = [buffer.clone() for buffer in state.model.buffers()]
    images = torch.zeros(shape, device=setup.device).contiguous(memory_format=torch.channels_last)
    labels = torch.zeros(shape[0], dtype=torch.int64, device=setup.device)
    for _ in range(2):
        forward_backward(state, setup, images, labels)
    state.optimizer.zero_grad(set_to_none=True)
    for buffer, value in zip(state.model.buffers(), before, strict=True):
        buffer.copy_(value)


def is_finite(state: TrainState) -> bool:
    """Whether the last update's loss (on this worker) and the norm of its gradient are finite."""
    gradients = [p.grad for p in state.model.parameters() if p.grad is not None]
    norm = torch.stack(torch._foreach_norm(gradients)).norm()
    return state.window.share_is_finite(state.iteration) and bool(norm.isfinite())


def watch_plateau(state: TrainState, recipe: RecipeConfig, error: float) -> bool:
    """Record an evaluation's held-out error in percent; return whether the rate drops now.

    Evaluations during a warm-up do not count: its rate is not the one that drops.
    """
    begun = recipe.warmup != "iters400" or state.iteration > WARMUP_ITERS
    if recipe.schedule != "plateau" or in_warmup(state, recipe) or not begun:
        return False
    return state.plateau.drops_after(
        error, state.iteration, patience=recipe.patience, most=len(recipe.milestones)
    )


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
