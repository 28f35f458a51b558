"""Build the parts of a run from its configuration, and the record of what they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from resnet_repro import data, paths
from resnet_repro.config import PICTURE_SETS, Config
from resnet_repro.data import Arrays, Images
from resnet_repro.data.order import BatchOrder, train_split_indices
from resnet_repro.data.resident import DeviceDataset, ResidentImages
from resnet_repro.models.build import build
from resnet_repro.models.count import count_multiply_adds, count_params
from resnet_repro.options import ConfigError
from resnet_repro.runs import provenance
from resnet_repro.training.device import Setup, loader_processes
from resnet_repro.training.distributed import SOLO, World, replicate, synchronise_norms
from resnet_repro.training.state import TrainState, Window, sgd

if TYPE_CHECKING:  # they need Pillow, which a host that trains on CIFAR-10 may lack
    from resnet_repro.data.folder import PictureFolder
    from resnet_repro.data.streamed import StreamedImages


@dataclass(frozen=True)
class RunContext:
    """The parts of a run besides its state."""

    config: Config
    setup: Setup
    images: Images
    world: World = SOLO


def load_images(config: Config) -> Arrays | PictureFolder:
    """Find the data set a configuration names, arrays or lists of pictures, or raise DataError."""
    choice = config.data
    if choice.name in PICTURE_SETS:
        from resnet_repro.data.folder import load_pictures

        return load_pictures(choice.name, paths.data(choice.root), choice.on_corrupt == "skip")
    return load_data(config)


def load_data(config: Config) -> Arrays:
    """Load a data set of small images; raises as :func:`load_images`."""
    return data.load(config.data.name, paths.data(config.data.root), config.data.source)


def assemble(
    config: Config, setup: Setup, found: Arrays | PictureFolder, world: World = SOLO
) -> tuple[RunContext, TrainState]:
    """Prepare the images and their order, the net and its optimizer, on every worker alike.

    ConfigError: a batch would hold an image twice.
    """
    images = open_images(config, setup, found, world)
    net = build(config.model, images.num_classes, config.seed)
    if config.trainer.sync_bn:
        synchronise_norms(net)
    # Channels last: the layout in which convolutions of few channels run fastest here.
    net = net.to(setup.device).to(memory_format=torch.channels_last)
    window = Window(config.recipe.batch_size, config.trainer.log_every_iters, setup.device, world)
    state = TrainState(net, sgd(net, config.recipe), window, replicate(net, world))
    return RunContext(config, setup, images, world), state


def open_images(
    config: Config, setup: Setup, found: Arrays | PictureFolder, world: World = SOLO
) -> Images:
    """Images of a run in the order of its seed, small ones on the device; raises as assemble."""
    if isinstance(found, Arrays):
        return _resident(config, setup, found, world)
    return _streamed(config, setup, found, world)


def _resident(config: Config, setup: Setup, arrays: Arrays, world: World) -> ResidentImages:
    choice, images, labels = config.data, arrays.train_images, arrays.train_labels
    train, val = train_split_indices(choice.train_split, len(labels))
    how: dict[str, Any] = {"mean": choice.mean, "pad": choice.pad, "border": choice.border}
    train_set = DeviceDataset(images[train], labels[train], setup.device, **how)
    held_out = {"test": train_set.sibling(arrays.test_images, arrays.test_labels)}
    if len(val):
        held_out["val"] = train_set.sibling(images[val], labels[val])
    order, places = _batch_order(config, len(train)), world.share(config.recipe.batch_size)
    return ResidentImages(choice.name, arrays, train_set, held_out, order, places)


def _streamed(config: Config, setup: Setup, folder: PictureFolder, world: World) -> StreamedImages:
    from resnet_repro.data.loader import Decoder
    from resnet_repro.data.streamed import StreamedImages

    workers = loader_processes(config.trainer, world.local_size)
    return StreamedImages(
        folder,
        _batch_order(config, len(folder.train)),
        Decoder(workers, setup.device, config.data.on_corrupt == "skip"),
        mean=config.data.mean,
        stop=config.recipe.max_iters,
        places=world.share(config.recipe.batch_size),
    )


def _batch_order(config: Config, images: int) -> BatchOrder:
    size = config.recipe.batch_size
    if size > images:
        raise ConfigError(
            f"recipe.batch_size={size}: must be at most the {images} training images of "
            f"{config.data.name}"
        )
    return BatchOrder(images, size, config.seed, config.data.border)


def describe(
    context: RunContext, state: TrainState, engine: Mapping[str, Any], before: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what ``meta.json`` records when training starts, or resumes after ``before``."""
    config, setup, workers = context.config, context.setup, context.world.size
    made_by = {
        "git": provenance.git_state(),
        "versions": provenance.versions(),
        "hardware": provenance.hardware(setup.gpu, workers, workers * setup.threads),
        "engine": engine,
    }
    return {
        "schema": 1,
        **config.identity,
        **made_by,
        "earlier": _earlier(before, made_by, state.iteration),
        "device": setup.device.type,
        "precision": setup.precision,
        "threads": setup.threads,
        "world_size": workers,
        "deterministic": config.trainer.deterministic,
        "data": context.images.record,
        "net": {
            "label": config.model.label,
            "params": count_params(state.model),
            "multiply_adds": count_multiply_adds(state.model, context.images.share_shape[-1]),
        },
    }


def _earlier(
    before: Mapping[str, Any], made_by: Mapping[str, Any], iteration: int
) -> list[dict[str, Any]]:
    """List the parts of a run, up to ``iteration``, that were made by something else.

    Each has the iteration at which it ended. Of what came after the checkpoint nothing is left, and
    nothing of a part that ended before its first checkpoint.
    """
    was = {key: before[key] for key in made_by if key in before}
    parts: list[dict[str, Any]] = []
    for part in [*before.get("earlier", []), {"until": iteration} | was]:
        until = min(part["until"], iteration)
        if until > (parts[-1]["until"] if parts else 0):
            parts.append(part | {"until": until})
    if parts and parts[-1] == {**made_by, "until": parts[-1]["until"]}:
        parts.pop()  # made by the same
    return parts
