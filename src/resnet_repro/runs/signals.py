"""Stop on a signal: finish the iteration, save, leave. And: end with the parent process."""

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
_active: list[list[int]] = []  # signals received in each active stop_on_signals
_LIBC = ctypes.CDLL(None)  # loaded here: nothing may be loaded between fork and exec


@contextmanager
def stop_on_signals(*, alone: bool = True) -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether a signal asked for a stop; a second ends the process.

    Not so where the process is one of several workers (``alone`` false): a scheduler's signal
    may reach each twice, directly and through torchrun, and the workers must save together.
    """
    received: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        if received and alone:
            os._exit(128 + number)
        received.append(number)
        if alone:
            name = signal.Signals(number).name
            message = f"\n{name}: saving after this iteration; once more to leave at once\n"
            with contextlib.suppress(OSError, ValueError, AttributeError):
                os.write(sys.stderr.fileno(), message.encode())  # dropped where closed or full

    previous = {number: signal.signal(number, note) for number in STOP_SIGNALS}
    _active.append(received)
    try:
        yield lambda: bool(received)
    finally:
        _active.pop()
        for number, handler in previous.items():
            signal.signal(number, handler)


def stop_noted() -> bool:
    """Whether :func:`stop_on_signals` has noted a signal: a wait must then end."""
    return any(_active)


@contextmanager
def handled_by(
    handler: Callable[[int, FrameType | None], object], numbers: Sequence[int]
) -> Iterator[None]:
    """Handle some signals in the block, but no ignored ones; only the main thread can."""
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
    """Return whether a process of this machine runs or is a zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
