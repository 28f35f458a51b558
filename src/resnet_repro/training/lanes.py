"""Work that goes on in turns: one run alone, or several of them turn about on one device.

A run is a generator that pauses after every iteration (:func:`resnet_repro.training.loop.train`).
A lane advances one. On CUDA everything a lane does is launched on a stream of its own: graphs can
be captured there, and what several lanes have launched is computed at the same time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Generic, TypeVar

import torch

T = TypeVar("T")
Turns = Generator[None, None, T]  # pauses between two iterations; returns what came of the work

AHEAD = 8  # iterations of a lane that may wait for the device


def finish(turns: Turns[T]) -> T:
    """Do all of the work without a pause, on the current stream."""
    while True:
        try:
            next(turns)
        except StopIteration as end:
            result: T = end.value
            return result


class Lane(Generic[T]):
    """Work and the stream it is done on.

    Args:
        turns: the work.
        on_cuda: whether it computes on a GPU.
    """

    def __init__(self, turns: Turns[T], *, on_cuda: bool):
        self._turns = turns
        self._stream = torch.cuda.Stream() if on_cuda else None  # type: ignore[no-untyped-call]
        self._marks: deque[torch.cuda.Event] = deque()

    def finish(self) -> T:
        """Do all of the work without a pause."""
        with self._here():
            return finish(self._turns)

    def is_ready(self) -> bool:
        """Whether the device has caught up so far that it needs more to do.

        Without this the host would fill the queue of a lane with long iterations and then wait for
        it, while the other lanes run dry.
        """
        while self._marks and self._marks[0].query():  # type: ignore[no-untyped-call]
            self._marks.popleft()
        return len(self._marks) < AHEAD

    def wait(self) -> None:
        """Wait until the device has done one more iteration of this lane."""
        if self._marks:
            self._marks[0].synchronize()

    def advance(self) -> None:
        """Do one iteration; the device may still be at it when this returns.

        Raises:
            StopIteration: the work is done; its ``value`` is what came of it.
        """
        with self._here():
            next(self._turns)
            if self._stream is not None:
                mark = torch.cuda.Event()  # type: ignore[no-untyped-call]
                mark.record()
                self._marks.append(mark)

    def _here(self) -> AbstractContextManager[object]:
        return torch.cuda.stream(self._stream) if self._stream is not None else nullcontext()

    def close(self) -> None:
        """Leave the work where it is, letting go of what it holds."""
        self._turns.close()


def turn_about(
    starts: Sequence[Callable[[], Lane[T]]], most: int, stop_asked: Callable[[], bool]
) -> Iterator[tuple[int, T | Exception]]:
    """Advance up to ``most`` lanes, an iteration of each in turn; the next begins as one ends.

    An error ends its own lane alone. Once a stop is asked for no other lane begins; those that have
    begun see it too and end by themselves.

    Args:
        starts: make the lanes, in order of work.
        most: lanes at the same time.
        stop_asked: whether to stop.

    Yields:
        Number of a lane that ended, and what came of it.
    """
    waiting = deque(enumerate(starts))
    under_way: dict[int, Lane[T]] = {}
    try:
        while waiting or under_way:
            while waiting and len(under_way) < most and not stop_asked():
                number, start = waiting.popleft()
                under_way[number] = start()
            if not under_way:
                return
            ready = [number for number, lane in under_way.items() if lane.is_ready()]
            if not ready:
                next(iter(under_way.values())).wait()
            for number in ready:
                try:
                    under_way[number].advance()
                except StopIteration as end:
                    del under_way[number]
                    yield number, end.value
                except Exception as error:
                    del under_way[number]
                    yield number, error
    finally:
        for lane in under_way.values():
            lane.close()
