"""Full-size pictures as a run takes them up: lists of training and test pictures, their colours."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from resnet_repro.data.errors import DataError
from resnet_repro.data.image_folder import PictureIndex, load_indices
from resnet_repro.data.statistics import ColourStatistics, load_statistics

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
