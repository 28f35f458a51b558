"""Times of things done alternately, so that a busy machine disturbs all of them alike."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

T = TypeVar("T")


@dataclass(frozen=True)
class Spread:
    """The median of repeated measurements, and how far they lie apart."""

    median: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Sum up values; at least one."""
        return cls(statistics.median(values), min(values), max(values))


def synchroniser(device: torch.device) -> Callable[[], None]:
    """What waits until the device has done all it was given."""
    if device.type == "cuda":
        return torch.cuda.synchronize
    return lambda: None


@dataclass(frozen=True)
class Turn:
    """Seconds of one call: on the clock, and of this process's time on processors."""

    clock: float
    processor: float


def turn(
    work: Callable[[], object], count: int, synchronise: Callable[[], None] = lambda: None
) -> Turn:
    """Time ``count`` calls in one go."""
    synchronise()
    began, used = time.perf_counter(), time.process_time()
    for _ in range(count):
        work()
    synchronise()
    ended, spent = time.perf_counter(), time.process_time()
    return Turn((ended - began) / count, (spent - used) / count)


def seconds_each(
    work: Callable[[], object], count: int, synchronise: Callable[[], None] = lambda: None
) -> float:
    """Seconds on the clock of one of ``count`` calls, all of them timed in one go."""
    return turn(work, count, synchronise).clock


def take_turns(contenders: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """What each contender returns in each round; who begins changes from round to round."""
    found: dict[str, list[T]] = {name: [] for name in contenders}
    for number in range(rounds):
        order = list(contenders)
        for name in order if number % 2 == 0 else reversed(order):
            found[name].append(contenders[name]())
    return found


def times_faster(slow: Sequence[float], fast: Sequence[float]) -> Spread:
    """How many times faster ``fast`` is than ``slow``, round by round."""
    return Spread.of([a / b for a, b in zip(slow, fast, strict=True)])


def children_seconds() -> float:
    """Processor time of the processes that were started from here and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
