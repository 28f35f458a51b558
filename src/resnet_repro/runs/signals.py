"""Asked to stop: finish the iteration, save, leave."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)  # USR1: SLURM's pre-emption warning


@contextmanager
def stop_on_signals() -> Iterator[Callable[[], bool]]:
    """Give a function that says whether a stop was asked for by a signal.

    The first signal only sets a flag that the loop looks at between two iterations; a second one
    ends the process at once.
    """
    asked: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        if asked:
            os._exit(128 + number)
        asked.append(number)
        name = signal.Signals(number).name
        message = f"\n{name}: saving after this iteration; once more to leave at once\n"
        os.write(sys.stderr.fileno(), message.encode())

    previous = {number: signal.signal(number, note) for number in STOP_SIGNALS}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
