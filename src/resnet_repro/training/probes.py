"""Looking into a net without touching its training: signals, gradients, layer responses.

All probes look at the 3x3 convs of the main path in forward order, the stem first: the 6n+1 layers
of Fig. 7 for a CIFAR net.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnet_repro.models.count import conv_bn_layers
from resnet_repro.models.norm import GroupedBatchNorm2d
from resnet_repro.runs.folder import RunFolder
from resnet_repro.training.assemble import RunContext
from resnet_repro.training.device import Setup
from resnet_repro.training.state import TrainState

Rows = list[dict[str, Any]]

# Gradient norms are kept at the first update, whose gradients are those at initialisation, and
# after these shares of the schedule: enough to see a trend, few enough to cost nothing.
GRADIENT_SHARES = (0.01, 0.1, 0.25, 0.5, 0.75, 1.0)

PRECISION_PIXELS = 128 * 32 * 32  # of the images whose gradients are compared with float64


def gradient_iterations(max_iters: int) -> frozenset[int]:
    """Updates whose gradient norms are kept, counted from 1."""
    return frozenset({1, *(max(1, math.ceil(share * max_iters)) for share in GRADIENT_SHARES)})


class GradientLog:
    """Keeps ``gradients.csv`` of a run: asked before and after every update, works on a few.

    With several workers all call it; rank 0 writes.

    Args:
        folder: of the run; ``None`` on the other ranks.
        context: of the run.
        state: of the run; is not changed.
    """

    def __init__(self, folder: RunFolder | None, context: RunContext, state: TrainState):
        self._folder, self._context, self._state = folder, context, state
        wanted = context.config.probes.signals
        length = context.config.recipe.max_iters
        self._iterations = gradient_iterations(length) if wanted else frozenset[int]()
        self._at_outputs: list[float] = []

    def before(self) -> None:
        """Measure the gradients at the BN outputs, if the next update is one of those kept."""
        if self._state.iteration + 1 in self._iterations:
            self._at_outputs = bn_output_gradient_norms(self._context, self._state)

    def after(self) -> None:
        """Write the norms of the last update's gradients, if it is one of those kept."""
        iteration, folder = self._state.iteration, self._folder
        if iteration not in self._iterations or folder is None:
            return
        # Rows from here on were written by a part of the run that was lost: they come again.
        kept = [row for row in folder.table("gradients") if int(row["iter"]) < iteration]
        rows = gradient_norms(self._state.model, iteration)
        for row, norm in zip(rows, self._at_outputs, strict=True):
            row["bn_output_grad_norm"] = f"{norm:.6g}"
        folder.write_table("gradients", [*kept, *rows])


def gradient_norms(model: nn.Module, iteration: int) -> Rows:
    """L2 norms of each conv's last gradient (of the loss, without decay) and of its weights."""
    layers = conv_bn_layers(model)
    grads = [conv.weight.grad for _, conv, _ in layers]
    assert all(grad is not None for grad in grads)
    norms = torch.stack(torch._foreach_norm([grad for grad in grads if grad is not None])).tolist()
    weights = torch.stack(
        torch._foreach_norm([conv.weight.detach() for _, conv, _ in layers])
    ).tolist()
    return [
        {
            "iter": iteration,
            "layer": number,
            "name": name,
            "grad_norm": f"{norms[number - 1]:.6g}",
            "weight_norm": f"{weights[number - 1]:.6g}",
        }
        for number, (name, _, _) in enumerate(layers, start=1)
    ]


def bn_output_gradient_norms(context: RunContext, state: TrainState) -> list[float]:
    """L2 norm of the gradient of the next batch's mean loss at each BN output (Sec. 4.1).

    This is the "backward propagated gradient". Unlike the gradient of a conv's weights it does not
    depend on their length, which batch norm makes meaningless. Each worker takes its share of the
    batch, on a copy of the net; the norm is that over the whole batch.
    """
    images, labels = context.images.whole_batch(state.iteration)
    share = context.world.share(len(labels))
    mine = slice(share.start, share.stop)
    found = _gradients(
        copy.deepcopy(state.model),
        images[mine],
        labels[mine],
        context.setup.autocast(),
        len(labels),
    )
    squares = context.world.sum(torch.stack(found.at_outputs).square())
    return [float(norm) for norm in squares.sqrt().tolist()]


def gradient_precision(model: nn.Module, setup: Setup, images: Tensor, labels: Tensor) -> Rows:
    """Compare the gradients of one batch in the run's precision with those in float64.

    ``cosine`` and ``relative_error`` (norm of the difference over the float64 norm) are those of
    each conv's weight gradient. Of large pictures only the first few are taken: float64 needs much
    time and memory.
    """
    images, labels = _first_few(model, images, labels)
    used = _gradients(copy.deepcopy(model), images, labels, setup.autocast())
    reference = _gradients(
        copy.deepcopy(model).double().to(memory_format=torch.contiguous_format),
        images.double().contiguous(),
        labels,
    )
    rows = []
    for number, name in enumerate(used.names):
        ours, exact = used.of_weights[number].double(), reference.of_weights[number]
        length, exact_length = float(ours.norm()), float(exact.norm())
        cosine = float((ours * exact).sum()) / (length * exact_length or math.nan)
        error = float((ours - exact).norm()) / (exact_length or math.nan)
        rows.append(
            {
                "layer": number + 1,
                "name": name,
                "cosine": f"{cosine:.6g}",
                "relative_error": f"{error:.6g}",
                "grad_norm": f"{length:.6g}",
                "grad_norm_float64": f"{exact_length:.6g}",
                "bn_output_grad_norm": f"{float(used.at_outputs[number]):.6g}",
                "bn_output_grad_norm_float64": f"{float(reference.at_outputs[number]):.6g}",
            }
        )
    return rows


