"""Training; here the errors that stop a run, without torch: its command reports them too."""

import contextlib
from collections.abc import Iterator

from resnet_repro.data import StoppedError
from resnet_repro.runs.folder import RunFolder


class CheckpointError(RuntimeError):
    """No checkpoint can be trusted; the message says what to do."""


class DivergedError(RuntimeError):
    """The loss or its gradient is no longer a number."""


class WorkersLostError(RuntimeError):
    """One of several workers ended or fell silent, and the others with it."""


@contextlib.contextmanager
def failure_noted(folder: RunFolder) -> Iterator[None]:
    """Record in ``status.json`` what stops the run, and why; a divergence stays recorded."""
    try:
        yield
    except Exception as error:
        state, reason = "failed", f"{type(error).__name__}: {error}"
        if isinstance(error, DivergedError):
            state, reason = "diverged", str(error)
        elif isinstance(error, StoppedError):
            state = "preempted"
        with contextlib.suppress(OSError):  # on a full disk, report what filled it, not this
            if folder.status().get("state") != "diverged":
                folder.write_status(state, reason=reason)
        raise
