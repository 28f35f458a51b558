"""What the ImageNet half shares: the two data sets, kept apart, and the nets of its figures."""

from __future__ import annotations

from collections.abc import Sequence

from resnet_repro.analysis.captions import DATA_NAMES
from resnet_repro.analysis.load import Run
from resnet_repro.analysis.protocol import by_net

DATA_SETS = ("imagenet", "tiny_imagenet")
TITLES = {"imagenet": "ImageNet", "tiny_imagenet": "Tiny ImageNet, 64x64, 200 classes"}

Nets = dict[str, list[Run]]


def nets_by_data(runs: Sequence[Run]) -> dict[str, Nets]:
    """Runs of ImageNet nets by data set and net; a data set without runs has an empty mapping.

    Raises:
        ValueError: runs of one net that must not be averaged.
    """
    family = [run for run in runs if run.config["model"]["family"] == "imagenet"]
    return {
        data: by_net([run for run in family if run.config["data"]["name"] == data])
        for data in DATA_SETS
    }


def data_name(data: str) -> str:
    """``ImageNet`` or ``Tiny ImageNet``."""
    return DATA_NAMES[data]
