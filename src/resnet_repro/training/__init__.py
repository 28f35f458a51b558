"""Training; here the errors that stop a run, without torch: its command reports them too."""

import contextlib

from resnet_repro.data import StoppedError
from resnet_repro.runs.folder import RunFolder


class CheckpointError(RuntimeError):
    """No checkpoint can be trusted; the message says what to do."""


class DivergedError(RuntimeError):
    """The loss or its gradient is no longer a number."""


class WorkersLostError(RuntimeError):
    """One of several workers ended or fell silent, and the others with it."""


def note_failure(folder: RunFolder, error: Exception) -> None:
    """Record in ``status.json`` what stopped the run, and why; a divergence stays recorded."""
    if folder.status().get("state") == "diverged":
        return
    state, reason = "failed", f"{type(error).__name__}: {error}"
    if isinstance(error, DivergedError):
        state, reason = "diverged", str(error)
    elif isinstance(error, StoppedError):
        state = "preempted"
    with contextlib.suppress(OSError):  # on a full disk, report what filled it, not this
        folder.write_status(state, reason=reason)
