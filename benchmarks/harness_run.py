"""Training of this project as the measurements drive it: the same parts and stepper as a run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from benchmarks.turns import synchroniser
from resnet_repro.compose import compose_run
from resnet_repro.config import Config
from resnet_repro.data import Arrays
from resnet_repro.training import stepper
from resnet_repro.training.build import RunContext, assemble
from resnet_repro.training.device import Setup, set_up
from resnet_repro.training.graph import EAGER_CALLS
from resnet_repro.training.state import TrainState, current_lr

WARM = EAGER_CALLS + 1  # calls after which every step is like the next: a graph is captured by then


@dataclass
class Training:
    """A run of an experiment, without its folder.

    ``stream`` is its own on CUDA; ``ready_seconds`` were spent on compiling, capturing and the
    first iterations.
    """

    config: Config
    setup: Setup
    parts: RunContext
    state: TrainState
    stepper: stepper.Stepper
    stream: torch.cuda.Stream | None
    ready_seconds: float = 0.0

    @classmethod
    def of(
        cls, experiment: str, words: Sequence[str], arrays: Arrays, warm: int = WARM
    ) -> Training:
        """Assemble the run that ``experiment`` with these configuration words is, ready to go.

        ``warm`` iterations are done already.

        Raises:
            ConfigError: there is no such experiment, or a word is wrong.
        """
        config = compose_run(f"experiment={experiment}", *words)
        setup = set_up(config.trainer)
        began = time.perf_counter()
        stream = None
        if setup.device.type == "cuda":
            stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        with torch.cuda.stream(stream):
            parts, state = assemble(config, setup, arrays)
            made = cls(config, setup, parts, state, stepper.make(parts, state), stream)
        for _ in range(warm):
            made.iterate()
        synchroniser(setup.device)()
        made.ready_seconds = time.perf_counter() - began
        return made

    def iterate(self) -> None:
        """One iteration: batch, forward, backward, update."""
        with torch.cuda.stream(self.stream):
            self.stepper.step(current_lr(self.state, self.config.recipe))

    @property
    def label(self) -> str:
        """How the net is called."""
        return self.config.model.label

    @property
    def batch_size(self) -> int:
        """Images of an iteration."""
        return self.config.recipe.batch_size
