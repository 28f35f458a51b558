"""Probe a net without touching its training: signals, gradients, layer responses.

All probes look at the 3x3 convs of the main path in forward order, the stem first: the 6n+1 layers
of Fig. 7 for a CIFAR net. Rows of a table are in that order.
"""

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnet_repro.models.blocks import GroupedBatchNorm2d
from resnet_repro.models.count import conv_bn_layers
from resnet_repro.runs.folder import RunFolder
from resnet_repro.training.build import RunContext
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


def write_gradients(folder: RunFolder, state: TrainState, at_outputs: list[float]) -> None:
    """Add the last update's norms to ``gradients.csv``, with those at BN outputs before it."""
    # Rows from here on are of a lost part of the run, which is done again.
    before = [row for row in folder.table("gradients") if int(row["iter"]) < state.iteration]
    layers = conv_bn_layers(state.model)
    weights = [conv.weight for _, conv, _ in layers]
    grads = [weight.grad for weight in weights if weight.grad is not None]
    norms = torch.stack(torch._foreach_norm(grads)).tolist()  # of the loss, without decay
    lengths = torch.stack(torch._foreach_norm([weight.detach() for weight in weights])).tolist()
    names = ("grad_norm", "weight_norm", "bn_output_grad_norm")
    values = zip(norms, lengths, at_outputs, strict=True)
    rows = _table(layers, (dict(zip(names, each, strict=True)) for each in values))
    folder.write_table("gradients", [*before, *({"iter": state.iteration} | row for row in rows)])


def _table(
    layers: Sequence[tuple[str, nn.Module, nn.Module]], values: Iterable[Mapping[str, float]]
) -> Rows:
    """One row a layer: its number, its name, and its values."""
    return [
        {"layer": number, "name": name} | {key: f"{value:.6g}" for key, value in each.items()}
        for number, ((name, _, _), each) in enumerate(zip(layers, values, strict=True), start=1)
    ]


def bn_output_gradient_norms(context: RunContext, state: TrainState) -> list[float]:
    """L2 norm of the gradient of the next batch's mean loss at each BN output (Sec. 4.1).

    The paper's "backward propagated gradient". Unlike the gradient of a conv's weights it does not
    depend on their length, which batch norm makes meaningless. Works on a copy of the net, each
    worker on its share of the batch; the norm is that over the whole batch.
    """
    images, labels = context.images.batch(state.iteration, whole=True)
    share = context.world.share(len(labels))
    share_rows, model = slice(share.start, share.stop), copy.deepcopy(state.model)
    precision = context.setup.autocast()
    _, norms = _gradients(model, images[share_rows], labels[share_rows], len(labels), precision)
    squares = context.world.sum(torch.stack(norms).square())
    return [float(norm) for norm in squares.sqrt().tolist()]


