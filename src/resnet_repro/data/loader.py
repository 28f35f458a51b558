"""Batches of full-size pictures: decoded by worker processes, the same whatever their number.

A batch's keys, (epoch, row) of each picture, are computed from the iteration alone, and a picture's
pixels from (seed, epoch, row) alone. So there is no sampler state: any number of workers and any
iteration to start from give the same batches.
"""

import multiprocessing.util
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from resnet_repro.data import DataError, StoppedError, jpeg, note
from resnet_repro.data.folder import PictureIndex
from resnet_repro.data.jpeg import PictureError, Pixels
from resnet_repro.data.order import BatchOrder, picture_draw
from resnet_repro.runs.signals import stop_noted

POLL_SECONDS = 1  # between two checks of the workers and of stop signals
STOP_SECONDS = 30  # that a batch may take once a stop signal has come
STALL_SECONDS = 600  # that a batch may take at all
# A socket's path has 107 bytes; processes add "/pymp-xxxxxxxx/listener-xxxxxxxx" to the folder.
_FOLDER_BYTES = 107 - 32
_SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")
_KILLED = (
    "a process that decodes pictures was killed, for lack of memory or of shared memory "
    "(/dev/shm, 40 MB a batch of 256, two batches a process); give more, or use fewer with "
    "trainer.loader_workers=N"
)

Key = tuple[int, int]  # epoch, row
Alphas = tuple[float, float, float]
# From a file, its name and its key to the picture, in one size or several, and its noise.
View = Callable[[bytes, str, Key], tuple[list[Pixels], Alphas]]
NO_NOISE = (0.0, 0.0, 0.0)


class PictureBatch(NamedTuple):
    """Pictures as they come from the workers, without those that cannot be used."""

    images: list[Tensor]  # uint8 (B, H, W, 3), one for each size; none without pictures
    labels: Tensor  # int64 (B,)
    alphas: Tensor  # float32 (B, 3), coefficients of the colour noise; 0 in testing
    failures: list[tuple[int, DataError]]  # the row of each missing picture, and why


class PictureBatches(Dataset[PictureBatch]):
    """A view of each of some pictures of an index, by their keys."""

    def __init__(self, index: PictureIndex, view: View):
        self._index, self._view = index, view

    def __getitem__(self, keys: Sequence[Key]) -> PictureBatch:
        pictures: list[list[Pixels]] = []
        labels: list[int] = []
        alphas: list[Alphas] = []
        failures: list[tuple[int, DataError]] = []
        for key in keys:
            row = key[1]
            path = self._index.path(row)
            try:
                sizes, noise = self._view(jpeg.read_picture(path), str(path), key)
            except DataError as error:  # the parent raises or notes it
                failures.append((row, error))
                continue
            pictures.append(sizes)
            labels.append(int(self._index.labels[row]))
            alphas.append(noise)
        return PictureBatch(
            [torch.from_numpy(np.stack(size)) for size in zip(*pictures, strict=True)],
            torch.tensor(labels, dtype=torch.int64),
            torch.tensor(alphas, dtype=torch.float32).reshape(-1, 3),
            failures,
        )


# Views are functions of a module, not closures: a worker may have to be sent them.
def _train_view(seed: int, encoded: bytes, name: str, key: Key) -> tuple[list[Pixels], Alphas]:
    draw = picture_draw(seed, *key)
    return [jpeg.train_crop(encoded, name, draw)], draw.alphas


def _centre_view(encoded: bytes, name: str, _: Key) -> tuple[list[Pixels], Alphas]:
    return [jpeg.centre_crop(encoded, name)], NO_NOISE


def _whole_view(
    sides: Sequence[int], encoded: bytes, name: str, _: Key
) -> tuple[list[Pixels], Alphas]:
    return [jpeg.scaled(encoded, name, side) for side in sides], NO_NOISE


def in_batches(rows: Sequence[int], size: int) -> list[Sequence[int]]:
    """Rows one batch after the other, the last of which may be smaller."""
    return [rows[start : start + size] for start in range(0, len(rows), size)]


