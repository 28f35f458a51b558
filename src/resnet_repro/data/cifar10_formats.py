"""The forms in which CIFAR-10's files come: npm's PNGs, the official binary and Python files.

Every parser gives the same raw arrays; whether they are CIFAR-10 is for the digests to say.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import struct
import tarfile
import warnings
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnet_repro.data import DataError

Parts = dict[str, NDArray[np.uint8]]

PNG_FILES = [f"data_batch_{i}.png" for i in range(1, 6)], ["test_batch.png"]
LABEL_FILES = "train_lables.json", "test_lables.json"  # spelt so in the package
BINARY_FILES = [f"data_batch_{i}.bin" for i in range(1, 6)], ["test_batch.bin"]
PYTHON_FILES = [f"data_batch_{i}" for i in range(1, 6)], ["test_batch"]
# Published MD5 of each Python file, as torchvision lists them too.
PYTHON_MD5: Mapping[str, str] = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}

CLASSES = 10
IMAGE_BYTES = 32 * 32 * 3
LARGEST_FILE = 64_000_000  # a Python file has 31 MB
MOST_ROWS = 10_000  # of a PNG


@dataclass(frozen=True)
class Source:
    """Files by name, and where they are, for messages: a folder or an archive."""

    place: Path
    read: Callable[[str], bytes]

    def wrong(self, name: str, what: str) -> DataError:
        """The error that ``what`` is the matter with the file ``name``."""
        return DataError(f"{self.place / name}: {what}; get it again")


Parse = Callable[[Source], Parts]


def from_files(folder: Path, parse: Parse) -> Parts:
    """Parse the files that lie in a folder.

    Raises:
        DataError: one is missing, unreadable, far too large or not what it should be.
    """

    def read(name: str) -> bytes:
        path = folder / name
        try:
            if path.stat().st_size > LARGEST_FILE:
                raise source.wrong(name, f"more than {LARGEST_FILE:,} bytes")
            return path.read_bytes()
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from error

    source = Source(folder, read)
    return parse(source)


def from_archive(archive: Path, prefix: str, parse: Parse) -> Parts:
    """Parse the members of a .tar.gz without unpacking it: only expected names are read.

    Raises:
        DataError: the archive is truncated, lacks a file or holds one far too large.
    """
    try:
        with tarfile.open(archive, "r:gz") as tar:

            def read(name: str) -> bytes:
                member = tar.getmember(prefix + name)
                if not member.isfile() or member.size > LARGEST_FILE:
                    raise source.wrong(member.name, "not a file of the right size")
                file = tar.extractfile(member)
                assert file is not None
                return file.read()

            source = Source(archive, read)
            return parse(source)
    except KeyError as error:
        raise DataError(f"{archive}: incomplete, {error}; get it again") from error
    except (OSError, EOFError, ValueError, tarfile.TarError, zlib.error) as error:
        raise DataError(
            f"{archive}: truncated or damaged ({_brief(error)}); get it again"
        ) from error


def parse_png(source: Source) -> Parts:
    """The npm package: a row of 1024 RGB pixels of a PNG is one image, height, width, channel."""
    parts: Parts = {}
    for part, files, labels in zip(("train", "test"), PNG_FILES, LABEL_FILES, strict=True):
        parts[f"{part}_images"] = np.concatenate([_png(source, name) for name in files])
        parts[f"{part}_labels"] = _json_labels(source, labels)
    return parts


def parse_binary(source: Source) -> Parts:
    """The official binary files: label byte, then 3072 bytes, channel, height, width."""
    parts: Parts = {}
    for part, files in zip(("train", "test"), BINARY_FILES, strict=True):
        rows = np.concatenate([_binary_rows(source, name) for name in files])
        parts[f"{part}_images"] = _channels_last(rows[:, 1:])
        parts[f"{part}_labels"] = rows[:, 0].copy()
    return parts


def parse_python(source: Source) -> Parts:
    """The official Python files: pickles, looked into only when they have the published MD5."""
    parts: Parts = {}
    for part, files in zip(("train", "test"), PYTHON_FILES, strict=True):
        batches = [_python_batch(source, name) for name in files]
        parts[f"{part}_images"] = np.concatenate([images for images, _ in batches])
        parts[f"{part}_labels"] = np.concatenate([labels for _, labels in batches])
    return parts


def _png(source: Source, name: str) -> NDArray[np.uint8]:
    content = source.read(name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(content), formats=["PNG"])
        width, height = picture.size
        if width != 32 * 32 or height > MOST_ROWS:  # before anything is decoded
            raise source.wrong(name, f"{width}x{height} pixels, not 1024x{MOST_ROWS}")
        pixels = np.asarray(picture.convert("RGB"), dtype=np.uint8)
    except (
        *(OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error),
        *(Image.DecompressionBombError, Image.DecompressionBombWarning),
    ) as error:
        raise source.wrong(name, f"not a whole PNG ({_brief(error)})") from error
    return pixels.reshape(-1, 32, 32, 3)


def _json_labels(source: Source, name: str) -> NDArray[np.uint8]:
    try:
        labels = json.loads(source.read(name))
    except (ValueError, RecursionError) as error:
        raise source.wrong(name, f"not whole JSON ({_brief(error)})") from error
    return _labels(source, name, labels)


def _labels(source: Source, name: str, labels: object) -> NDArray[np.uint8]:
    if not isinstance(labels, list):
        raise source.wrong(name, f"a list of labels should be here, not a {type(labels).__name__}")
    for label in labels:
        if type(label) is not int:
            raise source.wrong(name, f"a label is a number, not a {type(label).__name__}")
        if not 0 <= label < CLASSES:
            raise source.wrong(name, f"labels are 0 to {CLASSES - 1}, not {label}")
    return np.array(labels, dtype=np.uint8)


def _binary_rows(source: Source, name: str) -> NDArray[np.uint8]:
    content = source.read(name)
    if len(content) % (1 + IMAGE_BYTES):
        raise source.wrong(name, f"cut short, {len(content):,} bytes")
    return np.frombuffer(content, dtype=np.uint8).reshape(-1, 1 + IMAGE_BYTES)


def _python_batch(source: Source, name: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    content = source.read(name)
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != PYTHON_MD5[name]:
        raise source.wrong(name, f"MD5 {found}, not the published {PYTHON_MD5[name]}")
    try:
        batch = load_plain_pickle(content)
        data, labels = batch["data"], batch["labels"]
        images = _channels_last(data)
    except Exception as error:  # a pickle can end in any error
        raise source.wrong(name, f"not a batch of CIFAR-10 ({_brief(error)})") from error
    return images, _labels(source, name, labels)


def load_plain_pickle(content: bytes) -> Any:
    """Unpickle plain containers, numbers, strings and uint8 arrays; nothing else is ever called.

    Strings of Python 2 are taken as Latin-1.

    Raises:
        pickle.UnpicklingError: the pickle asks for anything else.
        Exception: whatever a damaged pickle ends in.
    """
    return _PlainUnpickler(io.BytesIO(content), encoding="latin1").load()


def _uint8(kind: str, *_: object) -> np.dtype[np.uint8]:
    """What ``numpy.dtype`` is replaced by."""
    if kind != "u1":
        raise pickle.UnpicklingError(f"holds an array of {kind!r}, not of bytes")
    return np.dtype(np.uint8, copy=True)


_RECONSTRUCT = np.empty(0).__reduce__()[0]
_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,  # since NumPy 2
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): _uint8,
}


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"asks for {module}.{name}")
        return _ALLOWED[module, name]


def _channels_last(rows: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Rows of 3072 bytes, channel, height, width, as images (N, 32, 32, 3)."""
    return np.ascontiguousarray(rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


def _brief(error: BaseException) -> str:
    return " ".join(str(error).split())[:100] or type(error).__name__
