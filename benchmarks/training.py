"""Training speed against the loop everyone writes: ``python -m benchmarks.training``.

The usual loop is what public CIFAR-10 code does: ``torchvision.datasets.CIFAR10`` with random crops
and flips of PIL images, a ``DataLoader`` with workers, eager fp32 in NCHW, and the loss and
accuracy read after every iteration. Both train the same net on the same images, alternately. The
usual loop has a process of its own, where neither torch's switches nor the system's memory are as
our runs set them, and the number of workers with which it is fastest; they share the cores with it.
"""

import itertools
from collections.abc import Generator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_all_start_methods, get_context
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import CIFAR10

from benchmarks.record import Row, Scope, command
from benchmarks.timing import (
    Training,
    Turn,
    children_seconds,
    ratios,
    seconds_each,
    spread,
    take_turns,
    turn,
)
from resnet_repro.compose import compose_run
from resnet_repro.data import Arrays
from resnet_repro.models.build import build
from resnet_repro.models.spec import NetSpec
from resnet_repro.runs.provenance import usable_cores
from resnet_repro.training.build import load_data
from resnet_repro.training.device import choose

SCOPES = {"cpu": Scope(rounds=5, iterations=6), "cuda": Scope(rounds=7, iterations=200)}
WARM = 2  # after the other's turn
START = get_all_start_methods()[0]  # the platform's, not what started this process
PREFETCHED = 2  # batches that a worker of a DataLoader makes in advance


def measure(scope: Scope, overrides: Sequence[str]) -> Row:
    """Compare the two loops on every experiment of ``scope``."""
    return {"rows": [compare(name, scope, overrides) for name in scope.experiments]}


def compare(experiment: str, scope: Scope, overrides: Sequence[str]) -> Row:
    """Images a second of the usual loop and of ours on one net.

    ``times_less_work`` compares processor time, that of the workers included: other programs, which
    lengthen the time on the clock, hardly change it. ``busy_cores`` is ours over the time on the
    clock: never more than ``threads``, less where others held the cores.
    """
    ours = Training(compose_run(f"experiment={experiment}", *overrides))
    iterations, device = scope.iterations, ours.setup.device

    def our_turn() -> Turn:
        seconds_each(ours.iterate, WARM, device)
        return turn(ours.iterate, iterations, device)

    with ProcessPoolExecutor(1, get_context("spawn")) as pool:  # a process of its own

        def usual_turn(workers: int) -> Turn:
            return pool.submit(segment, experiment, tuple(overrides), workers, iterations).result()

        workers = min(worker_choices(), key=lambda number: usual_turn(number).clock)
        turns = {"usual": lambda: usual_turn(workers), "ours": our_turn}
        found = take_turns(turns, scope.rounds)
    clock = {name: [each.clock for each in taken] for name, taken in found.items()}
    work = {name: [each.processor for each in taken] for name, taken in found.items()}
    seconds, images = median(clock["ours"]), ours.config.recipe.batch_size
    return {
        **ours.facts(),
        "data": ours.config.data.name,
        "usual_workers": workers,
        "usual_images_per_second": round(images / median(clock["usual"]), 1),
        "images_per_second": round(images / seconds, 1),
        **spread("times_faster", ratios(clock["usual"], clock["ours"]), 3),
        "times_less_work": round(median(ratios(work["usual"], work["ours"])), 3),
        "data_share": round(seconds_of_a_batch(ours, iterations) / seconds, 4),
        "threads": ours.setup.threads,
        "busy_cores": round(median(ratios(work["ours"], clock["ours"])), 2),
    }


def seconds_of_a_batch(ours: Training, iterations: int) -> float:
    """Seconds of choosing, cropping and flipping the images of an iteration, alone."""
    images, numbers = ours.context.images, itertools.count(ours.state.iteration)
    images.batch(next(numbers))
    return seconds_each(lambda: images.batch(next(numbers)), iterations, ours.setup.device)


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

    def __init__(self, experiment: str, overrides: Sequence[str]):
        config = compose_run(f"experiment={experiment}", *overrides)
        model, recipe, arrays = config.model, config.recipe, load_data(config)
        setup = choose(config.trainer)
        torch.set_num_threads(setup.threads)
        torch.backends.cudnn.benchmark = True  # as public code does
        spec = NetSpec(model.family, model.depth, model.shortcut)
        net: nn.Module = build(spec, arrays.num_classes)
        self._net, self._device = net.to(setup.device), setup.device
        self._data, self._batch_size = usual_data(arrays), recipe.batch_size
        self._optimizer = torch.optim.SGD(
            net.parameters(),
            lr=recipe.warmup_lr,  # small: it must not diverge, and is not trained to an end
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
        )

    def segment(self, workers: int, iterations: int) -> Turn:
        """Time an iteration, as one of many in one go; its processor time has that of the workers.

        The workers live only here: between two segments they would fill their queue for nothing
        and disturb the other loop. They are running evenly when the clock starts.
        """
        warm, before = 1 + PREFETCHED * workers, children_seconds()
        batches = self._batches(workers)
        self._net.train()
        for _ in range(warm):
            self._iterate(*next(batches))
        alone = turn(lambda: self._iterate(*next(batches)), iterations, self._device)
        batches.close()  # ends the workers, and has their time counted
        batches_made = warm + iterations + PREFETCHED * workers
        return Turn(alone.clock, alone.processor + (children_seconds() - before) / batches_made)

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


_usual_loop = cache(UsualLoop)  # one for the life of the process


def segment(experiment: str, overrides: tuple[str, ...], workers: int, iterations: int) -> Turn:
    """:meth:`UsualLoop.segment` of this process's loop."""
    return _usual_loop(experiment, overrides).segment(workers, iterations)


if __name__ == "__main__":
    command("training", measure, SCOPES)
