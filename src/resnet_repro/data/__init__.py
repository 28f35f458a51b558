"""Data sets by name. Arrays come from here; batches on the device from ``data.batches``."""

from __future__ import annotations

from pathlib import Path

from resnet_repro.data import cifar10, synthetic
from resnet_repro.data.arrays import Arrays
from resnet_repro.data.errors import DataError

__all__ = ["Arrays", "DataError", "load"]


def load(name: str, root: Path, source: str = "auto") -> Arrays:
    """Load a data set, fetching it into ``root`` first if need be.

    Raises:
        DataError: unknown name, or the data cannot be had or are not what they should be.
    """
    if name == "cifar10":
        return cifar10.load(root, source)
    if name == "tiny_imagenet":
        from resnet_repro.data import tiny_imagenet  # its tools are not on every host

        return tiny_imagenet.load(root)
    if name == "synthetic":
        return synthetic.make()
    raise DataError(f"unknown data set {name!r}; one of cifar10, tiny_imagenet, synthetic")
