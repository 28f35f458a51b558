"""One owner for one run folder."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from resnet_repro.runs.folder import RunFolderError


@contextmanager
def owned(folder: Path, patience: float = 0.0) -> Iterator[None]:
    """Hold ``folder`` for this process; the system lets go of it however the process ends.

    Args:
        folder: an existing run folder.
        patience: seconds to wait for an owner that may be ending.

    Raises:
        RunFolderError: another process works there; the message names it.
    """
    file = (folder / ".lock").open("a+")
    with file:
        _take(file.fileno(), folder, patience)
        file.seek(0)
        file.truncate()
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield


def _take(descriptor: int, folder: Path, patience: float) -> None:
    until = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() < until:
                time.sleep(0.1)
                continue
            owner = (folder / ".lock").read_text(encoding="utf-8") or "another process"
            raise RunFolderError(f"{folder}: {owner} is working on this run") from None
        return
