"""Whether a run's steps are captured as a graph and its blocks compiled; and what keeps them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from resnet_repro.data.images import ResidentImages
from resnet_repro.options import ConfigError
from resnet_repro.training import fusion
from resnet_repro.training.parts import Parts
from resnet_repro.training.state import TrainState

# Whether compiled blocks are faster. On the CPU they were measured slower: its batch-norm kernels
# beat the compiler's. On CUDA they launch fewer kernels, which should pay; not measured yet. What
# benchmarks.parity finds decides.
COMPILE_PAYS = {"cpu": False, "cuda": True}


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

    def note(self, key: str, asked: str, what: str, why: str | None) -> None:
        """Remark on what is not done, if there is a reason why.

        Raises:
            ConfigError: it was not left to this program to decide.
        """
        if why and asked == "always":
            raise ConfigError(f"trainer.{key}={asked}: {why}")
        if why:
            self.remarks.append(f"trainer.{key}={asked}: {what} ({why})")


def choose(parts: Parts, state: TrainState) -> Engine:
    """Decide as the configuration asks and the machine allows; blocks are compiled on the way.

    Raises:
        ConfigError: something was asked for that cannot be had.
    """
    engine, trainer = Engine(), parts.config.trainer
    obstacle = _obstacle(parts)
    on_cuda = parts.setup.device.type == "cuda"
    if trainer.graph == "always" or (trainer.graph == "auto" and on_cuda):
        why = obstacle if on_cuda else "needs a CUDA device"
        engine.graph = why is None
        engine.note("graph", trainer.graph, "steps are not captured", why)
    if trainer.compile == "always" or (
        trainer.compile == "auto" and COMPILE_PAYS[parts.setup.device.type]
    ):
        why = obstacle
        if trainer.compile == "auto" and trainer.deterministic:
            why = why or "trainer.deterministic=true"
        why = why or fusion.why_not(
            state.model, parts.setup, parts.share_shape, counters_apart=engine.graph
        )
        engine.compiled = why is None
        engine.note("compile", trainer.compile, "blocks are not compiled", why)
    return engine


def _obstacle(parts: Parts) -> str | None:
    """What keeps a run from doing its steps in any way but one by one."""
    if parts.world.size > 1:
        return f"{parts.world.size} workers add up their gradients in every step"
    if not isinstance(parts.images, ResidentImages):
        return "full-size pictures are decoded as training goes on"
    return None
