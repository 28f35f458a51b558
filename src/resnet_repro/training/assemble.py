"""From a configuration to the parts of a run, and to the record of what they are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from resnet_repro import data, paths
from resnet_repro.config import PICTURE_SETS, Config, DataConfig
from resnet_repro.data import Arrays, Images
from resnet_repro.data.order import BatchOrder, train_split_indices
from resnet_repro.data.resident import DeviceDataset, ResidentImages
from resnet_repro.models.build import build
from resnet_repro.models.count import count_multiply_adds, count_params
from resnet_repro.options import ConfigError
from resnet_repro.runs import provenance
from resnet_repro.training.device import Setup, loader_processes
from resnet_repro.training.distributed import SOLO, World, replicate, synchronise_norms
from resnet_repro.training.state import TrainState, sgd
from resnet_repro.training.window import Window

if TYPE_CHECKING:  # they need Pillow, which a host that trains on CIFAR-10 may lack
    from resnet_repro.data.folder import PictureFolder
    from resnet_repro.data.streamed import StreamedImages


@dataclass(frozen=True)
class RunContext:
    """What a run is made of besides its state."""

    config: Config
    setup: Setup
    images: Images
    world: World = SOLO

    @property
    def order(self) -> BatchOrder:
        """Which images make up which batch."""
        return self.images.order

    @property
    def share_shape(self) -> tuple[int, int, int, int]:
        """Shape of the images of :meth:`batch`."""
        return self.images.share_shape

    def batch(self, iteration: int) -> tuple[Tensor, Tensor]:
        """The worker's share of the batch after ``iteration`` updates: images and labels."""
        return self.images.batch(iteration)


def load_images(config: Config) -> Arrays | PictureFolder:
    """Find the data set a configuration names: arrays or, of full-size pictures, their lists.

    Raises:
        DataError: it cannot be loaded or fetched, or is not what it should be.
    """
    choice = config.data
    if choice.name in PICTURE_SETS:
        return data.load_pictures(choice.name, data_root(choice), choice.on_corrupt == "skip")
    return load_data(config)


def load_data(config: Config) -> Arrays:
    """Load the data set of small images a configuration names.

    Raises:
        DataError: it cannot be loaded or fetched, or is not what it should be.
    """
    return data.load(config.data.name, data_root(config.data), config.data.source)


def data_root(choice: DataConfig) -> Path:
    """Folder of the data sets."""
    return paths.data(choice.root)


def assemble(
    config: Config, setup: Setup, found: Arrays | PictureFolder, world: World = SOLO
) -> tuple[RunContext, TrainState]:
    """Prepare the images and their order, the net and its optimizer.

    With several workers all call it.
    """
    images: Images = (
        resident(config, setup, found, world)
        if isinstance(found, Arrays)
        else streamed(config, setup, found, world)
    )
    state = initial_state(config, setup, num_classes=images.num_classes, world=world)
    return RunContext(config, setup, images, world), state


def resident(config: Config, setup: Setup, arrays: Arrays, world: World) -> ResidentImages:
    """Small images, put on the device."""
    choice = config.data
    train_idx, val_idx = train_split_indices(choice.train_split, len(arrays.train_labels))
    train_set = DeviceDataset(
        arrays.train_images[train_idx],
        arrays.train_labels[train_idx],
        setup.device,
        mean=choice.mean,
        pad=choice.pad,
        border=choice.border,
    )
    held_out = {"test": train_set.sibling(arrays.test_images, arrays.test_labels)}
    if len(val_idx):
        held_out["val"] = train_set.sibling(
            arrays.train_images[val_idx], arrays.train_labels[val_idx]
        )
    order = batch_order(config, len(train_idx))
    return ResidentImages(choice.name, arrays, train_set, held_out, order, world.share)


def streamed(config: Config, setup: Setup, folder: PictureFolder, world: World) -> StreamedImages:
    """Full-size pictures, decoded during training."""
    from resnet_repro.data.streamed import StreamedImages

    return StreamedImages(
        folder,
        batch_order(config, len(folder.train)),
        setup.device,
        mean=config.data.mean,
        stop=config.recipe.max_iters,
        workers=loader_processes(config.trainer, world.local_size),
        share=world.share,
        skip=config.data.on_corrupt == "skip",
    )


def batch_order(config: Config, images: int) -> BatchOrder:
    """The order in which so many training images come.

    Raises:
        ConfigError: a batch would hold an image twice.
    """
    size = config.recipe.batch_size
    if size > images:
        raise ConfigError(
            f"recipe.batch_size={size}: must be at most the {images} training images of "
            f"{config.data.name}"
        )
    return BatchOrder(images, size, config.seed, config.data.border)


def initial_state(
    config: Config, setup: Setup, num_classes: int, world: World = SOLO
) -> TrainState:
    """A net with the weights of the seed, its optimizer, nothing trained; on every worker alike."""
    net = build(config.model, num_classes, config.seed)
    if config.trainer.sync_bn:
        synchronise_norms(net)
    # Channels last: the layout in which convolutions of few channels run fastest here.
    net = net.to(setup.device).to(memory_format=torch.channels_last)
    window = Window(config.recipe.batch_size, config.trainer.log_every_iters, setup.device, world)
    return TrainState(net, sgd(net, config.recipe), window, replicate(net, world))


def describe(context: RunContext, state: TrainState) -> dict[str, Any]:
    """What ``meta.json`` says of a run before its first iteration."""
    config, setup = context.config, context.setup
    model, workers = config.model, context.world.size
    return {
        "schema": 1,
        **config.identity,
        "git": provenance.git_state(),
        "versions": provenance.versions(),
        "hardware": provenance.hardware(setup.gpu, workers, workers * setup.threads),
        "device": setup.device.type,
        "precision": setup.precision,
        "threads": setup.threads,
        "world_size": workers,
        "deterministic": config.trainer.deterministic,
        "data": context.images.record(),
        "net": {
            "label": model.label,
            "params": count_params(state.model),
            "multiply_adds": count_multiply_adds(state.model, context.share_shape[-1]),
        },
    }
