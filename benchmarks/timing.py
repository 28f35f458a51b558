"""Time things done alternately, so that a busy machine disturbs all of them alike."""

import resource
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from resnet_repro.config import Config
from resnet_repro.data import Arrays
from resnet_repro.training import stepper
from resnet_repro.training.build import assemble, load_data
from resnet_repro.training.device import set_up
from resnet_repro.training.graph import EAGER_CALLS
from resnet_repro.training.records import Log, evaluate
from resnet_repro.training.state import current_lr

T = TypeVar("T")
CPU = torch.device("cpu")
WARM = EAGER_CALLS + 1  # calls after which every step is like the next: a graph is captured by then


class Turn(NamedTuple):
    """Seconds of one call: on the clock, and of processor time."""

    clock: float
    processor: float


def synchronise(device: torch.device) -> None:
    """Wait until the device has finished."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def turn(work: Callable[[], object], count: int, device: torch.device = CPU) -> Turn:
    """Time ``count`` calls in one go."""
    synchronise(device)
    began, used = time.perf_counter(), time.process_time()
    for _ in range(count):
        work()
    synchronise(device)
    ended, spent = time.perf_counter(), time.process_time()
    return Turn((ended - began) / count, (spent - used) / count)


def seconds_each(work: Callable[[], object], count: int, device: torch.device = CPU) -> float:
    """Seconds on the clock of one of ``count`` calls, all of them timed in one go."""
    return turn(work, count, device).clock


def take_turns(contenders: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """Return what each contender returns in each round; every other round is in reverse order."""
    found: dict[str, list[T]] = {name: [] for name in contenders}
    for number in range(rounds):
        order = list(contenders)
        for name in order if number % 2 == 0 else reversed(order):
            found[name].append(contenders[name]())
    return found


def ratios(a: Sequence[float], b: Sequence[float]) -> list[float]:
    """``a`` over ``b``, round by round: a machine that is slow in one round is slow for both."""
    return [x / y for x, y in zip(a, b, strict=True)]


def spread(name: str, values: Sequence[float], digits: int) -> dict[str, float]:
    """Median and range of repeated measurements, as columns of a row."""
    found = {"": median(values), "_lowest": min(values), "_highest": max(values)}
    return {name + ending: round(value, digits) for ending, value in found.items()}


def children_seconds() -> float:
    """Processor time of the processes that were started from here and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class Training:
    """A run without its folder: the same parts and stepper as a real one.

    ``stream`` is its own on CUDA; ``warm`` iterations are done. ConfigError: this machine cannot
    do the run.
    """

    def __init__(self, config: Config, arrays: Arrays | None = None, warm: int = WARM):
        self.config, self.setup = config, set_up(config.trainer)
        arrays = load_data(config) if arrays is None else arrays
        self.stream = None
        if self.setup.device.type == "cuda":
            self.stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        with torch.cuda.stream(self.stream):
            self.context, self.state = assemble(config, self.setup, arrays)
            self.step, self.engine = stepper.make(self.context, self.state)
        for _ in range(warm):
            self.iterate()
        synchronise(self.setup.device)

    def iterate(self) -> None:
        """Do one iteration: batch, forward, backward, update."""
        with torch.cuda.stream(self.stream):
            self.step(current_lr(self.state, self.config.recipe))

    def evaluate(self) -> None:
        """Count the errors on the test images, as a run does."""
        evaluate(self.context, self.state, Log(self.state))

    def losses(self, count: int) -> Tensor:
        """Do ``count`` iterations and wait for the device; return their losses (count,)."""
        for _ in range(count):
            self.iterate()
        synchronise(self.setup.device)
        return self.state.window.last(self.state.iteration, count)[:, 0]

    def facts(self) -> dict[str, Any]:
        """Return what every row records of its run."""
        return {
            "net": self.config.model.label,
            "experiment": self.config.experiment,
            "batch_size": self.config.recipe.batch_size,
            "engine": self.engine,
        }

    def seconds(self, iterations: int, rounds: int = 1) -> float:
        """Seconds of an iteration: the median over ``rounds`` of ``iterations`` each."""
        return median(self.seconds_each(self.iterate, iterations) for _ in range(rounds))

    def seconds_each(self, work: Callable[[], object], count: int) -> float:
        """Seconds of one of ``count`` calls of what belongs to the run, all in one go."""
        with torch.cuda.stream(self.stream):
            return seconds_each(work, count, self.setup.device)
