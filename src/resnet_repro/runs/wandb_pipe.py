"""The process that talks to W&B, seen from the run: a pipe that is never waited for.

Nothing in here raises into the run; whatever goes wrong is said in one line, once.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from resnet_repro.runs.folder import RunFolder
from resnet_repro.runs.metrics import Record
from resnet_repro.runs.wandb_names import as_metrics, init_arguments

PROCESS = Path(__file__).with_name("wandb_process.py")
CLOSE_SECONDS = 14.0  # a run that is over waits at most so long for W&B
# What is asked stands in the configuration: settings from outside would be a second source.
NOT_FROM_OUTSIDE = (
    "WANDB_MODE",
    "WANDB_DISABLED",
    "WANDB_DIR",
    "WANDB_PROJECT",
    "WANDB_RUN_ID",
    "WANDB_RESUME",
)
MOST_UNSENT = 1 << 22  # bytes that may wait for a process that does not read


class WandbSink:
    """Mirror of a run in W&B; see :func:`resnet_repro.runs.wandb_sink.open_sink`."""

    def __init__(
        self, mode: str, folder: RunFolder, config: Mapping[str, Any], warn: Callable[[str], None]
    ):
        self._warn: Callable[[str], None] | None = warn
        self._process: subprocess.Popen[bytes] | None = None
        self._unsent = self._heard = b""
        self._records = self._iter = 0
        self._folder, self._done = folder.path / "wandb", False
        try:
            self._folder.mkdir(exist_ok=True)
            asked = init_arguments(self._folder, config) | {"mode": mode}
            self._process = _start_process()
            self._send({"start": asked})
            for record in folder.metrics():
                self.record(record)
        except Exception as error:
            self._give_up(_reason(error))

    @property
    def is_open(self) -> bool:
        """Whether the process is there."""
        return self._process is not None

    def record(self, record: Record) -> None:
        """Send one record; does not wait."""
        self._records += 1
        self._iter = record.get("iter", self._iter)
        self._try({"record": self._records, "values": as_metrics(record)})

    def summary(self, values: Mapping[str, Any]) -> None:
        """Send final numbers; does not wait."""
        self._try({"summary": dict(values)})

    def picture(self, name: str, path: Path) -> None:
        """Send a picture that stays where it is until the sink is closed; does not wait."""
        place = {"picture": name, "path": str(path.resolve())}
        self._try(place | {"values": {"iter": self._iter}})

    def close(self, state: str, seconds: float | None = None) -> None:
        """Tell W&B what became of the run and let it finish.

        What takes longer than so many seconds is ended; with 0 it is left to itself instead.
        """
        self._try({"state": state})
        process = self._process
        if process is None:
            return
        try:
            self._finish(process, CLOSE_SECONDS if seconds is None else seconds)
        except Exception as error:
            self._give_up(_reason(error))
        self._end_process(kill=False)

    def _finish(self, process: subprocess.Popen[bytes], seconds: float) -> None:
        until = time.monotonic() + seconds
        assert process.stdin is not None
        while self._unsent and self._process and _ready(until, write=process.stdin.fileno()):
            self._flush()
        with contextlib.suppress(OSError):
            process.stdin.close()
        assert process.stdout is not None
        if seconds == 0:
            return
        while not self._done and self._process and _ready(until, read=process.stdout.fileno()):
            self._listen()
        if self._process and not self._done:
            self._give_up(f"it did not finish in {seconds:.0f} s")

    def _try(self, message: Mapping[str, Any]) -> None:
        if self._process is None:
            return
        try:
            self._send(message)
            self._listen()
        except Exception as error:
            self._give_up(_reason(error))

    def _send(self, message: Mapping[str, Any]) -> None:
        self._unsent += json.dumps(message, default=str).encode() + b"\n"
        self._flush()
        if len(self._unsent) > MOST_UNSENT:
            self._give_up("its process does not answer")

    def _flush(self) -> None:
        """Hand over what the pipe has room for."""
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            while self._unsent:
                sent = os.write(self._process.stdin.fileno(), self._unsent)
                self._unsent = self._unsent[sent:]
        except BlockingIOError:
            pass
        except BrokenPipeError:
            self._listen()  # it may have said why
            self._give_up("its process ended")

    def _listen(self) -> None:
        """Take in what the process says, if anything."""
        if self._process is None or self._done:
            return
        assert self._process.stdout is not None
        try:
            said = os.read(self._process.stdout.fileno(), 1 << 16)
        except BlockingIOError:
            return
        *lines, self._heard = (self._heard + said).split(b"\n")
        for line in lines:
            message = json.loads(line)
            self._done = self._done or "done" in message
            if "note" in message:
                self._say(message["note"])
            if "failed" in message:
                self._give_up(message["failed"], kill=False)  # it is about to leave
        if not said and not self._done:
            self._give_up("its process ended")

    def _give_up(self, reason: str, *, kill: bool = True) -> None:
        self._end_process(kill=kill)
        self._say(f"{reason}; the run goes on without it")

    def _say(self, message: str) -> None:
        """Say one line, the first and last."""
        if self._warn is not None:
            warn, self._warn = self._warn, None
            warn(f"W&B: {message}")

    def _end_process(self, *, kill: bool) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        if kill:
            process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1.0 if kill or self._done else 0.0)


def _start_process() -> subprocess.Popen[bytes]:
    env = {key: value for key, value in os.environ.items() if key not in NOT_FROM_OUTSIDE}
    process = subprocess.Popen(
        [sys.executable, "-P", str(PROCESS)],  # -P: a folder named wandb is not the package
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=env | {"WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"},
        start_new_session=True,  # Ctrl-C is for the run
    )
    assert process.stdin is not None
    assert process.stdout is not None
    os.set_blocking(process.stdin.fileno(), False)
    os.set_blocking(process.stdout.fileno(), False)
    return process


def _ready(until: float, *, read: int | None = None, write: int | None = None) -> bool:
    """Wait for a pipe until a moment."""
    left = max(0.0, until - time.monotonic())
    found = select.select([read] if read else [], [write] if write else [], [], left)
    return any(found)


def _reason(error: Exception) -> str:
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    where = getattr(error, "filename", None)
    return f"{said} ({where})" if where else said or type(error).__name__
