"""What goes together: nets, data set, protocol and precision of one evaluation."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch

from resnet_repro.config import DataConfig
from resnet_repro.evaluation.images import CountedImages
from resnet_repro.evaluation.options import DataOptions, TrainerOptions
from resnet_repro.evaluation.subjects import Subject
from resnet_repro.options import ConfigError

IMAGENET_CLASSES = 1_000


def check_protocol(subjects: Sequence[Subject], protocol: str) -> None:
    """Refuse a protocol that the paper does not have for a family.

    Raises:
        ConfigError: CIFAR nets under another protocol than the single view.
    """
    if protocol != "1-crop" and any(subject.spec.family == "cifar" for subject in subjects):
        raise ConfigError(
            f"protocol={protocol}: must be 1-crop; "
            "CIFAR nets are tested on the single view (Sec. 4.2)"
        )


def choose_data(subjects: Sequence[Subject], given: DataOptions) -> DataConfig:
    """Return the data set of all nets: their own, or the one given.

    Raises:
        ConfigError: a net of ours belongs to another data set.
    """
    names = {subject.data.name for subject in subjects if subject.data}
    if given.name != "auto":
        names.add(given.name)
    if len(names) > 1:
        raise ConfigError(
            f"data.name={given.name}: the nets and their means belong to {', '.join(sorted(names))}"
        )
    name = names.pop() if names else DataConfig().name
    return DataConfig(name, given.root, given.source, on_corrupt=given.on_corrupt)


def choose_precision(subjects: Sequence[Subject], given: TrainerOptions) -> str:
    """Resolve ``auto``: the precision of the runs, else fp32.

    Raises:
        ConfigError: the nets were trained in different ones.
    """
    if given.precision != "auto":
        return given.precision
    used = {subject.precision or "fp32" for subject in subjects}
    if len(used) > 1:
        raise ConfigError(
            "trainer.precision=auto: must be set, since the nets were trained in "
            + " and ".join(sorted(used))
        )
    (precision,) = used
    on_cpu = given.device == "cpu" or not torch.cuda.is_available()
    return "fp32" if precision == "tf32" and on_cpu else precision


def check_classes(subjects: Sequence[Subject], images: CountedImages, name: str) -> list[str]:
    """Refuse a net of other classes than the data set has; return a sentence for each doubt.

    Other people's ImageNet weights number their classes in the order of the WordNet ids; folders
    of other names are in another order, and the error would be that of chance.

    Raises:
        ConfigError: names both numbers of classes, or a class of unknown number.
    """
    doubts = []
    for subject in subjects:
        where = subject.source.get("file") or subject.source["run"]
        if subject.num_classes != images.num_classes:
            raise ConfigError(
                f"{where}: its net has {subject.num_classes} classes, "
                f"{name} has {images.num_classes}"
            )
        strange = [each for each in images.classes if not re.fullmatch(r"n\d{8}", each)]
        if subject.data is None and subject.num_classes == IMAGENET_CLASSES and strange:
            doubt = (
                f"{where}: numbers its classes as their WordNet ids (n01440764, ...) are ordered; "
                f"{len(strange):,} folders have other names, as {strange[0]}"
            )
            if name == "imagenet":
                raise ConfigError(doubt)
            doubts.append(f"{doubt}; if it is an ImageNet net, its errors mean nothing here")
    return doubts


def check_training_data(subjects: Sequence[Subject], digests: Mapping[str, str]) -> None:
    """Refuse a net of ours whose training images are not those that the mean is taken from.

    Raises:
        ConfigError: names the net and what differs.
    """
    for subject in subjects:
        for part, digest in subject.digests.items():
            if part.startswith(("train", "mean")) and digests.get(part, digest) != digest:
                raise ConfigError(
                    f"{subject.source['run']}: was trained with other {part.replace('_', ' ')} "
                    f"(SHA-256 {digest:.12}) than those found here ({digests[part]:.12})"
                )
