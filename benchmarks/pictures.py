"""The full-size path, from files to updates: ``python -m benchmarks.pictures``.

A whole run of a net of the ImageNet family on photographs laid out as a folder data set: lists,
mean picture, decoding, augmentation, training, evaluation, checkpoints. Then the parts alone:
decoding against torchvision's recipe, the loader, the update. The photographs are those
directly in the folder of the data (``data.root``, ``RESNET_REPRO_DATA``); without any they are made
up, and the file says so.
"""

import io
import itertools
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import mean, median

import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from benchmarks.record import Row, Scope, command, device_of
from benchmarks.timing import seconds_each, turn
from resnet_repro import paths
from resnet_repro.compose import compose_run, make_job
from resnet_repro.config import Config
from resnet_repro.data.jpeg import CROP, SUFFIXES, read_picture, train_crop
from resnet_repro.data.order import Draw, picture_draw
from resnet_repro.progress import Progress
from resnet_repro.training.build import assemble, load_images
from resnet_repro.training.device import loader_processes, set_up
from resnet_repro.training.launch import launch
from resnet_repro.training.state import step
from tests.pictures import photograph

EXPERIMENTS = ("imagenet_resnet18_A",)
SCOPES = {
    "cpu": Scope(EXPERIMENTS, rounds=3, iterations=20),
    "cuda": Scope(EXPERIMENTS, rounds=5, iterations=200),
}
BATCH = {"cpu": 16, "cuda": 256}
MADE_UP, SIZE = 50, (500, 375)  # photographs, and their pixels: ImageNet's are about so large
LOSSES_AVERAGED = 5  # updates whose mean loss stands for the beginning and the end of a run
LR = 1e-4  # of updates that are only timed


def measure(scope: Scope, overrides: Sequence[str]) -> Row:
    """Measure the path on every experiment of ``scope``.

    ``rows`` hold images a second, ``decoding`` the comparison of pixels, ``runs`` what the runs
    logged, ``photographs`` how many of which kind.
    """
    batch = BATCH[device_of(overrides).device.type]
    with tempfile.TemporaryDirectory() as scratch:
        photographs, kind = find(overrides, Path(scratch) / "made-up")
        decoded = decode(photographs, scope.rounds)
        rows = [
            row("decoding, this project", decoded["ours"], cores=1),
            row("decoding, torchvision's recipe", decoded["reference"], cores=1),
        ]
        root = lay_out(photographs, Path(scratch) / "data", batch)
        runs = []
        for experiment in scope.experiments:
            run_overrides = [
                f"experiment={experiment}", "data=folder", "profile=quick", f"data.root={root}",
                f"runs_dir={scratch}/runs", f"recipe.batch_size={batch}", "recipe.lr=0.01",
                f"recipe.max_iters={scope.iterations}", "recipe.milestones=[]",
                f"evaluation.every_iters={scope.iterations}", "evaluation.clean_train_images=10",
                "trainer.log_every_iters=1", *overrides,
            ]  # fmt: skip
            rows += speeds(run_overrides, scope.rounds)
            run = do_run(run_overrides)
            rows.append(row("a run, its training", run["images_per_second"], run["net"]))
            runs.append(run)
    photographs_found = {"count": len(photographs), "kind": kind}
    return {"photographs": photographs_found, "rows": rows, "decoding": decoded, "runs": runs}


def row(what: str, images_per_second: float, net: str = "-", cores: int | None = None) -> Row:
    """One speed; ``cores`` if it is that of so many, independent of other load."""
    speed = round(images_per_second, 1)
    return {"what": what, "net": net, "cores": cores, "images_per_second": speed}


def find(overrides: Sequence[str], target: Path) -> tuple[list[Path], str]:
    """Return the photographs in the folder of the data, and their kind."""
    folder = paths.data(compose_run(f"experiment={EXPERIMENTS[0]}", *overrides).data.root)
    found = sorted(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES)
    return (found, "photographs") if found else (make_up(target), "made-up pictures")


def make_up(folder: Path) -> list[Path]:
    """Smooth colours under some noise, as JPEG files of a photograph's size."""
    folder.mkdir()
    paths = [folder / f"{number:03}.JPEG" for number in range(MADE_UP)]
    for number, path in enumerate(paths):
        photograph(*SIZE, seed=number).save(path, quality=90)
    return paths


