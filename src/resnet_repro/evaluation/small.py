"""Small pictures, all of them on the device, and how nets see them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from resnet_repro.data.arrays import Arrays
from resnet_repro.data.batches import DeviceDataset
from resnet_repro.data.order import BatchOrder, train_split_indices
from resnet_repro.evaluation import choices
from resnet_repro.evaluation.pictures import Normaliser, Pictures, Prepare, theirs
from resnet_repro.evaluation.protocols import Geometry, Shown
from resnet_repro.evaluation.subjects import Subject


@dataclass
class Small:
    """A split of a data set that lies in arrays; nothing of it is ever left out."""

    arrays: Arrays
    held_out: Pictures
    device: torch.device
    left_out: list[str] = field(default_factory=list)

    @classmethod
    def choose(
        cls, arrays: Arrays, subjects: Sequence[Subject], split: str, device: torch.device
    ) -> Small:
        """Put ``test``, ``train`` or ``val`` on the device.

        Raises:
            ConfigError: nets that were trained on different images, or no validation images.
        """
        return cls(arrays, choices.choose_pictures(subjects, split, arrays, device), device)

    def __len__(self) -> int:
        return len(self.held_out)

    @property
    def num_classes(self) -> int:
        """Of the data set."""
        return self.arrays.num_classes

    @property
    def digests(self) -> dict[str, str]:
        """SHA-256 of the arrays."""
        return self.arrays.digests

    @property
    def geometry(self) -> Geometry:
        """The paper's proportions at the size of these pictures."""
        return Geometry.of_small_pictures(self.arrays.test_images.shape[1])

    def shown(self, protocol: str, at_once: int) -> Iterator[tuple[Shown, Tensor]]:
        """Images as they are; a protocol resizes and cuts them on the device."""
        del protocol
        return self.held_out.batches(at_once)

    def normaliser(self, subject: Subject) -> Prepare:
        """The mean of the training images in use (Sec. 4.2), torchvision's colours for others."""
        if subject.data is None:
            return theirs(self.device)
        label = f"{subject.data.mean} mean of the training images ({subject.data.train_split})"
        return Normaliser(label, self._training_images(subject).mean.permute(2, 0, 1))

    def next_epoch(self, subject: Subject) -> Iterator[Tensor]:
        """The augmented batches that would have followed the run, all of them full."""
        config = subject.config
        assert config is not None
        recipe, dataset = config.recipe, self._training_images(subject)
        order = BatchOrder(len(dataset), recipe.batch_size, config.seed, config.data.border)
        for i in range(len(dataset) // recipe.batch_size):
            yield dataset.train_batch(order.batch(recipe.max_iters + i))[0]

    def _training_images(self, subject: Subject) -> DeviceDataset:
        """The training images as a net of ours saw them."""
        data = subject.data
        assert data is not None
        rows, _ = train_split_indices(data.train_split, len(self.arrays.train_labels))
        return DeviceDataset(
            self.arrays.train_images[rows],
            self.arrays.train_labels[rows],
            self.device,
            mean=data.mean,
            pad=data.pad,
            border=data.border,
        )
