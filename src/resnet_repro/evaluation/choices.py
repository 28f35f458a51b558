"""What goes together: nets, data set, protocol and precision of one evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from resnet_repro.config_groups import DataConfig
from resnet_repro.data.arrays import Arrays
from resnet_repro.data.order import train_split_indices
from resnet_repro.evaluation.pictures import Pictures
from resnet_repro.evaluation.subjects import Subject
from resnet_repro.options import ConfigError

if TYPE_CHECKING:
    from resnet_repro.evaluate import DataOptions, TrainerOptions


def choose_data(subjects: Sequence[Subject], asked: DataOptions) -> DataConfig:
    """The data set of all nets: their own, or the one asked for.

    Raises:
        ConfigError: a net of ours belongs to another data set.
    """
    names = {subject.data.name for subject in subjects if subject.data}
    if asked.name != "auto":
        names.add(asked.name)
    if len(names) > 1:
        raise ConfigError(
            f"data.name={asked.name}: the nets and their means belong to {', '.join(sorted(names))}"
        )
    name = names.pop() if names else DataConfig().name
    return DataConfig(name, asked.root, asked.source, on_corrupt=asked.on_corrupt)


def choose_precision(subjects: Sequence[Subject], asked: TrainerOptions) -> str:
    """What ``auto`` is: the precision of the runs, else fp32.

    Raises:
        ConfigError: the nets were trained in different ones.
    """
    if asked.precision != "auto":
        return asked.precision
    used = {subject.precision or "fp32" for subject in subjects}
    if len(used) > 1:
        raise ConfigError(
            "trainer.precision=auto: must be given, for the nets were trained in "
            + " and ".join(sorted(used))
        )
    (precision,) = used
    on_cpu = asked.device == "cpu" or not torch.cuda.is_available()
    return "fp32" if precision == "tf32" and on_cpu else precision


def check_protocol(subjects: Sequence[Subject], protocol: str) -> None:
    """Refuse a protocol that the paper does not have for a family.

    Raises:
        ConfigError: CIFAR nets under another protocol than the single view.
    """
    if protocol != "1-crop" and any(s.spec.family == "cifar" for s in subjects):
        raise ConfigError(
            f"protocol={protocol}: must be 1-crop; "
            "CIFAR nets are tested on the single view (Sec. 4.2)"
        )


def check_classes(subjects: Sequence[Subject], num_classes: int, name: str) -> None:
    """Refuse a net that tells other classes apart than the data set has.

    Raises:
        ConfigError: names both numbers.
    """
    for subject in subjects:
        if subject.num_classes != num_classes:
            where = subject.source.get("file") or subject.source["run"]
            raise ConfigError(
                f"{where}: its net has {subject.num_classes} classes, {name} has {num_classes}"
            )


def check_training_data(subjects: Sequence[Subject], digests: Mapping[str, str]) -> None:
    """Refuse a net of ours whose training images are not those that the mean is taken from.

    Args:
        subjects: the nets, with the digests of the data they were trained with.
        digests: of the data that were found.

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


def choose_pictures(
    subjects: Sequence[Subject], split: str, arrays: Arrays, device: torch.device
) -> Pictures:
    """All images of ``test``, ``train`` or ``val``, on the device.

    Raises:
        ConfigError: nets that were trained on different images, or no validation images.
    """
    if split == "test":
        return Pictures.put(arrays.test_images, arrays.test_labels, device)
    trained_on = {subject.data.train_split if subject.data else "all" for subject in subjects}
    if len(trained_on) > 1:
        raise ConfigError(f"split={split}: the nets were trained on different images")
    train, val = train_split_indices(trained_on.pop(), len(arrays.train_labels))
    rows = train if split == "train" else val
    if not len(rows):
        raise ConfigError(
            "split=val: the net was trained on all images; only runs with data.train_split=45k "
            "have validation images"
        )
    return Pictures.put(arrays.train_images[rows], arrays.train_labels[rows], device)
