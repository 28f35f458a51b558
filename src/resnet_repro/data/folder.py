"""Folders of pictures, one folder a class: ILSVRC-2012's layout, or anyone's own.

``root/train/<class>/*.JPEG`` and ``root/val/<class>/*.JPEG``; a class's number is its place among
the sorted folder names (for ILSVRC the wnids), a picture's row its place among the sorted paths.
Listing 1.3 million files takes minutes on a network disk, so the list is kept in a file and used as
long as no folder has changed.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnet_repro.data import DataError
from resnet_repro.data.cache import load_sealed, store_sealed
from resnet_repro.data.colours import ColourStatistics, load_statistics

SUFFIXES = (".jpeg", ".jpg", ".png")
_VERSION = 1
# A folder changed again within its file system's clock tick would look unchanged.
_SETTLED_NS = 2_000_000_000


@dataclass(frozen=True)
class PictureIndex:
    """A sorted list of pictures, held in arrays so that workers share its memory.

    Attributes:
        root: folder of the class folders.
        classes: their names, sorted.
        labels: int32 (N,), non-decreasing.
        names: uint8, the paths below ``root`` one after the other, UTF-8.
        ends: int64 (N,), where each ends in ``names``.
    """

    root: Path
    classes: tuple[str, ...]
    labels: NDArray[np.int32]
    names: NDArray[np.uint8]
    ends: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def path(self, row: int) -> Path:
        """The file of a row."""
        start = int(self.ends[row - 1]) if row else 0
        return self.root / os.fsdecode(self.names[start : int(self.ends[row])].tobytes())

    def digest(self) -> str:
        """SHA-256 over names and labels: which pictures, not where they lie."""
        total = hashlib.sha256("\n".join(self.classes).encode("utf-8", "surrogateescape"))
        for array in (self.labels, self.ends, self.names):
            total.update(array.tobytes())
        return total.hexdigest()


def load_indices(root: Path, cache: Path | None = None) -> tuple[PictureIndex, PictureIndex]:
    """List the training and the validation pictures below ``root``.

    Args:
        root: holds ``train/`` and ``val/``.
        cache: folder in which the lists are kept; ``root`` by default.

    Raises:
        DataError: a folder is missing or not arranged by class, a class is empty, or the two have
            different classes.
    """
    for part in ("train", "val"):
        if not (root / part).is_dir():
            raise DataError(
                f"no pictures at {root}: {part}/ is missing; it must hold train/<class>/*.JPEG and "
                "val/<class>/*.JPEG; name it with data.root=... or RESNET_REPRO_DATA"
            )
    place = cache or root
    train = load_index(root / "train", place / ".train-index.npz")
    val = load_index(root / "val", place / ".val-index.npz")
    if train.classes != val.classes:
        odd = sorted(set(train.classes) ^ set(val.classes))[0]
        where, missing = ("train", "val") if odd in train.classes else ("val", "train")
        raise DataError(
            f"{root}: {len(train.classes)} classes in train/ and {len(val.classes)} in val/ must "
            f"be the same; {odd} is in {where}/ and not in {missing}/"
        )
    return train, val


def load_index(root: Path, cache: Path) -> PictureIndex:
    """List the pictures of the class folders of ``root``, or take the list from ``cache``.

    A list is taken if each folder it was made from has the modification time it had then. One that
    is damaged or out of date is made again. Where ``cache`` cannot be written nothing is kept.

    Raises:
        DataError: there are no class folders, or one has no pictures, or it cannot be read.
    """
    kept = _recall(root, cache)
    if kept is not None:
        return kept
    began = time.time_ns()
    classes = _class_folders(root)
    folders: dict[str, int] = {"": _changed(root)}
    names: list[bytes] = []
    counts: list[int] = []
    for name in classes:
        files = _pictures(root, name, folders)
        if not files:
            raise DataError(f"{root / name} has no pictures ({', '.join(SUFFIXES)})")
        names += files
        counts.append(len(files))
    index = PictureIndex(
        root,
        tuple(classes),
        np.repeat(np.arange(len(classes), dtype=np.int32), counts),
        np.frombuffer(b"".join(names), np.uint8),
        np.cumsum([len(name) for name in names], dtype=np.int64),
    )
    if max(folders.values()) < began - _SETTLED_NS:
        _keep(index, counts, folders, cache)
    return index


def _class_folders(root: Path) -> list[str]:
    try:
        entries = sorted(os.scandir(root), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{root} cannot be read ({error.strerror})") from error
    classes = [e.name for e in entries if e.is_dir() and not e.name.startswith(".")]
    if classes:
        return classes
    loose = [e.name for e in entries if e.name.lower().endswith(SUFFIXES)]
    if not loose:
        raise DataError(f"{root} holds no class folders and no pictures")
    raise DataError(
        f"{root} has {len(loose):,} pictures and no class folders: move each into a folder named "
        f"by its class, {root}/<class>/{loose[0]} (for ILSVRC-2012 <class> is the wnid, which the "
        "development kit's ILSVRC2012_validation_ground_truth.txt and meta.mat give)"
    )


def _pictures(root: Path, name: str, folders: dict[str, int]) -> list[bytes]:
    """Paths below ``root`` of a class's pictures; notes the times of all folders it enters."""
    found: list[bytes] = []

    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename} cannot be read ({error.strerror})") from error

    for folder, _, files in os.walk(root / name, onerror=refuse):
        below = Path(folder).relative_to(root).as_posix()
        folders[below] = _changed(Path(folder))
        found += [
            os.fsencode(f"{below}/{file}") for file in files if file.lower().endswith(SUFFIXES)
        ]
    return sorted(found)


