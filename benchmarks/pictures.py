"""The full-size path, from files to updates: ``python -m benchmarks.pictures``.

A whole run of a net of the ImageNet family on photographs laid out as a folder data set: lists,
mean picture, decoding, augmentation, training, evaluation, checkpoints. Beside it the parts alone:
decoding against torchvision's recipe (``bench.decoding``), the loader, the update. The photographs
are those that lie directly in the folder of the data (``RESNET_REPRO_DATA``); without any they are
made up, and that is said.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks import decoding
from benchmarks.record import Scope, command, device_of
from benchmarks.turns import Spread, seconds_each, synchroniser
from resnet_repro import paths
from resnet_repro.compose import compose_run, make_job
from resnet_repro.config import Config
from resnet_repro.data.jpeg import SUFFIXES
from resnet_repro.progress import Progress
from resnet_repro.training.build import assemble, load_images
from resnet_repro.training.device import loader_processes, set_up
from resnet_repro.training.launch import launch
from resnet_repro.training.state import step

EXPERIMENTS = ("imagenet_resnet18_A",)
SCOPES = {
    "cpu": Scope(EXPERIMENTS, rounds=3, iterations=20),
    "cuda": Scope(EXPERIMENTS, rounds=5, iterations=200),
}
BATCH = {"cpu": 16, "cuda": 256}
MADE_UP, SIZE = 50, (500, 375)  # photographs, and their pixels: ImageNet's are about so large
SUMMED_UP = 5  # updates whose mean loss stands for the beginning and the end of a run
Row = dict[str, Any]


def measure(scope: Scope, words: Sequence[str]) -> dict[str, Any]:
    """Measure the path on every experiment of ``scope``.

    Returns:
        ``rows``: images a second; ``decoding``: the comparison of pixels; ``runs``: what the runs
        logged; ``photographs``: how many of which kind.
    """
    batch = BATCH[device_of(words).device.type]
    with tempfile.TemporaryDirectory() as place:
        photographs, kind = find(words, Path(place) / "made-up")
        decoded = decoding.measure(photographs[0].parent, scope.rounds)
        rows = [
            row("decoding, this project", decoded.ours, cores=1),
            row("decoding, torchvision's recipe", decoded.reference, cores=1),
        ]
        root = lay_out(photographs, Path(place) / "data", batch)
        runs = []
        for experiment in scope.experiments:
            asked = [*words_of(experiment, root, Path(place) / "runs", scope, batch), *words]
            rows += speeds(asked, scope.rounds)
            run = do_run(asked)
            rows.append(row("a run, its training", run["images_per_second"], run["net"]))
            runs.append(run)
    return {
        "photographs": {"count": len(photographs), "kind": kind},
        "rows": rows,
        "decoding": dataclasses.asdict(decoded),
        "runs": runs,
    }


def row(what: str, images_per_second: float, net: str = "-", cores: int | None = None) -> Row:
    """One speed; ``cores`` where it is that of so many, whatever else the machine does."""
    return {
        "what": what,
        "net": net,
        "cores": cores,
        "images_per_second": round(images_per_second, 1),
    }


def find(words: Sequence[str], place: Path) -> tuple[list[Path], str]:
    """Photographs that lie in one folder, and what they are."""
    folder = paths.data(compose_run(f"experiment={EXPERIMENTS[0]}", *words).data.root)
    found = sorted(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES)
    return (found, "photographs") if found else (make_up(place), "made-up pictures")


def make_up(folder: Path) -> list[Path]:
    """Smooth colours under some noise, as JPEG files of a photograph's size."""
    folder.mkdir()
    paths = [folder / f"{number:03}.JPEG" for number in range(MADE_UP)]
    for number, path in enumerate(paths):
        rng = np.random.default_rng(number)
        coarse = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize(SIZE, Image.Resampling.BICUBIC))
        noisy = np.clip(smooth + rng.normal(0, 6, smooth.shape), 0, 255)
        Image.fromarray(noisy.astype(np.uint8)).save(path, quality=90)
    return paths


