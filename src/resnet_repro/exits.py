"""Exit codes, and errors told in one line instead of a traceback."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from resnet_repro.options import ConfigError
from resnet_repro.runs.folder import RunFolderError

LOST, CONFIG, DATA, CHECKPOINT, DIVERGED, DISK_FULL, PREEMPTED = 1, 2, 3, 4, 5, 74, 75

# By name, not by class: naming the classes of the other halves would import them.
_BY_NAME = {
    "DataError": DATA,
    "CheckpointError": CHECKPOINT,
    "MetricsError": CHECKPOINT,
    "DivergedError": DIVERGED,
    "DiskFullError": DISK_FULL,
    "WorkersLostError": LOST,
}


def exit_code(error: BaseException) -> int | None:
    """Exit code of an error a user can act on; ``None`` for a defect of this program."""
    if isinstance(error, ConfigError | RunFolderError):
        return CONFIG
    return next((_BY_NAME[c.__name__] for c in type(error).__mro__ if c.__name__ in _BY_NAME), None)


@contextmanager
def explained() -> Iterator[None]:
    """End the process with one line and the right code where the user can act on the error."""
    try:
        yield
    except Exception as error:
        code = exit_code(error)
        if code is None:
            raise
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(code) from None
