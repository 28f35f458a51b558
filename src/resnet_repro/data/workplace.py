"""A temporary folder to fetch data in, which goes whatever happens, stop signals included."""

from __future__ import annotations

import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from resnet_repro.data.cache import told
from resnet_repro.data.errors import StoppedError

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def workplace(root: Path, prefix: str, needed: int) -> Iterator[Path]:
    """Give a folder inside ``root`` for up to ``needed`` bytes; it is removed after the block.

    SIGINT and SIGTERM end the block at once, even where the program elsewhere only notes them.

    Raises:
        StoppedError: by a signal.
        DataError: no space in ``root``, or it cannot be written.
    """
    with (
        _stopped_by_signals(),
        told(root, needed),
        tempfile.TemporaryDirectory(dir=root, prefix=prefix, ignore_cleanup_errors=True) as place,
    ):
        yield Path(place)


@contextmanager
def signals_deferred() -> Iterator[None]:
    """Let stop signals take effect only after the block, which must not be cut in half."""
    caught: list[int] = []
    with _handled_by(lambda number, _: caught.append(number)):
        yield
    for number in caught[:1]:
        signal.raise_signal(number)


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """End the block on a stop signal and let it clean up; then tell whoever handled it before."""
    caught: list[int] = []

    def stop(number: int, _: FrameType | None) -> None:
        caught.append(number)
        if len(caught) == 1:  # a second Ctrl-C must not interrupt the cleaning up
            raise KeyboardInterrupt

    try:
        with _handled_by(stop):
            yield
    except KeyboardInterrupt:
        if not caught:
            raise
        signal.raise_signal(caught[0])  # raises or ends the process, unless it is only noted
        raise StoppedError("getting the data was stopped by a signal; run it again") from None


@contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """Put a handler in the place of those of the stop signals; ignored ones stay ignored."""
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    if threading.current_thread() is not threading.main_thread():  # signals do not come here
        before = {}
    handled = [n for n, old in before.items() if old not in (signal.SIG_IGN, None)]
    try:
        for number in handled:
            signal.signal(number, handler)
        yield
    finally:
        for number in handled:
            signal.signal(number, before[number])
