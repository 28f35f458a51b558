"""Write files atomically: whatever happens, there is the old one or the new one."""

import contextlib
import errno
import os
import shutil
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
CRASH_AT = "RESNET_REPRO_CRASH_AT"
_passed: Counter[str] = Counter()


class DiskFullError(OSError):
    """There is no room for a file; the message names it and what is free."""

    def __str__(self) -> str:
        return str(self.strerror)


@contextlib.contextmanager
def room_for(path: Path) -> Iterator[None]:
    """Re-raise the error that there is no room for ``path`` as a DiskFullError, in one line."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        free = shutil.disk_usage(path.parent).free
        raise DiskFullError(
            error.errno,
            f"{path}: cannot be written ({error.strerror}, {free:,} bytes free); what was saved "
            "before is whole: make room and rerun the same command",
        ) from error


def crash_point(name: str) -> None:
    """Die here without any clean-up, as by a power cut, where a test sets the variable.

    ``RESNET_REPRO_CRASH_AT=after-fsync.pt:3``: at the third pass. Files carry their ending;
    ``tests/reliability/crashes.py`` lists all names.
    """
    target, _, nth = os.environ.get(CRASH_AT, "").partition(":")
    if name == target:
        _passed[name] += 1
        if _passed[name] == int(nth or 1):
            os._exit(137)


def is_regular_or_free(path: Path) -> bool:
    """Whether ``path`` is a regular file or nothing; OSError: the file system does not answer."""
    # Opening a pipe would wait for its other end; replacing a device would take it away.
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return True


def fsync(descriptor: int) -> None:
    """Force a file to the disk, where the file system offers that."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
            raise


def _fsync_directory(directory: Path) -> None:
    """Make a rename survive a power cut; where that fails, the file still has its name."""
    with contextlib.suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_atomic(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let ``write`` fill a temporary file in the same folder, then rename it to ``path``.

    The data reach the disk before the name does, so a reader never meets half a file. On any error
    the temporary file is removed and the old ``path`` stays as it was. DiskFullError: there is no
    room. OSError: the folder cannot be written, or ``path`` is something else than a regular file.
    """
    if not is_regular_or_free(path):
        raise OSError(errno.EEXIST, "not a regular file", str(path))
    crash_point(f"before-tmp{path.suffix}")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with room_for(path):
            with temporary.open("wb") as file:
                write(file)
                file.flush()
                crash_point(f"after-write{path.suffix}")
                fsync(file.fileno())
            crash_point(f"after-fsync{path.suffix}")
            temporary.replace(path)
        _fsync_directory(path.parent)
        crash_point(f"after-replace{path.suffix}")
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def write_text_atomic(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, atomically."""
    write_atomic(path, lambda file: file.write(text.encode("utf-8")))


def remove_leftovers(*folders: Path) -> None:
    """Remove temporary files of processes that died; only the owner of ``folders`` may."""
    for folder in folders:
        for path in folder.glob(".*.tmp"):
            path.unlink(missing_ok=True)
