"""How the updates of a run are done: eagerly, or as a CUDA graph; with or without compiled blocks.

:func:`make` decides as the configuration asks and the machine allows, and returns the stepper. What
was decided, the engine, is recorded in ``meta.json``.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any, Protocol

from resnet_repro.data.resident import ResidentImages
from resnet_repro.options import ConfigError
from resnet_repro.training import compiled
from resnet_repro.training.assemble import RunContext
from resnet_repro.training.graph import GraphedStepper
from resnet_repro.training.state import TrainState, step

# Whether compiled blocks are faster. On the CPU they were measured slower: its batch-norm kernels
# beat the compiler's. On CUDA they launch fewer kernels, which should pay; not measured yet. What
# benchmarks.parity finds decides.
COMPILE_PAYS = {"cpu": False, "cuda": True}


class Stepper(Protocol):
    """Does updates; ``engine`` says how, for ``meta.json``."""

    engine: dict[str, Any]

    def step(self, lr: float) -> None:
        """Do the update that follows the state's iteration, at this rate.

        The device may still be computing loss, errors and gradient when this returns; reading them
        (the state's window, ``.grad``) waits for them.
        """


class EagerStepper:
    """The host prepares each batch and launches each kernel."""

    def __init__(self, context: RunContext, state: TrainState, engine: dict[str, Any]):
        self._context, self._state, self.engine = context, state, engine

    def step(self, lr: float) -> None:
        """Do the update that follows the state's iteration."""
        images, labels = self._context.batch(self._state.iteration)
        step(self._state, self._context.setup, images, labels, lr)


@dataclass
class Engine:
    """How the updates of a run are done, and remarks where one would expect otherwise."""

    graph: bool = False
    compiled: bool = False
    remarks: list[str] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        """What ``meta.json`` says of it."""
        names = {"step": ("eager", "graph")[self.graph]}
        names["blocks"] = ("eager", "compiled")[self.compiled]
        return names | {"remarks": self.remarks}

    def stepper(self, context: RunContext, state: TrainState) -> Stepper:
        """Build what does the updates; sets ``state.train_net`` and ``state.graphed_eval``."""
        if self.compiled:
            state.train_net = compiled.with_compiled_blocks(state.model)
        kind = GraphedStepper if self.graph else EagerStepper
        return kind(context, state, self.record())

    def note(self, key: str, asked: str, what: str, why: str | None) -> None:
        """Remark on what is not done, if there is a reason why.

        Raises:
            ConfigError: the configuration demands it.
        """
        if why and asked == "always":
            raise ConfigError(f"trainer.{key}={asked}: {why}")
        if why:
            self.remarks.append(f"trainer.{key}={asked}: {what} ({why})")


def make(context: RunContext, state: TrainState) -> Stepper:
    """Return what does the updates of a run, as its configuration and this machine allow.

    This is the one way to train: a run calls it, and so does anything that measures a step. Call it
    when ``state`` is where training starts or resumes, weights loaded, and on CUDA with a stream of
    its own as the current one; then ``stepper.step(lr)`` again and again. The state's net may be
    inspected between two steps, but no other step be done on it. Sets ``state.train_net`` (compiled
    blocks) and ``state.graphed_eval``; compiles, if it does, here. Prints the engine and what keeps
    the run from a faster one. On a GPU steps are asynchronous: synchronise before reading a clock.

    Raises:
        ConfigError: the configuration demands what this machine cannot do.
    """
    engine = choose(context, state)
    if context.world.rank == 0:
        for line in (*_run_line(context, engine), *engine.remarks):
            print(line, file=sys.stderr, flush=True)
    return engine.stepper(context, state)


def _run_line(context: RunContext, engine: Engine) -> list[str]:
    """What a run on a GPU says of its engine: hosts that differ in it must not look alike."""
    config, setup, how = context.config, context.setup, engine.record()
    if setup.device.type == "cpu":
        return []
    run = f"{config.name} {config.profile} seed {config.seed}"
    return [f"{run}: {how['step']} steps, {how['blocks']} blocks, {setup.precision}, {setup.gpu}"]


def choose(context: RunContext, state: TrainState) -> Engine:
    """Decide as the configuration asks and the machine allows; compiles the blocks on the way.

    Raises:
        ConfigError: the configuration demands what this machine cannot do.
    """
    engine, trainer = Engine(), context.config.trainer
    obstacle = _obstacle(context)
    on_cuda = context.setup.device.type == "cuda"
    if trainer.graph == "always" or (trainer.graph == "auto" and on_cuda):
        why = obstacle if on_cuda else "needs a CUDA device"
        engine.graph = why is None
        engine.note("graph", trainer.graph, "steps are not captured", why)
    if trainer.compile == "always" or (
        trainer.compile == "auto" and COMPILE_PAYS[context.setup.device.type]
    ):
        why = obstacle
        if trainer.compile == "auto" and trainer.deterministic:
            why = why or "trainer.deterministic=true"
        why = why or compiled.why_not(
            state.model, context.setup, context.share_shape, counters_apart=engine.graph
        )
        engine.compiled = why is None
        engine.note("compile", trainer.compile, "blocks are not compiled", why)
    return engine


def _obstacle(context: RunContext) -> str | None:
    """What keeps a run from doing its steps in any way but one by one."""
    if context.world.size > 1:
        return f"{context.world.size} workers add up their gradients in every step"
    if not isinstance(context.images, ResidentImages):
        return "full-size pictures are decoded as training goes on"
    return None