def _first_few(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """As many images as make :data:`PRECISION_PIXELS`, eight at least, in whole BN groups."""
    count = max(8, PRECISION_PIXELS // (images.shape[2] * images.shape[3]))
    groups = [m.group for m in model.modules() if isinstance(m, GroupedBatchNorm2d)]
    group = max(groups, default=1)
    count = min(len(labels), math.ceil(count / group) * group)
    return images[:count], labels[:count]


@dataclass(frozen=True)
class _Gradients:
    """Of each layer: its name, the gradient of its weights, the norm of that at its BN output."""

    names: list[str]
    of_weights: list[Tensor]
    at_outputs: list[Tensor]


def _gradients(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    precision: AbstractContextManager[object] | None = None,
    batch_size: int | None = None,
) -> _Gradients:
    """Gradients of the images' loss over ``batch_size``; ``model`` is the caller's to spend."""
    layers = conv_bn_layers(model.train())
    norms: list[Tensor] = [torch.zeros(()) for _ in layers]

    def take(index: int, _: Tensor, made: Tensor) -> None:
        def keep(grad: Tensor) -> None:
            norms[index] = torch.linalg.vector_norm(grad, dtype=torch.float64)

        made.register_hook(keep)  # type: ignore[no-untyped-call]

    with _watched((bn for _, _, bn in layers), take), precision or nullcontext():
        logits = model(images)
    logits = logits if logits.dtype == torch.float64 else logits.float()
    loss = F.cross_entropy(logits, labels, reduction="sum") / (batch_size or len(labels))
    convs = [conv.weight for _, conv, _ in layers]
    return _Gradients(
        [name for name, _, _ in layers], list(torch.autograd.grad(loss, convs)), norms
    )


class _Moments:
    """Sum, sum of squares and count of all elements that passed, in float64 on the device."""

    def __init__(self) -> None:
        self.count = 0
        self.sums: Tensor | None = None

    def add(self, values: Tensor) -> None:
        values = values.detach().double()
        sums = torch.stack([values.sum(), values.square().sum()])
        self.sums = sums if self.sums is None else self.sums + sums
        self.count += values.numel()

    def mean_square(self) -> float:
        assert self.sums is not None
        return float(self.sums[1]) / self.count

    def std(self) -> float:
        assert self.sums is not None
        mean = float(self.sums[0]) / self.count
        return math.sqrt(max(0.0, self.mean_square() - mean * mean))


@contextmanager
def _watched(
    modules: Iterable[nn.Module], take: Callable[[int, Tensor, Tensor], None]
) -> Iterator[None]:
    """Call ``take(index, input, output)`` after each module's forward."""
    hooks = []
    for index, module in enumerate(modules):

        def hook(
            _: nn.Module, inputs: tuple[Tensor, ...], output: Tensor, index: int = index
        ) -> None:
            take(index, inputs[0], output)

        hooks.append(module.register_forward_hook(hook))
    try:
        yield
    finally:
        for handle in hooks:
            handle.remove()


@torch.no_grad()
def forward_signal(model: nn.Module, setup: Setup, images: Tensor) -> Rows:
    """Forward signal of one training batch: what each layer gets and makes (Sec. 4.1).

    ``input_mean_square`` is the mean square of a conv's input, ``output_std`` the standard
    deviation of its output before BN. Works on a copy in training mode, so that the batch-norm
    statistics of ``model`` do not move.
    """
    twin = copy.deepcopy(model).train()
    layers = conv_bn_layers(twin)
    inputs = [_Moments() for _ in layers]
    outputs = [_Moments() for _ in layers]

    def take(index: int, given: Tensor, made: Tensor) -> None:
        inputs[index].add(given)
        outputs[index].add(made)

    with _watched((conv for _, conv, _ in layers), take), setup.autocast():
        twin(images)
    return [
        {
            "layer": i + 1,
            "name": name,
            "input_mean_square": f"{inputs[i].mean_square():.6g}",
            "output_std": f"{outputs[i].std():.6g}",
        }
        for i, (name, _, _) in enumerate(layers)
    ]


@torch.no_grad()
def layer_responses(
    model: nn.Module, setup: Setup, batches: Iterable[tuple[Tensor, Tensor]]
) -> Rows:
    """Standard deviation of each 3x3 conv's output after BN, before ReLU and addition (Fig. 7).

    Over all images, positions and channels of ``batches``; BN in evaluation mode.
    """
    layers = conv_bn_layers(model)
    moments = [_Moments() for _ in layers]
    model.eval()

    def take(index: int, _: Tensor, made: Tensor) -> None:
        moments[index].add(made)

    with _watched((bn for _, _, bn in layers), take), setup.autocast():
        for images, _ in batches:
            model(images)
    return [
        {"layer": i + 1, "name": name, "std": f"{moments[i].std():.6g}"}
        for i, (name, _, _) in enumerate(layers)
    ]
