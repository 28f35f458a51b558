"""Folders of pictures, one folder a class: ILSVRC-2012's layout, or anyone's own.

``root/train/<class>/*.JPEG`` and ``root/val/<class>/*.JPEG``; a class's number is its index in
the sorted folder names (for ILSVRC the wnids), a picture's row its index in the sorted paths.
Folders inside a class belong to it, and links are followed. Hidden names and what desktops and
network disks leave are pruned at every level.

Every start lists the pictures again, with size and modification time of each file: names alone do
not show that a file was replaced. 1.3 million files take some ten seconds on a local disk.
"""

import hashlib
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from resnet_repro.data import DataError, note
from resnet_repro.data.colours import ColourStatistics, load_statistics
from resnet_repro.data.files import is_leftover, not_regular
from resnet_repro.data.jpeg import KINDS, SUFFIXES

# ILSVRC-2012: classes, training and validation pictures.
CLASSES, TRAIN_PICTURES, TEST_PICTURES = 1_000, 1_281_167, 50_000
WNID = re.compile(r"n\d{8}")
_LISTERS = 16  # threads: on a network disk each file's size is a question to the server


@dataclass(frozen=True)
class PictureIndex:
    """A sorted list of N pictures, held in arrays so that workers share its memory."""

    root: Path  # folder of the class folders
    classes: tuple[str, ...]  # their names, sorted
    labels: NDArray[np.int32]  # (N,), non-decreasing
    names: NDArray[np.bytes_]  # (N,), the paths below root
    sizes: NDArray[np.int64]  # (N,), bytes of each file
    times: NDArray[np.int64]  # (N,), when each was modified, nanoseconds

    def __len__(self) -> int:
        return len(self.labels)

    def path(self, row: int) -> Path:
        """The file of a row."""
        return self.root / os.fsdecode(self.names[row])

    def digest(self) -> str:
        """SHA-256 over names and labels: which pictures, not where they are."""
        total = hashlib.sha256("\n".join(self.classes).encode("utf-8", "surrogateescape"))
        total.update(self.labels.tobytes())
        total.update(np.char.str_len(self.names).cumsum(dtype=np.int64).tobytes())
        total.update(b"".join(self.names.tolist()))
        return total.hexdigest()

    def digests(self, part: str) -> dict[str, str]:
        """SHA-256 of names with labels, and of sizes: the same wherever the pictures are."""
        sizes = hashlib.sha256(self.sizes.tobytes()).hexdigest()
        return {f"{part}_pictures": self.digest(), f"{part}_sizes": sizes}

    def stamp(self) -> str:
        """SHA-256 that changes with any file; a copy may have another, for its times differ."""
        total = hashlib.sha256(self.digest().encode())
        total.update(self.sizes.tobytes() + self.times.tobytes())
        return total.hexdigest()


@dataclass(frozen=True)
class PictureFolder:
    """The pictures of ``train/`` and ``val/`` (the test set here), none of them decoded."""

    name: str  # imagenet, or folder for any other pictures
    train: PictureIndex
    test: PictureIndex
    statistics: ColourStatistics

    @property
    def num_classes(self) -> int:
        """Labels are 0 to this - 1."""
        return len(self.train.classes)

    @property
    def digests(self) -> dict[str, str]:
        """What identifies the data: names, labels and sizes of the pictures, the mean picture."""
        parts = self.train.digests("train") | self.test.digests("test")
        return parts | {"mean_picture": self.statistics.digest}

    @property
    def modified(self) -> str:
        """SHA-256 of the modification times, which a copy may not keep."""
        return hashlib.sha256(self.train.times.tobytes() + self.test.times.tobytes()).hexdigest()


def load_pictures(name: str, root: Path, skip_corrupt: bool = False) -> PictureFolder:
    """List the pictures below ``root`` and measure their colours, which are cached there.

    ``root`` holds ``train/<class>/*`` and ``val/<class>/*``; the name ``imagenet`` also looks into
    ``root/imagenet`` and requires its 1,000 classes. ``skip_corrupt`` measures on the others
    where a picture cannot be decoded. DataError: they are missing or invalid.
    """
    folder = find(name, root)
    train, test = load_indices(folder)
    if name == "imagenet":
        check_imagenet(train)
        if (len(train), len(test)) != (TRAIN_PICTURES, TEST_PICTURES):
            note(
                f"{folder} has {len(train):,} training and {len(test):,} validation pictures, "
                f"ILSVRC-2012 has {TRAIN_PICTURES:,} and {TEST_PICTURES:,}"
            )
    return PictureFolder(name, train, test, load_statistics(train, folder, skip_corrupt))


def load_part(name: str, root: Path, part: str) -> PictureIndex:
    """List ``train`` or ``val`` alone, checked alike; the other may be missing."""
    index = load_index(find(name, root) / part)
    if name == "imagenet":
        check_imagenet(index)
    return index


def find(name: str, root: Path) -> Path:
    """The folder that holds ``train/`` and ``val/``: ``root``, else ``root/imagenet``."""
    inside = root / name
    return inside if name == "imagenet" and (inside / "train").is_dir() else root


