"""Data sets by name: small images as arrays, full-size pictures as lists of files.

What a run makes of either stands in ``data.images``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from resnet_repro.data import cifar10, synthetic
from resnet_repro.data.arrays import Arrays
from resnet_repro.data.errors import DataError

if TYPE_CHECKING:
    from resnet_repro.data.picture_folder import PictureFolder

__all__ = ["Arrays", "DataError", "load", "load_pictures"]


def load(name: str, root: Path, source: str = "auto") -> Arrays:
    """Load a data set of small images, fetching it into ``root`` first if need be.

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


def load_pictures(name: str, root: Path, skip_corrupt: bool = False) -> PictureFolder:
    """Find ``imagenet``, or any ``folder`` of full-size pictures, in ``root``.

    Raises:
        DataError: it is not there or not arranged as it should be; see ``data.picture_folder``.
    """
    from resnet_repro.data import picture_folder  # its tools are not on every host

    return picture_folder.load_pictures(name, root, skip_corrupt)
