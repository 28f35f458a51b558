"""What can stop a run, without torch: the parent of several workers speaks of it too."""

from __future__ import annotations


class CheckpointError(RuntimeError):
    """No checkpoint can be trusted; the message says what to do."""


class DivergedError(RuntimeError):
    """The loss or its gradient is no longer a number."""


class WorkersLostError(RuntimeError):
    """One of several workers ended or fell silent, and the others with it."""
