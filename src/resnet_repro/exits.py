"""Exit codes, errors in one line instead of a traceback, and output that cannot fail a run."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from resnet_repro.paths import check_installed

LOST, CONFIG, DATA, CHECKPOINT, DIVERGED, DISK_FULL, PREEMPTED = 1, 2, 3, 4, 5, 74, 75

# By name: importing the classes would import torch.
_BY_NAME = {
    "ConfigError": CONFIG,
    "RunFolderError": CONFIG,
    "DataError": DATA,
    "CheckpointError": CHECKPOINT,
    "MetricsError": CHECKPOINT,
    "DivergedError": DIVERGED,
    "DiskFullError": DISK_FULL,
    "StoppedError": PREEMPTED,
    "WorkersLostError": LOST,
}


def exit_code(error: BaseException) -> int | None:
    """Exit code of an error a user can act on; ``None`` for a defect of this program."""
    return next((_BY_NAME[c.__name__] for c in type(error).__mro__ if c.__name__ in _BY_NAME), None)


@contextmanager
def explained() -> Iterator[None]:
    """End the process with one line and the right code where the user can act on the error.

    A Ctrl-C that nothing else handles ends it with a line, too.
    """
    guard_streams()
    try:
        check_installed()
        yield
    except Exception as error:
        code = exit_code(error)
        if code is None:
            raise
        notify(f"error: {error}")
        raise SystemExit(code) from None
    except KeyboardInterrupt:
        notify("stopped; rerun the same command")
        raise SystemExit(130) from None


def notify(message: str) -> None:
    """Print a message on standard error, or drop it where that cannot be written."""
    with suppress(OSError, ValueError):
        print(message, file=sys.stderr, flush=True)


def one_line(text: str, most: int = 200) -> str:
    """Return ``text`` as one printable line: text in a file must not steer a terminal."""
    line = "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))
    return line if len(line) <= most else line[: most - 3] + "..."


class SafeStream:
    """A standard stream that drops its output from the first of ``errors`` on."""

    def __init__(self, stream: TextIO, errors: type[Exception] | tuple[type[Exception], ...]):
        self._stream, self._errors = stream, errors

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write what can be written."""
        self._attempt(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        """Flush what can be flushed."""
        self._attempt(self._stream.flush)

    def _attempt(self, act: Callable[..., object], *what: str) -> None:
        try:
            act(*what)
        except self._errors:  # nothing more gets out, nor what is buffered or C code writes
            with Path(os.devnull).open("w") as null, suppress(OSError, ValueError):
                os.dup2(null.fileno(), self._stream.fileno())


def guard_streams() -> None:
    """Keep a standard stream that is closed, full or without a reader from failing a run.

    Standard output carries results: there only a closed pipe (``| head``) is ignored.
    """
    for number in range(3):  # a closed one would be the next file that is opened
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stderr = sys.stderr or Path(os.devnull).open("w")  # noqa: SIM115 - for good
    sys.stdout = sys.stdout or Path(os.devnull).open("w")  # noqa: SIM115
    if not isinstance(sys.stderr, SafeStream):
        sys.stderr = SafeStream(sys.stderr, (OSError, ValueError))
        sys.stdout = SafeStream(sys.stdout, BrokenPipeError)
