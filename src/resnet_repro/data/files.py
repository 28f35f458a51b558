"""Tiny ImageNet's files, encoded, from a folder, the usual zip or a .tar.xz; nothing is unpacked.

Only the expected names are read, each up to a size limit, so that no archive can make anything be
written or unpack without end.
"""

from __future__ import annotations

import lzma
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from resnet_repro.data import DataError

NAME = "tiny-imagenet-200"
Files = dict[str, bytes]  # by path below tiny-imagenet-200/, with forward slashes

_PICTURE = re.compile(r"train/[^/]+/images/[^/]+\.JPEG|val/images/[^/]+\.JPEG")
_TEXTS = ("wnids.txt", "val/val_annotations.txt")
_LARGEST_PICTURE = 256 * 1024  # a 64x64 JPEG has about 2 KB
_LARGEST_TEXT = 8 * 1024**2
_MOST_MEMBERS = 500_000
_MOST_BYTES = 2 * 1024**3
_AGAIN = "get it again"


def find(root: Path) -> Path:
    """The folder or archive at ``root``, which may also be that folder or archive itself.

    Raises:
        DataError: there is none; the message says where it was looked for.
    """
    if root.is_file():
        return root
    if (root / "train").is_dir() and (root / "val").is_dir():
        return root
    names = (NAME, f"{NAME}.zip", f"{NAME}.tar.xz")
    for name in names:
        if (root / name).exists():
            return root / name
    raise DataError(
        f"no Tiny ImageNet in {root}: looked for {', '.join(names)}; put one there or name its "
        "folder with data.root=... or RESNET_REPRO_DATA"
    )


def read(source: Path) -> Files:
    """Read the pictures and lists of the folder or archive ``source``.

    Raises:
        DataError: it is missing, cut off, unreadable or not an archive, or holds a file too large.
    """
    if source.is_dir():
        return _from_folder(source)
    with _told(source):
        if zipfile.is_zipfile(source):
            return _from_zip(source)
        if source.suffix == ".zip":
            raise DataError(f"{source} is cut off or not a zip archive; {_AGAIN}")
        return _from_tar(source)


def _limit(name: str) -> int | None:
    """Most bytes of a file that is wanted; ``None`` for one that is not."""
    if name in _TEXTS:
        return _LARGEST_TEXT
    return _LARGEST_PICTURE if _PICTURE.fullmatch(name) else None


def _check_size(name: str, size: int, limit: int, source: Path) -> None:
    if size > limit:
        raise DataError(f"{source}: {name} has {size:,} bytes, more than {limit:,}; {_AGAIN}")


def _from_folder(folder: Path) -> Files:
    paths = [folder / name for name in _TEXTS]
    for pattern in ("train/*/images/*.JPEG", "val/images/*.JPEG"):
        paths += sorted(folder.glob(pattern))
    files: Files = {}
    for path in paths:
        name = path.relative_to(folder).as_posix()
        limit = _limit(name)
        if limit is None:
            continue
        try:
            _check_size(name, path.stat().st_size, limit, folder)
            files[name] = path.read_bytes()
        except FileNotFoundError:
            continue  # whether it may be missing is for the caller to say
        except OSError as error:
            raise DataError(f"{path} cannot be read ({error.strerror})") from error
    return files


def _from_zip(source: Path) -> Files:
    files: Files = {}
    with zipfile.ZipFile(source) as archive:
        members = archive.infolist()
        if len(members) > _MOST_MEMBERS:
            raise DataError(f"{source} has {len(members):,} members, too many; {_AGAIN}")
        for member in members:
            name = _below(member.filename)
            limit = None if member.is_dir() else _limit(name)
            if limit is None:
                continue
            _check_size(name, member.file_size, limit, source)
            with archive.open(member) as file:
                files[name] = file.read(limit + 1)
            # The size that the archive declares need not be true.
            _check_size(name, len(files[name]), limit, source)
    return files


def _from_tar(source: Path) -> Files:
    files: Files = {}
    with source.open("rb") as raw:
        packed = raw.read(6) == b"\xfd7zXZ\x00"
        raw.seek(0)
        with lzma.open(raw) if packed else raw as stream:
            capped = _Capped(stream.read, _MOST_BYTES)
            # "r|": one pass forward; members are taken as they come by.
            with tarfile.open(fileobj=cast("tarfile._Fileobj", capped), mode="r|") as archive:
                for name, file in _members(archive, source):
                    files[name] = file.read()
            while capped.read(1024**2):  # to the end: the check sum of an xz stream stands there
                pass
    return files


def _members(archive: tarfile.TarFile, source: Path) -> Iterator[tuple[str, tarfile.ExFileObject]]:
    for count, member in enumerate(archive):
        if count >= _MOST_MEMBERS:
            raise DataError(f"{source} has more than {_MOST_MEMBERS:,} members; {_AGAIN}")
        name = _below(member.name)
        limit = _limit(name) if member.isreg() else None
        if limit is not None:
            _check_size(name, member.size, limit, source)
            yield name, cast("tarfile.ExFileObject", archive.extractfile(member))


def _below(name: str) -> str:
    return name.removeprefix("./").removeprefix(f"{NAME}/")


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
def _told(source: Path) -> Iterator[None]:
    """Turn what a broken archive raises into one line."""
    try:
        yield
    except DataError as error:
        said = str(error)
        raise DataError(said if str(source) in said else f"{source} {said}; {_AGAIN}") from error
    except FileNotFoundError as error:
        raise DataError(f"{source}: there is no such file") from error
    except (
        *(tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error),
        *(EOFError, ValueError, NotImplementedError, RuntimeError, OSError),
    ) as error:
        said = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(f"{source} is cut off or damaged ({said}); {_AGAIN}") from error
