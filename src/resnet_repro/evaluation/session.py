"""One evaluation: which nets, on which images and in which precision; then its counts."""

from __future__ import annotations

import dataclasses
import math
import re
import shlex
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from resnet_repro import data, paths
from resnet_repro.config import PICTURE_SETS, DataConfig, TrainerConfig
from resnet_repro.data.folder import CLASSES, WNID
from resnet_repro.data.loader import Decoder
from resnet_repro.evaluation import EvaluateOptions
from resnet_repro.evaluation.count import count_errors
from resnet_repro.evaluation.images import FullSize, HeldOut, SmallImages, imagenet_colours
from resnet_repro.evaluation.protocols import Geometry, Scorer, Views, ensemble, precise_bn, scorer
from resnet_repro.evaluation.subjects import Subject, from_file, from_run
from resnet_repro.evaluation.weights import WeightsError
from resnet_repro.options import ConfigError
from resnet_repro.runs import provenance
from resnet_repro.runs.folder import now
from resnet_repro.training.build import open_images
from resnet_repro.training.device import Setup, here, loader_processes, set_up
from resnet_repro.training.distributed import World

# A record's kind, as in metrics.jsonl, of the images of a split.
KINDS = {"test": "test", "val": "val", "train": "train_clean"}
# Images of a batch by default: small pictures; full-size ones on a GPU, on a CPU.
USUAL_BATCH = {"small": 1_000, "cuda": 128, "cpu": 16}


