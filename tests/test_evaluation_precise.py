"""Precise batch norm: true averages, and nothing of it left behind."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from resnet_repro.evaluation.precise import precise_bn
from resnet_repro.models.build import build
from resnet_repro.models.spec import NetSpec


def batches(*sizes):
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(size, 3, 8, 8, generator=generator) + size for size in sizes]


@pytest.fixture
def net():
    made = build(NetSpec("cifar", 8, "B"), 4, seed=2)
    for norm in (m for m in made.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.running_mean.fill_(0.7)
        norm.running_var.fill_(3.0)
        norm.num_batches_tracked.fill_(11)
    return made.eval()


def test_every_image_counts_the_same_in_every_layer(net):
    """What each layer normalises by in training mode, seen through hooks."""
    shown, seen, sizes = batches(4, 12, 8), {}, torch.tensor([4.0, 12.0, 8.0], dtype=torch.double)
    twin = copy.deepcopy(net).train()
    for name, norm in twin.named_modules():
        if isinstance(norm, nn.BatchNorm2d):

            def hook(_, given, name=name):
                pixels = given[0].detach().double().transpose(0, 1).flatten(1)
                seen.setdefault(name, []).append((pixels.mean(1), pixels.var(1)))

            norm.register_forward_pre_hook(hook)
    for images in shown:
        twin(images)
    assert len(seen) == 9  # stem, three blocks of two, two projections
    with precise_bn(net, iter(shown)) as images_seen:
        assert images_seen == 24
        assert not net.training
        for name, parts in seen.items():
            norm = net.get_submodule(name)
            for i, found in enumerate((norm.running_mean, norm.running_var)):
                average = (sizes / 24) @ torch.stack([part[i] for part in parts])
                torch.testing.assert_close(found, average.float(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("fails", [True, False])
def test_afterwards_all_is_as_before(net, training, fails):
    before = {name: value.clone() for name, value in net.train(training).state_dict().items()}
    shown = [*batches(6), torch.zeros(2, 5, 8, 8)] if fails else batches(6)
    with pytest.raises(RuntimeError if fails else KeyError), precise_bn(net, shown):
        raise KeyError
    assert net.training is training
    assert all(m.momentum == 0.1 for m in net.modules() if isinstance(m, nn.BatchNorm2d))
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_nothing_to_average_is_refused(net):
    with pytest.raises(ValueError, match="at least one batch"), precise_bn(net, []):
        pytest.fail("no images")
