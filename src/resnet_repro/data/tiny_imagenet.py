"""Tiny ImageNet: real ImageNet pictures at 64x64, 200 classes, decoded once and kept as arrays.

The paper does not use it; its figures and tables here are columns of their own. A class's number is
its index in the sorted wnids. Training pictures are sorted by class and number (500 a class),
the validation pictures, which are the test set here, by number.
"""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from resnet_repro.data import PARTS, Arrays, DataError, files, note
from resnet_repro.data.cache import Stored, load_arrays, locked, map_tasks, store_arrays
from resnet_repro.data.jpeg import PictureError, pixels

NAME = "tiny-imagenet-200"
CACHE = f"{NAME}.npz"
WANTED = {  # and most bytes of each: a 64x64 JPEG has about 2 KB
    "wnids.txt": 8 * 1024**2,
    "val/val_annotations.txt": 8 * 1024**2,
    "train/*/images/*.JPEG": 256 * 1024,
    "val/images/*.JPEG": 256 * 1024,
}
Encoded = list[tuple[str, bytes]]  # path and file, in the order of the arrays


class Shape(NamedTuple):
    """How many pictures of which size there must be; other than the true one only in tests."""

    classes: int = 200
    train_per_class: int = 500
    test_per_class: int = 50
    side: int = 64
    # SHA-256 over the encoded files in the order of the arrays; it does not depend on a decoder.
    train_files: str = "18a887a6729de69e25c123a6a2b4002dc0359b0aca05f03759515105c6158f3a"
    test_files: str = "f570b36ec9a80c4ab370b26a500b0d41588132602edfbbf4121fa50afc3bd70e"


SHAPE = Shape()


def load(root: Path) -> Arrays:
    """Tiny ImageNet from ``root``, decoded into a file there first if need be; verified always.

    ``root`` has the prepared file, or has or is ``tiny-imagenet-200/``, ``.zip`` or ``.tar.xz``.
    Where these are still there, the file is used only if it was made from these files, by size
    and modification time. Images are uint8, (100000, 64, 64, 3) and (10000, 64, 64, 3). DataError:
    it is missing, incomplete or not Tiny ImageNet; the message says what to do.
    """
    folder = root.parent if root.is_file() else root
    cache = folder / CACHE
    stored = _cached(root, cache)
    if stored is None:
        find(root)  # where there is nothing, no folder is made and no lock taken
        with locked(folder, f".{CACHE}.*.tmp"):
            if _cached(root, cache) is None:  # not made while we waited
                prepare(find(root), cache)
        return load(root)
    train, test = SHAPE.classes * SHAPE.train_per_class, SHAPE.classes * SHAPE.test_per_class
    picture = (SHAPE.side, SHAPE.side, 3)
    expected = ((train, *picture), (train,), (test, *picture), (test,))
    parts = {name: stored.arrays[name] for name in PARTS if name in stored.arrays}
    if tuple(array.shape for array in parts.values()) != expected:
        raise DataError(f"{cache} is not Tiny ImageNet; delete it and run again")
    return Arrays(
        **parts, num_classes=SHAPE.classes, digests={**stored.digests, **stored.about["files"]}
    )


def _cached(root: Path, cache: Path) -> Stored | None:
    """Load ``cache``, unless its source has changed since."""
    stored = load_arrays(cache)
    if stored is None:
        return None
    try:
        source = find(root)
    except DataError:  # only the prepared file was kept
        return stored
    if stored.about.get("source", stamp := files.stamp(source, WANTED)) == stamp:
        return stored
    note(f"{source} has changed since {cache} was made of it")
    return None


def find(root: Path) -> Path:
    """The folder or archive at ``root``, which may also be that folder or archive itself."""
    names = (NAME, f"{NAME}.zip", f"{NAME}.tar.xz")
    for name in names:
        if (root / name).exists():
            return root / name
    if root.is_file() or ((root / "train").is_dir() and (root / "val").is_dir()):
        return root
    raise DataError(
        f"no Tiny ImageNet in {root}: looked for {', '.join(names)}; put one there or name its "
        "folder with data.root=... or RESNET_REPRO_DATA"
    )


