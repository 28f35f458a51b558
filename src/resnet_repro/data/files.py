"""Regular files, and the wanted ones of a folder or an archive; nothing is ever unpacked to disk.

Only the expected names are read, each up to a size limit, so that no archive can make anything be
written or unpack without end.
"""

from __future__ import annotations

import gzip
import hashlib
import lzma
import os
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO, cast

from resnet_repro.data import DataError, brief

Files = dict[str, bytes]  # by path below the data set's folder, with forward slashes
Wanted = Mapping[str, int]  # pattern of such a path (* for one name or a part of it) -> most bytes

_MOST_MEMBERS = 500_000
_MOST_BYTES = 2 * 1024**3
_AGAIN = "get it again"

# What macOS, Windows, Synology and QNAP leave beside files, hidden names apart.
_LEAVINGS = {
    *("@eadir", "@tmp", "@recently-snapshot", "#recycle", "#snapshot", "~snapshot", "lost+found"),
    *("$recycle.bin", "system volume information", "thumbs.db", "desktop.ini", "__macosx"),
}


def is_leaving(name: str) -> bool:
    """Whether a file or folder is hidden, or left by a desktop or a network disk."""
    return name.startswith(".") or name.lower() in _LEAVINGS


def kind_of(mode: int) -> str:
    """What a file is, from its ``st_mode``."""
    kinds = {
        stat.S_IFDIR: "folder",
        stat.S_IFIFO: "FIFO",
        stat.S_IFSOCK: "socket",
        stat.S_IFCHR: "device",
        stat.S_IFBLK: "device",
    }
    return kinds.get(stat.S_IFMT(mode), "special file")


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file to read. Never waits, as opening a FIFO would for its writer.

    Raises:
        DataError: it is missing, cannot be read or is not a regular file.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from error
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise DataError(f"{path} is a {kind_of(mode)}, not a regular file; remove it")
    return os.fdopen(descriptor, "rb")


def read(source: Path, wanted: Wanted, prefix: str) -> Files:
    """Read the wanted files of a folder or an archive (zip, tar, tar.gz, tar.xz).

    Hidden files and what desktops leave are not wanted, whatever the patterns say.

    Args:
        source: folder or archive.
        wanted: patterns of paths, and how large such a file may be.
        prefix: of the members of an archive, ending in a slash; they may lack it.

    Raises:
        DataError: it is missing, cut off, unreadable or not an archive, or holds a file too large.
    """
    if source.is_dir():
        return _from_folder(source, wanted)
    with _damage_explained(source), open_regular(source) as raw:
        if zipfile.is_zipfile(raw):
            return _from_zip(source, raw, _Limits(wanted, prefix))
        if source.suffix == ".zip":
            raise DataError(f"{source} is cut off or not a zip archive; {_AGAIN}")
        raw.seek(0)
        return _from_tar(source, raw, _Limits(wanted, prefix))


def stamp(source: Path, wanted: Wanted) -> str:
    """SHA-256 over name, size and modification time of an archive, or of a folder's wanted files.

    Raises:
        DataError: it is missing or cannot be read.
    """
    total = hashlib.sha256()
    try:
        for name, path in _paths(source, wanted) if source.is_dir() else [(source.name, source)]:
            about = path.stat()
            total.update(
                f"{name}\0{about.st_size}\0{about.st_mtime_ns}\0".encode("utf-8", "replace")
            )
    except OSError as error:
        raise DataError(f"{source} cannot be read ({error.strerror})") from error
    return total.hexdigest()


def _paths(folder: Path, wanted: Wanted) -> Iterator[tuple[str, Path]]:
    for pattern in wanted:
        for path in sorted(folder.glob(pattern)):
            name = path.relative_to(folder).as_posix()
            if not any(map(is_leaving, name.split("/"))):
                yield name, path


