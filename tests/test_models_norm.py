"""BN over groups of images, against plain BN on each group."""

import pytest
import torch
from torch import nn

from resnet_repro.models.build import build
from resnet_repro.models.norm import GroupedBatchNorm2d, make_norm
from resnet_repro.models.spec import NetSpec


@pytest.fixture(autouse=True)
def _same_random_numbers():
    torch.manual_seed(0)


def randomised(bn):
    generator = torch.Generator().manual_seed(3)
    for tensor in (bn.weight.data, bn.bias.data, bn.running_mean):
        tensor.normal_(generator=generator)
    bn.running_var.uniform_(0.5, 2, generator=generator)
    return bn


def copy_of(bn):
    plain = nn.BatchNorm2d(bn.num_features, eps=bn.eps, momentum=bn.momentum)
    plain.load_state_dict(bn.state_dict())  # strict: the keys must be the same
    return plain


@pytest.mark.parametrize("fmt", [torch.contiguous_format, torch.channels_last])
def test_grouped_bn_equals_bn_run_on_the_two_halves(fmt):
    grouped = randomised(make_norm(group=4)(6))
    first, second = copy_of(grouped), copy_of(grouped)
    x = (torch.randn(8, 6, 5, 5) * torch.arange(1.0, 9).view(8, 1, 1, 1)).contiguous(
        memory_format=fmt
    )
    inputs = [x.clone().requires_grad_(), x.clone().requires_grad_()]
    weight = torch.randn(8, 6, 5, 5)

    out = grouped(inputs[0])
    halves = torch.cat([first(inputs[1][:4]), second(inputs[1][4:])])
    torch.testing.assert_close(out, halves)
    assert out.is_contiguous(memory_format=fmt)
    (out * weight).sum().backward()
    (halves * weight).sum().backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad)
    torch.testing.assert_close(grouped.weight.grad, first.weight.grad + second.weight.grad)

    mean = (first.running_mean + second.running_mean) / 2
    var = (first.running_var + second.running_var) / 2
    torch.testing.assert_close(grouped.running_mean, mean)
    torch.testing.assert_close(grouped.running_var, var)
    assert grouped.num_batches_tracked == 1

    whole = copy_of(grouped)
    assert not torch.allclose(whole(x), out, atol=1e-2)  # groups do make a difference


def test_grouped_bn_with_one_group_is_bn():
    grouped = randomised(make_norm(group=8)(3))
    plain = copy_of(grouped)
    x = torch.randn(8, 3, 4, 4)
    torch.testing.assert_close(grouped(x), plain(x))
    torch.testing.assert_close(grouped.state_dict(), plain.state_dict())


def test_grouped_bn_in_evaluation_is_bn_for_any_batch():
    grouped = randomised(make_norm(group=4)(3)).eval()
    plain = copy_of(grouped).eval()
    x = torch.randn(7, 3, 4, 4)
    assert torch.equal(grouped(x), plain(x))


def test_grouped_bn_refuses_a_batch_that_is_not_whole_groups():
    with pytest.raises(ValueError, match="batch of 7 images cannot be cut into BN groups of 4"):
        make_norm(group=4)(3)(torch.randn(7, 3, 4, 4))


def test_momentum_none_averages_all_batches_as_in_bn():
    grouped = make_norm(group=4)(3)
    grouped.momentum = None
    plain = copy_of(grouped)
    plain.momentum = None
    for _ in range(3):
        half = torch.randn(4, 3, 4, 4)
        grouped(torch.cat([half, half]))
        plain(half)
    torch.testing.assert_close(grouped.running_var, plain.running_var)


@pytest.mark.parametrize("group", [0, 2])
def test_eps_momentum_and_group_reach_every_bn_of_a_net(group):
    net = build(NetSpec("cifar", 8, "B", bn_eps=1e-3, bn_momentum=0.01, bn_group=group), 10)
    layers = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(layers) == 9
    assert all((bn.eps, bn.momentum) == (1e-3, 0.01) for bn in layers)
    assert all(isinstance(bn, GroupedBatchNorm2d) == bool(group) for bn in layers)
    assert net(torch.randn(4, 3, 32, 32)).shape == (4, 10)


def test_a_grouped_net_and_a_plain_bn_net_share_checkpoints():
    grouped = build(NetSpec("cifar", 8, "A", bn_group=64), 10)
    build(NetSpec("cifar", 8, "A"), 10).load_state_dict(grouped.state_dict())
