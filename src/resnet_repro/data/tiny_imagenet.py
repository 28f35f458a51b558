"""Tiny ImageNet: real ImageNet pictures at 64x64, 200 classes, decoded once and kept as arrays.

The paper does not use it; its figures and tables here are columns of their own. A class's number is
its place among the sorted wnids. Training pictures are sorted by class and number (500 a class),
the validation pictures, which are the test set here, by number.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from resnet_repro.data import PARTS, Arrays, DataError, files, note
from resnet_repro.data.cache import Checksummed, load_checksummed, locked, store_checksummed
from resnet_repro.data.files import Files
from resnet_repro.data.jpeg import PictureError, pixels
from resnet_repro.data.workers import map_chunks

NAME = "tiny-imagenet-200"
CACHE = f"{NAME}.npz"
WANTED = {  # and most bytes of each: a 64x64 JPEG has about 2 KB
    "wnids.txt": 8 * 1024**2,
    "val/val_annotations.txt": 8 * 1024**2,
    "train/*/images/*.JPEG": 256 * 1024,
    "val/images/*.JPEG": 256 * 1024,
}
_CHUNK = 500
Encoded = list[tuple[str, bytes]]  # path and file, in the order of the arrays


@dataclass(frozen=True)
class Shape:
    """How many pictures of which size there must be; other than the true one only in tests."""

    classes: int = 200
    train_per_class: int = 500
    test_per_class: int = 50
    side: int = 64
    # SHA-256 over the encoded files in the order of the arrays; it does not depend on a decoder.
    train_files: str = ""
    test_files: str = ""


TINY_IMAGENET = Shape(
    train_files="18a887a6729de69e25c123a6a2b4002dc0359b0aca05f03759515105c6158f3a",
    test_files="f570b36ec9a80c4ab370b26a500b0d41588132602edfbbf4121fa50afc3bd70e",
)


def load(root: Path, shape: Shape = TINY_IMAGENET, processes: int = 0) -> Arrays:
    """Tiny ImageNet from ``root``, decoded into a file there first if need be; verified always.

    Where the archive or folder is still there, the file is used only if it was made from those very
    files, by size and modification time.

    Args:
        root: folder of the prepared file, or that holds (or is) ``tiny-imagenet-200/``,
            ``tiny-imagenet-200.zip`` or ``tiny-imagenet-200.tar.xz``.
        shape: what must be there.
        processes: that decode; 0 for one for each core.

    Returns:
        train (100000, 64, 64, 3) and test (10000, 64, 64, 3) images, uint8, and their labels.

    Raises:
        DataError: it is not there, not whole, or not Tiny ImageNet; the message says what to do.
    """
    folder = root.parent if root.is_file() else root
    cached = _cached(root, folder / CACHE)
    if cached is None:
        find(root)  # where there is nothing, no folder is made and no lock taken
        with locked(folder):
            cached = _cached(root, folder / CACHE)  # made while we waited
            if cached is None:
                for left in folder.glob(f".{CACHE}.*.tmp"):
                    left.unlink(missing_ok=True)
                prepare(find(root), folder / CACHE, shape, processes)
                cached = load_checksummed(folder / CACHE)
                assert cached is not None
    arrays, about, digests = cached
    parts = {name: arrays[name] for name in PARTS if name in arrays}
    expected = _expected_shapes(shape)
    if {name: array.shape for name, array in parts.items()} != expected:
        raise DataError(f"{folder / CACHE} is not Tiny ImageNet; delete it and run again")
    return Arrays(**parts, num_classes=shape.classes, digests=digests | about["files"])


def _cached(root: Path, cache: Path) -> Checksummed | None:
    """What ``cache`` holds, unless what it was made from has changed since."""
    kept = load_checksummed(cache)
    if kept is None:
        return None
    try:
        place = find(root)
    except DataError:  # only the prepared file was kept
        return kept
    if kept[1].get("source", stamp := files.stamp(place, WANTED)) == stamp:
        return kept
    note(f"{place} has changed since {cache} was made of it")
    return None


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


def prepare(place: Path, cache: Path, shape: Shape, processes: int = 0) -> None:
    """Decode the folder or archive ``place`` into the file ``cache``.

    Raises:
        DataError: pictures, classes or annotations are missing or wrong, or one is undecodable.
    """
    note(f"preparing Tiny ImageNet from {place}, once")
    stamp = files.stamp(place, WANTED)
    content = files.read(place, WANTED, f"{NAME}/")
    wnids = _classes(content, shape, place)
    train, train_labels = _train(content, wnids, shape, place)
    test, test_labels = _test(content, wnids, shape, place)
    digests = {"train_files": _digest(train), "test_files": _digest(test)}
    for name, got in digests.items():
        if (expected := getattr(shape, name)) and got != expected:
            note(f"{name} differ from those of the logged runs: {got}")
    decoded = _decode(train + test, shape.side, place, processes)
    arrays = {
        "train_images": decoded[: len(train)],
        "train_labels": train_labels,
        "test_images": decoded[len(train) :],
        "test_labels": test_labels,
    }
    store_checksummed(cache, arrays, {"files": digests, "wnids": wnids, "source": stamp})


def _expected_shapes(shape: Shape) -> dict[str, tuple[int, ...]]:
    train, test = shape.classes * shape.train_per_class, shape.classes * shape.test_per_class
    picture = (shape.side, shape.side, 3)
    sizes = ((train, *picture), (train,), (test, *picture), (test,))
    return dict(zip(PARTS, sizes, strict=True))


def _classes(content: Files, shape: Shape, place: Path) -> list[str]:
    wnids = sorted({name.split("/")[1] for name in content if name.startswith("train/")})
    if len(wnids) != shape.classes:
        raise DataError(
            f"{place} has {len(wnids)} classes below train/, not {shape.classes}: "
            "it is cut off or another data set"
        )
    listed = content.get("wnids.txt")
    if listed is not None and sorted(listed.decode("utf-8", "replace").split()) != wnids:
        raise DataError(f"{place}: wnids.txt and the folders of train/ name different classes")
    return wnids


def _train(
    content: Files, wnids: list[str], shape: Shape, place: Path
) -> tuple[Encoded, NDArray[np.uint8]]:
    counts = Counter(name.split("/")[1] for name in content if name.startswith("train/"))
    for wnid in wnids:
        if counts[wnid] != shape.train_per_class:
            raise DataError(
                f"{place}: train/{wnid} has {counts[wnid]} pictures, not {shape.train_per_class}"
            )
    names = sorted((name for name in content if name.startswith("train/")), key=_by_number)
    labels = np.repeat(np.arange(len(wnids), dtype=np.uint8), shape.train_per_class)
    return [(name, content[name]) for name in names], labels


def _test(
    content: Files, wnids: list[str], shape: Shape, place: Path
) -> tuple[Encoded, NDArray[np.uint8]]:
    wnid_of = _annotations(content, place)
    names = sorted((name for name in content if name.startswith("val/images/")), key=_by_number)
    number = {wnid: row for row, wnid in enumerate(wnids)}
    for name in names:
        if wnid_of.get(Path(name).name) not in number:
            raise DataError(f"{place}: val/val_annotations.txt gives no known class to {name}")
    labels = np.array([number[wnid_of[Path(name).name]] for name in names], dtype=np.uint8)
    counts = np.bincount(labels, minlength=len(wnids))
    for wnid, count in zip(wnids, counts.tolist(), strict=True):
        if count != shape.test_per_class:
            raise DataError(
                f"{place}: val/images has {count} pictures of class {wnid}, "
                f"not {shape.test_per_class}"
            )
    return [(name, content[name]) for name in names], labels


def _annotations(content: Files, place: Path) -> dict[str, str]:
    text = content.get("val/val_annotations.txt")
    if text is None:
        raise DataError(
            f"{place} has no val/val_annotations.txt, which says what the validation pictures "
            "show; get the whole data set again"
        )
    rows = [line.split("\t") for line in text.decode("utf-8", "replace").splitlines() if line]
    if any(len(row) < 2 for row in rows):
        raise DataError(f"{place}: val/val_annotations.txt is not tab-separated")
    return {row[0]: row[1] for row in rows}


def _by_number(name: str) -> tuple[str, int, str]:
    folder, _, file = name.rpartition("/")
    digits = re.findall(r"\d+", file)
    return folder, int(digits[-1]) if digits else 0, file


def _digest(encoded: Encoded) -> str:
    total = hashlib.sha256()
    for _, file in encoded:
        total.update(file)
    return total.hexdigest()


def _decode(encoded: Encoded, side: int, place: Path, processes: int) -> NDArray[np.uint8]:
    """All pictures as one array; every undecodable one is counted before the first is named."""
    out = np.empty((len(encoded), side, side, 3), dtype=np.uint8)
    tasks = [(side, encoded[start : start + _CHUNK]) for start in range(0, len(encoded), _CHUNK)]
    bad: list[str] = []
    done = 0
    for images, failures in map_chunks(
        _decode_chunk, tasks, label=f"decoding, {_CHUNK} a step", processes=processes
    ):
        out[done : done + len(images)] = images
        done += len(images)
        bad += failures
    if bad:
        more = f" (and {len(bad) - 1} others)" if len(bad) > 1 else ""
        raise DataError(f"{place}: {bad[0]}{more}; get the data again")
    return out


def _decode_chunk(task: tuple[int, Encoded]) -> tuple[NDArray[np.uint8], list[str]]:
    side, encoded = task
    out = np.zeros((len(encoded), side, side, 3), dtype=np.uint8)
    failures: list[str] = []
    for row, (name, file) in enumerate(encoded):
        try:
            picture = pixels(file, name)
        except PictureError as error:
            failures.append(str(error))
            continue
        if picture.shape != (side, side, 3):
            height, width = picture.shape[:2]
            failures.append(f"{name}: {width}x{height} pixels, not {side}x{side}")
            continue
        out[row] = picture
    return out, failures
