"""Held-out images as an evaluation shows them, and how nets were trained to see them.

Small pictures lie on the device as a whole; full-size ones are decoded by workers as they are
shown, and resized to their shorter side at once.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from resnet_repro.config import DataConfig
from resnet_repro.data import Arrays, DataError
from resnet_repro.data.folder import TEST_PICTURES, PictureFolder, load_part, load_pictures
from resnet_repro.data.loader import Decoder, PictureBatch, in_batches
from resnet_repro.data.order import train_split_indices
from resnet_repro.data.resident import mean_image
from resnet_repro.data.streamed import PicturePreparation
from resnet_repro.evaluation.protocols import Geometry, Prepare, Views, ten_crops, views_of
from resnet_repro.options import ConfigError

# Of ImageNet's colours, 0..1. Wrong for CIFAR-10 (trap 10), but some published nets were trained
# with them, and a net is tested as it was trained.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Shown = tuple[list[Tensor], Tensor]  # the views of a picture, each (1, 3, H, W), and its label (1,)
WAITING = 256  # pictures of other shapes that may wait for their like before a small group is shown


def subtract(mean: Tensor, std: Tensor | None = None) -> Prepare:
    """Subtract a mean, (3, 1, 1) or an image (3, H, W) that is resized, and divide by ``std``."""

    def prepare(images: Tensor) -> Tensor:
        if images.dtype == torch.uint8:
            images = images.to(torch.float32).div_(255)
        resized = mean
        if mean.shape[-1] > 1 and mean.shape[-2:] != images.shape[-2:]:
            size = list(images.shape[-2:])
            resized = F.interpolate(mean[None], size=size, mode="bilinear", antialias=True)[0]
        centred = images - resized
        return centred if std is None else centred.div_(std)

    return prepare


def imagenet_colours(device: torch.device) -> tuple[str, Prepare]:
    """What akamaster's and torchvision's nets expect, and its name in a result."""
    mean, std = (
        torch.tensor(v, device=device)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD)
    )
    return f"mean {IMAGENET_MEAN}, std {IMAGENET_STD}", subtract(mean, std)


def training_mean(found: Arrays | PictureFolder, data: DataConfig) -> NDArray[np.float32]:
    """The mean image (H, W, 3), 0..1, that is subtracted (Sec. 3.4, 4.2)."""
    if isinstance(found, Arrays):
        rows, _ = train_split_indices(data.train_split, len(found.train_labels))
        return mean_image(found.train_images[rows], data.mean).astype("f4")
    pixels = found.statistics.mean
    colour = pixels.mean((0, 1), keepdims=True)
    return np.broadcast_to(colour if data.mean == "channel" else pixels, pixels.shape).astype("f4")


class SmallImages:
    """All images of a split of small pictures, on the device; ConfigError: no such split."""

    def __init__(self, arrays: Arrays, train_splits: set[str], split: str, device: torch.device):
        self.trained_on, self.device = arrays, device
        self.num_classes, self.digests = arrays.num_classes, arrays.digests
        self.classes: Sequence[str] = ()  # have no names
        self.left_out: list[str] = []
        self.geometry = Geometry.of_small_pictures(arrays.test_images.shape[1])
        images, labels = arrays.test_images, arrays.test_labels
        if split != "test":
            if len(train_splits) > 1:
                raise ConfigError(f"split={split}: the nets were trained on different images")
            train, val = train_split_indices(next(iter(train_splits)), len(arrays.train_labels))
            rows = train if split == "train" else val
            images, labels = arrays.train_images[rows], arrays.train_labels[rows]
        if not len(labels):
            raise ConfigError(
                "split=val: the net was trained on all images; only runs with "
                "data.train_split=45k have validation images"
            )
        self._images = torch.from_numpy(np.ascontiguousarray(images)).to(device)
        self._labels = torch.from_numpy(np.asarray(labels)).to(device, torch.int64)

    def __len__(self) -> int:
        return len(self._labels)

    def shown(self, protocol: str, at_once: int) -> Iterator[tuple[Views, Tensor]]:
        """Views of every image once, in order, up to ``at_once`` together, and int64 labels."""
        for start in range(0, len(self), at_once):
            part = slice(start, start + at_once)
            pixels = self._images[part].to(torch.float32).div_(255).permute(0, 3, 1, 2)
            yield views_of(protocol, pixels, self.geometry), self._labels[part]

    def preparation(self, data: DataConfig) -> tuple[str, Prepare]:
        """What prepares the input of a net of ours as in training, and its name in a result."""
        mean = torch.from_numpy(training_mean(self.trained_on, data)).permute(2, 0, 1)
        label = f"{data.mean} mean of the training images ({data.train_split})"
        return label, subtract(mean.to(self.device))


class FullSize:
    """Pictures of ``split``: ``train``, or ``test``, which is ``root/val/<class>/``.

    They are decoded as they are shown. One that cannot be decoded is left out: ``left_out`` has a
    line for each of the last pass. ``ours``: whether nets of ours are tested, which need the mean
    of the training pictures. ConfigError: no such split; DataError: the pictures are not there or
    unreadable.
    """

    def __init__(self, choice: DataConfig, root: Path, split: str, *, ours: bool, decoder: Decoder):
        if split == "val":
            raise ConfigError(f"split=val: must be test or train for data.name={choice.name}")
        self.trained_on = load_pictures(choice.name, root, decoder.skip) if ours else None
        if folder := self.trained_on:
            index, digests = folder.test if split == "test" else folder.train, folder.digests
        else:  # the pictures others trained on need not be there, let alone be listed
            index = load_part(choice.name, root, "val" if split == "test" else "train")
            digests = index.digests(split)
        if choice.name == "imagenet" and split == "test" and len(index) != TEST_PICTURES:
            raise DataError(
                f"{index.root} has {len(index):,} pictures, ILSVRC-2012's validation set has "
                f"{TEST_PICTURES:,}; the error of a part of it is no result, and data=folder is "
                "for other pictures"
            )
        self.index, self.digests, self.decoder = index, digests, decoder
        self.classes: Sequence[str] = index.classes
        self.num_classes, self.geometry = len(index.classes), Geometry()
        self.left_out: list[str] = []

    def __len__(self) -> int:
        return len(self.index)

    def shown(self, protocol: str, at_once: int) -> Iterator[tuple[Views, Tensor]]:
        """Views, uint8 (N, 3, H, W), and labels of every picture that can be decoded."""
        self.left_out.clear()
        if protocol == "1-crop":
            for batch in self.decoder.test(self.index, in_batches(range(len(self)), at_once)):
                self._note(batch)
                if len(batch.labels):
                    view = batch.images[0].permute(0, 3, 1, 2)
                    yield [self._put(view)], self._put(batch.labels)
            return
        for group in alike(self._pictures(protocol), at_once, WAITING):
            views = zip(*(views for views, _ in group), strict=True)
            labels = torch.cat([label for _, label in group])
            yield [self._put(torch.cat(each)) for each in views], self._put(labels)

    def preparation(self, data: DataConfig) -> tuple[str, Prepare]:
        """What prepares the input of a net of ours as in training, and its name in a result."""
        assert self.trained_on is not None
        prepare = PicturePreparation(self.trained_on.statistics, self.decoder.device, data.mean)
        label = f"{data.mean} mean of the training pictures"
        return label, lambda images: prepare.test(images.permute(0, 2, 3, 1))

    def _pictures(self, protocol: str) -> Iterator[Shown]:
        """Views (1, 3, H, W) and label (1,) of each picture that can be decoded."""
        ten = protocol == "10-crop"
        sides = [self.geometry.ten_crop_side] if ten else self.geometry.scales
        for batch in self.decoder.whole(self.index, sides):
            self._note(batch)
            if len(batch.labels):
                # Copies: what lies in shared memory holds a file open, and pictures may wait.
                images = [image.clone().permute(0, 3, 1, 2) for image in batch.images]
                views = list(ten_crops(images[0], self.geometry.crop)) if ten else images
                yield views, batch.labels.clone()

    def _note(self, batch: PictureBatch) -> None:
        """Keep a line for each failure, without the place of the folder on this machine."""
        place = f"{self.index.root.parent}/"
        self.left_out += [str(error).replace(place, "") for _, error in batch.failures]

    def _put(self, images: Tensor) -> Tensor:
        return images.to(self.decoder.device, non_blocking=True)


HeldOut: TypeAlias = SmallImages | FullSize


def alike(pictures: Iterable[Shown], at_once: int, waiting: int) -> Iterator[list[Shown]]:
    """Groups of up to ``at_once`` pictures of one shape; ``waiting`` pictures may be held back."""
    held: dict[tuple[torch.Size, ...], list[Shown]] = {}
    for picture in pictures:
        shape = tuple(view.shape for view in picture[0])
        held.setdefault(shape, []).append(picture)
        if len(held[shape]) == at_once:
            yield held.pop(shape)
        elif sum(map(len, held.values())) > waiting:
            yield held.pop(max(held, key=lambda each: len(held[each])))
    yield from held.values()