def prepare(source: Path, cache: Path) -> None:
    """Decode the folder or archive ``source`` into the file ``cache``, or raise DataError."""
    note(f"preparing Tiny ImageNet from {source}, once")
    stamp = files.stamp(source, WANTED)
    content = files.read(source, WANTED, f"{NAME}/")
    wnids = _classes(content, source)
    train, train_labels = _part(content, wnids, source, "train/")
    test, test_labels = _part(content, wnids, source, "val/images/")
    digests = {}
    for name, encoded in {"train_files": train, "test_files": test}.items():
        digests[name] = found = hashlib.sha256(b"".join(file for _, file in encoded)).hexdigest()
        if (expected := getattr(SHAPE, name)) and found != expected:
            note(f"{name} differ from those of the logged runs: {found}")
    decoded = _decode(train + test, source)
    arrays = (decoded[: len(train)], train_labels, decoded[len(train) :], test_labels)
    about = {"files": digests, "wnids": wnids, "source": stamp}
    store_arrays(cache, dict(zip(PARTS, arrays, strict=True)), about)


def _classes(content: Mapping[str, bytes], source: Path) -> list[str]:
    wnids = sorted({name.split("/")[1] for name in content if name.startswith("train/")})
    if len(wnids) != SHAPE.classes:
        raise DataError(
            f"{source} has {len(wnids)} classes below train/, not {SHAPE.classes}: "
            "it is cut off or another data set"
        )
    listed = content.get("wnids.txt")
    if listed is not None and sorted(listed.decode("utf-8", "replace").split()) != wnids:
        raise DataError(f"{source}: wnids.txt and the folders of train/ name different classes")
    return wnids


def _part(
    content: Mapping[str, bytes], wnids: list[str], source: Path, below: str
) -> tuple[Encoded, NDArray[np.uint8]]:
    """The pictures below ``train/`` or ``val/images/``, and their labels; checks their number."""
    names = sorted((name for name in content if name.startswith(below)), key=_by_number)
    if below == "train/":
        wnid_of, count = {name: name.split("/")[1] for name in names}, SHAPE.train_per_class
    else:
        wnid_of, count = _annotations(content, source), SHAPE.test_per_class
    label_of = {wnid: label for label, wnid in enumerate(wnids)}
    for name in names:
        if wnid_of.get(name) not in label_of:
            raise DataError(f"{source}: val/val_annotations.txt gives no known class to {name}")
    labels = np.array([label_of[wnid_of[name]] for name in names], dtype=np.uint8)
    for wnid, found in zip(wnids, np.bincount(labels, minlength=len(wnids)), strict=True):
        if found != count:
            raise DataError(f"{source}: {below} has {found} pictures of class {wnid}, not {count}")
    return [(name, content[name]) for name in names], labels


def _annotations(content: Mapping[str, bytes], source: Path) -> dict[str, str]:
    """The class of each validation picture."""
    text = content.get("val/val_annotations.txt")
    if text is None:
        raise DataError(
            f"{source} has no val/val_annotations.txt, which says what the validation pictures "
            "show; get the whole data set again"
        )
    rows = [line.split("\t") for line in text.decode("utf-8", "replace").splitlines() if line]
    if any(len(row) < 2 for row in rows):
        raise DataError(f"{source}: val/val_annotations.txt is not tab-separated")
    return {f"val/images/{row[0]}": row[1] for row in rows}


def _by_number(name: str) -> tuple[str, int, str]:
    folder, _, file = name.rpartition("/")
    digits = re.findall(r"\d+", file)
    return folder, int(digits[-1]) if digits else 0, file


def _decode(encoded: Encoded, source: Path) -> NDArray[np.uint8]:
    """All pictures as one array; every undecodable one is counted before the first is named."""
    side = SHAPE.side
    out = np.zeros((len(encoded), side, side, 3), dtype=np.uint8)

    def decode(row: int) -> str | None:
        name, file = encoded[row]
        try:
            picture = pixels(file, name)
            height, width = picture.shape[:2]
            if (height, width) != (side, side):
                raise PictureError(f"{name}: {width}x{height} pixels, not {side}x{side}")
        except PictureError as error:
            return str(error)
        out[row] = picture
        return None

    bad = [line for line in map_tasks(decode, range(len(encoded)), "decoding") if line]
    if bad:
        more = f" (and {len(bad) - 1} others)" if len(bad) > 1 else ""
        raise DataError(f"{source}: {bad[0]}{more}; get the data again")
    return out
