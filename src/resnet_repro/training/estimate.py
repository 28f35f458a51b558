"""How long runs will take on this device, measured on a few iterations of each net."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch

from resnet_repro.config import Config
from resnet_repro.training.assemble import initial_state
from resnet_repro.training.device import Setup, set_up
from resnet_repro.training.state import TrainState, step

WARM, TIMED = 2, 3
# Training and test images, classes, side in pixels.
SETS = {
    "cifar10": (50_000, 10_000, 10, 32),
    "tiny_imagenet": (100_000, 10_000, 200, 64),
    "synthetic": (2_000, 500, 10, 32),
}


@dataclass(frozen=True)
class Pace:
    """Measured speed of one net: seconds of an update and of evaluating one image."""

    per_update: float
    per_eval_image: float

    def seconds(self, config: Config, start: int = 0) -> float:
        """Seconds a run needs from iteration ``start``, evaluations and clean pass included."""
        recipe, evaluation = config.recipe, config.evaluation
        train_images, test_images, _, _ = SETS[config.data.name]
        evaluations = math.ceil((recipe.max_iters - start) / evaluation.every_iters)
        clean = min(evaluation.clean_train_images or train_images, train_images)
        images = evaluations * test_images + clean
        return (recipe.max_iters - start) * self.per_update + images * self.per_eval_image


def measure(config: Config) -> Pace:
    """Time a few updates and an evaluation of a configuration's net on made-up images."""
    setup = set_up(config.trainer)
    _, _, classes, side = SETS[config.data.name]
    state = initial_state(config, setup, num_classes=classes)
    batch = config.recipe.batch_size
    images = torch.randn(batch, 3, side, side, device=setup.device)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.arange(batch, device=setup.device) % 10
    update = _median_seconds(setup, lambda: step(state, setup, images, labels, 1e-4))
    return Pace(update, _median_seconds(setup, lambda: _evaluate(state, setup, images)) / batch)


@torch.no_grad()
def _evaluate(state: TrainState, setup: Setup, images: torch.Tensor) -> None:
    state.model.eval()
    with setup.autocast():
        state.model(images)


def _median_seconds(setup: Setup, work: object) -> float:
    assert callable(work)
    times = []
    for _ in range(WARM + TIMED):
        began = time.perf_counter()
        work()
        if setup.device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return sorted(times[WARM:])[TIMED // 2]