def lay_out(photographs: Sequence[Path], root: Path, batch: int) -> Path:
    """A data set in which each photograph is a class, as often there as a batch needs."""
    for part, copies in (("train", -(-batch // len(photographs))), ("val", 1)):
        for file in photographs:
            folder = root / part / file.stem
            folder.mkdir(parents=True)
            for copy in range(copies):
                (folder / f"{copy}{file.suffix}").symlink_to(file.resolve())
    return root


def ours(encoded: bytes, name: str, draw: Draw) -> torch.Tensor:
    """Our training decode; uint8 (224, 224, 3)."""
    return torch.from_numpy(train_crop(encoded, name, draw))


def reference(encoded: bytes, _: str, draw: Draw) -> torch.Tensor:
    """The same crop by torchvision's reference recipe; uint8 (224, 224, 3)."""
    with Image.open(io.BytesIO(encoded)) as opened:
        image = opened.convert("RGB")
    image = F.resize(image, [draw.side], InterpolationMode.BILINEAR, antialias=True)
    left, top = draw.x % (image.width - CROP + 1), draw.y % (image.height - CROP + 1)
    image = F.crop(image, top, left, CROP, CROP)
    if draw.flip:
        image = F.horizontal_flip(image)
    tensor: torch.Tensor = F.pil_to_tensor(image)
    return tensor.permute(1, 2, 0)


def decode(photographs: Sequence[Path], rounds: int) -> Row:
    """Make the same augmented crops of photographs as we do and as torchvision's recipe does.

    They alternate picture by picture in one thread, and CPU time is counted, so that a busy machine
    disturbs both alike. ``rounds`` crops are made of each photograph (``uses``). ``ours`` and
    ``reference`` are crops a second and core. Absolute differences of pixels are on the scale
    0..255: their mean, the largest mean of a crop, the largest, and the largest in crops that were
    decoded at full scale; ``reduced`` is the share of those that were not. DataError: one cannot be
    decoded.
    """
    files = [(read_picture(path), str(path)) for path in photographs]
    recipes = (ours, reference)
    for recipe in recipes:  # first calls load libraries and tables
        recipe(*files[0], picture_draw(0, 0, 0))
    seconds, crops, found = dict.fromkeys(recipes, 0.0), {}, []
    for use, (row, (encoded, name)) in itertools.product(range(rounds), enumerate(files)):
        draw = picture_draw(0, use, row)
        # Which goes first alternates: the second finds the file in the processor's cache.
        for recipe in recipes if (use + row) % 2 == 0 else reversed(recipes):
            began = time.thread_time()
            crops[recipe] = recipe(encoded, name, draw)
            seconds[recipe] += time.thread_time() - began
        gap = (crops[ours].to(torch.int16) - crops[reference].to(torch.int16)).abs()
        found.append((float(gap.float().mean()), int(gap.max()), is_reduced(encoded, draw)))
    means, maxima, reduced = zip(*found, strict=True)
    own, other = (len(found) / each for each in seconds.values())
    return {
        "pictures": len(files),
        "uses": rounds,
        "ours": round(own, 1),
        "reference": round(other, 1),
        "speedup": round(own / other, 3),
        "mean_difference": round(mean(means), 4),
        "worst_picture_mean": round(max(means), 3),
        "max_difference": max(maxima),
        "same_scale_max": max((most for _, most, small in found if not small), default=0),
        "reduced": round(sum(reduced) / len(found), 4),
    }


def is_reduced(encoded: bytes, draw: Draw) -> bool:
    """Whether a JPEG is decoded at half scale or less for this draw."""
    with Image.open(io.BytesIO(encoded)) as image:
        return image.format == "JPEG" and min(image.size) >= 2 * draw.side


def speeds(overrides: Sequence[str], rounds: int) -> list[Row]:
    """The loader alone and the updates alone."""
    config = compose_run(*overrides, "recipe.max_iters=1000000")  # it decodes ahead, as far as that
    setup = set_up(config.trainer)
    context, state = assemble(config, setup, load_images(config))
    batch, device, numbers = config.recipe.batch_size, setup.device, itertools.count()
    processes = loader_processes(config.trainer)
    with closing(context.images) as images:
        ahead = 2 * processes + 1
        for _ in range(ahead):
            pixels, labels = images.batch(next(numbers))
        waiting = seconds_each(lambda: images.batch(next(numbers)), rounds * ahead, device)
    several = f"{processes} process{'es' if processes != 1 else ''}"
    found = [row(f"the loader alone, {several}", batch / waiting)]
    if device.type == "cuda":
        update = partial(step, state, setup, pixels, labels, LR)
        _, *times = (seconds_each(update, 4, device) for _ in range(rounds + 1))
        found.append(row("updates alone", batch / median(times), config.model.label))
    return found + speeds_of_a_core(config, rounds)


def speeds_of_a_core(config: Config, rounds: int) -> list[Row]:
    """By the processor's time, so that other programs do not matter: batches, and updates."""
    trainer = replace(config.trainer, loader_workers=0, device="cpu", threads=1)
    if trainer.precision == "tf32":
        trainer = replace(trainer, precision="auto")
    alone, setup = replace(config, trainer=trainer), set_up(trainer)
    context, state = assemble(alone, setup, load_images(alone))
    numbers = itertools.count()
    loading = core_seconds(lambda: context.images.batch(next(numbers)), rounds)
    pixels, labels = (part[: BATCH["cpu"]] for part in context.images.batch(0))
    updating = core_seconds(lambda: step(state, setup, pixels, labels, LR), rounds)
    loaded, updated = config.recipe.batch_size / loading, len(labels) / updating
    return [
        row("the loader alone, in the training process", loaded, cores=1),
        row("updates alone, on the CPU", updated, config.model.label, cores=1),
    ]


def core_seconds(work: Callable[[], object], rounds: int) -> float:
    """Processor seconds of one call, after a first that does not count."""
    work()
    return turn(work, rounds).processor


def do_run(overrides: Sequence[str]) -> Row:
    """Do the run as its command does; return what it logged."""
    job = make_job(*overrides)
    launch(job, Progress().begin(job.config.label, job.config.recipe.max_iters), lambda: False)
    meta, records = job.folder.meta(), job.folder.metrics()
    losses = [record["loss"] for record in records if record["kind"] == "train"]
    (test,) = [record for record in records if record["kind"] == "test"]
    return {
        "net": meta["net"]["label"],
        "iterations": len(losses),
        "batch_size": job.config.recipe.batch_size,
        "images_per_second": meta["images_per_second"],
        "loss_of_the_first": round(mean(losses[:LOSSES_AVERAGED]), 3),
        "loss_of_the_last": round(mean(losses[-LOSSES_AVERAGED:]), 3),
        "test_images": test["num_samples"],
        "left_out": meta["data"]["left_out"],
    }


if __name__ == "__main__":
    command("pictures", measure, SCOPES)
