"""A run on several devices of this machine, seen from the command that started it.

Torch's launcher starts the workers in sessions of their own, so a Ctrl-C reaches this command
alone. It asks the workers to stop, hears from them (:mod:`resnet_repro.training.channel`), and sees
to it that none of them is left when it leaves.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from resnet_repro.config_groups import TrainerConfig
from resnet_repro.data import DataError
from resnet_repro.options import ConfigError
from resnet_repro.progress import Watcher
from resnet_repro.runs.atomic import DiskFullError
from resnet_repro.runs.folder import RunFolder, RunFolderError
from resnet_repro.runs.metrics import MetricsError
from resnet_repro.runs.signals import end_with_parent, is_alive
from resnet_repro.training import (
    CheckpointError,
    DivergedError,
    WorkersLostError,
    note_failure,
)
from resnet_repro.training.channel import ATTENDED, heard

AFTER_FAILURE = 5.0  # seconds the other workers get to end once one has failed: none can go on
AFTER_LAUNCHER = 15.0  # seconds they get to save once the launcher is gone
SHUTDOWN = "60"  # seconds the launcher, itself asked to stop, gives the workers to save
SOURCE = Path(__file__).resolve().parents[2]
EXPLAINED: dict[str, Callable[[str], Exception]] = {
    kind.__name__: kind
    for kind in (ConfigError, RunFolderError, DataError, CheckpointError, MetricsError)
} | {"DivergedError": DivergedError, "DiskFullError": lambda text: DiskFullError(28, text)}


def run_workers(
    folder: RunFolder, trainer: TrainerConfig, watcher: Watcher, stop_asked: Callable[[], bool]
) -> str:
    """Do the run of ``folder`` on ``trainer.devices`` workers: ``finished`` or ``preempted``.

    Raises:
        Exception: what stopped the run, as if it had been done in this process.
        WorkersLostError: a worker was killed, fell silent or met a defect of this program.
    """
    try:
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as noise:
            team = Team(start_launcher(folder, trainer, noise), watcher)
            try:
                team.follow(stop_asked)
            finally:
                team.kill()
            state = folder.status()["state"]
            if state in ("finished", "preempted"):
                return str(state)
            noise.seek(0)
            raise team.failure(noise.read(), trainer.timeout_seconds)
    except Exception as error:  # here more is known than rank 0 could know
        note_failure(folder, error)
        raise


def start_launcher(
    folder: RunFolder, trainer: TrainerConfig, noise: IO[str]
) -> subprocess.Popen[bytes]:
    """Start ``torch.distributed.run``; its own words go to ``noise``: we are told the cause."""
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
        *(f"--nproc-per-node={trainer.devices}", "-m"),
        *("resnet_repro.worker", str(folder.path)),
    ]
    paths = [str(SOURCE), *filter(None, [os.environ.get("PYTHONPATH")])]
    more = {
        ATTENDED: "1",
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
        stderr=noise,
        start_new_session=True,
        preexec_fn=end_with_parent,
    )


class Team:
    """The launcher, its workers, and what was heard of them."""

    def __init__(self, launcher: subprocess.Popen[bytes], watcher: Watcher):
        self._launcher, self._watcher = launcher, watcher
        assert launcher.stdout is not None
        self._line = launcher.stdout.fileno()
        self._rest = b""
        self._pids: dict[int, int] = {}  # rank -> process, from hello to bye
        self._told: set[int] = set()
        self._errors: list[dict[str, Any]] = []
        self._lost: dict[str, list[int]] = {}  # ranks that ended without a word: how -> which

    def follow(self, stop_asked: Callable[[], bool]) -> None:
        """Listen until all have ended, or one has failed and the others do not end."""
        deadline: float | None = None
        while self._hear():
            if stop_asked():
                self._ask_to_stop()
            if deadline is None and (patience := self._patience()) is not None:
                deadline = time.monotonic() + patience
            if deadline is not None and time.monotonic() > deadline:
                return

    def _hear(self) -> bool:
        """Take in what was said in the last moment; false when nobody is left to speak."""
        if not select.select([self._line], [], [], 0.1)[0]:
            return True
        said = os.read(self._line, 1 << 16)
        *lines, self._rest = (self._rest + said).split(b"\n")
        for line in lines:
            self._take(line.decode(errors="replace"))
        return bool(said)

    def _take(self, line: str) -> None:
        message = heard(line)
        if message is None:
            if line and not line.startswith("[Gloo]"):
                print(line, file=sys.stderr, flush=True)
            return
        rank, event = message["rank"], message["event"]
        if event == "hello":
            self._pids[rank] = message["pid"]
        elif event == "at" and rank == 0:
            self._watcher.update(*message["at"])
        elif event == "enter" and rank == 0:
            self._watcher.enter(*message["at"])
        elif event in ("bye", "error"):
            self._pids.pop(rank, None)
            if event == "error":
                self._errors.append(message)

    def _ask_to_stop(self) -> None:
        for rank, pid in self._pids.items():
            if rank not in self._told:
                self._told.add(rank)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)

    def _patience(self) -> float | None:
        """Seconds to wait for those still at work; ``None`` while all is well."""
        if self._errors or not all(map(is_alive, self._pids.values())):
            return AFTER_FAILURE
        return AFTER_LAUNCHER if self._launcher.poll() is not None else None

    def kill(self) -> None:
        """End what is left; a worker that has not begun finds nobody to greet and ends."""
        for rank, pid in self._pids.items():
            self._lost.setdefault("silent" if is_alive(pid) else "killed", []).append(rank)
        for pid in (*self._pids.values(), self._launcher.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._launcher.wait()
        assert self._launcher.stdout is not None
        self._launcher.stdout.close()

    def failure(self, noise: str, timeout_seconds: float) -> Exception:
        """What to raise: the cause if a worker could name it, else who is missing."""
        for error in self._errors:
            if error["kind"] in EXPLAINED:
                return EXPLAINED[error["kind"]](error["message"])
        if "killed" in self._lost:
            what = f"worker {_listed(self._lost['killed'])} was killed, the others were ended"
        elif "silent" in self._lost:
            ranks = _listed(self._lost["silent"])
            what = f"worker {ranks} did not answer within {timeout_seconds:g} s and was ended"
        elif self._errors:
            first = self._errors[0]
            print(first["trace"], file=sys.stderr)
            what = f"worker {first['rank']} failed ({first['kind']}: {first['message']})"
        else:
            print(noise, file=sys.stderr)
            what = "the workers ended without a word (see above)"
        return WorkersLostError(f"{what}; say it again to go on from the last checkpoint")


def _listed(ranks: list[int]) -> str:
    return ", ".join(map(str, sorted(ranks)))
