"""Training. What can stop a run stands here, without torch: its command reports it too."""

from __future__ import annotations

import contextlib

from resnet_repro.runs.folder import RunFolder


class CheckpointError(RuntimeError):
    """No checkpoint can be trusted; the message says what to do."""


class DivergedError(RuntimeError):
    """The loss or its gradient is no longer a number."""


class WorkersLostError(RuntimeError):
    """One of several workers ended or fell silent, and the others with it."""


def note_failure(folder: RunFolder, error: Exception) -> None:
    """Write into ``status.json`` what stopped the run: ``diverged`` or ``failed``, and why."""
    if folder.status().get("state") == "diverged":
        return
    diverged = isinstance(error, DivergedError)
    reason = str(error) if diverged else f"{type(error).__name__}: {error}"
    with contextlib.suppress(OSError):  # on a full disk, report what filled it, not this
        folder.update_status("diverged" if diverged else "failed", reason=reason)