@dataclass(frozen=True)
class Decoder:
    """``workers`` processes that decode pictures (0: this one) for ``device``; for CUDA, pinned.

    With ``skip`` a picture that cannot be decoded is left out of its batch and named once, else it
    is an error; nothing is ever put in its place.

    Iterating over its batches raises DataError where a file cannot be read, a picture cannot be
    decoded and is not to be skipped, or no batch comes; StoppedError where a stop signal ended the
    wait for one.
    """

    workers: int
    device: torch.device
    skip: bool = False
    _named: set[str] = field(default_factory=set)

    def train(
        self, index: PictureIndex, order: BatchOrder, iterations: range, places: range | None = None
    ) -> Iterator[PictureBatch]:
        """Augmented training batches of some iterations (Sec. 3.4), in the ``order`` of ``index``.

        ``places`` is the part of each batch that is this process's share, all of it by default.
        """
        size, count = order.batch_size, order.num_images
        if count != len(index):
            raise ValueError(f"the order is over {count} pictures, not {len(index)}")
        places = range(size) if places is None else places

        def keys() -> Iterator[list[Key]]:
            for iteration in iterations:
                rows = order.batch(iteration).indices.tolist()
                yield [((iteration * size + p) // count, rows[p]) for p in places]

        return self._batches(PictureBatches(index, partial(_train_view, order.seed)), keys())

    def test(self, index: PictureIndex, batches: Iterable[Sequence[int]]) -> Iterator[PictureBatch]:
        """Batches of the pictures of some rows in the 1-crop view."""
        keys = ([(0, row) for row in rows] for rows in batches)
        return self._batches(PictureBatches(index, _centre_view), keys)

    def whole(self, index: PictureIndex, sides: Sequence[int]) -> Iterator[PictureBatch]:
        """Whole pictures at some shorter sides (Sec. 3.4), one a batch: they differ in size."""
        keys = ([(0, row)] for row in range(len(index)))
        return self._batches(PictureBatches(index, partial(_whole_view, sides)), keys)

    def loader(
        self, pictures: PictureBatches, keys: Iterable[list[Key]]
    ) -> DataLoader[PictureBatch]:
        """Torch's loader of batches with these keys."""
        return DataLoader(
            pictures,
            batch_size=None,  # an item is a batch already
            sampler=keys,
            num_workers=self.workers,
            timeout=POLL_SECONDS if self.workers else 0,
            pin_memory=self.device.type == "cuda",
            worker_init_fn=_ignore_stop_signals,
            generator=torch.Generator(),  # its own: the global one must not move with the loader
        )

    def _batches(
        self, pictures: PictureBatches, keys: Iterable[list[Key]]
    ) -> Iterator[PictureBatch]:
        if self.workers:
            _prepare_sockets()
        before = signal.getsignal(signal.SIGCHLD)
        batches = iter(self.loader(pictures, keys))
        if signal.getsignal(signal.SIGCHLD) is not before:
            # Torch's handler would raise wherever the program is; _next notices a dead worker.
            signal.signal(signal.SIGCHLD, before)
        # At its exit Python would ask them by SIGTERM, which they ignore, and wait for ever.
        multiprocessing.util.Finalize(batches, _kill, (_workers(batches),), exitpriority=0)
        try:
            while (batch := _next(batches)) is not None:
                for _, error in batch.failures:
                    self._check(error)
                yield batch
        finally:  # the traceback of an error would keep the workers alive
            getattr(batches, "_shutdown_workers", lambda: None)()

    def _check(self, error: DataError) -> None:
        if not isinstance(error, PictureError):  # not readable at all
            raise error
        if not self.skip:
            raise error.with_advice()
        if str(error) not in self._named:
            note(f"skipped: {error}")
            self._named.add(str(error))


def _next(batches: Iterator[Any]) -> PictureBatch | None:
    """Wait for the next batch, within limits; ``None`` after the last."""
    began = time.monotonic()
    while True:
        try:
            return next(batches, None)
        except RuntimeError as error:
            if "DataLoader worker (pid" in str(error):
                raise DataError(_KILLED) from error
            if "DataLoader timed out" not in str(error):
                raise
        except (ConnectionError, EOFError) as error:
            raise DataError(_KILLED) from error
        waited, stopped = time.monotonic() - began, stop_noted()
        if waited > (STOP_SECONDS if stopped else STALL_SECONDS):
            break
    _kill(_workers(batches))
    if stopped:
        raise StoppedError(
            "stopped by a signal while waiting for pictures; rerun the same command to resume"
        )
    raise DataError(
        f"the processes that decode pictures gave no batch for {waited:.0f} s; "
        "check the disk of data.root, then rerun the same command to resume"
    )


def _workers(batches: Iterator[Any]) -> list[BaseProcess]:
    return getattr(batches, "_workers", [])


def _kill(workers: Iterable[BaseProcess]) -> None:
    for worker in workers:
        worker.kill()


def _ignore_stop_signals(_: int) -> None:
    """Ignore stop signals, which may reach the whole group: the parent must save first."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _prepare_sockets() -> None:
    """Put the processes' sockets into a folder with a path that is short enough."""
    before, places = tempfile.tempdir, (tempfile.gettempdir(), *_SHORT_FOLDERS)
    short = [p for p in places if len(os.fsencode(p)) <= _FOLDER_BYTES and os.access(p, os.W_OK)]
    if not short:
        raise DataError(
            f"{places[0]} is too long a path for the sockets of decoding processes; set TMPDIR to "
            "a shorter folder, or trainer.loader_workers=0"
        )
    try:
        tempfile.tempdir = short[0]
        multiprocessing.util.get_temp_dir()  # made once, and used by every worker
    finally:
        tempfile.tempdir = before
