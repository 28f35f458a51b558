"""Stop on a signal: finish the iteration, save, leave. And: end with the parent process."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)  # USR1: SLURM's pre-emption warning
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)  # loaded here: between a fork and an exec is no time to load anything


@contextmanager
def stop_on_signals(*, alone: bool = True) -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether a signal asked for a stop.

    The first signal only sets a flag that the loop reads between two iterations; a second one
    ends the process at once. Not so where the process is one of several workers (``alone`` false):
    a scheduler's signal reaches each twice, directly and through the launcher, and the workers
    must save together.
    """
    asked: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        if asked and alone:
            os._exit(128 + number)
        asked.append(number)
        if alone:
            name = signal.Signals(number).name
            message = f"\n{name}: saving after this iteration; once more to leave at once\n"
            with contextlib.suppress(OSError, ValueError, AttributeError):
                os.write(sys.stderr.fileno(), message.encode())  # dropped where closed or full

    note.asked = asked  # type: ignore[attr-defined]  # for waits that begin after the signal
    previous = {number: signal.signal(number, note) for number in STOP_SIGNALS}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def stop_signals_noted() -> Iterator[list[int]]:
    """Give a list of the stop signals that came; each reaches its own handler, too.

    Those that ``stop_on_signals`` noted before the block count: the wait must not begin then.
    """
    before = {int(number): signal.getsignal(number) for number in STOP_SIGNALS}
    # A signal without a handler of Python ends the process at once, and shall.
    handlers = {number: handler for number, handler in before.items() if callable(handler)}
    caught = [number for old in handlers.values() for number in getattr(old, "asked", ())]

    def note(number: int, frame: FrameType | None) -> None:
        caught.append(number)
        handlers[number](number, frame)

    note.asked = caught  # type: ignore[attr-defined]
    with handled_by(note, list(handlers)):
        yield caught


@contextmanager
def handled_by(
    handler: Callable[[int, FrameType | None], object], numbers: Sequence[int]
) -> Iterator[None]:
    """Handle some signals in the block, those apart that are ignored; only the main thread can."""
    if threading.current_thread() is not threading.main_thread():
        numbers = ()
    before = {number: signal.getsignal(number) for number in numbers}
    before = {n: old for n, old in before.items() if old not in (signal.SIG_IGN, None)}
    try:
        for number in before:
            signal.signal(number, handler)
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def end_with_parent() -> None:
    """Receive SIGTERM when the parent process ends, however it ends (Linux only)."""
    if sys.platform == "linux":
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def is_alive(pid: int) -> bool:
    """Return whether a process of this machine runs, or ended without its parent's notice."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
