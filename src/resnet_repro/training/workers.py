"""A run on several devices of this machine: both ends, the command and its workers.

The command starts a worker for each device in a session of its own, so a Ctrl-C reaches the command
alone. It asks the workers to stop, and leaves none of them behind. Each reports through a pipe how
far it is and what ended it; its standard error is the command's.
"""

import math
import os
import select
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any

from resnet_repro.config import TrainerConfig
from resnet_repro.data import StoppedError
from resnet_repro.exits import exit_code, notify
from resnet_repro.paths import python_path
from resnet_repro.progress import Watcher
from resnet_repro.runs.folder import RunFolder
from resnet_repro.runs.signals import end_with_parent
from resnet_repro.training import WorkersLostError, failure_noted

ATTENDED = "RESNET_REPRO_ATTENDED"  # the command tells its workers the number of their pipe
AFTER_FAILURE = 5.0  # seconds the other workers get to end once one has failed
LONGEST = 1_500  # characters of an error and of its traceback: 4,096 bytes are never torn


def run_workers(
    folder: RunFolder, trainer: TrainerConfig, watcher: Watcher, stop_asked: Callable[[], bool]
) -> str:
    """Do the run of ``folder`` on ``trainer.devices`` workers: ``finished`` or ``preempted``.

    Exception: what stopped the run, as if it had been done in this process. WorkersLostError: a
    worker was killed, fell silent or met a defect of this program.
    """
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    with failure_noted(folder):  # here more is known than rank 0 could know
        # Where they find each other, by address: the machine's name may not resolve.
        store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        team = Team(watcher)
        try:
            for rank in range(trainer.devices):
                pipe, team.processes[rank] = start_worker(folder, trainer, rank, store.port)
                team.pipes[pipe] = rank
            team.follow(stop_asked)
        finally:
            team.end()
        state = str(folder.status()["state"])
        waited = any(isinstance(error, StoppedError) for error in team.errors.values())  # for data
        if stop_asked() and (waited or not (team.trains or state == "failed")):
            folder.write_status(state := "preempted")
        if state in ("finished", "preempted"):
            return state
        raise team.failure(trainer.timeout_seconds)


def start_worker(
    folder: RunFolder, trainer: TrainerConfig, rank: int, port: int
) -> tuple[Connection, subprocess.Popen[bytes]]:
    """Start a worker; return the end of its pipe to read from, and its process."""
    reports, pipe = Pipe(duplex=False)
    defaults = {"GLOO_SOCKET_IFNAME": "lo", "TORCH_NCCL_ASYNC_ERROR_HANDLING": "1"}  # torchrun's
    variables = {
        ATTENDED: pipe.fileno(),
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": trainer.devices,
        "LOCAL_WORLD_SIZE": trainer.devices,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "TORCHELASTIC_USE_AGENT_STORE": True,  # as torchrun says that the store is there already
        "TORCHELASTIC_RESTART_COUNT": 0,
        "PYTHONPATH": python_path(),
        "OMP_NUM_THREADS": trainer.threads or 1,  # each worker sets its share itself
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "resnet_repro.worker", str(folder.path)],
        env=defaults | os.environ | {name: str(value) for name, value in variables.items()},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,  # gloo says there who is connected
        pass_fds=[pipe.fileno()],
        start_new_session=True,
        preexec_fn=end_with_parent,
    )
    pipe.close()
    return reports, process


class Team:
    """The workers of a run, and what they reported."""

    def __init__(self, watcher: Watcher):
        self._watcher = watcher
        self.pipes: dict[Connection, int] = {}  # to the rank at its other end
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        self.errors: dict[int, Exception] = {}
        self._silent: list[int] = []  # ranks that did not end
        self.trains = False  # before that, there is nothing to save

    def follow(self, stop_asked: Callable[[], bool]) -> None:
        """Read reports until all have ended, or some have failed and the others do not end.

        A stop before the run trains is not waited for either.
        """
        deadline, is_told, processes = math.inf, False, self.processes.values()
        while time.monotonic() < deadline:
            codes = [process.poll() for process in processes]
            self._read()
            if None not in codes:
                return
            if stop_asked() and not is_told:
                if not self.trains:
                    return
                is_told = True
                for process in processes:
                    process.terminate()
            if self.errors or any(codes):
                deadline = min(deadline, time.monotonic() + AFTER_FAILURE)

    def _read(self) -> None:
        """Process what was reported; wait for it a moment."""
        for pipe in wait(self.pipes, 0.1):
            assert isinstance(pipe, Connection)
            try:
                while pipe.poll():
                    self._take(self.pipes[pipe], *pipe.recv())
            except (EOFError, OSError):
                del self.pipes[pipe]

    def _take(self, rank: int, event: str, *values: Any) -> None:
        if event == "update":
            self._watcher.update(*values)
        elif event == "enter":
            self.trains = self.trains or values[0] == "train"
            self._watcher.enter(*values)
        else:
            (self.errors[rank],) = values

    def end(self) -> None:
        """Kill what is left."""
        for rank, process in self.processes.items():
            if process.poll() is None:
                self._silent.append(rank)
                process.kill()
                process.wait()
        for pipe in self.pipes:
            pipe.close()

    def failure(self, timeout_seconds: float) -> Exception:
        """Return what to raise: the cause if a worker named it, else who is missing."""
        for error in self.errors.values():
            if exit_code(error) is not None:
                return error
        lost = self.processes.keys() - self.errors.keys() - {*self._silent}
        killed = ", ".join(
            str(rank) for rank in sorted(lost) if self.processes[rank].returncode < 0
        )
        if killed:
            what = f"worker {killed} was killed, the others were ended"
        elif self._silent:
            silent = ", ".join(map(str, self._silent))
            what = f"worker {silent} did not answer within {timeout_seconds:g} s and was ended"
        elif self.errors:
            rank, error = next(iter(self.errors.items()))
            notify(error.__notes__[0])
            what = f"worker {rank} failed ({error})"
        else:
            what = "the workers ended without a report (see above)"
        return WorkersLostError(
            f"{what}; rerun the same command to resume from the last checkpoint"
        )


class Channel(Watcher):
    """A worker's pipe to its command."""

    def __init__(self, descriptor: int):
        self._pipe = Connection(descriptor, readable=False)

    def _report(self, *values: Any) -> None:
        with suppress(OSError):  # the command is gone, and a signal has come: see end_with_parent
            self._pipe.send(values)

    def update(self, iteration: int, top1_err: float | None, lr: float) -> None:
        """Report an iteration, unless that would have to wait."""
        if select.select([], [self._pipe], [], 0)[1]:
            self._report("update", iteration, top1_err, lr)

    def enter(self, phase: str, iteration: int) -> None:
        """Report a phase."""
        self._report("enter", phase, iteration)

    def failed(self, error: Exception) -> None:
        """Report what ended this worker, a defect of this program as text."""
        if exit_code(error) is None:
            trace = "".join(traceback.format_exception(error))
            error = RuntimeError(f"{type(error).__name__}: {error}"[:LONGEST])
            error.add_note(trace[-LONGEST:])
        self._report("error", error)
