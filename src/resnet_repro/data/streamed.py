"""Full-size pictures as the images of a run: decoded by workers, prepared on the device.

A picture that cannot be decoded ends the run, or is left out of its batch, which then has fewer
images: nothing is ever put in its place.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from resnet_repro.data import MODIFIED, DataError, EvalImages, Prepared, Skipped, jpeg
from resnet_repro.data.colours import ColourStatistics
from resnet_repro.data.folder import PictureFolder, PictureIndex
from resnet_repro.data.loader import Decoder, PictureBatch, in_batches
from resnet_repro.data.order import BatchOrder, spaced


class PicturePreparation:
    """Scales pixels to 0..1, subtracts the mean, adds colour noise, on a device.

    ``mean``: ``pixel`` subtracts the mean picture, ``channel`` its mean colour. From pictures of
    another size than the mean picture (multi-scale testing) the mean colour is subtracted.
    """

    def __init__(self, statistics: ColourStatistics, device: torch.device, mean: str = "pixel"):
        def put(values: NDArray[np.float64]) -> Tensor:
            return torch.tensor(values, dtype=torch.float32, device=device)

        self.device = device
        self._colour = put(statistics.mean.mean(axis=(0, 1)))
        picture = put(statistics.mean)  # (224, 224, 3)
        self._mean = picture if mean == "pixel" else self._colour.expand_as(picture)
        self._noise = put(statistics.colours * statistics.deviations)  # column i: p_i * lambda_i

    def train(self, images: Tensor, alphas: Tensor) -> Tensor:
        """Training pictures; uint8 (B, H, W, 3) and float32 (B, 3) to what :meth:`test` returns."""
        alphas = alphas.to(self.device, non_blocking=True)
        # Sums of three products, not a matrix product: TF32 would round it.
        shift = (alphas[:, None, :] * self._noise).sum(dim=2)
        return self.test(images).add_(shift[:, :, None, None])

    def test(self, images: Tensor) -> Tensor:
        """Test pictures; uint8 (B, H, W, 3) to float32 (B, 3, H, W), channels last."""
        pixels = images.to(self.device, non_blocking=True).float().div_(255)
        mean = self._mean if pixels.shape[1:] == self._mean.shape else self._colour
        return pixels.sub_(mean).permute(0, 3, 1, 2)


class _Pictures:
    """Pictures of an index; ``skipped`` lists those left out of a batch until it is emptied."""

    def __init__(self, index: PictureIndex):
        self._index = index
        self.skipped: list[Skipped] = []

    def name_of(self, row: int) -> str:
        """The path of a picture below the folder of the data set: ``train/<class>/<file>``."""
        return self._index.path(row).relative_to(self._index.root.parent).as_posix()

    def _note(self, number: int, batch: PictureBatch) -> None:
        self.skipped += [(number, row) for row, _ in batch.failures]


class PictureSet(_Pictures):
    """``count`` pictures of an index, evenly spaced, in the 1-crop view."""

    def __init__(
        self, index: PictureIndex, count: int, prepare: PicturePreparation, decoder: Decoder
    ):
        super().__init__(index)
        self.rows = spaced(len(index), count)
        self._prepare, self._decoder = prepare, decoder

    def __len__(self) -> int:
        return len(self.rows)

    def eval_batches(
        self, batch_size: int, limit: int | None = None, *, first: int = 0, every: int = 1
    ) -> Iterator[Prepared]:
        """Each picture once, in order; ``limit`` of them evenly spaced."""
        rows = self.rows[spaced(len(self), len(self) if limit is None else limit)]
        batches = in_batches(rows.tolist(), batch_size)[first::every]
        decoder = replace(self._decoder, workers=min(self._decoder.workers, len(batches)))
        for number, batch in enumerate(decoder.test(self._index, batches)):
            self._note(first + number * every, batch)
            if len(batch.labels):
                labels = batch.labels.to(decoder.device, non_blocking=True)
                yield self._prepare.test(batch.images[0]), labels


class StreamedImages(_Pictures):
    """The pictures of a folder, decoded as they are needed; batches lie on the decoder's device.

    ``order`` is over the training pictures, ``places`` of a batch are this worker's share. Nothing
    is decoded beyond ``stop`` updates.
    """

    def __init__(
        self,
        folder: PictureFolder,
        order: BatchOrder,
        decoder: Decoder,
        *,
        mean: str,
        stop: int,
        places: range,
    ):
        super().__init__(folder.train)
        self.order, self.num_classes = order, folder.num_classes
        self.digests = folder.digests | {MODIFIED: folder.modified}
        self._decoder, self._stop, self._places = decoder, stop, places
        self._prepare = PicturePreparation(folder.statistics, decoder.device, mean)
        self._stream: Iterator[PictureBatch] | None = None
        self._next = 0
        self.share_shape: tuple[int, int, int, int] = (len(self._places), 3, jpeg.CROP, jpeg.CROP)
        test = PictureSet(folder.test, len(folder.test), self._prepare, self._decoder)
        self.held_out: Mapping[str, EvalImages] = {"test": test}
        self.record: dict[str, Any] = {
            "name": folder.name,
            "train_images": len(folder.train),
            "test_images": len(folder.test),
            "classes": self.num_classes,
            "digests": self.digests,
            "colours_measured_on": folder.statistics.pictures,
        }

    def batch(self, iteration: int, *, whole: bool = False) -> Prepared:
        """The process's share of the batch after ``iteration`` updates, or all, decoded here."""
        if whole:
            decoder = replace(self._decoder, workers=0)
            (batch,) = decoder.train(self._index, self.order, range(iteration, iteration + 1))
            return self._augmented(batch)
        if self._stream is None or iteration != self._next:  # begin there
            self.close()
            rest = range(iteration, max(self._stop, iteration + 1))
            self._stream = self._decoder.train(self._index, self.order, rest, self._places)
        batch = next(self._stream)
        self._next = iteration + 1
        self._note(iteration, batch)
        return self._augmented(batch)

    def clean(self, count: int) -> PictureSet:
        """``count`` training pictures, evenly spaced, without augmentation."""
        return PictureSet(self._index, count, self._prepare, self._decoder)

    def close(self) -> None:
        """End the workers."""
        self._stream = None

    def _augmented(self, batch: PictureBatch) -> Prepared:
        if not len(batch.labels):
            raise DataError(f"{batch.failures[0][1]}; no picture of its batch is left")
        labels = batch.labels.to(self._decoder.device, non_blocking=True)
        return self._prepare.train(batch.images[0], batch.alphas), labels
