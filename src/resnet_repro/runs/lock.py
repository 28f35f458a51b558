"""Lock a run folder for one owner, with the lock that data folders use too."""

import errno
import fcntl
import os
import re
import socket
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from resnet_repro.runs.atomic import room_for
from resnet_repro.runs.folder import RunFolderError
from resnet_repro.runs.signals import is_alive

COMMAND = ".lock"  # held by the user's command
WORK = ".work.lock"  # held by the one process that writes: rank 0's, if there are several
AFTER_DEATH = 15.0  # seconds to wait for a dead owner's children, which hold the lock
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)  # of a network file system


def take(descriptor: int, folder: Path) -> bool:
    """Lock an open file of ``folder``, unless another process holds it; return whether it is ours.

    Where the file system has no locks, warn once and continue without one.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        warnings.warn(
            f"{folder}: this file system has no locks ({error.strerror}); "
            "start no second process that writes there",
            stacklevel=2,
        )
    return True


class RunBusyError(RunFolderError):
    """Another process works on the run."""


@contextmanager
def run_lock(folder: Path, name: str = COMMAND, *, patience: float = 0.0) -> Iterator[None]:
    """Hold a lock of the run folder; it ends with the process, however that ends.

    ``patience``: seconds to wait for an owner that is alive and may be ending. RunBusyError:
    another process works there, named. DiskFullError: there is no room for the owner's name.
    """
    lock, began = folder / name, time.monotonic()
    try:
        file = lock.open("a+")
    except OSError as error:
        raise RunFolderError(f"{folder}: cannot be written ({error.strerror})") from error
    with file:
        while not take(file.fileno(), folder):
            owner = lock.read_text(encoding="utf-8")
            if time.monotonic() - began >= max(patience, _grace(owner)):
                owner = owner or "another process"
                raise RunBusyError(f"{folder}: {owner} is working on this run")
            time.sleep(0.05)
        with room_for(lock):
            os.ftruncate(file.fileno(), 0)
            os.write(file.fileno(), f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield


def _grace(owner: str) -> float:
    """Seconds to wait because the lock's owner, by its name, is not at work."""
    named = re.fullmatch(r"process (\d+) on (.+)", owner)
    if named is None:  # it holds the lock and is about to write its name
        return 1.0
    is_local = named[2] == socket.gethostname()
    return AFTER_DEATH if is_local and not is_alive(int(named[1])) else 0.0
