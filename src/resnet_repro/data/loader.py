"""Batches of full-size pictures: decoded by worker processes, the same whatever their number.

A batch's keys, (epoch, row) of each picture, are computed from the iteration alone, and a picture's
pixels from (seed, epoch, row) alone. So there is no sampler state: any number of workers and any
iteration to start from give the same batches.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from resnet_repro.data import DataError, StoppedError, note
from resnet_repro.data.folder import PictureIndex
from resnet_repro.data.jpeg import (
    CROP,
    TEST_SIDE,
    PictureError,
    Pixels,
    centre_crop,
    read_picture,
    scaled,
    train_crop,
)
from resnet_repro.data.order import SIDES, BatchOrder, picture_draw
from resnet_repro.data.workers import ignore_interrupts, prepare_sockets, stop_signals_noted

POLL_SECONDS = 1  # between two looks at the workers and at stop signals
STOP_SECONDS = 30  # that a batch may take once a stop signal has come
STALL_SECONDS = 600  # that a batch may take at all

Key = tuple[int, int]  # epoch, row
Alphas = tuple[float, float, float]
View = Callable[[bytes, str, int, int], tuple[Pixels, Alphas]]  # file, name, epoch, row

_NO_NOISE = (0.0, 0.0, 0.0)


class Failure(NamedTuple):
    """Why a picture is not there: a line that names it, and whether its file was undecodable."""

    line: str
    undecodable: bool


class Item(NamedTuple):
    """A picture, or the reason why it is not there."""

    image: Pixels | None
    label: int
    alphas: Alphas
    failure: Failure | None


class PictureBatch(NamedTuple):
    """Pictures as they come from the workers.

    Attributes:
        images: uint8 (B, H, W, 3).
        labels: int64 (B,).
        alphas: float32 (B, 3), coefficients of the colour noise; 0 in testing.
        valid: bool (B,), false where there is no picture; its pixels are 0.
        failures: what happened to each such picture.
    """

    images: Tensor
    labels: Tensor
    alphas: Tensor
    valid: Tensor
    failures: list[Failure]


class PictureDataset(Dataset[Item]):
    """A view of each picture of an index, by (epoch, row)."""

    def __init__(self, index: PictureIndex, view: View):
        self._index, self._view = index, view

    def __getitem__(self, key: Key) -> Item:
        epoch, row = key
        path, label = self._index.path(row), int(self._index.labels[row])
        try:
            image, alphas = self._view(read_picture(path), str(path), epoch, row)
        except DataError as error:  # reported by the parent, in one line
            failure = Failure(str(error), isinstance(error, PictureError))
            return Item(None, label, _NO_NOISE, failure)
        return Item(image, label, alphas, None)


def train_view(seed: int) -> View:
    """The augmented crop of a training picture in an epoch (Sec. 3.4)."""
    return partial(_train_view, seed)


def eval_view(side: int, whole: bool) -> View:
    """The picture at a shorter side: its centre 224x224 or all of it."""
    return partial(_whole_view if whole else _centre_view, side)


def collate(items: list[Item]) -> PictureBatch:
    """Put pictures of one size into a batch."""
    shape = next((item.image.shape for item in items if item.image is not None), (CROP, CROP, 3))
    images = np.zeros((len(items), *shape), dtype=np.uint8)
    for row, item in enumerate(items):
        if item.image is not None:
            images[row] = item.image
    return PictureBatch(
        torch.from_numpy(images),
        torch.tensor([item.label for item in items]),
        torch.tensor([item.alphas for item in items], dtype=torch.float32),
        torch.tensor([item.image is not None for item in items]),
        [item.failure for item in items if item.failure is not None],
    )


# Views are functions of a module, not closures: a worker may have to be sent them.
def _train_view(
    seed: int, encoded: bytes, name: str, epoch: int, row: int
) -> tuple[Pixels, Alphas]:
    draw = picture_draw(seed, epoch, row, SIDES)
    return train_crop(encoded, name, draw), draw.alphas


def _centre_view(side: int, encoded: bytes, name: str, _: int, __: int) -> tuple[Pixels, Alphas]:
    return centre_crop(encoded, name, side), _NO_NOISE


def _whole_view(side: int, encoded: bytes, name: str, _: int, __: int) -> tuple[Pixels, Alphas]:
    return scaled(encoded, name, side), _NO_NOISE


@dataclass
class Corrupt:
    """What is done with a picture that cannot be decoded: nothing is ever put in its place.

    Attributes:
        skip: false raises at the first; true leaves it out of its batch (``valid``) and counts it.
        uses: how often each was left out, by its line.
    """

    skip: bool = False
    uses: dict[str, int] = field(default_factory=dict)

    def take(self, batch: PictureBatch) -> PictureBatch:
        """Count a batch's failures and name each once.

        Raises:
            DataError: a file cannot be read, or not be decoded and is not to be skipped.
        """
        for line, undecodable in batch.failures:
            if not undecodable:
                raise DataError(line)
            if not self.skip:
                raise PictureError(f"{line}; replace it, or leave it out with on_corrupt=skip")
            if line not in self.uses:
                note(f"skipped: {line}")
            self.uses[line] = self.uses.get(line, 0) + 1
        return batch


@dataclass(frozen=True)
class PictureLoader:
    """Batches; iterating again starts new workers and gives the same batches.

    Iterating raises DataError where a file cannot be read, a picture cannot be decoded and is not
    to be skipped, or no batch comes; StoppedError where a stop signal ended the wait for one.
    Workers hand over batches in shared memory: a container needs some 40 MB of it for each batch
    of 256 that is under way, two for each worker.
    """

    batches: DataLoader[Item]
    corrupt: Corrupt

    def __iter__(self) -> Iterator[PictureBatch]:
        with _worker_deaths_explained():
            with _no_alarm():
                batches = iter(self.batches)
            try:
                while (batch := _next(batches)) is not None:
                    yield self.corrupt.take(batch)
            finally:  # the traceback of an error would keep the workers alive
                getattr(batches, "_shutdown_workers", lambda: None)()


def _next(batches: Iterator[Any]) -> PictureBatch | None:
    """Wait for the next batch, within limits; ``None`` after the last."""
    began = time.monotonic()
    with stop_signals_noted() as stopped:
        while True:
            try:
                return next(batches, None)
            except RuntimeError as error:
                if "DataLoader timed out" not in str(error):
                    raise
            waited = time.monotonic() - began
            if waited > (STOP_SECONDS if stopped else STALL_SECONDS):
                for worker in getattr(batches, "_workers", ()):  # they ignore SIGTERM
                    worker.kill()
                if stopped:
                    raise StoppedError(
                        "stopped by a signal while waiting for pictures; "
                        "rerun the same command to resume"
                    )
                raise DataError(
                    f"the processes that decode pictures gave no batch for {waited:.0f} s; "
                    "look at the disk of data.root, then rerun the same command to resume"
                )


@contextmanager
def _no_alarm() -> Iterator[None]:
    """Keep torch from raising errors out of a signal handler, whatever runs at that moment.

    That a worker was killed is noticed all the same, where its batch is waited for.
    """
    before = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGCHLD) is not before:  # only torch in the main thread does so
            signal.signal(signal.SIGCHLD, before)


@contextmanager
def _worker_deaths_explained() -> Iterator[None]:
    """Re-raise the death of a worker as a one-line DataError.

    Raises:
        DataError: instead of what torch raises.
    """
    try:
        yield
    except (RuntimeError, ConnectionError, EOFError) as error:
        if isinstance(error, RuntimeError) and "DataLoader worker (pid" not in str(error):
            raise
        raise DataError(
            "a process that decodes pictures was killed, for want of memory or of shared memory "
            "(/dev/shm, 40 MB a batch of 256, two batches a process); give more, or use fewer with "
            "trainer.loader_workers=N"
        ) from error


def train_batches(
    index: PictureIndex,
    order: BatchOrder,
    *,
    start: int,
    stop: int,
    workers: int,
    device: torch.device,
    corrupt: Corrupt,
    places: range | None = None,
) -> PictureLoader:
    """Augmented training batches of the iterations ``start`` to ``stop`` - 1 (Sec. 3.4).

    Args:
        index: the training pictures; ``order`` is over its rows.
        order: batch size and seed are those of ``order``.
        start: updates done so far.
        stop: updates in all.
        workers: processes that decode; 0 decodes here.
        device: where the batches will go; for CUDA they lie in pinned memory.
        corrupt: what is done with undecodable pictures.
        places: the part of each batch that is this process's share; all of it by default.

    Raises:
        ValueError: ``order`` is over another number of pictures.
    """
    if order.num_images != len(index):
        raise ValueError(f"the order is over {order.num_images} pictures, not {len(index)}")
    places = places if places is not None else range(order.batch_size)
    keys = _TrainKeys(order, range(start, stop), places)
    return PictureLoader(
        _loader(PictureDataset(index, train_view(order.seed)), keys, workers, device), corrupt
    )


def eval_batches(
    index: PictureIndex,
    *,
    batch_size: int,
    workers: int,
    device: torch.device,
    corrupt: Corrupt,
    side: int = TEST_SIDE,
    whole: bool = False,
    rows: Sequence[int] | None = None,
) -> PictureLoader:
    """Test pictures in order, each once: the centre 224x224 at a shorter side, or all of it.

    Args:
        index: the validation pictures.
        batch_size: 1 where ``whole``, since pictures then differ in size.
        workers: processes that decode; 0 decodes here.
        device: where the batches will go.
        corrupt: what is done with undecodable pictures.
        side: shorter side, pixels (Sec. 3.4: 224, 256, 384, 480, 640 in multi-scale testing).
        whole: the whole picture, for 10-crop and fully convolutional testing.
        rows: the part of the pictures that is tested; all by default.

    Raises:
        ValueError: whole pictures in batches of several.
    """
    if whole and batch_size != 1:
        raise ValueError("whole pictures differ in size: batch_size must be 1")
    rows = rows if rows is not None else range(len(index))
    keys = [[(0, row) for row in part] for part in _parts(rows, batch_size)]
    return PictureLoader(
        _loader(PictureDataset(index, eval_view(side, whole)), keys, workers, device), corrupt
    )


class _TrainKeys:
    """Keys of the batches of a range of iterations; iterated again, it gives the same."""

    def __init__(self, order: BatchOrder, iterations: range, places: range):
        self._order, self._iterations, self._places = order, iterations, places

    def __iter__(self) -> Iterator[list[Key]]:
        size, count = self._order.batch_size, self._order.num_images
        for iteration in self._iterations:
            rows = self._order.batch(iteration).indices.tolist()
            yield [((iteration * size + p) // count, rows[p]) for p in self._places]


def _parts(rows: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def _loader(
    pictures: PictureDataset, keys: Iterable[list[Key]], workers: int, device: torch.device
) -> DataLoader[Item]:
    if workers:
        prepare_sockets()
    return DataLoader(
        pictures,
        batch_sampler=keys,
        collate_fn=collate,
        num_workers=workers,
        timeout=POLL_SECONDS if workers else 0,
        pin_memory=device.type == "cuda",
        worker_init_fn=_begin_worker,
        generator=torch.Generator(),  # its own: the global one must not move with the loader
    )


def _begin_worker(_: int) -> None:
    """A stop signal sent to the whole group must not end a worker before the parent has saved."""
    ignore_interrupts()