class _Limits:
    """How large a member of an archive may be, by its name."""

    def __init__(self, wanted: Wanted, prefix: str):
        self._prefix = prefix
        self._limits = [
            (re.compile(re.escape(pattern).replace(r"\*", "[^/]*")), limit)
            for pattern, limit in wanted.items()
        ]

    def of(self, member: str) -> tuple[str, int] | None:
        """Path below the data set's folder, and most bytes; ``None`` for what is not wanted."""
        name = member.removeprefix("./").removeprefix(self._prefix)
        if any(map(is_leaving, name.split("/"))):
            return None
        return next(((name, most) for form, most in self._limits if form.fullmatch(name)), None)


def _check_size(name: str, size: int, limit: int, source: Path) -> None:
    if size > limit:
        raise DataError(f"{source}: {name} has {size:,} bytes, more than {limit:,}; {_AGAIN}")


def _from_folder(folder: Path, wanted: Wanted) -> Files:
    limits, files = _Limits(wanted, ""), {}
    for name, path in _paths(folder, wanted):
        with open_regular(path) as file:
            found = limits.of(name)
            assert found is not None  # the same patterns
            _check_size(name, os.fstat(file.fileno()).st_size, found[1], folder)
            files[name] = file.read()
    return files


def _from_zip(source: Path, raw: BinaryIO, limits: _Limits) -> Files:
    files: Files = {}
    with zipfile.ZipFile(raw) as archive:
        members = archive.infolist()
        if len(members) > _MOST_MEMBERS:
            raise DataError(f"{source} has {len(members):,} members, too many; {_AGAIN}")
        for member in members:
            found = None if member.is_dir() else limits.of(member.filename)
            if found is None:
                continue
            name, limit = found
            _check_size(name, member.file_size, limit, source)
            with archive.open(member) as file:
                files[name] = file.read(limit + 1)
            # The size that the archive declares need not be true.
            _check_size(name, len(files[name]), limit, source)
    return files


def _from_tar(source: Path, raw: BinaryIO, limits: _Limits) -> Files:
    files: Files = {}
    with _unpacked(raw) as stream:
        capped = _Capped(stream.read, _MOST_BYTES)
        # "r|": one pass forward; members are taken as they come by.
        with tarfile.open(fileobj=cast("tarfile._Fileobj", capped), mode="r|") as archive:
            for count, member in enumerate(archive):
                if count >= _MOST_MEMBERS:
                    raise DataError(f"{source} has more than {_MOST_MEMBERS:,} members; {_AGAIN}")
                found = limits.of(member.name) if member.isreg() else None
                if found is not None:
                    name, limit = found
                    _check_size(name, member.size, limit, source)
                    files[name] = cast("tarfile.ExFileObject", archive.extractfile(member)).read()
        while capped.read(1024**2):  # to the end: the checksum of a packed stream stands there
            pass
    return files


def _unpacked(raw: BinaryIO) -> IO[bytes]:
    magic = raw.read(6)
    raw.seek(0)
    if magic == b"\xfd7zXZ\x00":
        return cast("IO[bytes]", lzma.LZMAFile(raw))
    if magic.startswith(b"\x1f\x8b"):
        return cast("IO[bytes]", gzip.GzipFile(fileobj=raw))
    return raw


class _Capped:
    """The reading end of a stream that refuses to give more than ``most`` bytes in all."""

    def __init__(self, read: Callable[[int], bytes], most: int):
        self._read, self._left = read, most

    def read(self, size: int) -> bytes:
        data = self._read(size)
        self._left -= len(data)
        if self._left < 0:
            raise DataError("unpacks to far more than the data set")
        return data


@contextmanager
def _damage_explained(source: Path) -> Iterator[None]:
    """Re-raise what a broken archive raises as a one-line DataError."""
    try:
        yield
    except DataError as error:
        message = str(error)
        if str(source) in message:
            raise
        raise DataError(f"{source} {message}; {_AGAIN}") from error
    except (
        *(tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error),
        *(EOFError, ValueError, NotImplementedError, RuntimeError, OSError),
    ) as error:
        raise DataError(f"{source} is cut off or damaged ({brief(error)}); {_AGAIN}") from error
