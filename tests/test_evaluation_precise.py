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


def trained_net(**settings):
    net = build(NetSpec("cifar", 8, "B", **settings), 4, seed=2)
    for norm in (m for m in net.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.running_mean.fill_(0.7)
        norm.running_var.fill_(3.0)
        norm.num_batches_tracked.fill_(11)
    return net.eval()


def everything(net):
    return {name: value.clone() for name, value in net.state_dict().items()}


def assert_untouched(net, before):
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(m.momentum == 0.1 for m in net.modules() if isinstance(m, nn.BatchNorm2d))


def test_statistics_are_the_averages_over_all_batches():
    """Of every layer: what it normalises by in training mode, seen through hooks."""
    net = trained_net()
    shown = batches(8, 8, 8, 8, 8)
    twin = copy.deepcopy(net).train()
    seen = {}
    for name, norm in twin.named_modules():
        if isinstance(norm, nn.BatchNorm2d):
            seen[name] = []

            def hook(_, given, name=name):
                pixels = given[0].detach().double().transpose(0, 1).flatten(1)
                seen[name].append((pixels.mean(1), pixels.var(1, unbiased=True)))

            norm.register_forward_pre_hook(hook)
    for images in shown:
        twin(images)
    assert len(seen) == 9  # stem, three blocks of two, two projections
    with precise_bn(net, iter(shown)) as images_seen:
        assert images_seen == 40
        assert not net.training
        for name, norm in net.named_modules():
            if isinstance(norm, nn.BatchNorm2d):
                mean = torch.stack([m for m, _ in seen[name]]).mean(0).float()
                var = torch.stack([v for _, v in seen[name]]).mean(0).float()
                torch.testing.assert_close(norm.running_mean, mean, rtol=1e-4, atol=1e-5)
                torch.testing.assert_close(norm.running_var, var, rtol=1e-4, atol=1e-5)


def test_every_image_counts_the_same():
    net, shown = trained_net(), batches(4, 12)
    with precise_bn(net, shown):
        conv = net.stem.conv
        with torch.no_grad():
            means = [conv(images).mean((0, 2, 3)) for images in shown]
        expected = (4 * means[0] + 12 * means[1]) / 16
        torch.testing.assert_close(net.stem.bn.running_mean, expected, rtol=1e-4, atol=1e-5)


def test_groups_of_images_are_averaged_too():
    net = trained_net(bn_group=4)
    before, shown = everything(net), batches(8, 8)
    with precise_bn(net, shown):
        with torch.no_grad():
            made = [net.stem.conv(images).transpose(0, 1) for images in shown]
        parts = [part.flatten(1).var(1) for out in made for part in out.split(4, dim=1)]
        expected = torch.stack(parts).mean(0)
        torch.testing.assert_close(net.stem.bn.running_var, expected, rtol=1e-4, atol=1e-5)
    assert_untouched(net, before)


@pytest.mark.parametrize("training", [True, False])
def test_afterwards_all_is_as_before(training):
    net = trained_net().train(training)
    before, x = everything(net), torch.randn(2, 3, 8, 8)
    with precise_bn(net, batches(6)), torch.no_grad():
        inside = net(x)
    assert net.training is training
    assert_untouched(net, before)
    with torch.no_grad():
        assert not torch.allclose(net.eval()(x), inside, rtol=1e-2)


def test_what_fails_inside_leaves_no_trace_either():
    net = trained_net()
    before = everything(net)
    with pytest.raises(KeyError), precise_bn(net, batches(6)):
        raise KeyError
    assert_untouched(net, before)
    wrong = torch.zeros(2, 5, 8, 8)
    with pytest.raises(RuntimeError), precise_bn(net, [*batches(6), wrong]):
        pytest.fail("the batches should have failed")
    assert_untouched(net, before)
    assert not net.training


def test_nothing_to_average_is_refused():
    with pytest.raises(ValueError, match="at least one batch"), precise_bn(trained_net(), []):
        pytest.fail("no images")
    net = nn.Conv2d(3, 3, 1)
    with pytest.raises(ValueError, match="Conv2d has no batch norm"), precise_bn(net, batches(2)):
        pytest.fail("no batch norm")
