"""Made-up run folders of the paper profile, to time what reads them; no figure is drawn of them.

They have as many records as real ones: 640 of training, 64 evaluations, the clean training error,
and the tables of all probes.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnet_repro.compose import compose_run
from resnet_repro.conf import load_item, names
from resnet_repro.config import Config
from resnet_repro.models.build import build_meta
from resnet_repro.models.count import count_params
from resnet_repro.runs.folder import RunFolder, now
from resnet_repro.runs.metrics import MetricsWriter
from resnet_repro.runs.provenance import hardware, versions
from resnet_repro.training.probes import gradient_iterations


def cifar_experiments() -> list[str]:
    """The experiments of all figures and tables that are trained on CIFAR-10, each once."""
    listed = [name for item in names("item") for name in load_item(item).experiments]
    return [name for name in dict.fromkeys(listed) if name.startswith("cifar10_")]


def write_runs(root: Path, count: int, experiments: Sequence[str] = ()) -> list[Path]:
    """Write ``count`` runs below ``root``: every experiment with seed 0, then with seed 1, ..."""
    found = [compose_run(f"experiment={name}") for name in experiments or cifar_experiments()]
    wanted = itertools.islice(_seeds(found), count)
    return [write_run(root, config) for config in wanted]


def _seeds(configs: Sequence[Config]) -> Iterator[Config]:
    for seed in itertools.count():
        for config in configs:
            yield dataclasses.replace(config, seed=seed)


def write_run(root: Path, config: Config) -> Path:
    """Write the folder of one finished run; return its path."""
    values, total = config.as_mapping(), config.recipe.max_iters
    folder = RunFolder.at(root, values)
    folder.write_config(values)
    folder.write_status("finished", iter=total, max_iters=total, restarts=0)
    folder.write_meta(_meta(config))
    random = np.random.default_rng([config.seed, config.model.depth])
    with MetricsWriter(folder.metrics_path) as log:
        _log(log, config, random)
    layers = [{"layer": n, "name": f"layer{n}"} for n in range(1, config.model.depth)]
    folder.write_table("responses", _column(layers, "std", random))
    folder.write_table("signal", _column(layers, "input_mean_square", random, "output_std"))
    folder.write_table(
        "gradients",
        [
            {"iter": iteration} | row
            for iteration in sorted(gradient_iterations(total))
            for row in _column(layers, "grad_norm", random, "weight_norm")
        ],
    )
    return folder.path


def _column(
    layers: Sequence[dict[str, Any]], name: str, random: np.random.Generator, *others: str
) -> list[dict[str, Any]]:
    values = random.uniform(0.5, 2.0, len(layers))
    return [
        row | {name: f"{value:.6g}"} | dict.fromkeys(others, "1.0")
        for row, value in zip(layers, values, strict=True)
    ]


def _log(log: MetricsWriter, config: Config, random: np.random.Generator) -> None:
    total, every = config.recipe.max_iters, config.trainer.log_every_iters
    wander: NDArray[np.float64] = random.normal(0, 0.3, total // every)
    view = {"protocol": "1-crop", "bn": "running"}
    for iteration in range(every, total + 1, every):
        error = 8 + 80 * np.exp(-6 * iteration / total) + wander[iteration // every - 1]
        common = {"iter": iteration, "epoch": iteration * 128 / 50_000, "time": iteration / 100}
        numbers = {"loss": error / 25, "top1_err": error, "top5_err": error / 5}
        log.write("train", **common, **numbers, lr=0.1, num_samples=every * 128)
        if iteration % config.evaluation.every_iters == 0:
            log.write("test", **common, **numbers, **view, num_samples=10_000)
        if iteration == total:
            log.write("train_clean", **common, **numbers, **view, num_samples=50_000)


def _meta(config: Config) -> dict[str, Any]:
    params = count_params(build_meta(config.model, 10))
    return {
        "schema": 1,
        **config.identity,
        "command": "made up",
        "started": now(),
        "finished": now(),
        "wall_time_s": 60.0,
        "train_time_s": 60.0,
        "images_per_second": 100_000.0,
        "warmup_exit_iter": None,
        "deviations": {},
        "git": {"revision": None, "dirty": None},
        "versions": versions(),
        "hardware": hardware(None, 1, 1),
        "device": "cpu",
        "precision": "fp32",
        "threads": 1,
        "world_size": 1,
        "deterministic": False,
        "data": {"name": config.data.name, "train_images": 50_000, "test_images": 10_000},
        "net": {"label": config.model.label, "params": params, "multiply_adds": params},
    }
