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
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from tqdm import tqdm

from resnet_repro.config import Config
from resnet_repro.config_groups import PICTURE_SETS, DataConfig, TrainerConfig
from resnet_repro.evaluation import choices, results
from resnet_repro.evaluation.counting import ErrorCount, count_errors
from resnet_repro.evaluation.full_size import FullSize
from resnet_repro.evaluation.held_out import HeldOut
from resnet_repro.evaluation.precise import precise_bn
from resnet_repro.evaluation.protocols import (
    Geometry,
    Scorer,
    Shown,
    ensemble,
    protocol_name,
    scorer,
)
from resnet_repro.evaluation.small import Small
from resnet_repro.evaluation.subjects import Subject, from_file, from_run
from resnet_repro.evaluation.weights import WeightsError
from resnet_repro.runs import provenance
from resnet_repro.runs.folder import now
from resnet_repro.training.assemble import data_root, load_data
from resnet_repro.training.device import Setup, loader_processes, set_up

if TYPE_CHECKING:
    from resnet_repro.evaluate import Options

# A record's kind, as in metrics.jsonl, of the images of a split.
KINDS = {"test": "test", "val": "val", "train": "train_clean"}
# Images of a batch where none is asked for: small pictures; full-size ones on a GPU, on a CPU.
USUAL_BATCH = {"small": 1_000, "cuda": 128, "cpu": 16}


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
    trainer = TrainerConfig(**dataclasses.asdict(options.trainer) | {"precision": precision})
    setup = set_up(trainer)
    held_out = find_images(choice, subjects, options, setup)
    choices.check_classes(subjects, held_out.num_classes, choice.name)
    choices.check_training_data(subjects, held_out.digests)
    started = time.perf_counter()
    count, models = count_split(subjects, options, held_out, setup)
    if not math.isfinite(count.loss):
        raise WeightsError(f"{models[0]['sha256']}: scores are not finite; nothing is counted")
    seconds = time.perf_counter() - started
    return (
        describe(subjects, options, choice, held_out)
        | {"models": models}
        | counted(count, held_out)
        | {"time": round(seconds, 3)}
        | surroundings(setup)
    )


def find_images(
    choice: DataConfig, subjects: Sequence[Subject], options: Options, setup: Setup
) -> HeldOut:
    """The images of the split: arrays on the device, or a folder of pictures to be decoded."""
    if choice.name not in PICTURE_SETS:
        arrays = load_data(Config(data=choice))
        return Small.choose(arrays, subjects, options.split, setup.device)
    # Pictures come in thousands of shapes: a trial of algorithms for each would take hours.
    torch.backends.cudnn.benchmark = options.protocol != "multi-scale"
    return FullSize.open(
        choice,
        data_root(choice),
        options.split,
        ours=any(subject.data is not None for subject in subjects),
        device=setup.device,
        workers=loader_processes(TrainerConfig(loader_workers=options.trainer.loader_workers)),
    )


def count_split(
    subjects: Sequence[Subject], options: Options, held_out: HeldOut, setup: Setup
) -> tuple[ErrorCount, list[dict[str, Any]]]:
    """Show every image of the split once to all nets together; also tell what each net is."""
    scorers: list[Scorer] = []
    models = []
    with ExitStack() as stack:
        stack.enter_context(setup.autocast())
        for subject in subjects:
            prepare = held_out.normaliser(subject)
            net = subject.net.to(setup.device).to(memory_format=torch.channels_last)
            model = subject.record() | {"normalisation": prepare.label}
            if options.bn == "precise":
                batches = held_out.next_epoch(subject)
                model["bn_images"] = stack.enter_context(precise_bn(net, batches))
            scorers.append(scorer(options.protocol, net, prepare, held_out.geometry))
            models.append(model)
        forward = scorers[0] if len(scorers) == 1 else ensemble(scorers)
        shown = held_out.shown(options.protocol, images_at_once(options, held_out, setup))
        left_out = held_out.left_out
        seen = watched(shown, len(held_out))
        count = count_errors(forward, seen, len(held_out), left_out=lambda: len(left_out))
        return count, models


def watched(batches: Iterable[tuple[Shown, Tensor]], total: int) -> Iterator[tuple[Shown, Tensor]]:
    """The same batches; at a terminal a bar says how many images they held."""
    with tqdm(total=total, unit=" images", disable=not sys.stderr.isatty()) as bar:
        for shown, labels in batches:
            yield shown, labels
            bar.update(len(labels))


def images_at_once(options: Options, held_out: HeldOut, setup: Setup) -> int:
    """Images of a batch: fewer where they are shown larger, so that memory stays the same."""
    crop, scales = held_out.geometry.crop, held_out.geometry.scales
    kind = setup.device.type if crop == Geometry().crop else "small"
    size = options.batch_size or USUAL_BATCH[kind]
    if options.protocol != "multi-scale":
        return size
    return max(1, size * crop**2 // max(scales) ** 2)


def describe(
    subjects: Sequence[Subject], options: Options, choice: DataConfig, held_out: HeldOut
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
        "data": {"name": choice.name, "digests": dict(held_out.digests)},
        "command": command(options),
        "finished": now(),
    }


def counted(count: ErrorCount, held_out: HeldOut) -> dict[str, Any]:
    """The errors, what they are of, and what could not be counted."""
    return {
        "loss": count.loss,
        "top1_err": count.top1_err,
        "top5_err": count.top5_err,
        "wrong1": count.wrong1,
        "wrong5": count.wrong5,
        "num_samples": count.seen,
        "left_out": count.left_out,
        "left_out_images": held_out.left_out,
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
