"""One block, compiled once and used for all equal blocks; and counters counted in one go.

Compiling the block rather than the net keeps compile time independent of the depth: a CIFAR net of
any depth has the same five kinds of block. Compiled code rounds at other places than the kernels it
replaces, so results differ as they do between numbers of threads: in the last bits of a step.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from resnet_repro.models.blocks import Block
from resnet_repro.training.device import Setup

KINDS_OF_BLOCK = 256  # in one process: shapes, shortcuts and precisions of all its nets
ENOUGH = 2  # blocks of a stage include all its kinds: the first changes the shape


class CompiledBlock(nn.Module):
    """Runs a block's compiled code; the block keeps its parameters."""

    def __init__(self, block: Block):
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        """As the block's."""
        return _compiled()(self.block, x)


def _through(block: Block, x: Tensor) -> Tensor:
    y: Tensor = block.forward(x)
    return y


@functools.cache
def _compiled() -> Callable[[Block, Tensor], Tensor]:
    """One function for the whole process, so that all nets in it share what was compiled."""
    import torch._dynamo.config as limits

    # Eight by default; beyond it the rest would silently not be compiled.
    limits.recompile_limit = max(limits.recompile_limit, KINDS_OF_BLOCK)
    limits.accumulated_recompile_limit = max(limits.accumulated_recompile_limit, KINDS_OF_BLOCK)
    compiled: Callable[[Block, Tensor], Tensor] = torch.compile(
        _through, fullgraph=True, dynamic=False
    )
    return compiled


def with_compiled_blocks(net: nn.Module) -> nn.Module:
    """Return the same net with compiled blocks.

    ``net`` itself stays as it is: probes that look into blocks go through it. Parameters and
    buffers are shared, not copied.
    """
    if isinstance(net, Block):
        return CompiledBlock(net)
    if not any(isinstance(module, Block) for module in net.modules()):
        return net
    twin = copy.copy(net)
    twin._modules = {
        name: None if child is None else with_compiled_blocks(child)
        for name, child in net._modules.items()
    }
    return twin


def why_not(
    net: nn.Module, setup: Setup, shape: tuple[int, int, int, int], *, counters_apart: bool
) -> str | None:
    """Compile the blocks of ``net`` for images of ``shape``; return why not, if they cannot be.

    What is compiled here is used in training. Works on a copy with the first blocks of each stage,
    so ``net`` does not change, and the time does not depend on its depth.

    Args:
        net: is left as it is.
        setup: of the run.
        shape: (N, 3, H, W) of a batch.
        counters_apart: training counts batches by :func:`counted_together`.
    """
    import torch._inductor.config as inductor

    # What it chooses by timing alternatives could be another on a rerun.
    inductor.deterministic = torch.are_deterministic_algorithms_enabled()
    small = _shortened(net)
    images = torch.zeros(shape, device=setup.device).contiguous(memory_format=torch.channels_last)
    try:
        twin = with_compiled_blocks(small).train()
        with counted_together(plain_norms(small) if counters_apart else []):
            with setup.autocast():
                scores = twin(images)
            scores.float().sum().backward()
    except Exception as error:  # whatever a compiler can fail with; KeyboardInterrupt is not one
        return _cause(error)
    return None


def _shortened(net: nn.Module) -> nn.Module:
    """A copy of ``net`` with at most two blocks in each stage."""
    short = copy.deepcopy(net)
    for stage in short.modules():
        if isinstance(stage, nn.Sequential) and all(isinstance(part, Block) for part in stage):
            del stage[ENOUGH:]
    return short


def _cause(error: BaseException) -> str:
    """First line of what is at the bottom of an error."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}".removesuffix(": ")


def plain_norms(net: nn.Module) -> list[nn.BatchNorm2d]:
    """The batch-norm layers of ``net`` that count batches and do nothing else with the count."""
    return [
        module
        for module in net.modules()
        if type(module) is nn.BatchNorm2d
        and module.num_batches_tracked is not None
        and module.momentum is not None
    ]


@contextmanager
def counted_together(norms: Sequence[nn.BatchNorm2d]) -> Iterator[None]:
    """Count the batch of a training pass in all of ``norms`` at once.

    Each layer by itself launches a kernel for it, one in a dozen of all kernels of a step.
    """
    counters = [norm.num_batches_tracked for norm in norms]
    for norm in norms:
        norm.num_batches_tracked = None
    try:
        yield
    finally:
        for norm, counter in zip(norms, counters, strict=True):
            norm.num_batches_tracked = counter
    if counters:
        torch._foreach_add_([counter for counter in counters if counter is not None], 1)
