"""The training loop everyone writes, as the baseline: torchvision's data set, PIL, DataLoader.

It is what public CIFAR-10 code does: ``torchvision.datasets.CIFAR10`` with random crops and flips
of PIL images, a ``DataLoader`` with workers, eager fp32 in NCHW, and the loss and accuracy read
after every iteration. It runs in a process of its own, where neither torch's switches nor the
system's memory are as our runs set them.
"""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_all_start_methods, get_context

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import CIFAR10

from benchmarks.turns import Turn, children_seconds, synchroniser, turn
from resnet_repro.compose import compose_run
from resnet_repro.config import Config
from resnet_repro.data import Arrays
from resnet_repro.models.build import build
from resnet_repro.models.spec import NetSpec
from resnet_repro.runs.provenance import usable_cores
from resnet_repro.training.build import load_data
from resnet_repro.training.device import Setup, choose

START = get_all_start_methods()[0]  # the platform's, not what started this process
PREFETCHED = 2  # batches that a worker of a DataLoader makes in advance


def usual_data(arrays: Arrays) -> CIFAR10:
    """The data set of torchvision on images that are in memory already, augmented as usual."""
    images = arrays.train_images
    mean = (images / 255).mean(axis=(0, 1, 2)).tolist()
    std = (images / 255).std(axis=(0, 1, 2)).tolist()
    chain = [
        transforms.RandomCrop(images.shape[1], padding=4),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize(mean, std),
    ]
    found = object.__new__(CIFAR10)  # its constructor wants the archive on the disk
    found.data, found.targets = images, arrays.train_labels.tolist()
    found.transform, found.target_transform = transforms.Compose(chain), None
    return found


def worker_choices() -> list[int]:
    """Numbers of workers worth trying: a quarter, half, all of the cores; at least one."""
    cores = usable_cores()
    return sorted({max(1, cores // 4), max(1, cores // 2), cores})


class UsualLoop:
    """A net, its optimizer and the data of the usual loop."""

    def __init__(self, config: Config, arrays: Arrays, setup: Setup):
        model, recipe = config.model, config.recipe
        net: nn.Module = build(
            NetSpec(model.family, model.depth, model.shortcut), arrays.num_classes
        )
        self._net, self._device = net.to(setup.device), setup.device
        self._data, self._batch_size = usual_data(arrays), recipe.batch_size
        self._optimizer = torch.optim.SGD(
            net.parameters(),
            lr=recipe.warmup_lr,  # small: it must not diverge, and is not trained to an end
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
        )

    def segment(self, workers: int, iterations: int) -> Turn:
        """Time an iteration, over so many in one go; its processor time has that of the workers.

        The workers live only here: between two segments they would fill their queue for nothing
        and disturb whoever has the turn. They are running evenly when the clock starts.
        """
        warm, before = 1 + PREFETCHED * workers, children_seconds()
        batches = self._batches(workers)
        self._net.train()
        for _ in range(warm):
            self._iterate(*next(batches))
        synchronise = synchroniser(self._device)
        alone = turn(lambda: self._iterate(*next(batches)), iterations, synchronise)
        batches.close()  # ends the workers, and has their time counted
        made = warm + iterations + PREFETCHED * workers
        return Turn(alone.clock, alone.processor + (children_seconds() - before) / made)

    def _batches(self, workers: int) -> Generator[tuple[Tensor, Tensor], None, None]:
        loader: DataLoader[tuple[Tensor, Tensor]] = DataLoader(
            self._data,
            batch_size=self._batch_size,
            shuffle=True,
            drop_last=True,
            num_workers=workers,
            multiprocessing_context=START,
            prefetch_factor=PREFETCHED,
            persistent_workers=True,
            pin_memory=self._device.type == "cuda",
        )
        yield from itertools.chain.from_iterable(itertools.repeat(loader))

    def _iterate(self, images: Tensor, labels: Tensor) -> None:
        images = images.to(self._device, non_blocking=True)
        labels = labels.to(self._device, non_blocking=True)
        logits = self._net(images)
        loss = F.cross_entropy(logits, labels)
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        loss.item()
        (logits.argmax(dim=1) == labels).sum().item()


@contextmanager
def usual_loop_apart(experiment: str, words: Sequence[str]) -> Iterator[UsualLoopApart]:
    """The usual loop in a process of its own, which ends with the context."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        yield UsualLoopApart(pool, experiment, tuple(words))


@dataclass(frozen=True)
class UsualLoopApart:
    """A :class:`UsualLoop` in the process of ``pool``."""

    pool: ProcessPoolExecutor
    experiment: str
    words: tuple[str, ...]

    def segment(self, workers: int, iterations: int) -> Turn:
        """As :meth:`UsualLoop.segment`."""
        asked = self.experiment, self.words
        return self.pool.submit(_segment, *asked, workers, iterations).result()

    def best_workers(self, iterations: int) -> int:
        """The number of workers with which it is fastest."""
        return min(worker_choices(), key=lambda workers: self.segment(workers, iterations).clock)


def _segment(experiment: str, words: tuple[str, ...], workers: int, iterations: int) -> Turn:
    return _usual_loop(experiment, words).segment(workers, iterations)


@cache
def _usual_loop(experiment: str, words: tuple[str, ...]) -> UsualLoop:
    """That of this process. As public code does, it has cuDNN search for the fastest algorithm."""
    config = compose_run(f"experiment={experiment}", *words)
    setup = choose(config.trainer)
    torch.set_num_threads(setup.threads)
    torch.backends.cudnn.benchmark = True
    return UsualLoop(config, load_data(config), setup)
