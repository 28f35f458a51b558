"""Do the updates of a run eagerly or as a CUDA graph, with or without compiled blocks.

A block is compiled once for all equal blocks: a CIFAR net of any depth has the same five kinds.
Compiled code rounds in other places than the kernels it replaces, so results differ in the last
bits of a step, as they do between numbers of threads.
"""

import copy
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias

import torch
from torch import nn

from resnet_repro.data.resident import ResidentImages
from resnet_repro.exits import notify
from resnet_repro.models.blocks import Block
from resnet_repro.options import ConfigError
from resnet_repro.training.build import RunContext
from resnet_repro.training.device import Setup
from resnet_repro.training.graph import GraphedStep, counted_together
from resnet_repro.training.state import TrainState, step

# Whether compiled blocks are faster. On the CPU they were measured slower: its batch-norm kernels
# beat the compiler's. On CUDA they launch fewer kernels, which should pay; not measured yet. What
# benchmarks.parity finds decides.
COMPILE_PAYS = {"cpu": False, "cuda": True}
KINDS_OF_BLOCK = 256  # in one process: shapes, shortcuts and precisions of all its nets
BLOCKS_COMPILED = 2  # blocks of a stage include all its kinds: the first changes the shape


# Does the update that follows the state's iteration, at a learning rate. The device may still be
# computing when it returns; reading results (the state's window, ``.grad``) waits for it.
Step: TypeAlias = Callable[[float], None]


def eager_step(context: RunContext, state: TrainState) -> Step:
    """Return a step for which the host prepares each batch and launches each kernel."""

    def update(lr: float) -> None:
        images, labels = context.images.batch(state.iteration)
        step(state, context.setup, images, labels, lr)

    return update


@dataclass
class Engine:
    """How the updates of a run are done, with remarks where one would expect otherwise."""

    step: str = "eager"  # or graph
    blocks: str = "eager"  # or compiled
    remarks: list[str] = field(default_factory=list)

    def build(self, context: RunContext, state: TrainState) -> Step:
        """Build the step; sets ``state.train_net`` and ``state.graphed_eval``."""
        if self.blocks == "compiled":
            state.train_net = with_compiled_blocks(state.model)
        kind = GraphedStep if self.step == "graph" else eager_step
        return kind(context, state)

    def can(self, key: str, value: str, what: str, reason: str | None) -> bool:
        """Whether nothing is against it; else remark on that, or raise where it is required."""
        if reason and value == "always":
            raise ConfigError(f"trainer.{key}={value}: {reason}")
        if reason:
            self.remarks.append(f"trainer.{key}={value}: {what} ({reason})")
        return not reason


def make(context: RunContext, state: TrainState) -> tuple[Step, dict[str, Any]]:
    """Return the step of a run as its configuration and this machine allow, and its engine.

    Call it when ``state`` is where training starts or resumes, weights loaded, and on CUDA with a
    stream of its own as the current one; then only the step changes that state. Prints the engine
    on a GPU (hosts that differ in it must not look alike) and what keeps the run from a faster one.
    ConfigError: the configuration requires what this machine cannot do.
    """
    engine, config, setup = choose(context, state), context.config, context.setup
    if context.world.rank == 0:
        if setup.device.type != "cpu":
            made = f"{engine.step} steps, {engine.blocks} blocks, {setup.precision}, {setup.gpu}"
            notify(f"{config.label}: {made}")
        for remark in engine.remarks:
            notify(remark)
    return engine.build(context, state), asdict(engine)


def choose(context: RunContext, state: TrainState) -> Engine:
    """Decide as :func:`make` says; compiles the blocks on the way."""
    engine, trainer = Engine(), context.config.trainer
    device, reason = context.setup.device.type, _obstacle(context)
    captures = trainer.graph == "always" or (trainer.graph == "auto" and device == "cuda")
    if captures and engine.can("graph", trainer.graph, "steps are not captured", reason):
        engine.step = "graph"
    if trainer.compile == "always" or (trainer.compile == "auto" and COMPILE_PAYS[device]):
        if trainer.compile == "auto" and trainer.deterministic:
            reason = reason or "trainer.deterministic=true"
        reason = reason or compile_obstacle(
            state.model, context.setup, context.images.share_shape, graphed=engine.step == "graph"
        )
        if engine.can("compile", trainer.compile, "blocks are not compiled", reason):
            engine.blocks = "compiled"
    return engine


def _obstacle(context: RunContext) -> str | None:
    """Return what keeps a run from any but eager steps."""
    if context.world.size > 1:
        return f"{context.world.size} workers add up their gradients in every step"
    if not isinstance(context.images, ResidentImages):
        return "full-size pictures are decoded during training"
    return None


def with_compiled_blocks(net: nn.Module) -> nn.Module:
    """The same net with compiled blocks and shared tensors; probes go through ``net`` itself.

    Equal blocks share what was compiled, in all nets of the process.
    """
    import torch._dynamo.config as limits

    # Eight by default; beyond it the rest would silently not be compiled.
    limits.recompile_limit = max(limits.recompile_limit, KINDS_OF_BLOCK)
    tensors = {id(tensor): tensor for tensor in (*net.parameters(), *net.buffers())}
    twin = copy.deepcopy(net, tensors)  # which copies none of them
    for block in twin.modules():
        if isinstance(block, Block):
            block.compile(fullgraph=True, dynamic=False)
    return twin


def compile_obstacle(
    net: nn.Module, setup: Setup, shape: tuple[int, int, int, int], *, graphed: bool
) -> str | None:
    """Compile the blocks of ``net`` for images of ``shape``; return why not, if they cannot be.

    Works on a copy. ``graphed``: training counts batches by :func:`counted_together`.
    """
    import torch._inductor.config as inductor

    # A choice made by timing alternatives could differ on a rerun.
    inductor.deterministic = torch.are_deterministic_algorithms_enabled()
    short = copy.deepcopy(net)
    for stage in short.modules():
        if isinstance(stage, nn.Sequential) and all(isinstance(part, Block) for part in stage):
            del stage[BLOCKS_COMPILED:]
    images = torch.zeros(shape, device=setup.device).contiguous(memory_format=torch.channels_last)
    try:
        twin = with_compiled_blocks(short).train()
        with counted_together(twin) if graphed else nullcontext():
            with setup.autocast():
                scores = twin(images)
            scores.float().sum().backward()
    except Exception as error:  # any failure of a compiler, but no KeyboardInterrupt
        cause: BaseException = error
        while inner := cause.__cause__ or getattr(cause, "inner_exception", None):
            cause = inner
        first = (str(cause).strip().splitlines() or [""])[0]
        return f"{type(cause).__name__}: {first}".removesuffix(": ")
    return None