def _changed(folder: Path) -> int:
    return folder.stat().st_mtime_ns


def _keep(index: PictureIndex, counts: Sequence[int], folders: dict[str, int], cache: Path) -> None:
    about = {
        "version": _VERSION,
        "root": str(index.root.resolve()),
        "classes": list(index.classes),
        "counts": list(counts),
        "folders": folders,
    }
    arrays: dict[str, NDArray[Any]] = {
        "labels": index.labels,
        "names": index.names,
        "ends": index.ends,
    }
    try:
        store_sealed(cache, arrays, about)
    except DataError as error:
        print(f"note: the list of pictures is not kept: {error}", file=sys.stderr)


def _recall(root: Path, cache: Path) -> PictureIndex | None:
    try:
        kept = load_sealed(cache)
    except DataError:
        return None
    if kept is None:
        return None
    arrays, about, _ = kept
    if about.get("version") != _VERSION or about["root"] != str(root.resolve()):
        return None
    if not all(_same(root, about["folders"])):
        return None
    labels = arrays["labels"]
    if np.bincount(labels, minlength=len(about["classes"])).tolist() != about["counts"]:
        return None
    return PictureIndex(root, tuple(about["classes"]), labels, arrays["names"], arrays["ends"])


def _same(root: Path, folders: dict[str, int]) -> Iterator[bool]:
    for name, changed in folders.items():
        try:
            yield _changed(root / name) == changed
        except OSError:
            yield False


# ILSVRC-2012: classes, training and validation pictures.
CLASSES, TRAIN_PICTURES, TEST_PICTURES = 1_000, 1_281_167, 50_000


@dataclass(frozen=True)
class PictureFolder:
    """The pictures of ``train/`` and ``val/`` (which is the test set here), none of them decoded.

    ``name`` is ``imagenet``, or ``folder`` for any other pictures.
    """

    name: str
    train: PictureIndex
    test: PictureIndex
    statistics: ColourStatistics

    @property
    def num_classes(self) -> int:
        """Labels are 0 to this - 1."""
        return len(self.train.classes)

    @property
    def digests(self) -> dict[str, str]:
        """What identifies the data: which pictures, of which classes, with which mean picture."""
        return {
            "train_pictures": self.train.digest(),
            "test_pictures": self.test.digest(),
            "mean_picture": self.statistics.digest,
        }


def load_pictures(name: str, root: Path, skip_corrupt: bool = False) -> PictureFolder:
    """List the pictures below ``root`` and measure their colours; both are kept there.

    Args:
        name: ``imagenet`` also looks into ``root/imagenet`` and insists on its 1,000 classes.
        root: holds ``train/<class>/*`` and ``val/<class>/*``.
        skip_corrupt: measure on the others where a picture cannot be decoded.

    Raises:
        DataError: there are none, or they are not arranged as they should be, or one that is
            measured cannot be had.
    """
    place = find(name, root)
    train, test = load_indices(place)
    if name == "imagenet":
        check_imagenet(place, train, test)
    return PictureFolder(
        name, train, test, load_statistics(train, place, skip_corrupt=skip_corrupt)
    )


def find(name: str, root: Path) -> Path:
    """The folder that holds ``train/`` and ``val/``: ``root``, else ``root/imagenet``."""
    inside = root / name
    return inside if name == "imagenet" and (inside / "train").is_dir() else root


def check_imagenet(place: Path, train: PictureIndex, test: PictureIndex) -> None:
    """Refuse other classes than ILSVRC-2012's; say it where pictures are missing.

    Raises:
        DataError: not 1,000 classes.
    """
    if len(train.classes) != CLASSES:
        raise DataError(
            f"{place} has {len(train.classes):,} classes, ILSVRC-2012 has {CLASSES:,}; for other "
            "pictures use data=folder"
        )
    if (len(train), len(test)) != (TRAIN_PICTURES, TEST_PICTURES):
        print(
            f"note: {place} has {len(train):,} training and {len(test):,} validation pictures, "
            f"ILSVRC-2012 has {TRAIN_PICTURES:,} and {TEST_PICTURES:,}",
            file=sys.stderr,
        )
