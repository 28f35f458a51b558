"""A net that is trained in several ways, to be compared."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from benchmarks.harness_run import Training
from benchmarks.turns import synchroniser
from resnet_repro.compose import compose_run
from resnet_repro.data import Arrays
from resnet_repro.data.order import raw
from resnet_repro.options import ConfigError
from resnet_repro.training.build import assemble, load_data
from resnet_repro.training.device import set_up
from resnet_repro.training.stepper import make

EAGER = ("trainer.graph=never", "trainer.compile=never")
GRAPH = ("trainer.graph=always", "trainer.compile=never")
COMPILED = ("trainer.graph=auto", "trainer.compile=always")  # and captured, where there is a GPU
NAMES = {EAGER: "eager", GRAPH: "graph", COMPILED: "compiled"}
Way = tuple[str, str]
Row = dict[str, Any]


@dataclass(frozen=True)
class Subject:
    """A net and what it is trained on; ``iterations`` is how many of them are compared."""

    experiment: str
    words: tuple[str, ...]
    arrays: Arrays
    device: str
    iterations: int

    @classmethod
    def of(cls, experiment: str, words: Sequence[str], iterations: int) -> Subject:
        """The net of an experiment, with these configuration words."""
        longer = f"trainer.log_every_iters={max(iterations, 100)}"  # losses that are remembered
        config = compose_run(f"experiment={experiment}", *words, longer)
        device = set_up(config.trainer).device.type
        return cls(experiment, (*words, longer), load_data(config), device, iterations)

    @property
    def ways(self) -> tuple[Way, ...]:
        """How it can be trained here."""
        return (EAGER, GRAPH, COMPILED) if self.device == "cuda" else (EAGER, COMPILED)

    @property
    def precisions(self) -> tuple[str, ...]:
        """In which precision."""
        return ("fp32", "tf32", "bf16") if self.device == "cuda" else ("fp32", "bf16")

    def training(self, *words: str) -> Training:
        """The run at its start, trained as ``words`` say.

        Raises:
            ConfigError: that cannot be had here.
        """
        return Training.of(self.experiment, [*self.words, *words], self.arrays, warm=0)

    def resumed(self, of: Training, saved: dict[str, Any]) -> Training:
        """The run ``of``, gone on with from what was saved of it."""
        with torch.cuda.stream(of.stream):
            parts, state = assemble(of.config, of.setup, self.arrays)
            state.load_state_dict(saved)
            return Training(of.config, of.setup, parts, state, make(parts, state), of.stream)

    def row(self, check: str, way: str, found: float, allowed: float = 0, **more: Any) -> Row:
        """One line of the result; it passed if ``found`` is at most ``allowed``."""
        kept: Row = {"experiment": self.experiment, "check": check, "way": way}
        kept |= {"precision": None, "found": found, "allowed": allowed, "costs": None} | more
        return kept | {"passed": bool(found <= allowed)}

    def not_here(self, check: str, way: Way, error: ConfigError) -> Row:
        """The line of a check that cannot be done here; it neither passed nor failed."""
        row = self.row(check, NAMES[way], 0)
        return row | {"found": None, "passed": None, "why_not": str(error)}


def first_losses(training: Training, count: int) -> torch.Tensor:
    """Losses of the next ``count`` iterations, on the host."""
    for _ in range(count):
        training.iterate()
    synchroniser(training.setup.device)()
    return training.state.window.last(training.state.iteration, count)[:, 0]


def nudge(training: Training, seed: int) -> None:
    """Change each weight by about one unit in its last place, up or down as ``seed`` says."""
    for number, weights in enumerate(training.state.model.parameters()):
        draws = raw(seed, number, 0, weights.numel()) >> np.uint64(63)
        signs = torch.from_numpy(draws.astype(np.float32) * 2 - 1).view(weights.shape)
        weights.data.mul_((1 + 2**-23 * signs).to(weights.device))


def fingerprint(training: Training) -> str:
    """SHA-256 of weights, statistics, momentum and remembered losses."""
    synchroniser(training.setup.device)()
    digest = hashlib.sha256()
    state = training.state
    momentum = [kept["momentum_buffer"] for kept in state.optimizer.state.values()]
    for tensor in (*state.model.state_dict().values(), *momentum, state.window.sums):
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def snapshot(training: Training) -> dict[str, Any]:
    """What a checkpoint would keep."""
    synchroniser(training.setup.device)()
    return copy.deepcopy(training.state.state_dict())
