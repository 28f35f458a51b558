"""Full-size pictures as the images of a run: decoded by workers, prepared on the device.

A picture that cannot be decoded ends the run, or is left out of its batch, which then has fewer
images: nothing is ever put in its place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from resnet_repro.data import MODIFIED, DataError, Prepared, Share, Skipped
from resnet_repro.data.colours import PicturePreparation
from resnet_repro.data.folder import PictureFolder, PictureIndex
from resnet_repro.data.jpeg import CROP
from resnet_repro.data.loader import (
    Corrupt,
    PictureBatch,
    PictureLoader,
    eval_batches,
    train_batches,
)
from resnet_repro.data.order import BatchOrder

Rows = NDArray[np.int64]


class _Missing:
    """Remembers which rows of an index were left out."""

    def __init__(self, index: PictureIndex):
        self._index = index
        self.skipped: list[Skipped] = []

    def name_of(self, row: int) -> str:
        """The path of a picture below the folder of the data set: ``train/<class>/<file>``."""
        return self._index.path(row).relative_to(self._index.root.parent).as_posix()

    def _note(self, number: int, batch: PictureBatch, rows: Rows) -> None:
        self.skipped += [(number, row) for row in rows[~batch.valid.numpy()].tolist()]


class PictureSet(_Missing):
    """Some pictures of an index, each in its 1-crop view: held out, or for the clean error.

    Args:
        index: of the pictures.
        rows: which of them.
        prepare: with the statistics of the training set.
        workers: processes that decode; 0 decodes here.
        device: where the batches go.
        skip: leave out what cannot be decoded.
    """

    def __init__(
        self,
        index: PictureIndex,
        rows: Rows,
        prepare: PicturePreparation,
        *,
        workers: int,
        device: torch.device,
        skip: bool,
    ):
        super().__init__(index)
        self.rows = rows
        self._prepare, self._workers, self._device = prepare, workers, device
        self._corrupt = Corrupt(skip)

    def __len__(self) -> int:
        return len(self.rows)

    def eval_batches(
        self, batch_size: int, limit: int | None = None, *, first: int = 0, every: int = 1
    ) -> Iterator[Prepared]:
        """Each picture once, in order; ``limit`` of them evenly spaced, for they lie by class.

        Raises:
            DataError: a picture is unusable and is not to be skipped.
        """
        rows = spaced(self.rows, len(self) if limit is None else limit)
        starts = range(first * batch_size, len(rows), every * batch_size)
        if not starts:
            return
        parts = [rows[start : start + batch_size] for start in starts]
        loader = eval_batches(
            self._index,
            batch_size=batch_size,
            workers=min(self._workers, len(parts)),
            device=self._device,
            corrupt=self._corrupt,
            rows=np.concatenate(parts).tolist(),
        )
        for number, (batch, part) in enumerate(zip(loader, parts, strict=True)):
            self._note(first + number * every, batch, part)
            images, _, labels = _usable(batch)
            if len(labels):
                yield self._prepare.test(images), labels.to(self._device, non_blocking=True)


class StreamedImages(_Missing):
    """The pictures of a folder, decoded as they are needed.

    Args:
        folder: the pictures.
        order: over the rows of the training pictures.
        device: where the batches go and are prepared.
        mean: ``pixel`` or ``channel``.
        stop: updates of the whole run; nothing is decoded beyond.
        workers: processes that decode; 0 decodes here.
        share: of so many things, what falls to this process.
        skip: leave out what cannot be decoded.
    """

    def __init__(
        self,
        folder: PictureFolder,
        order: BatchOrder,
        device: torch.device,
        *,
        mean: str,
        stop: int,
        workers: int,
        share: Share,
        skip: bool,
    ):
        super().__init__(folder.train)
        self.order, self.num_classes = order, folder.num_classes
        self.digests = folder.digests | {MODIFIED: folder.modified}
        self._folder, self._device, self._workers, self._skip = folder, device, workers, skip
        self._stop, self._places, self._corrupt = stop, share(order.batch_size), Corrupt(skip)
        self._prepare = PicturePreparation(folder.statistics, device, mean)
        self._stream: Iterator[PictureBatch] | None = None
        self._next = 0
        self.held_out: Mapping[str, PictureSet] = {"test": self._set(folder.test, len(folder.test))}

    @property
    def share_shape(self) -> tuple[int, int, int, int]:
        """Shape (N, 3, 224, 224) of the images of :meth:`batch`, none of them left out."""
        return len(self._places), 3, CROP, CROP

    def batch(self, iteration: int) -> Prepared:
        """The process's share of the batch after ``iteration`` updates.

        The first call, and one for another iteration than the next, begins the stream there.

        Raises:
            DataError: a picture is unusable and is not to be skipped, or none is left.
        """
        if self._stream is None or iteration != self._next:
            self.close()
            stop = max(self._stop, iteration + 1)
            self._stream = iter(self._loader(iteration, stop, self._places, self._workers))
        batch = next(self._stream)
        self._next = iteration + 1
        if batch.failures:
            self._note(iteration, batch, self.order.batch(iteration).indices[self._places])
        return self._augmented(batch)

    def whole_batch(self, iteration: int) -> Prepared:
        """The whole batch after ``iteration`` updates, decoded here."""
        places = range(self.order.batch_size)
        (batch,) = self._loader(iteration, iteration + 1, places, workers=0)
        return self._augmented(batch)

    def clean(self, count: int) -> PictureSet:
        """``count`` training pictures, evenly spaced, to be seen without augmentation."""
        return self._set(self._folder.train, count)

    def record(self) -> dict[str, Any]:
        """Counts, digests, and on how many pictures the colours were measured."""
        return {
            "name": self._folder.name,
            "train_images": len(self._folder.train),
            "test_images": len(self._folder.test),
            "classes": self.num_classes,
            "digests": self.digests,
            "colours_measured_on": self._folder.statistics.pictures,
        }

    def close(self) -> None:
        """End the workers."""
        self._stream = None

    def _loader(self, start: int, stop: int, places: range, workers: int) -> PictureLoader:
        return train_batches(
            self._folder.train,
            self.order,
            start=start,
            stop=stop,
            workers=workers,
            device=self._device,
            corrupt=self._corrupt,
            places=places,
        )

    def _augmented(self, batch: PictureBatch) -> Prepared:
        images, alphas, labels = _usable(batch)
        if not len(labels):
            raise DataError(f"{batch.failures[0].line}; no picture of its batch is left")
        labels = labels.to(self._device, non_blocking=True)
        return self._prepare.train(images, alphas), labels

    def _set(self, index: PictureIndex, count: int) -> PictureSet:
        return PictureSet(
            index,
            spaced(np.arange(len(index)), count),
            self._prepare,
            workers=self._workers,
            device=self._device,
            skip=self._skip,
        )


def _usable(batch: PictureBatch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Images, colour coefficients and labels of the pictures that could be decoded."""
    parts = batch.images, batch.alphas, batch.labels
    if not batch.failures:
        return parts
    images, alphas, labels = (part[batch.valid] for part in parts)
    return images, alphas, labels


def spaced(rows: Rows, count: int) -> Rows:
    """``count`` of the rows, evenly spaced; all of them where there are no more."""
    count = min(count, len(rows))
    return rows[np.arange(count) * len(rows) // max(count, 1)]
