"""From a configuration to the parts of a run, and to the record of what they are."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from resnet_repro import data
from resnet_repro.config import Config
from resnet_repro.data.batches import DeviceDataset
from resnet_repro.data.order import BatchOrder, train_split_indices
from resnet_repro.models.counts import count_multiply_adds, count_params
from resnet_repro.models.labels import net_label
from resnet_repro.models.registry import build
from resnet_repro.options import ConfigError
from resnet_repro.runs import provenance
from resnet_repro.training.device import Setup
from resnet_repro.training.distributed import SOLO, World, replicate, synchronise_norms
from resnet_repro.training.parts import Parts
from resnet_repro.training.state import TrainState, sgd
from resnet_repro.training.window import Window


def load_data(config: Config) -> data.Arrays:
    """Load the data set a configuration names.

    Raises:
        DataError: it cannot be had or is not what it should be.
    """
    root = config.data.root
    if root == "auto":
        root = os.environ.get("RESNET_REPRO_DATA") or "data"
    return data.load(config.data.name, Path(root), config.data.source)


def assemble(
    config: Config, setup: Setup, arrays: data.Arrays, world: World = SOLO
) -> tuple[Parts, TrainState]:
    """Build data sets on the device, the order of the images, the net and its optimizer."""
    choice, recipe = config.data, config.recipe
    train_idx, val_idx = train_split_indices(choice.train_split, len(arrays.train_labels))
    if recipe.batch_size > len(train_idx):
        raise ConfigError(
            f"recipe.batch_size={recipe.batch_size}: must be at most the {len(train_idx)} "
            f"training images of {choice.name}"
        )
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
    state = initial_state(config, setup, num_classes=arrays.num_classes, world=world)
    order = BatchOrder(len(train_idx), recipe.batch_size, config.seed, choice.border)
    return Parts(config, setup, train_set, order, held_out, arrays.digests, world), state


def initial_state(
    config: Config, setup: Setup, num_classes: int, world: World = SOLO
) -> TrainState:
    """A net with the weights of the seed, its optimizer, nothing trained; on every worker alike."""
    model = config.model
    net = build(
        model.family,
        model.depth,
        model.shortcut,
        num_classes=num_classes,
        layers_per_block=model.layers_per_block,
        zero_pad=model.zero_pad,
        init=model.init,
        bn_eps=model.bn_eps,
        bn_momentum=model.bn_momentum,
        bn_group=model.bn_group,
        stride_in=model.stride_in,
        gate_bias=model.gate_bias,
        seed=config.seed,
    )
    if config.trainer.sync_bn:
        synchronise_norms(net)
    # Channels last: the layout in which convolutions of few channels run fastest here.
    net = net.to(setup.device).to(memory_format=torch.channels_last)
    window = Window(config.recipe.batch_size, config.trainer.log_every_iters, setup.device, world)
    return TrainState(net, sgd(net, config.recipe), window, replicate(net, world))


def describe(
    config: Config, setup: Setup, arrays: data.Arrays, state: TrainState
) -> dict[str, Any]:
    """What ``meta.json`` says of a run before its first iteration."""
    model, workers = config.model, state.window.world.size
    return {
        "schema": 1,
        "experiment": config.experiment,
        "name": config.name,
        "profile": config.profile,
        "seed": config.seed,
        "git": provenance.git_state(),
        "versions": provenance.versions(),
        "hardware": provenance.hardware(setup.gpu, workers, workers * setup.threads),
        "device": setup.device.type,
        "precision": setup.precision,
        "threads": setup.threads,
        "world_size": workers,
        "deterministic": config.trainer.deterministic,
        "data": {
            "name": config.data.name,
            "train_images": len(arrays.train_labels),
            "test_images": len(arrays.test_labels),
            "digests": arrays.digests,
        },
        "net": {
            "label": net_label(
                model.family,
                model.depth,
                model.shortcut,
                layers_per_block=model.layers_per_block,
                zero_pad=model.zero_pad,
            ),
            "params": count_params(state.model),
            "multiply_adds": count_multiply_adds(state.model, arrays.train_images.shape[1]),
        },
    }