def gradient_precision(model: nn.Module, setup: Setup, images: Tensor, labels: Tensor) -> Rows:
    """Compare the gradients of one batch in the run's precision with those in float64.

    ``cosine`` and ``relative_error`` (norm of the difference over the float64 norm) are those of
    each conv's weight gradient. Of large pictures only as many are taken as make
    :data:`PRECISION_PIXELS`, eight at least, in whole BN groups: float64 takes time and memory.
    """
    groups = [m.group for m in model.modules() if isinstance(m, GroupedBatchNorm2d)]
    group = max(groups, default=1)
    count = max(8, PRECISION_PIXELS // (images.shape[2] * images.shape[3]))
    count = min(len(labels), math.ceil(count / group) * group)
    images, labels = images[:count], labels[:count]
    used = _gradients(copy.deepcopy(model), images, labels, count, setup.autocast())
    double = copy.deepcopy(model).double().to(memory_format=torch.contiguous_format)
    exact = _gradients(double, images.double().contiguous(), labels, count, nullcontext())
    layers = zip(*used, *exact, strict=True)
    return _table(conv_bn_layers(model), (_comparison(*layer) for layer in layers))


def _comparison(
    grad: Tensor, at_output: Tensor, exact: Tensor, exact_at_output: Tensor
) -> dict[str, float]:
    grad = grad.double()
    length, exact_length = float(grad.norm()), float(exact.norm())
    return {
        "cosine": float((grad * exact).sum()) / (length * exact_length or math.nan),
        "relative_error": float((grad - exact).norm()) / (exact_length or math.nan),
        "grad_norm": length,
        "grad_norm_float64": exact_length,
        "bn_output_grad_norm": float(at_output),
        "bn_output_grad_norm_float64": float(exact_at_output),
    }


def _gradients(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    batch_size: int,
    precision: AbstractContextManager[object],
) -> tuple[list[Tensor], list[Tensor]]:
    """Gradients of the convs' weights, norms of those at BN outputs; moves BN statistics."""
    layers = conv_bn_layers(model.train())
    norms: list[Tensor] = [torch.zeros(()) for _ in layers]

    def take(index: int, _: nn.Module, __: tuple[Tensor], output: Tensor) -> None:
        def keep(grad: Tensor) -> None:
            norms[index] = torch.linalg.vector_norm(grad, dtype=torch.float64)

        output.register_hook(keep)  # type: ignore[no-untyped-call]

    with _watched((bn for _, _, bn in layers), take), precision:
        logits = model(images)
    logits = logits if logits.dtype == torch.float64 else logits.float()
    loss = F.cross_entropy(logits, labels, reduction="sum") / batch_size
    weights = [conv.weight for _, conv, _ in layers]
    return list(torch.autograd.grad(loss, weights)), norms


def _watched(modules: Iterable[nn.Module], take: Callable[..., None]) -> ExitStack:
    """Call ``take(index, module, inputs, output)`` after each module's forward, in the block."""
    hooks = ExitStack()
    for index, module in enumerate(modules):
        hooks.enter_context(module.register_forward_hook(partial(take, index)))
    return hooks


def tables_at_start(context: RunContext, state: TrainState) -> dict[str, Rows]:
    """Probe the untrained net on the whole first batch, on every worker alike."""
    if not context.config.probes.signals or state.iteration > 0:
        return {}
    images, labels = context.images.batch(0, whole=True)
    return {
        "signal": forward_signal(state.model, context.setup, images),
        "gradient_precision": gradient_precision(state.model, context.setup, images, labels),
    }


def forward_signal(model: nn.Module, setup: Setup, images: Tensor) -> Rows:
    """Forward signal of one training batch: each layer's input and output (Sec. 4.1).

    ``input_mean_square`` is the mean square of a conv's input, ``output_std`` the standard
    deviation of its output before BN. Works on a copy in training mode, so that the batch-norm
    statistics of ``model`` do not move.
    """
    layers = conv_bn_layers(twin := copy.deepcopy(model).train())
    found = _moments(twin, [conv for _, conv, _ in layers], setup, [images])
    return _table(layers, ({"input_mean_square": i, "output_std": o} for i, o in found))


def layer_responses(
    model: nn.Module, setup: Setup, batches: Iterable[tuple[Tensor, Tensor]]
) -> Rows:
    """Std of each 3x3 conv's output after BN in evaluation, before ReLU and addition (Fig. 7)."""
    layers = conv_bn_layers(model.eval())
    norms = [bn for _, _, bn in layers]
    found = _moments(model, norms, setup, (images for images, _ in batches))
    return _table(layers, ({"std": std} for _, std in found))


@torch.no_grad()
def _moments(
    net: nn.Module, modules: Sequence[nn.Module], setup: Setup, batches: Iterable[Tensor]
) -> Iterator[tuple[float, float]]:
    """Yield the mean square of each module's input and the std of its output over the batches."""
    sums = torch.zeros(len(modules), 2, 3, dtype=torch.float64, device=setup.device)

    def take(index: int, _: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        for row, values in enumerate((inputs[0].double(), output.double())):
            count = values.new_full((), values.numel())
            sums[index, row] += torch.stack([count, values.sum(), values.square().sum()])

    with _watched(modules, take), setup.autocast():
        for images in batches:
            net(images)
    for (inputs, _, input_squares), (count, total, squares) in sums.tolist():
        mean, mean_square = total / count, squares / count
        yield input_squares / inputs, math.sqrt(max(0.0, mean_square - mean * mean))


def keep_responses(folder: RunFolder, context: RunContext, state: TrainState) -> None:
    """Write the layer responses of the final net on the first test images (Fig. 7)."""
    config, test = context.config, context.images.held_out["test"]
    if count := min(config.probes.response_images, len(test)):
        batches = test.eval_batches(config.evaluation.batch_size, count)
        folder.write_table("responses", layer_responses(state.model, context.setup, batches))
