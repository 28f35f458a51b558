"""One evaluation from its options to its result."""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from resnet_repro.config import Config, DataConfig, TrainerConfig
from resnet_repro.data.arrays import Arrays
from resnet_repro.data.batches import DeviceDataset
from resnet_repro.data.order import BatchOrder, train_split_indices
from resnet_repro.evaluation import choices, pictures, results
from resnet_repro.evaluation.counting import ErrorCount, count_errors
from resnet_repro.evaluation.precise import precise_bn
from resnet_repro.evaluation.protocols import Geometry, Scorer, ensemble, protocol_name, scorer
from resnet_repro.evaluation.subjects import Subject, from_file, from_run
from resnet_repro.evaluation.weights import WeightsError
from resnet_repro.runs import provenance
from resnet_repro.runs.folder import now
from resnet_repro.training.assemble import load_data
from resnet_repro.training.device import Setup, set_up

if TYPE_CHECKING:
    from resnet_repro.evaluate import Options

# A record's kind, as in metrics.jsonl, of the images of a split.
KINDS = {"test": "test", "val": "val", "train": "train_clean"}


def evaluate(options: Options) -> dict[str, Any]:
    """Count the errors that ``options`` ask for; return the result as plain Python.

    Raises:
        ConfigError: nets, data and options do not go together.
        WeightsError: weights are refused, or give scores that are not finite.
        RunFolderError: a run is not there or not finished.
        DataError: the data cannot be had.
    """
    if options.weights:
        subjects = [from_file(Path(path), str(options.format)) for path in options.weights]
    else:
        subjects = [from_run(Path(path)) for path in options.run]
    choices.check_protocol(subjects, options.protocol)
    choice = choices.choose_data(subjects, options.data)
    precision = choices.choose_precision(subjects, options.trainer)
    device, threads = options.trainer.device, options.trainer.threads
    setup = set_up(TrainerConfig(device=device, precision=precision, threads=threads))
    arrays = load_data(Config(data=choice))
    choices.check_classes(subjects, arrays, choice.name)
    started = time.perf_counter()
    count, models = count_split(subjects, options, arrays, setup)
    if not math.isfinite(count.loss):
        raise WeightsError(f"{models[0]['sha256']}: scores are not finite; nothing is counted")
    seconds = time.perf_counter() - started
    return (
        describe(subjects, options, choice, arrays)
        | {
            "models": models,
            "loss": count.loss,
            "top1_err": count.top1_err,
            "top5_err": count.top5_err,
            "wrong1": count.wrong1,
            "wrong5": count.wrong5,
            "num_samples": count.seen,
            "time": round(seconds, 3),
        }
        | surroundings(setup)
    )


def count_split(
    subjects: Sequence[Subject], options: Options, arrays: Arrays, setup: Setup
) -> tuple[ErrorCount, list[dict[str, Any]]]:
    """Show every image of the split once to all nets together; also tell what each net is."""
    held_out = choices.choose_pictures(subjects, options.split, arrays, setup.device)
    geometry = Geometry.of_small_pictures(arrays.test_images.shape[1])
    scorers: list[Scorer] = []
    models = []
    with ExitStack() as stack:
        stack.enter_context(setup.autocast())
        for subject in subjects:
            dataset = training_images(subject, arrays, setup.device)
            prepare = pictures.theirs(setup.device) if dataset is None else ours(subject, dataset)
            net = subject.net.to(setup.device).to(memory_format=torch.channels_last)
            model = subject.record() | {"normalisation": prepare.label}
            if options.bn == "precise":
                assert subject.config is not None
                assert dataset is not None
                batches = next_epoch(subject.config, dataset)
                model["bn_images"] = stack.enter_context(precise_bn(net, batches))
            scorers.append(scorer(options.protocol, net, prepare, geometry))
            models.append(model)
        forward = scorers[0] if len(scorers) == 1 else ensemble(scorers)
        shown = held_out.batches(images_at_once(options, geometry))
        return count_errors(forward, shown, expected=len(held_out)), models


def images_at_once(options: Options, geometry: Geometry) -> int:
    """Images of a batch: fewer where they are shown larger, so that memory stays the same."""
    if options.protocol != "multi-scale":
        return options.batch_size
    return max(1, options.batch_size * geometry.crop**2 // max(geometry.scales) ** 2)


def training_images(subject: Subject, arrays: Arrays, device: torch.device) -> DeviceDataset | None:
    """The training images as a net of ours saw them; ``None`` for other people's nets."""
    data = subject.data
    if data is None:
        return None
    rows, _ = train_split_indices(data.train_split, len(arrays.train_labels))
    return DeviceDataset(
        arrays.train_images[rows],
        arrays.train_labels[rows],
        device,
        mean=data.mean,
        pad=data.pad,
        border=data.border,
    )


def ours(subject: Subject, dataset: DeviceDataset) -> pictures.Normaliser:
    """Subtraction of the mean of the training images in use (Sec. 4.2)."""
    assert subject.data is not None
    label = f"{subject.data.mean} mean of the training images ({subject.data.train_split})"
    return pictures.Normaliser(label, dataset.mean.permute(2, 0, 1))


def next_epoch(config: Config, dataset: DeviceDataset) -> Iterator[Tensor]:
    """The augmented batches of the epoch that would have followed the run, all of them full."""
    recipe = config.recipe
    order = BatchOrder(len(dataset), recipe.batch_size, config.seed, config.data.border)
    for i in range(len(dataset) // recipe.batch_size):
        yield dataset.train_batch(order.batch(recipe.max_iters + i))[0]


def describe(
    subjects: Sequence[Subject], options: Options, choice: DataConfig, arrays: Arrays
) -> dict[str, Any]:
    """What was counted, and how."""
    names = [subject.name for subject in subjects]
    made = results.file_name(names, options.protocol, options.bn, options.split)
    return {
        "schema": results.SCHEMA,
        "name": options.name or made,
        "kind": KINDS[options.split],
        "protocol": protocol_name(options.protocol, len(subjects)),
        "bn": options.bn,
        "data": {"name": choice.name, "digests": arrays.digests},
        "command": command(options),
        "finished": now(),
    }


def surroundings(setup: Setup) -> dict[str, Any]:
    """Machine, versions and code."""
    return {
        "device": setup.device.type,
        "precision": setup.precision,
        "threads": setup.threads,
        "hardware": provenance.hardware(setup.gpu, 1, setup.threads),
        "versions": provenance.versions(),
        "git": provenance.git_state(),
    }


def command(options: Options) -> str:
    """The words of an evaluation, without where files lie on this machine."""
    if options.weights:
        files = ",".join(Path(path).name for path in options.weights)
        words = [f"weights={files}", f"format={options.format}"]
    else:
        runs = ("/".join(Path(path).absolute().parts[-3:]) for path in options.run)
        words = [f"run={','.join(f'results/runs/{run}' for run in runs)}"]
    words += [f"protocol={options.protocol}", f"bn={options.bn}", f"split={options.split}"]
    return shlex.join(["python", "-m", "resnet_repro.evaluate", *words])
