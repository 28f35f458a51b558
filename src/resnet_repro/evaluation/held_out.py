"""What an evaluation needs of the images it counts, small or full-size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

from torch import Tensor

from resnet_repro.evaluation.pictures import Prepare
from resnet_repro.evaluation.protocols import Geometry, Shown
from resnet_repro.evaluation.subjects import Subject


class HeldOut(Protocol):
    """All images of a split, to be shown once under a protocol."""

    @property
    def num_classes(self) -> int:
        """Classes of the data set."""

    @property
    def digests(self) -> Mapping[str, str]:
        """SHA-256 of what is counted and of what the nets' means come from."""

    @property
    def geometry(self) -> Geometry:
        """Sizes in which images are shown."""

    @property
    def left_out(self) -> list[str]:
        """A line for each image that the last pass could not show; empty before one."""

    def __len__(self) -> int:
        """Images there are, those left out included."""

    def shown(self, protocol: str, at_once: int) -> Iterator[tuple[Shown, Tensor]]:
        """Every image once, up to ``at_once`` together, with labels int64 (N,) on the device."""

    def normaliser(self, subject: Subject) -> Prepare:
        """What prepares the net's input, as in its training."""

    def next_epoch(self, subject: Subject) -> Iterator[Tensor]:
        """Training batches (N, 3, H, W) of the epoch that would have followed the subject's run."""
