"""A run on several devices of this machine: both ends, the command and its workers.

Torch's launcher starts the workers in sessions of their own, so a Ctrl-C reaches the command alone.
It asks the workers to stop, and leaves none of them behind. They report on their standard output:
``hello`` with the process id, rank 0 how far it is, and ``bye`` or ``error``. Every other line
there is for the user.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from resnet_repro.config import TrainerConfig
from resnet_repro.data import DataError, StoppedError
from resnet_repro.exits import notify
from resnet_repro.options import ConfigError
from resnet_repro.progress import Watcher
from resnet_repro.runs.atomic import DiskFullError
from resnet_repro.runs.folder import RunFolder, RunFolderError
from resnet_repro.runs.metrics import MetricsError
from resnet_repro.runs.signals import end_with_parent, is_alive
from resnet_repro.training import CheckpointError, DivergedError, WorkersLostError, note_failure

ATTENDED = "RESNET_REPRO_ATTENDED"  # set by the command for its workers
MARK = "@worker "
LONGEST = 3_000  # characters: a pipe keeps lines of several processes apart up to 4,096 bytes
AFTER_FAILURE = 5.0  # seconds the other workers get to end once one has failed
AFTER_LAUNCHER = 15.0  # seconds they get to save once the launcher is gone
SHUTDOWN = "60"  # seconds the launcher, itself asked to stop, gives the workers to save
SOURCE = Path(__file__).resolve().parents[2]
EXPLAINED: dict[str, Callable[[str], Exception]] = {
    kind.__name__: kind
    for kind in (
        ConfigError, RunFolderError, StoppedError, DataError, CheckpointError, MetricsError,
        DivergedError,
    )
} | {"DiskFullError": lambda text: DiskFullError(28, text)}  # fmt: skip


def run_workers(
    folder: RunFolder, trainer: TrainerConfig, watcher: Watcher, stop_asked: Callable[[], bool]
) -> str:
    """Do the run of ``folder`` on ``trainer.devices`` workers: ``finished`` or ``preempted``.

    Raises:
        Exception: what stopped the run, as if it had been done in this process.
        WorkersLostError: a worker was killed, fell silent or met a defect of this program.
    """
    try:
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as stderr:
            team = Team(start_launcher(folder, trainer, stderr), watcher)
            try:
                team.follow(stop_asked)
            finally:
                team.kill()
            state = str(folder.status()["state"])
            waited = any(error["kind"] == "StoppedError" for error in team.errors)  # for data
            if stop_asked() and (waited or not (team.trains or state == "failed")):
                folder.update_status(state := "preempted")
            if state in ("finished", "preempted"):
                return state
            stderr.seek(0)
            raise team.failure(stderr.read(), trainer.timeout_seconds)
    except Exception as error:  # here more is known than rank 0 could know
        note_failure(folder, error)
        raise


def start_launcher(
    folder: RunFolder, trainer: TrainerConfig, stderr: IO[str]
) -> subprocess.Popen[bytes]:
    """Start ``torch.distributed.run`` over the loopback; its own messages go to ``stderr``."""
    command = [  # by address: the machine's name may not resolve
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1"),
        *(f"--nproc-per-node={trainer.devices}", "-m", "resnet_repro.worker", str(folder.path)),
    ]
    paths = [str(SOURCE), *filter(None, [os.environ.get("PYTHONPATH")])]
    more = {
        ATTENDED: "1",
        "GLOO_SOCKET_IFNAME": os.environ.get("GLOO_SOCKET_IFNAME", "lo"),
        "PYTHONPATH": os.pathsep.join(paths),
        "OMP_NUM_THREADS": str(trainer.threads or 1),  # each worker sets its share itself
        # As variables, not options: versions of torch that do not know them pass them over.
        "PET_SIGNALS_TO_HANDLE": "SIGTERM,SIGINT,SIGUSR1",
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": SHUTDOWN,
    }
    return subprocess.Popen(
        command,
        env=os.environ | more,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=stderr,
        start_new_session=True,
        preexec_fn=end_with_parent,
    )


class Team:
    """The launcher, its workers, and what they reported."""

    def __init__(self, launcher: subprocess.Popen[bytes], watcher: Watcher):
        self._launcher, self._watcher = launcher, watcher
        assert launcher.stdout is not None
        self._pipe, self._rest = launcher.stdout, b""
        self._pids: dict[int, int] = {}  # rank -> process, from hello to bye
        self._stopping: set[int] = set()  # ranks that were asked to stop
        self.errors: list[dict[str, Any]] = []
        self._lost: dict[str, list[int]] = {"killed": [], "silent": []}  # ranks without a report
        self.trains = False  # before that, there is nothing to save

    def follow(self, stop_asked: Callable[[], bool]) -> None:
        """Read reports until all have ended, or some have failed and the others do not end.

        A stop before the run trains is not waited for either.
        """
        deadline = math.inf
        while self._read() and (now := time.monotonic()) < deadline:
            if stop_asked():
                if not self.trains:
                    return
                for rank in self._pids.keys() - self._stopping:
                    self._stopping.add(rank)
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(self._pids[rank], signal.SIGTERM)
            if self.errors or not all(map(is_alive, self._pids.values())):
                deadline = min(deadline, now + AFTER_FAILURE)
            elif self._launcher.poll() is not None:
                deadline = min(deadline, now + AFTER_LAUNCHER)

    def _read(self) -> bool:
        """Process new reports; return false when nobody is left to report."""
        if not select.select([self._pipe], [], [], 0.1)[0]:
            return True
        received = os.read(self._pipe.fileno(), 1 << 16)
        *lines, self._rest = (self._rest + received).split(b"\n")
        for line in lines:
            self._take(line.decode(errors="replace"))
        return bool(received)

    def _take(self, line: str) -> None:
        if (report := reported(line)) is None:
            if line and not line.startswith("[Gloo]"):
                notify(line)
            return
        rank, event = report["rank"], report["event"]
        if event == "hello":
            self._pids[rank] = report["pid"]
        elif event == "update":
            self._watcher.update(*report["values"])
        elif event == "enter":
            self.trains = self.trains or report["values"][0] == "train"
            self._watcher.enter(*report["values"])
        else:
            self._pids.pop(rank, None)
            if event == "error":
                self.errors.append(report)

    def kill(self) -> None:
        """Kill what is left; a worker that has not said hello finds a closed pipe and ends."""
        for rank, pid in self._pids.items():
            self._lost["silent" if is_alive(pid) else "killed"].append(rank)
        for pid in self._pids.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._launcher.kill()
        self._launcher.wait()
        self._pipe.close()

    def failure(self, stderr: str, timeout_seconds: float) -> Exception:
        """Return what to raise: the cause if a worker named it, else who is missing."""
        for error in self.errors:
            if error["kind"] in EXPLAINED:
                return EXPLAINED[error["kind"]](error["message"])
        killed, silent = (", ".join(map(str, sorted(ranks))) for ranks in self._lost.values())
        if killed:
            what = f"worker {killed} was killed, the others were ended"
        elif silent:
            what = f"worker {silent} did not answer within {timeout_seconds:g} s and was ended"
        elif self.errors:
            first = self.errors[0]
            notify(first["trace"])
            what = f"worker {first['rank']} failed ({first['kind']}: {first['message']})"
        else:
            notify(stderr)
            what = "the workers ended without a report (see above)"
        return WorkersLostError(
            f"{what}; rerun the same command to resume from the last checkpoint"
        )


class Channel(Watcher):
    """A worker's channel to its command, also for what the user should see."""

    def __init__(self, rank: int):
        self._rank = rank
        self._pipe = os.dup(1)
        os.dup2(1, 2)  # the launcher's own messages go elsewhere

    def report(self, event: str, **values: Any) -> None:
        """Report an event; once the command is gone, a worker that has begun saves and ends."""
        report = json.dumps({"event": event, "rank": self._rank, "pid": os.getpid()} | values)
        try:
            os.write(self._pipe, f"{MARK}{report}\n".encode())
        except BrokenPipeError:
            if event == "hello":  # there is nothing to begin
                raise

    def update(self, iteration: int, top1_err: float | None, lr: float) -> None:
        """Report an iteration, unless that would have to wait."""
        if select.select([], [self._pipe], [], 0)[1]:
            self.report("update", values=[iteration, top1_err, lr])

    def enter(self, phase: str, iteration: int) -> None:
        """Report a phase."""
        self.report("enter", values=[phase, iteration])

    def failed(self, error: BaseException) -> None:
        """Report what ended this worker, as the nearest class of error that the command knows."""
        kinds = [kind.__name__ for kind in type(error).__mro__]
        self.report(
            "error",
            kind=next((kind for kind in kinds if kind in EXPLAINED), kinds[0]),
            message=str(error)[: LONGEST // 3],
            trace="".join(traceback.format_exception(error))[-LONGEST // 3 :],
        )


def reported(line: str) -> dict[str, Any] | None:
    """Return a worker's report, or ``None`` for any other line."""
    if line.startswith(MARK):
        with contextlib.suppress(ValueError):  # the worker was killed in the middle of it
            report: dict[str, Any] = json.loads(line.removeprefix(MARK))
            return report
    return None
