"""The state of a run in training, and the step that changes it."""

import inspect
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnet_repro.config import RecipeConfig
from resnet_repro.evaluation.count import wrong_counts
from resnet_repro.training.device import Setup
from resnet_repro.training.distributed import SOLO, World
from resnet_repro.training.schedule import WARMUP_ERROR, WARMUP_ITERS, Plateau, lr_at

SMOOTHING_ITERS = 100  # over which the warm-up rule takes the mean training error
LOSS, WRONG1, WRONG5, SEEN = range(4)


class Means(NamedTuple):
    """Mean loss in nats, errors in percent, and the number of images behind them."""

    loss: float
    top1_err: float
    top5_err: float
    num_samples: int


class Window:
    """The last iterations' loss, top-1 and top-5 wrong counts and images: a ring on the device.

    Each worker keeps the sums of its own share; reading adds them up, on all workers together.
    """

    def __init__(self, batch_size: int, length: int, device: torch.device, world: World = SOLO):
        self.batch_size, self.world = batch_size, world
        self.length = max(length, SMOOTHING_ITERS)
        self.sums = torch.zeros(self.length, 4, dtype=torch.float64, device=device)

    def add(self, row: int | Tensor, loss: Tensor, wrong: Tensor, seen: int) -> None:
        """Store an update's share of ``seen`` images with its ``wrong`` counts (2,).

        ``row`` may be a tensor (1,) on the device; ``loss`` is summed over the share's images and
        divided by the images of the whole batch.
        """
        values = torch.cat([loss.double().view(1), wrong.double(), self.sums.new_full((1,), seen)])
        # Not index_copy_: deterministic algorithms would make a sort of it.
        selected = torch.arange(self.length, device=self.sums.device) == row
        torch.where(selected[:, None], values, self.sums, out=self.sums)

    def restore(self, total: Tensor) -> None:
        """Restore the sums over all workers, on any number of workers."""
        self.sums.zero_()
        if self.world.rank == 0:
            self.sums[:, SEEN] = self.batch_size  # older checkpoints lack it: none was skipped
            self.sums[:, : total.shape[1]] = total

    def last(self, iteration: int, count: int) -> Tensor:
        """The ``count`` rows before ``iteration``, oldest first, on the host."""
        rows = torch.arange(iteration - count, iteration, device=self.sums.device) % self.length
        return self.world.sum(self.sums[rows]).cpu()

    def means(self, iteration: int, count: int) -> Means:
        """Means over the images of the last ``count`` iterations."""
        loss, wrong1, wrong5, seen = self.last(iteration, count).sum(dim=0).tolist()
        loss /= seen / self.batch_size
        return Means(loss, 100 * wrong1 / seen, 100 * wrong5 / seen, int(seen))

    def share_is_finite(self, iteration: int) -> bool:
        """Whether this worker's last of ``iteration`` losses was finite."""
        return math.isfinite(float(self.sums[(iteration - 1) % self.length, LOSS]))

    def first_bad(self, iteration: int) -> int | None:
        """Return the first iteration in the window whose loss is not finite, if any."""
        count = min(iteration, self.length)
        bad = (~torch.isfinite(self.last(iteration, count)[:, LOSS])).nonzero()
        return iteration - count + int(bad[0]) if len(bad) else None


