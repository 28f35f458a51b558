"""Looking into a net without touching its training: signals, gradients, layer responses.

All probes look at the 3x3 convs of the main path in forward order, the stem first: the 6n+1 layers
of Fig. 7 for a CIFAR net.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from resnet_repro.models.introspect import conv_bn_layers
from resnet_repro.runs.folder import RunFolder
from resnet_repro.training.device import Setup

Rows = list[dict[str, Any]]

# Gradient norms are kept at the first update, whose gradients are those at initialisation, and
# after these shares of the schedule: enough to see a trend, few enough to cost nothing.
GRADIENT_SHARES = (0.01, 0.1, 0.25, 0.5, 0.75, 1.0)


def gradient_iterations(max_iters: int) -> frozenset[int]:
    """Updates whose gradient norms are kept, counted from 1."""
    return frozenset({1, *(max(1, math.ceil(share * max_iters)) for share in GRADIENT_SHARES)})


class GradientLog:
    """Keeps ``gradients.csv`` of a run; called after every update, it works on a few of them."""

    def __init__(self, folder: RunFolder, max_iters: int | None):
        self._folder = folder
        self._iterations = gradient_iterations(max_iters) if max_iters else frozenset[int]()

    def __call__(self, model: nn.Module, iteration: int) -> None:
        """Add the norms of the last gradient, if ``iteration`` is one of those kept."""
        if iteration not in self._iterations:
            return
        # Rows from here on were written by a part of the run that was lost: they come again.
        kept = [row for row in self._folder.table("gradients") if int(row["iter"]) < iteration]
        self._folder.write_table("gradients", [*kept, *gradient_norms(model, iteration)])


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