def check_imagenet(index: PictureIndex) -> None:
    """Raise DataError for classes that cannot be ILSVRC-2012's: 1,000, named by WordNet ids."""
    if len(index.classes) != CLASSES:
        raise DataError(
            f"{index.root} has {len(index.classes):,} classes, ILSVRC-2012 has {CLASSES:,}; for "
            "other pictures use data=folder"
        )
    bad = next((name for name in index.classes if not WNID.fullmatch(name)), None)
    if bad is not None:
        raise DataError(
            f"{index.root}: {bad} is no WordNet id like n01440764; ImageNet's classes are numbered "
            "in the order of their ids, so name the folders by them, or use data=folder"
        )


def load_indices(root: Path) -> tuple[PictureIndex, PictureIndex]:
    """List ``train/`` and ``val/`` as :func:`load_index`; they must have the same classes."""
    for part in ("train", "val"):
        if not (root / part).is_dir():
            raise DataError(
                f"no pictures at {root}: {part}/ is missing; it must hold train/<class>/*.JPEG and "
                "val/<class>/*.JPEG; name it with data.root=... or RESNET_REPRO_DATA"
            )
    train, val = load_index(root / "train"), load_index(root / "val")
    if train.classes != val.classes:
        extra = sorted(set(train.classes) ^ set(val.classes))[0]
        where, missing = ("train", "val") if extra in train.classes else ("val", "train")
        raise DataError(
            f"{root}: {len(train.classes)} classes in train/ and {len(val.classes)} in val/ must "
            f"be the same; {extra} is in {where}/ and not in {missing}/"
        )
    return train, val


def load_index(root: Path) -> PictureIndex:
    """List the pictures of the class folders of ``root``; note in one line what is left out.

    DataError: no class folders, or one that has no pictures or cannot be read; a link that leads
    nowhere; something named like a picture that is not a regular file.
    """
    left_out: LeftOut = []
    classes = _class_folders(root, left_out)
    with ThreadPoolExecutor(_LISTERS) as threads:
        listings = list(threads.map(lambda name: _list_class(root, name), classes))
    left_out += [one for _, more in listings for one in more]
    if left_out:
        counts, examples = Counter(what for what, _ in left_out), dict(reversed(left_out))
        kinds = [f"{count:,} {what} ({examples[what]})" for what, count in counts.items()]
        note(f"{root}: left out {', '.join(kinds)}")
    for name, (pictures, _) in zip(classes, listings, strict=True):
        if not pictures:
            raise DataError(f"{root / name} has no pictures ({', '.join(SUFFIXES)})")
    counted = [len(pictures) for pictures, _ in listings]
    names, sizes, times = zip(*(one for pictures, _ in listings for one in pictures), strict=True)
    return PictureIndex(
        root,
        tuple(classes),
        np.repeat(np.arange(len(classes), dtype=np.int32), counted),
        np.array(names),
        np.array(sizes, np.int64),
        np.array(times, np.int64),
    )


LeftOut = list[tuple[str, str]]  # what it is, and where below the root


def _class_folders(root: Path, left_out: LeftOut) -> list[str]:
    entries = list(_entries(root, root, left_out))
    classes = [entry.name for entry, about in entries if stat.S_ISDIR(about.st_mode)]
    files = [entry.name for entry, about in entries if not stat.S_ISDIR(about.st_mode)]
    loose = [name for name in files if name.lower().endswith(SUFFIXES)]
    if not classes and not loose:
        raise DataError(f"{root} holds no class folders and no pictures")
    if not classes:
        raise DataError(
            f"{root} has {len(loose):,} pictures and no class folders: move each into a folder "
            f"named by its class, {root}/<class>/{loose[0]} (for ILSVRC-2012 <class> is the wnid, "
            "which the development kit's ILSVRC2012_validation_ground_truth.txt and meta.mat give)"
        )
    left_out += [("files beside the class folders", name) for name in files]
    return classes


def _list_class(root: Path, name: str) -> tuple[list[tuple[bytes, int, int]], LeftOut]:
    """(Path below root, size, modification time) of a class's pictures, sorted, and the rest."""
    pictures: list[tuple[bytes, int, int]] = []
    left_out: LeftOut = []
    top = root.resolve()
    above = tuple(folder.stat() for folder in (top, *top.parents, root / name))
    folders = [(name, above)]
    while folders:
        below, above = folders.pop()
        for entry, about in _entries(root, root / below, left_out):
            path = f"{below}/{entry.name}"
            if stat.S_ISDIR(about.st_mode):
                if any(os.path.samestat(about, folder) for folder in above):
                    left_out.append(("links to a folder that they are in", path))
                else:
                    folders.append((path, (*above, about)))
            elif not entry.name.lower().endswith(SUFFIXES):
                left_out.append((f"files that are not {KINDS}", path))
            elif stat.S_ISREG(about.st_mode):
                pictures.append((os.fsencode(path), about.st_size, about.st_mtime_ns))
            else:
                raise not_regular(entry.path, about.st_mode)
    return sorted(pictures), left_out


def _entries(
    root: Path, folder: Path, left_out: LeftOut
) -> Iterator[tuple[os.DirEntry[str], os.stat_result]]:
    """Yield a folder's entries, sorted, without leftovers; links count as their targets."""
    at, cut = str(folder), len(str(root)) + 1
    try:
        with os.scandir(folder) as entries:
            ordered = sorted(entries, key=lambda entry: entry.name)
        for entry in ordered:
            at = entry.path
            if is_leftover(entry.name):
                left_out.append(("hidden or system files", at[cut:]))
            else:
                yield entry, entry.stat()
    except OSError as error:
        raise DataError(
            f"{at} cannot be read ({error.strerror}); make it readable or remove it"
        ) from error
