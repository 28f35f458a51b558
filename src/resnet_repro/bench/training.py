"""Training speed against the loop everyone writes: ``python -m resnet_repro.bench.training``.

The baseline is the usual one: a data set of PIL images, random crop and flip, ``DataLoader`` with
workers, eager NCHW fp32. Both train the same net on the same images in the same process, a few
iterations of one, then of the other, so that a busy machine disturbs both alike. A third line runs
our step alone, on batches made beforehand: what the harness adds to it is the cost of the harness.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from resnet_repro.compose import compose_run
from resnet_repro.data import Arrays
from resnet_repro.models.registry import build
from resnet_repro.runs.atomic import write_text_atomic
from resnet_repro.runs.folder import now
from resnet_repro.runs.provenance import hardware, versions
from resnet_repro.training.assemble import assemble, load_data
from resnet_repro.training.device import Setup, set_up
from resnet_repro.training.state import step

BATCH = 128


class PilCifar(Dataset[tuple[Tensor, int]]):
    """The data set of the usual loop: one PIL image at a time, augmented in a worker."""

    def __init__(self, arrays: Arrays):
        self._arrays = arrays
        mean = (arrays.train_images / 255).mean(axis=(0, 1, 2)).tolist()
        self._transform = v2.Compose(
            [
                v2.RandomCrop(32, padding=4),
                v2.RandomHorizontalFlip(),
                v2.ToImage(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(mean, [1.0, 1.0, 1.0]),
            ]
        )

    def __len__(self) -> int:
        return len(self._arrays.train_labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = Image.fromarray(self._arrays.train_images[index])
        return self._transform(image), int(self._arrays.train_labels[index])


def usual_loop(depth: int, shortcut: str, arrays: Arrays, setup: Setup) -> Iterator[None]:
    """Train as everyone does; one ``next`` is one iteration."""
    net: nn.Module = build("cifar", depth, shortcut, num_classes=10).to(setup.device)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    loader = DataLoader(
        PilCifar(arrays),
        batch_size=BATCH,
        shuffle=True,
        drop_last=True,
        num_workers=setup.threads,
        persistent_workers=True,
        pin_memory=setup.device.type == "cuda",
    )
    net.train()
    for images, labels in itertools.chain.from_iterable(itertools.repeat(loader)):
        images, labels = images.to(setup.device), labels.to(setup.device)
        loss = F.cross_entropy(net(images), labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        loss.item()
        yield


def our_loop(experiment: str, arrays: Arrays, *, bare: bool) -> Iterator[None]:
    """Our batches and our step; ``bare`` makes the batches beforehand and only steps."""
    config = compose_run(f"experiment={experiment}")
    setup = set_up(config.trainer)
    parts, state = assemble(config, setup, arrays)
    made = [parts.train_set.train_batch(parts.order.batch(i)) for i in range(4)] if bare else []
    while True:
        if bare:
            images, labels = made[state.iteration % len(made)]
        else:
            images, labels = parts.train_set.train_batch(parts.order.batch(state.iteration))
        step(state, setup, images, labels, 0.1)
        yield


def interleaved(loops: Sequence[Iterator[None]], rounds: int, device: torch.device) -> list[float]:
    """Median seconds of an iteration of each loop, taken turn about."""
    synchronise: Callable[[], None] = (
        torch.cuda.synchronize if device.type == "cuda" else (lambda: None)
    )
    times: list[list[float]] = [[] for _ in loops]
    for round_ in range(rounds + 2):
        for loop, taken in zip(loops, times, strict=True):
            synchronise()
            began = time.perf_counter()
            next(loop)
            synchronise()
            if round_ >= 2:  # the first two warm up
                taken.append(time.perf_counter() - began)
    return [statistics.median(taken) for taken in times]


def compare(experiment: str, rounds: int) -> dict[str, Any]:
    """Images a second of the usual loop and of ours, on one net."""
    config = compose_run(f"experiment={experiment}")
    setup = set_up(config.trainer)
    arrays = load_data(config)
    loops = [
        usual_loop(config.model.depth, config.model.shortcut, arrays, setup),
        our_loop(experiment, arrays, bare=False),
        our_loop(experiment, arrays, bare=True),
    ]
    usual, ours, bare = interleaved(loops, rounds, setup.device)
    return {
        "experiment": experiment,
        "precision": setup.precision,
        "threads": setup.threads,
        "rounds": rounds,
        "usual_images_per_second": round(BATCH / usual, 1),
        "images_per_second": round(BATCH / ours, 1),
        "speedup": round(usual / ours, 2),
        "data_share_of_time": round(1 - bare / ours, 4),
        "hardware": hardware(setup.gpu, 1, setup.threads),
    }


def main() -> None:
    """Measure, print a table, write ``results/bench/training_<device>.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path("results/bench"))
    parser.add_argument("experiments", nargs="*", default=["cifar10_resnet20", "cifar10_resnet56"])
    asked = parser.parse_args()
    print(f"{'experiment':24}{'usual img/s':>14}{'ours img/s':>14}{'times':>8}{'data share':>12}")
    results = []
    for experiment in asked.experiments:
        results.append(found := compare(experiment, asked.rounds))
        print(
            f"{experiment:24}{found['usual_images_per_second']:14.0f}"
            f"{found['images_per_second']:14.0f}{found['speedup']:8.2f}"
            f"{100 * found['data_share_of_time']:11.1f}%",
            flush=True,
        )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    asked.out.mkdir(parents=True, exist_ok=True)
    report = {"made": now(), "versions": versions(), "results": results}
    path = asked.out / f"training_{device}.json"
    write_text_atomic(path, json.dumps(report, indent=2) + "\n")
    print(path)


if __name__ == "__main__":
    main()
