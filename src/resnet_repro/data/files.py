"""Read regular files, alone or out of a folder or an archive, each up to a size limit.

Nothing is extracted to the disk, and no archive can unpack without end.
"""

import gzip
import hashlib
import io
import lzma
import os
import re
import stat
import tarfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, BinaryIO, TypeVar

from resnet_repro.data import DataError, brief

T = TypeVar("T")
Wanted = Mapping[str, int]  # pattern of a path (* for one name or a part of it) -> most bytes
_Member = tuple[str, IO[bytes]]  # path and content

_MAX_MEMBERS = 500_000
_MAX_BYTES = 1024**3  # of an archive unpacked; Tiny ImageNet has a third of it

# What macOS, Windows, Synology and QNAP leave beside files, except hidden names.
_LEFTOVERS = {
    *("@eadir", "@tmp", "@recently-snapshot", "#recycle", "#snapshot", "~snapshot", "lost+found"),
    *("$recycle.bin", "system volume information", "thumbs.db", "desktop.ini", "__macosx"),
}


def is_leftover(name: str) -> bool:
    """Whether a file or folder is hidden, or left by a desktop or a network disk."""
    return name.startswith(".") or name.lower() in _LEFTOVERS


def not_regular(path: Path | str, mode: int) -> DataError:
    """Return the error for a file that by its ``st_mode`` is not regular."""
    letters = {"d": "folder", "p": "FIFO", "s": "socket", "c": "device", "b": "device"}
    kind = letters.get(stat.filemode(mode)[0], "special file")
    return DataError(f"{path} is a {kind}, not a regular file; remove it")


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file to read, or raise DataError; never wait for a FIFO's writer."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from error
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise not_regular(path, mode)
    return os.fdopen(descriptor, "rb")


def read(source: Path, wanted: Wanted, prefix: str) -> dict[str, bytes]:
    """Read the wanted files of a folder or an archive (zip, tar, tar.gz, tar.xz), by their paths.

    Hidden files and what desktops leave are skipped, whatever the patterns say. Members of an
    archive may lack the ``prefix``, a folder with its slash. DataError: it is missing, cut off,
    unreadable or not an archive, or holds a file too large.
    """
    limits = [
        (re.compile(re.escape(pattern).replace(r"\*", "[^/]*")), most)
        for pattern, most in wanted.items()
    ]
    files = {}
    try:
        for path, file in _of_folder(source, wanted) if source.is_dir() else _of_archive(source):
            name = path.removeprefix("./").removeprefix(prefix)
            limit = next((most for form, most in limits if form.fullmatch(name)), None)
            if limit is None or any(map(is_leftover, name.split("/"))):
                continue
            files[name] = file.read(limit + 1)  # an archive may declare another size
            if len(files[name]) > limit:
                raise DataError(f"{name} has more than {limit:,} bytes")
    except DataError as error:
        if str(source) in str(error):
            raise
        raise DataError(f"{source}: {error}; get it again") from error
    except Exception as error:  # a broken archive can end in any error
        raise DataError(f"{source} is cut off or damaged ({brief(error)}); get it again") from error
    return files


def stamp(source: Path, wanted: Wanted) -> str:
    """SHA-256 over names, sizes and modification times of an archive or a folder's wanted files."""
    total = hashlib.sha256()
    try:
        for name, path in _paths(source, wanted) if source.is_dir() else [(source.name, source)]:
            about = path.stat()
            line = f"{name}\0{about.st_size}\0{about.st_mtime_ns}\0"
            total.update(line.encode("utf-8", "replace"))
    except OSError as error:
        raise DataError(f"{source} cannot be read ({error.strerror})") from error
    return total.hexdigest()


def _paths(folder: Path, wanted: Wanted) -> Iterator[tuple[str, Path]]:
    for pattern in wanted:
        for path in sorted(folder.glob(pattern)):
            name = path.relative_to(folder).as_posix()
            if not any(map(is_leftover, name.split("/"))):
                yield name, path


def _of_folder(folder: Path, wanted: Wanted) -> Iterator[_Member]:
    for name, path in _paths(folder, wanted):
        with open_regular(path) as file:
            yield name, file


def _of_archive(source: Path) -> Iterator[_Member]:
    with open_regular(source) as raw:
        is_zip = zipfile.is_zipfile(raw)
        raw.seek(0)
        yield from _of_zip(raw) if is_zip else _of_tar(raw)


def _of_zip(raw: BinaryIO) -> Iterator[_Member]:
    with zipfile.ZipFile(raw) as archive:
        for member in _counted(archive.infolist()):
            with archive.open(member) as file:
                yield member.filename, file


def _of_tar(raw: BinaryIO) -> Iterator[_Member]:
    with tarfile.open(fileobj=_unpacked(raw), mode="r:") as archive:
        for member in _counted(archive):
            if (file := archive.extractfile(member) if member.isreg() else None) is not None:
                yield member.name, file


def _unpacked(raw: BinaryIO) -> BinaryIO:
    """The content of a tar file, read to the end, where the checksum of its compression is."""
    magic = raw.read(6)
    raw.seek(0)
    stream: lzma.LZMAFile | gzip.GzipFile | BinaryIO = raw
    if magic == b"\xfd7zXZ\x00":
        stream = lzma.LZMAFile(raw)  # noqa: SIM115 - as long as raw
    elif magic.startswith(b"\x1f\x8b"):
        stream = gzip.GzipFile(fileobj=raw)
    content = stream.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise DataError("unpacks to far more than the data set")
    return io.BytesIO(content)


def _counted(members: Iterable[T]) -> Iterator[T]:
    for count, member in enumerate(members):
        if count >= _MAX_MEMBERS:
            raise DataError(f"has more than {_MAX_MEMBERS:,} members")
        yield member
