"""Full-size pictures of a folder under the testing protocols (Sec. 3.4), decoded by workers.

Every view is cut from a picture that was decoded and resized to its shorter side at once, never
from one that was resized before. A picture that cannot be decoded is named, counted and left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from resnet_repro.config import DataConfig
from resnet_repro.data import DataError
from resnet_repro.data.folder import (
    TEST_PICTURES,
    PictureFolder,
    PictureIndex,
    load_part,
    load_pictures,
)
from resnet_repro.data.loader import Decoder, PictureBatch
from resnet_repro.data.order import BatchOrder
from resnet_repro.data.streamed import PicturePreparation
from resnet_repro.evaluation.images import Preparation, theirs
from resnet_repro.evaluation.protocols import Geometry, Shown, ten_crops
from resnet_repro.evaluation.subjects import Subject
from resnet_repro.options import ConfigError

T = TypeVar("T")

# Pictures of other shapes that may wait for their like before a small group is shown.
WAITING = 256


class Whole(NamedTuple):
    """A whole picture, uint8 (H, W, 3), at each requested side, and its class."""

    images: list[Tensor]
    label: Tensor  # int64 (1,)

    @property
    def shape(self) -> tuple[torch.Size, ...]:
        """Of the images."""
        return tuple(image.shape for image in self.images)


@dataclass
class FullSize:
    """Pictures of an index and how nets see them.

    Attributes:
        index: what is counted.
        digests: SHA-256 of names and labels of the pictures, and of the mean picture if it is used.
        trained_on: with the mean picture; None where no net of ours is tested.
        decoder: of pictures, and for which device.
        left_out: a line for each picture that the last pass could not show.
    """

    index: PictureIndex
    digests: dict[str, str]
    trained_on: PictureFolder | None
    decoder: Decoder
    geometry: Geometry = field(default_factory=Geometry)
    left_out: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.index)

    @classmethod
    def open(
        cls,
        choice: DataConfig,
        root: Path,
        split: str,
        *,
        ours: bool,
        device: torch.device,
        workers: int,
    ) -> FullSize:
        """Find the pictures of a split below ``root``.

        Args:
            choice: how pictures are found and what is done with corrupt ones.
            root: holds ``val/<class>/``, and ``train/<class>/`` where that is needed.
            split: ``test``, which are the validation pictures, or ``train``.
            ours: whether nets of ours are tested, which need the mean of the training pictures.
            device: where views go.
            workers: processes that decode; 0 decodes here.

        Raises:
            ConfigError: there is no such split.
            DataError: the pictures are not there or cannot be read.
        """
        if split == "val":
            raise ConfigError(f"split=val: must be test or train for data.name={choice.name}")
        skip = choice.on_corrupt == "skip"
        if ours:
            folder = load_pictures(choice.name, root, skip)
            index = folder.test if split == "test" else folder.train
            digests, trained_on = folder.digests, folder
        else:  # the pictures others trained on need not be there, let alone be listed
            part = "val" if split == "test" else "train"
            index = load_part(choice.name, root, part)
            digests, trained_on = index.digests(split), None
        if choice.name == "imagenet" and split == "test" and len(index) != TEST_PICTURES:
            raise DataError(
                f"{index.root} has {len(index):,} pictures, ILSVRC-2012's validation set has "
                f"{TEST_PICTURES:,}; the error of a part of it is no result, and data=folder is "
                "for other pictures"
            )
        return cls(index, digests, trained_on, Decoder(workers, device, skip))

    @property
    def classes(self) -> Sequence[str]:
        """Folders of the index."""
        return self.index.classes

    @property
    def num_classes(self) -> int:
        """Number of those folders."""
        return len(self.index.classes)

    def shown(self, protocol: str, at_once: int) -> Iterator[tuple[Shown, Tensor]]:
        """Views, uint8 (N, 3, H, W), and labels of every picture that can be decoded."""
        self.left_out.clear()
        if protocol == "1-crop":
            yield from self._centres(at_once)
        elif protocol == "10-crop":
            for group in batched(self._whole([self.geometry.ten_crop_side]), at_once):
                each = [ten_crops(self._put(p.images[0][None]), self.geometry.crop) for p in group]
                yield [torch.cat(views) for views in zip(*each, strict=True)], self._labels(group)
        else:
            for group in alike(self._whole(self.geometry.scales), at_once, WAITING):
                sides = zip(*(picture.images for picture in group), strict=True)
                yield [self._put(torch.stack(side)) for side in sides], self._labels(group)

    def _centres(self, at_once: int) -> Iterator[tuple[Shown, Tensor]]:
        side = self.geometry.centre_side
        for batch in self._batches(side, at_once, self.decoder.workers, whole=False):
            self._note(batch)
            batch = batch.usable()
            if len(batch.labels):
                yield [self._put(batch.images)], batch.labels.to(self.decoder.device)

    def _whole(self, sides: Sequence[int]) -> Iterator[Whole]:
        """Whole pictures one by one, each at all sides; workers in proportion to the pixels."""
        total = sum(side**2 for side in sides)
        loaders = [
            self._batches(side, 1, -(-self.decoder.workers * side**2 // total), whole=True)
            for side in sides
        ]
        for batches in zip(*loaders, strict=True):
            failed = next((batch for batch in batches if not batch.valid.all()), None)
            if failed is not None:
                self._note(failed)
            else:  # copies: what lies in shared memory holds a file open, and pictures may wait
                images = [batch.images[0].clone() for batch in batches]
                yield Whole(images, batches[0].labels.clone())

    def _batches(
        self, side: int, size: int, workers: int, *, whole: bool
    ) -> Iterable[PictureBatch]:
        decoder = replace(self.decoder, workers=workers)
        return decoder.test(self.index, size, side=side, whole=whole)

    def _note(self, batch: PictureBatch) -> None:
        """Keep a line for each failure, without the place of the folder on this machine."""
        place = f"{self.index.root.parent}/"
        self.left_out += [str(failure).replace(place, "") for failure in batch.failures]

    def _put(self, images: Tensor) -> Tensor:
        """(N, H, W, 3) to (N, 3, H, W) on the device, channels last in memory."""
        return images.to(self.decoder.device, non_blocking=True).permute(0, 3, 1, 2)

    def _labels(self, group: Sequence[Whole]) -> Tensor:
        return torch.cat([picture.label for picture in group]).to(self.decoder.device)

    def normaliser(self, subject: Subject) -> Preparation:
        """As in training for nets of ours (Sec. 3.4), torchvision's colours for others."""
        data = subject.data
        if data is None:
            return theirs(self.decoder.device)
        prepare = self._preparation(data.mean)
        label = f"{data.mean} mean of the training pictures"
        return Preparation(label, lambda images: prepare.test(images.permute(0, 2, 3, 1)))

    def next_epoch(self, subject: Subject) -> Iterator[Tensor]:
        """The augmented batches that would have followed the run, all of them full."""
        config, folder = subject.config, self.trained_on
        assert config is not None
        assert folder is not None
        recipe, count = config.recipe, len(folder.train)
        order = BatchOrder(count, recipe.batch_size, config.seed, config.data.border)
        epoch = range(recipe.max_iters, recipe.max_iters + count // recipe.batch_size)
        batches = self.decoder.train(folder.train, order, epoch)
        prepare = self._preparation(config.data.mean)
        for batch in batches:
            if batch.valid.any():
                yield prepare.train(batch.images[batch.valid], batch.alphas[batch.valid])

    def _preparation(self, mean: str) -> PicturePreparation:
        assert self.trained_on is not None
        return PicturePreparation(self.trained_on.statistics, self.decoder.device, mean)


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of ``size`` items, the last of them shorter."""
    stream = iter(items)
    while group := list(islice(stream, size)):
        yield group


def alike(pictures: Iterable[Whole], at_once: int, waiting: int) -> Iterator[list[Whole]]:
    """Groups of up to ``at_once`` pictures of one shape; of all pictures ``waiting`` are held back.

    Pictures of one at a time would leave a GPU idle; of a photograph collection about half have
    the most common shape.
    """
    held: dict[tuple[torch.Size, ...], list[Whole]] = {}
    count = 0
    for picture in pictures:
        group = held.setdefault(picture.shape, [])
        group.append(picture)
        count += 1
        full = picture.shape if len(group) == at_once else None
        if full is None and count > waiting:
            full = max(held, key=lambda shape: len(held[shape]))
        if full is not None:
            count -= len(held[full])
            yield held.pop(full)
    yield from held.values()
