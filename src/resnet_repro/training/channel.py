"""What workers tell the command that started them: lines on their standard output.

A worker says ``hello`` with its process id, rank 0 says how far it is, and every worker ends with
``bye`` or with its ``error``. Everything else on the lines is for the user's eyes.
"""

from __future__ import annotations

import json
import os
import select
import sys
import time
import traceback
from typing import Any

from resnet_repro.exits import exit_code
from resnet_repro.progress import QUIET_SECONDS

ATTENDED = "RESNET_REPRO_ATTENDED"  # set by the command for its workers
MARK = "@worker "
LONGEST = 3_000  # characters: a pipe keeps lines of several processes apart up to 4,096 bytes


class Attended:
    """A worker's end of the line to its command."""

    def __init__(self, rank: int):
        self._rank = rank
        self._line = os.dup(1)
        os.dup2(1, 2)  # warnings and the like; the launcher's own words go elsewhere

    def tell(self, event: str, **values: Any) -> None:
        """Say something; where nobody hears it any more, a worker that has begun saves and ends.

        Raises:
            BrokenPipeError: at ``hello``: the command is gone, there is nothing to begin.
        """
        said = json.dumps({"event": event, "rank": self._rank, "pid": os.getpid()} | values)
        try:
            os.write(self._line, f"{MARK}{said}\n".encode())
        except BrokenPipeError:
            if event == "hello":
                raise

    def update(self, iteration: int, top1_err: float | None, lr: float) -> None:
        """Say how far the run is, unless nobody listens: then training must not wait."""
        if select.select([], [self._line], [], 0)[1]:
            self.tell("at", at=[iteration, top1_err, lr])

    def enter(self, phase: str, iteration: int) -> None:
        """Say what the run does now, unless nobody listens."""
        if select.select([], [self._line], [], 0)[1]:
            self.tell("enter", at=[phase, iteration])

    def failed(self, error: BaseException) -> None:
        """Say what ended this worker."""
        self.tell(
            "error",
            kind=type(error).__name__,
            message=str(error)[: LONGEST // 3],
            trace="".join(traceback.format_exception(error))[-LONGEST // 3 :],
        )


class Unattended:
    """The same for workers that a torchrun of the user's started: rank 0 says how far it is."""

    def __init__(self, rank: int):
        self._rank = rank
        self._said = time.monotonic()

    def tell(self, event: str, **values: Any) -> None:
        """Nobody needs to know."""

    def update(self, iteration: int, top1_err: float | None, lr: float) -> None:
        """Print a line now and then."""
        if self._rank == 0 and time.monotonic() - self._said >= QUIET_SECONDS:
            self._said = time.monotonic()
            err = "" if top1_err is None else f", train err {top1_err:.1f} %"
            print(f"iteration {iteration}{err}, lr {lr:g}", file=sys.stderr, flush=True)

    def enter(self, phase: str, iteration: int) -> None:
        """Do nothing."""

    def failed(self, error: BaseException) -> None:
        """Say what ended this worker, in one line where that is enough."""
        if exit_code(error) is None:
            traceback.print_exception(error)
        else:
            print(f"error: {error} (worker {self._rank})", file=sys.stderr, flush=True)


def heard(line: str) -> dict[str, Any] | None:
    """A worker's message, or ``None`` where the line is none."""
    if not line.startswith(MARK):
        return None
    try:
        message: dict[str, Any] = json.loads(line.removeprefix(MARK))
    except ValueError:  # the worker was killed in the middle of it
        return None
    return message