def lay_out(photographs: Sequence[Path], root: Path, batch: int) -> Path:
    """A data set in which each photograph is a class, as often there as a batch needs."""
    for part, copies in (("train", -(-batch // len(photographs))), ("val", 1)):
        for photograph in photographs:
            folder = root / part / photograph.stem
            folder.mkdir(parents=True)
            for copy in range(copies):
                (folder / f"{copy}{photograph.suffix}").symlink_to(photograph.resolve())
    return root


def words_of(experiment: str, root: Path, runs: Path, scope: Scope, batch: int) -> list[str]:
    """The configuration of a run on the pictures of ``root``."""
    return [
        f"experiment={experiment}", "data=folder", "profile=quick", f"data.root={root}",
        f"runs_dir={runs}", f"recipe.batch_size={batch}", f"recipe.max_iters={scope.iterations}",
        "recipe.milestones=[]", "recipe.lr=0.01", f"evaluation.every_iters={scope.iterations}",
        "evaluation.clean_train_images=10", "trainer.log_every_iters=1",
    ]  # fmt: skip


def speeds(words: Sequence[str], rounds: int) -> list[Row]:
    """The loader alone and the updates alone."""
    config = compose_run(*words, "recipe.max_iters=1000000")  # it decodes ahead, as far as that
    setup = set_up(config.trainer)
    parts, state = assemble(config, setup, load_images(config))
    batch, synchronise = config.recipe.batch_size, synchroniser(setup.device)
    processes = loader_processes(config.trainer)
    with closing(parts.images) as images:
        ahead = 2 * processes + 1
        for iteration in range(ahead):
            given, labels = images.batch(iteration)
        numbers = iter(range(ahead, 1_000_000))
        waiting = seconds_each(lambda: images.batch(next(numbers)), rounds * ahead, synchronise)
    several = f"{processes} process{'es' if processes != 1 else ''}"
    found = [row(f"the loader alone, {several}", batch / waiting)]
    if setup.device.type == "cuda":
        times = [
            seconds_each(lambda: step(state, setup, given, labels, 1e-4), 4, synchronise)
            for _ in range(rounds + 1)
        ]
        found.append(row("updates alone", batch / Spread.of(times[1:]).median, config.model.label))
    return found + speeds_of_a_core(config, rounds)


def speeds_of_a_core(config: Config, rounds: int) -> list[Row]:
    """By the processor's time, so that other programs do not matter: batches, and updates."""
    trainer = dataclasses.replace(config.trainer, loader_workers=0, device="cpu", threads=1)
    if trainer.precision == "tf32":
        trainer = dataclasses.replace(trainer, precision="auto")
    alone = dataclasses.replace(config, trainer=trainer)
    setup, batch = set_up(trainer), config.recipe.batch_size
    parts, state = assemble(alone, setup, load_images(alone))
    numbers = iter(range(1_000_000))
    loading = core_seconds(lambda: parts.images.batch(next(numbers)), rounds)
    given, labels = (part[: BATCH["cpu"]] for part in parts.images.batch(0))
    updating = core_seconds(lambda: step(state, setup, given, labels, 1e-4), rounds)
    return [
        row("the loader alone, in the training process", batch / loading, cores=1),
        row("updates alone, on the CPU", len(labels) / updating, config.model.label, cores=1),
    ]


def core_seconds(work: Callable[[], object], rounds: int) -> float:
    """Processor seconds of one call, after a first that does not count."""
    work()
    began = time.process_time()
    for _ in range(rounds):
        work()
    return (time.process_time() - began) / rounds


def do_run(words: Sequence[str]) -> Row:
    """Do the run as its command does; what it logged."""
    job = make_job(*words)
    launch(job, Progress().begin(job.label, job.config.recipe.max_iters), lambda: False)
    meta, records = job.folder.meta(), job.folder.metrics()
    losses = [record["loss"] for record in records if record["kind"] == "train"]
    (test,) = [record for record in records if record["kind"] == "test"]
    return {
        "net": meta["net"]["label"],
        "iterations": len(losses),
        "batch_size": job.config.recipe.batch_size,
        "images_per_second": meta["images_per_second"],
        "loss_of_the_first": round(float(np.mean(losses[:SUMMED_UP])), 3),
        "loss_of_the_last": round(float(np.mean(losses[-SUMMED_UP:])), 3),
        "test_images": test["num_samples"],
        "left_out": meta["data"]["left_out"],
    }


if __name__ == "__main__":
    command("pictures", measure, SCOPES)