@dataclass
class TrainState:
    """Everything that a run needs to resume, besides its configuration."""

    model: nn.Module
    optimizer: torch.optim.SGD
    window: Window
    train_net: nn.Module  # in training: model, its DistributedDataParallel, or its compiled twin
    graphed_eval: Callable[[Tensor], Tensor] | None = None  # captured, in evaluation
    iteration: int = 0  # finished updates
    warmup_exit: int | None = None  # where the smoothed training error was first below 80 %
    plateau: Plateau = field(default_factory=Plateau)
    time: float = 0.0  # seconds over all parts of the run
    train_time: float = 0.0  # the same without evaluations

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain Python only, so that it loads with ``weights_only=True``.

        All workers call it. Batch-norm statistics are rank 0's, all else is the same on all.
        """
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "window": self.window.world.sum(self.window.sums),
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
        self.plateau = Plateau(**saved.get("plateau", {}))  # older checkpoints have none
        self.iteration = saved["iteration"]
        self.warmup_exit = saved["warmup_exit"]
        self.time = saved["time"]
        self.train_time = saved["train_time"]


class SGD(torch.optim.SGD):
    """The same methods without torch's preparations for compiling them.

    Those import the compiler at the first call: seconds of every start.
    """

    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.Optimizer.zero_grad)
    state_dict = inspect.unwrap(torch.optim.Optimizer.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.Optimizer.load_state_dict)
    step = torch.no_grad()(inspect.unwrap(torch.optim.SGD.step))


def sgd(model: nn.Module, recipe: RecipeConfig) -> SGD:
    """SGD as in the paper: v := momentum v + g; w := w - lr v (Sec. 3.4).

    Equal to Caffe's v := momentum v + lr g while the rate is constant.
    """
    weights = [p for p in model.parameters() if p.ndim > 1]
    scales = [p for p in model.parameters() if p.ndim <= 1]
    groups = [
        {"params": weights, "weight_decay": recipe.weight_decay},
        {"params": scales, "weight_decay": recipe.weight_decay if recipe.decay_bn else 0.0},
    ]
    return SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.nesterov, fused=True)


def current_lr(state: TrainState, recipe: RecipeConfig, iteration: int | None = None) -> float:
    """Learning rate of the next update, or of the one after ``iteration`` updates."""
    at = state.iteration if iteration is None else iteration
    return lr_at(recipe, at, state.warmup_exit, state.plateau.drops)


def step(state: TrainState, setup: Setup, images: Tensor, labels: Tensor, lr: float) -> None:
    """Do one update in place: forward, loss in fp32, backward, SGD; count the batch's errors.

    The gradient is that of the mean loss over the whole batch, of which ``images`` (N, 3, H, W) and
    ``labels`` (N,), int64, are this worker's share; shares may differ in size.
    """
    set_rate(state.optimizer, setup.rate(lr))
    loss, logits = forward_backward(state, setup, images, labels)
    state.optimizer.step()
    row = state.iteration % state.window.length
    state.window.add(row, loss, wrong_counts(logits, labels), len(labels))
    state.iteration += 1


def set_rate(optimizer: torch.optim.SGD, lr: float | Tensor) -> None:
    """Set the rate of the next update."""
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

    It sorts its buckets after its first pass. A process that resumes would take one step with
    unsorted buckets and add gradients in another order than a run that was never stopped: other
    bits, from three workers on. ``shape`` (N, 3, H, W) is that of this worker's share of a batch.
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
    """Record an evaluation's error, percent, after a warm-up; return whether the rate drops."""
    warming = recipe.warmup == "iters400" and state.iteration <= WARMUP_ITERS
    if recipe.schedule != "plateau" or warming or in_warmup(state, recipe):
        return False
    return state.plateau.drops_after(
        error, state.iteration, patience=recipe.patience, max_drops=len(recipe.milestones)
    )


def in_warmup(state: TrainState, recipe: RecipeConfig) -> bool:
    """Whether the rule of Sec. 4.2 still waits for the training error to fall below 80 %."""
    return recipe.warmup == "error80" and state.warmup_exit is None


def leave_warmup(state: TrainState) -> float | None:
    """End the warm-up if the training error over 100 iterations is below 80 %; return it if so."""
    if state.iteration < SMOOTHING_ITERS:
        return None
    error = state.window.means(state.iteration, SMOOTHING_ITERS).top1_err
    if error >= WARMUP_ERROR:
        return None
    state.warmup_exit = state.iteration
    return error
