"""One evaluation from its options to its result."""

from __future__ import annotations

import dataclasses
import math
import shlex
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from resnet_repro import paths
from resnet_repro.config import PICTURE_SETS, Config, DataConfig, TrainerConfig
from resnet_repro.evaluation import choices, results
from resnet_repro.evaluation.count import ErrorCount, count_errors
from resnet_repro.evaluation.full_size import FullSize
from resnet_repro.evaluation.images import CountedImages, SmallImages
from resnet_repro.evaluation.options import Options, results_folder
from resnet_repro.evaluation.precise import precise_bn
from resnet_repro.evaluation.protocols import Geometry, Shown, ensemble, protocol_name, scorer
from resnet_repro.evaluation.subjects import Subject, from_file, from_run
from resnet_repro.evaluation.weights import WeightsError
from resnet_repro.runs import provenance
from resnet_repro.runs.folder import now
from resnet_repro.training.build import load_data
from resnet_repro.training.device import Setup, loader_processes, set_up

# A record's kind, as in metrics.jsonl, of the images of a split.
KINDS = {"test": "test", "val": "val", "train": "train_clean"}
# Images of a batch by default: small pictures; full-size ones on a GPU, on a CPU.
USUAL_BATCH = {"small": 1_000, "cuda": 128, "cpu": 16}


def evaluate(options: Options) -> dict[str, Any]:
    """Count errors as ``options`` say; return the result as plain Python.

    Raises:
        ConfigError: nets, data and options do not go together, or the result cannot be kept under
            the given name; both are found out before anything is counted.
        WeightsError: weights are refused, or give scores that are not finite.
        RunFolderError: a run is not there or not finished.
        DataError: the data are not there or not what they should be.
    """
    subjects = [
        from_file(paths.given(path), str(options.format), options.weights_key, options.stride_in)
        for path in options.weights
    ] + [from_run(paths.given(path)) for path in options.run]
    choices.check_protocol(subjects, options.protocol)
    choice = choices.choose_data(subjects, options.data)
    precision = choices.choose_precision(subjects, options.trainer)
    trainer = TrainerConfig(**dataclasses.asdict(options.trainer) | {"precision": precision})
    setup = set_up(trainer)
    images = find_images(choice, subjects, options, setup)
    doubts = choices.check_classes(subjects, images, choice.name)
    choices.check_training_data(subjects, images.digests)
    result = describe(subjects, options, choice, images)
    result["notes"] = [note for subject in subjects for note in subject.notes] + doubts
    result["name"] = results.free_name(results_folder(options), options.name, result)
    started = time.perf_counter()
    count, more = count_split(subjects, options, images, setup)
    if not math.isfinite(count.loss):
        digest = result["models"][0]["sha256"]
        raise WeightsError(f"{digest}: scores are not finite; nothing is counted")
    seconds = time.perf_counter() - started
    for model, values in zip(result["models"], more, strict=True):
        model |= values
    return result | counted(count, images) | {"time": round(seconds, 3)} | surroundings(setup)


def find_images(
    choice: DataConfig, subjects: Sequence[Subject], options: Options, setup: Setup
) -> CountedImages:
    """The images of the split: arrays on the device, or a folder of pictures to be decoded."""
    if choice.name not in PICTURE_SETS:
        arrays = load_data(Config(data=choice))
        return SmallImages.open(arrays, subjects, options.split, setup.device)
    # Pictures come in thousands of shapes: a trial of algorithms for each would take hours.
    torch.backends.cudnn.benchmark = options.protocol != "multi-scale"
    return FullSize.open(
        choice,
        paths.data(choice.root),
        options.split,
        ours=any(subject.data is not None for subject in subjects),
        device=setup.device,
        workers=loader_processes(TrainerConfig(loader_workers=options.trainer.loader_workers)),
    )


def count_split(
    subjects: Sequence[Subject], options: Options, images: CountedImages, setup: Setup
) -> tuple[ErrorCount, list[dict[str, Any]]]:
    """Show every image of the split once to all nets together; also return how each saw them."""
    scorers, models = [], []
    with ExitStack() as stack:
        stack.enter_context(setup.autocast())
        for subject in subjects:
            prepare = images.normaliser(subject)
            net = subject.net.to(setup.device).to(memory_format=torch.channels_last)
            model: dict[str, Any] = {"normalisation": prepare.label}
            if options.bn == "precise":
                batches = images.next_epoch(subject)
                model["bn_images"] = stack.enter_context(precise_bn(net, batches))
            scorers.append(scorer(options.protocol, net, prepare, images.geometry))
            models.append(model)
        forward = scorers[0] if len(scorers) == 1 else ensemble(scorers)
        shown = images.shown(options.protocol, images_at_once(options, images, setup))
        left_out = images.left_out
        seen = watched(shown, len(images))
        count = count_errors(forward, seen, len(images), left_out=lambda: len(left_out))
        return count, models


def watched(batches: Iterable[tuple[Shown, Tensor]], total: int) -> Iterator[tuple[Shown, Tensor]]:
    """Yield the batches; at a terminal a bar counts their images."""
    with tqdm(total=total, unit=" images", disable=not sys.stderr.isatty()) as bar:
        for shown, labels in batches:
            yield shown, labels
            bar.update(len(labels))


def images_at_once(options: Options, images: CountedImages, setup: Setup) -> int:
    """Images of a batch: fewer where they are shown larger, so that memory stays the same."""
    crop, scales = images.geometry.crop, images.geometry.scales
    kind = setup.device.type if crop == Geometry().crop else "small"
    size = options.batch_size or USUAL_BATCH[kind]
    if options.protocol != "multi-scale":
        return size
    return max(1, size * crop**2 // max(scales) ** 2)


def describe(
    subjects: Sequence[Subject], options: Options, choice: DataConfig, images: CountedImages
) -> dict[str, Any]:
    """What is counted, and how."""
    names = [subject.name for subject in subjects]
    return {
        "schema": results.SCHEMA,
        "name": results.made_name(names, options.protocol, options.bn, options.split),
        "kind": KINDS[options.split],
        "protocol": protocol_name(options.protocol, len(subjects)),
        "bn": options.bn,
        "data": {"name": choice.name, "digests": dict(images.digests)},
        "command": command(options),
        "models": [subject.record() for subject in subjects],
    }


def counted(count: ErrorCount, images: CountedImages) -> dict[str, Any]:
    """The errors, what they are of, and what could not be counted."""
    return {
        "loss": count.loss,
        "top1_err": count.top1_err,
        "top5_err": count.top5_err,
        "wrong1": count.wrong1,
        "wrong5": count.wrong5,
        "num_samples": count.seen,
        "left_out": count.left_out,
        "left_out_images": images.left_out,
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
    """The command of an evaluation, without where files lie on this machine."""
    if options.weights:
        files = ",".join(Path(path).name.replace(",", r"\,") for path in options.weights)
        words = [f"weights={files}", f"format={options.format}"]
        for key in ("weights_key", "stride_in"):
            if (value := getattr(options, key)) is not None:
                words.append(f"{key}={value}")
    else:
        runs = ("/".join(Path(path).absolute().parts[-3:]) for path in options.run)
        words = [f"run={','.join(f'results/runs/{run}' for run in runs)}"]
    words += [f"protocol={options.protocol}", f"bn={options.bn}", f"split={options.split}"]
    return shlex.join(["python", "-m", "resnet_repro.evaluate", *words])