@dataclass(frozen=True)
class Session:
    """What is evaluated, found and checked, and nothing counted yet."""

    options: EvaluateOptions
    subjects: list[Subject]
    choice: DataConfig
    images: HeldOut
    setup: Setup
    doubts: list[str]

    @classmethod
    def open(cls, options: EvaluateOptions) -> Session:
        """Find nets and images, or raise as :func:`resnet_repro.evaluate.count`."""
        how = str(options.format), options.weights_key, options.stride_in
        subjects = [from_file(paths.expand(path), *how) for path in options.weights]
        subjects += [from_run(paths.expand(path)) for path in options.run]
        if options.protocol != "1-crop" and any(s.spec.family == "cifar" for s in subjects):
            raise ConfigError(
                f"protocol={options.protocol}: must be 1-crop; "
                "CIFAR nets are tested on the single view (Sec. 4.2)"
            )
        if options.bn == "precise" and any(subject.config is None for subject in subjects):
            raise ConfigError(
                "bn=precise: only with run=... or a checkpoint in its run folder, whose training "
                "batches are known"
            )
        choice = _choose_data(subjects, options)
        trainer = TrainerConfig(**dataclasses.asdict(options.trainer))
        trainer = dataclasses.replace(trainer, precision=_choose_precision(subjects, trainer))
        setup = set_up(trainer)
        decoder = Decoder(loader_processes(trainer), setup.device, choice.on_corrupt == "skip")
        images = _open_images(choice, subjects, options, decoder)
        doubts = check_classes(subjects, images.num_classes, images.classes, choice.name)
        for subject in subjects:
            check_training_data(subject, images.digests)
        return cls(options, subjects, choice, images, setup, doubts)

    def describe(self) -> dict[str, Any]:
        """What is counted, and how."""
        options, count = self.options, len(self.subjects)
        protocol = options.protocol
        return {
            "schema": 1,
            "name": self._name(),
            "kind": KINDS[options.split],
            "protocol": protocol if count == 1 else f"ensemble of {count}, {protocol}",
            "bn": options.bn,
            "data": {"name": self.choice.name, "digests": dict(self.images.digests)},
            "command": _command(options),
            "models": [subject.record() for subject in self.subjects],
            "notes": [note for subject in self.subjects for note in subject.notes] + self.doubts,
        }

    def _name(self) -> str:
        """The weights, and what differs from the usual test, as a name for files."""
        options, count = self.options, len(self.subjects)
        first = self.subjects[0].name
        parts = [first if count == 1 else f"ensemble{count}_{first}"]
        defaults = {"1-crop", "running", "test"}
        parts += [p for p in (options.protocol, options.bn, options.split) if p not in defaults]
        name = re.sub(r"[^A-Za-z0-9._+-]", "-", "_".join(parts))
        return name.lstrip(".-")[:100] or "weights"

    def count(self, described: dict[str, Any]) -> dict[str, Any]:
        """Show every image once to all nets together; return ``described`` with the errors."""
        images, setup, started = self.images, self.setup, time.perf_counter()
        with ExitStack() as stack:
            stack.enter_context(setup.autocast())
            ready = [self._ready(subject, stack) for subject in self.subjects]
            found = count_errors(
                ensemble([score for score, _ in ready]),
                _watched(images.shown(self.options.protocol, self._at_once()), len(images)),
                len(images),
                left_out=lambda: len(images.left_out),
            )
        models = [m | more for m, (_, more) in zip(described["models"], ready, strict=True)]
        if not math.isfinite(found.loss):
            tested = " + ".join(model.get("file") or model["run"] for model in models)
            raise WeightsError(f"{tested}: scores are not finite; nothing is counted")
        return {
            **described,
            "models": models,
            "loss": found.loss,
            "top1_err": found.top1_err,
            "top5_err": found.top5_err,
            "wrong1": found.wrong1,
            "wrong5": found.wrong5,
            "num_samples": found.seen,
            "left_out": found.left_out,
            "left_out_images": images.left_out,
            "finished": now(),
            "time": round(time.perf_counter() - started, 3),
            "device": setup.device.type,
            "precision": setup.precision,
            "threads": setup.threads,
            "hardware": provenance.hardware(setup.gpu, 1, setup.threads),
            "versions": provenance.versions(),
            "git": provenance.git_state(),
        }

    def _ready(self, subject: Subject, stack: ExitStack) -> tuple[Scorer, dict[str, Any]]:
        """How a net scores views, and what is recorded of how it sees them."""
        label, prepare = (
            self.images.preparation(subject.data)
            if subject.data
            else imagenet_colours(self.setup.device)
        )
        net = subject.net.to(self.setup.device).to(memory_format=torch.channels_last)
        record: dict[str, Any] = {"normalisation": label}
        if self.options.bn == "precise":
            batches = self._next_epoch(subject)
            record["bn_images"] = stack.enter_context(precise_bn(net, batches))
        window = self.images.geometry.window
        return scorer(self.options.protocol, net, prepare, window), record

    def _next_epoch(self, subject: Subject) -> Iterator[Tensor]:
        """Training batches of the epoch that follows the subject's weights, all full."""
        run, found = subject.config, self.images.trained_on
        assert run is not None
        assert found is not None
        config = dataclasses.replace(
            run,
            data=dataclasses.replace(run.data, on_corrupt=self.choice.on_corrupt),
            recipe=dataclasses.replace(run.recipe, max_iters=sys.maxsize),  # beyond its end
            trainer=dataclasses.replace(
                run.trainer, loader_workers=self.options.trainer.loader_workers
            ),
        )
        with closing(open_images(config, self.setup, found)) as images:
            # Each device normalised its own share of the batch.
            shares = 1 if run.trainer.sync_bn else run.trainer.devices
            for i in range(images.order.num_images // run.recipe.batch_size):
                batch = images.batch(subject.source["iter"] + i)[0]
                for rank in range(shares):
                    share = World(rank, shares).share(len(batch))
                    yield batch[share.start : share.stop]

    def _at_once(self) -> int:
        """Images of a batch: fewer where they are shown larger, so that memory stays the same."""
        crop, scales = self.images.geometry.crop, self.images.geometry.scales
        kind = self.setup.device.type if crop == Geometry().crop else "small"
        size = self.options.batch_size or USUAL_BATCH[kind]
        if self.options.protocol != "multi-scale":
            return size
        return max(1, size * crop**2 // max(scales) ** 2)


def _choose_data(subjects: Sequence[Subject], options: EvaluateOptions) -> DataConfig:
    """The data set of all nets: their own, or the one given."""
    given = options.data
    own = sorted({subject.data.name for subject in subjects if subject.data})
    name = given.name if given.name != "auto" else (own or [DataConfig().name])[0]
    if own not in ([], [name]):
        raise ConfigError(
            f"data.name={given.name}: the nets and their means belong to {', '.join(own)}"
        )
    return DataConfig(name, given.root, given.source, on_corrupt=given.on_corrupt)


def _choose_precision(subjects: Sequence[Subject], trainer: TrainerConfig) -> str:
    """Resolve ``auto``: the precision of the runs if this device has it, else fp32."""
    if trainer.precision != "auto":
        return trainer.precision
    used = {subject.precision or "fp32" for subject in subjects}
    if len(used) > 1:
        raise ConfigError(
            "trainer.precision=auto: must be set, since the nets were trained in "
            + " and ".join(sorted(used))
        )
    (precision,) = used
    return here(precision, trainer)


def _open_images(
    choice: DataConfig, subjects: Sequence[Subject], options: EvaluateOptions, decoder: Decoder
) -> HeldOut:
    root = paths.data(choice.root)
    if choice.name not in PICTURE_SETS:
        arrays = data.load(choice.name, root, choice.source)
        trained_on = {subject.data.train_split if subject.data else "all" for subject in subjects}
        return SmallImages(arrays, trained_on, options.split, decoder.device)
    # Pictures come in thousands of shapes: a trial of algorithms for each would take hours.
    torch.backends.cudnn.benchmark = options.protocol != "multi-scale"
    ours = any(subject.data is not None for subject in subjects)
    return FullSize(choice, root, options.split, ours=ours, decoder=decoder)


def check_classes(
    subjects: Sequence[Subject], count: int, classes: Sequence[str], data_name: str
) -> list[str]:
    """Doubts whether nets and data have the same classes; ConfigError where they have not."""
    doubts = []
    strange = [each for each in classes if not WNID.fullmatch(each)]
    for subject in subjects:
        where = subject.source.get("file") or subject.source["run"]
        if subject.num_classes != count:
            raise ConfigError(
                f"{where}: its net has {subject.num_classes} classes, {data_name} has {count}"
            )
        # Other people's ImageNet weights number their classes in the order of the WordNet ids;
        # folders of other names, which data=imagenet refuses, are in another order.
        if subject.data is None and subject.num_classes == CLASSES and strange:
            doubts.append(
                f"{where}: numbers its classes as their WordNet ids (n01440764, ...) are ordered; "
                f"{len(strange):,} folders have other names, as {strange[0]}; if it is an ImageNet "
                "net, its errors mean nothing here"
            )
    return doubts


def check_training_data(subject: Subject, digests: dict[str, str]) -> None:
    """Raise ConfigError where a net of ours was trained on other images than those found here."""
    for part, digest in subject.digests.items():
        if part.startswith(("train", "mean")) and digests.get(part, digest) != digest:
            raise ConfigError(
                f"{subject.source['run']}: was trained with other {part.replace('_', ' ')} "
                f"(SHA-256 {digest:.12}) than those found here ({digests[part]:.12})"
            )


def _watched(batches: Iterable[tuple[Views, Tensor]], total: int) -> Iterator[tuple[Views, Tensor]]:
    """Yield the batches; at a terminal a bar counts their images."""
    with tqdm(total=total, unit=" images", disable=not sys.stderr.isatty()) as bar:
        for views, labels in batches:
            yield views, labels
            bar.update(len(labels))


def _command(options: EvaluateOptions) -> str:
    """The command of an evaluation, without where files lie on this machine."""
    files = ",".join(Path(path).name.replace(",", r"\,") for path in options.weights)
    runs = ("/".join(Path(path).absolute().parts[-3:]) for path in options.run)
    overrides = {
        "weights": files or None,
        "format": options.format,
        "weights_key": options.weights_key,
        "stride_in": options.stride_in,
        "run": ",".join(f"results/runs/{run}" for run in runs) or None,
        **{key: getattr(options, key) for key in ("protocol", "bn", "split")},
        "data": options.data.name,
        "data.on_corrupt": options.data.on_corrupt,
        "trainer.precision": options.trainer.precision,
    }
    usual = (None, "auto", "stop")
    given = [f"{key}={value}" for key, value in overrides.items() if value not in usual]
    return shlex.join(["python", "-m", "resnet_repro.evaluate", *given])
