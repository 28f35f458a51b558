"""How long runs will take on this device, measured on a few iterations of each net."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from resnet_repro.config import Config
from resnet_repro.config_groups import PICTURE_SETS, DataConfig
from resnet_repro.data import DataError
from resnet_repro.training.assemble import data_root, initial_state
from resnet_repro.training.device import Setup, loader_processes, set_up
from resnet_repro.training.state import TrainState, step

WARM, TIMED = 2, 3
PIXELS = 128 * 32 * 32  # of the images timed on a CPU, whose seconds grow with their number
DECODED = 12  # pictures of the folder that are timed


@dataclass(frozen=True)
class Sizes:
    """Training and test images, classes, side of the images in pixels."""

    train: int
    test: int
    classes: int
    side: int


# ILSVRC-2012's stand for a folder that cannot be listed.
SETS = {
    "cifar10": Sizes(50_000, 10_000, 10, 32),
    "tiny_imagenet": Sizes(100_000, 10_000, 200, 64),
    "imagenet": Sizes(1_281_167, 50_000, 1_000, 224),
    "folder": Sizes(1_281_167, 50_000, 1_000, 224),
    "synthetic": Sizes(2_000, 500, 10, 32),
}


@dataclass(frozen=True)
class Pace:
    """Measured speed of one net on one data set.

    Attributes:
        per_update: seconds of an update.
        per_eval_image: seconds of evaluating one image.
        sizes: of the data set.
    """

    per_update: float
    per_eval_image: float
    sizes: Sizes

    def seconds(self, config: Config, start: int = 0) -> float:
        """Seconds a run needs from iteration ``start``, evaluations and clean pass included."""
        recipe, evaluation = config.recipe, config.evaluation
        evaluations = math.ceil((recipe.max_iters - start) / evaluation.every_iters)
        clean = min(evaluation.clean_train_images or self.sizes.train, self.sizes.train)
        images = evaluations * self.sizes.test + clean
        return (recipe.max_iters - start) * self.per_update + images * self.per_eval_image


def measure(config: Config) -> Pace:
    """Time a few updates and an evaluation of a configuration's net on made-up images.

    Of a folder of pictures a few are decoded, too; a GPU trains beside that.
    """
    setup = set_up(config.trainer)
    sizes, decoding = look_at(config)
    state = initial_state(config, setup, num_classes=sizes.classes)
    batch, timed = config.recipe.batch_size, _timed_images(config, setup, sizes)
    images = torch.randn(timed, 3, sizes.side, sizes.side, device=setup.device)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.arange(timed, device=setup.device) % sizes.classes
    update = _median_seconds(setup, lambda: step(state, setup, images, labels, 1e-4)) / timed
    evaluation = _median_seconds(setup, lambda: _evaluate(state, setup, images)) / timed
    if setup.device.type == "cuda" and config.trainer.loader_workers:  # decoded beside it
        update, evaluation = max(update, decoding), max(evaluation, decoding)
    else:
        update, evaluation = update + decoding, evaluation + decoding
    return Pace(batch * update, evaluation, sizes)


def _timed_images(config: Config, setup: Setup, sizes: Sizes) -> int:
    """The batch or, on a CPU, as many of its images as take some seconds."""
    batch, group = config.recipe.batch_size, config.model.bn_group or 1
    if setup.device.type == "cuda":
        return batch
    return max(group, min(batch, max(4, PIXELS // sizes.side**2)) // group * group)


def look_at(config: Config) -> tuple[Sizes, float]:
    """Sizes of a data set, and seconds per picture to decode it where it has to be."""
    choice = config.data
    if choice.name not in PICTURE_SETS:
        return SETS[choice.name], 0.0
    try:
        sizes, seconds = _pictures(choice)
    except DataError:  # the run will say it
        return SETS[choice.name], 0.0
    return sizes, seconds / max(1, loader_processes(config.trainer, config.trainer.devices))


def _pictures(choice: DataConfig) -> tuple[Sizes, float]:
    from resnet_repro.data.folder import find, load_indices
    from resnet_repro.data.jpeg import CROP, PictureError, read_picture, train_crop
    from resnet_repro.data.order import picture_draw

    train, test = load_indices(find(choice.name, data_root(choice)))
    times = []
    for row in range(0, len(train), -(-len(train) // DECODED)):
        began = time.perf_counter()
        try:
            train_crop(read_picture(train.path(row)), "", picture_draw(0, 0, row))
        except PictureError:
            continue
        times.append(time.perf_counter() - began)
    decoding = sum(times) / max(1, len(times))
    return Sizes(len(train), len(test), len(train.classes), CROP), decoding


@torch.no_grad()
def _evaluate(state: TrainState, setup: Setup, images: torch.Tensor) -> None:
    state.model.eval()
    with setup.autocast():
        state.model(images)


def _median_seconds(setup: Setup, work: Callable[[], None]) -> float:
    times = []
    for _ in range(WARM + TIMED):
        began = time.perf_counter()
        work()
        if setup.device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return sorted(times[WARM:])[TIMED // 2]
