"""Estimate how long runs take on this device, from a few iterations of each net."""

import math
import statistics
import time
import timeit
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch

from resnet_repro import paths
from resnet_repro.config import PICTURE_SETS, Config
from resnet_repro.data import Arrays, DataError
from resnet_repro.training.build import assemble
from resnet_repro.training.device import Setup, loader_processes, set_up
from resnet_repro.training.graph import EAGER_CALLS
from resnet_repro.training.stepper import choose

WARM, TIMED = 2, 3
CALLS_PER_SYNC = 8  # calls that a GPU is given together: in a run the host does not wait for each
PIXELS = 16 * 224 * 224  # of the images timed on a CPU; those of fewer take longer each
DECODED = 12  # pictures of the folder that are timed


class Sizes(NamedTuple):
    """Training and test images, classes, side of the images in pixels."""

    train: int
    test: int
    classes: int
    side: int


# For a folder that cannot be listed: the sizes of ILSVRC-2012.
SETS = {
    "cifar10": Sizes(50_000, 10_000, 10, 32),
    "tiny_imagenet": Sizes(100_000, 10_000, 200, 64),
    "imagenet": Sizes(1_281_167, 50_000, 1_000, 224),
    "folder": Sizes(1_281_167, 50_000, 1_000, 224),
    "synthetic": Sizes(2_000, 500, 10, 32),
}


@dataclass(frozen=True)
class RunPace:
    """Seconds of one net on this device: its start, an update, the evaluation of an image."""

    start: float
    per_update: float
    per_eval_image: float
    sizes: Sizes

    def seconds(self, config: Config, iteration: int = 0) -> float:
        """Seconds a run needs from this iteration, start, evaluations and clean pass included."""
        left, evaluation = config.recipe.max_iters - iteration, config.evaluation
        clean = min(evaluation.clean_train_images or self.sizes.train, self.sizes.train)
        images = math.ceil(left / evaluation.every_iters) * self.sizes.test + clean
        return self.start + left * self.per_update + images * self.per_eval_image


def measure(config: Config, rounds: int = TIMED) -> RunPace:
    """Time a few updates and an evaluation, done as the run will do them, on random images.

    Of a folder of pictures a few are decoded, too. ConfigError: this machine cannot do the run.
    """
    setup, batch, group = set_up(config.trainer), config.recipe.batch_size, config.model.bn_group
    sizes, decoding = _sizes(config)
    if setup.gpu:  # one device's share of a batch
        share = timed = -(-batch // config.trainer.devices)
    else:  # its workers share the cores: the whole batch, of which a part is timed
        share, group = batch, group or 1
        timed = max(group, min(batch, PIXELS // sizes.side**2) // group * group)
    shape, labels = (timed, sizes.side, sizes.side, 3), np.zeros(timed, np.uint8)
    pixels = np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)
    arrays = Arrays(pixels, labels, pixels, labels, sizes.classes, {})
    # A capture needs a stream of its own; on the CPU, torch.cuda.stream(None) would start CUDA.
    stream = torch.cuda.Stream() if setup.gpu else None  # type: ignore[no-untyped-call]
    began = time.perf_counter()
    with torch.cuda.stream(stream) if stream else nullcontext():
        context, state = assemble(_alone(config, timed), setup, arrays)
        step = choose(context, state).build(context, state)
        step(1e-4)  # compiles
        start = time.perf_counter() - began
        images, _ = context.images.batch(0)
        update = _median_seconds(setup, rounds, lambda: step(1e-4)) / timed
        with torch.no_grad(), setup.autocast():
            state.model.eval()
            forward = state.graphed_eval or state.model
            evaluation = _median_seconds(setup, rounds, lambda: forward(images)) / timed
    if setup.gpu and config.trainer.loader_workers:  # decoded in parallel
        update, evaluation = max(update, decoding), max(evaluation, decoding)
    else:
        update, evaluation = update + decoding, evaluation + decoding
    return RunPace(start, share * update, evaluation, sizes)


def _alone(config: Config, timed: int) -> Config:
    """The configuration of one worker with a batch of ``timed`` images, all on the device."""
    trainer = config.trainer
    if trainer.devices > 1 or config.data.name in PICTURE_SETS:  # they are trained eagerly
        trainer = replace(trainer, devices=1, graph="never", compile="never")
    data = replace(config.data, train_split="all")
    recipe = replace(config.recipe, batch_size=timed)
    return replace(config, data=data, recipe=recipe, trainer=trainer)


def _sizes(config: Config) -> tuple[Sizes, float]:
    """Sizes of a data set, and seconds to decode one of its pictures, 0 where none is decoded."""
    choice = config.data
    if choice.name not in PICTURE_SETS:
        return SETS[choice.name], 0.0
    from resnet_repro.data.folder import find, load_indices
    from resnet_repro.data.jpeg import CROP, PictureError, read_picture, train_crop
    from resnet_repro.data.order import picture_draw, spaced

    try:
        train, test = load_indices(find(choice.name, paths.data(choice.root)))
    except DataError:  # the run will report it
        return SETS[choice.name], 0.0
    times = []
    for row in spaced(len(train), DECODED).tolist():
        began = time.perf_counter()
        try:
            train_crop(read_picture(train.path(row)), "", picture_draw(0, 0, row))
        except PictureError:
            continue
        times.append(time.perf_counter() - began)
    processes = max(1, loader_processes(config.trainer, config.trainer.devices))
    seconds = sum(times) / max(1, len(times)) / processes
    return Sizes(len(train), len(test), len(train.classes), CROP), seconds


def _median_seconds(setup: Setup, rounds: int, work: Callable[[], object]) -> float:
    """Seconds of one call, without the first: kernels are selected, a graph is captured."""
    calls = CALLS_PER_SYNC if setup.gpu else 1

    def repeat(count: int) -> None:
        for _ in range(count):
            work()
        if setup.gpu:
            torch.cuda.synchronize()

    repeat(EAGER_CALLS + 1 if setup.gpu else WARM)
    return statistics.median(timeit.repeat(lambda: repeat(calls), number=1, repeat=rounds)) / calls
