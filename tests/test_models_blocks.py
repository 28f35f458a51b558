"""Shortcuts A, B, C, the gate, blocks and batch norm over groups, against hand computations."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from resnet_repro.models.blocks import BasicBlock, Bottleneck, GroupedBatchNorm2d, make_norm
from resnet_repro.models.build import build
from resnet_repro.models.shortcuts import GatedShortcut, ZeroPadShortcut, make_shortcut
from resnet_repro.models.spec import NetSpec

NORM = make_norm()


@pytest.fixture(autouse=True)
def _same_random_numbers():
    torch.manual_seed(0)


def shortcut_of(kind, **options):
    return lambda cin, cout, stride: make_shortcut(kind, cin, cout, stride, norm=NORM, **options)


@pytest.mark.parametrize(
    ("cin", "cout", "stride", "size", "zero_pad", "before"),
    [
        (2, 4, 2, 4, "end", 0),
        (2, 4, 2, 4, "both", 1),
        (3, 6, 2, 5, "both", 1),  # odd: one channel before, two after
        (2, 8, 1, 3, "end", 0),  # bottleneck stage 1: wider, same size
        (1, 2, 3, 7, "end", 0),
    ],
)
def test_option_a_equals_a_hand_computation(cin, cout, stride, size, zero_pad, before):
    x = torch.arange(1.0, 1 + 2 * cin * size * size).reshape(2, cin, size, size)
    out_size = -(-size // stride)
    expected = torch.zeros(2, cout, out_size, out_size)
    for n in range(2):
        for c in range(cin):
            for i in range(out_size):
                for j in range(out_size):
                    expected[n, before + c, i, j] = x[n, c, i * stride, j * stride]
    shortcut = ZeroPadShortcut(cin, cout, stride, zero_pad)
    residual = torch.randn(expected.shape)
    assert torch.equal(shortcut(x, residual), residual + expected)
    assert not list(shortcut.parameters())


def test_option_a_refuses_to_narrow():
    with pytest.raises(ValueError, match="from 4 to 2 channels"):
        ZeroPadShortcut(4, 2, 2, "end")


@pytest.mark.parametrize("kind", ["none", "A", "B", "C", "gate"])
@pytest.mark.parametrize("size", [8, 7])
def test_every_shortcut_fits_its_block_at_even_and_odd_sizes(kind, size):
    for layers in (1, 2, 3):
        block = BasicBlock(4, 8, 2, shortcut=shortcut_of(kind), norm=NORM, layers=layers)
        assert block(torch.randn(2, 4, size, size)).shape == (2, 8, 4, 4)
    if kind != "gate":
        for stride_in in ("1x1", "3x3"):
            block = Bottleneck(8, 16, 2, shortcut=shortcut_of(kind), norm=NORM, stride_in=stride_in)
            assert block(torch.randn(2, 8, size, size)).shape == (2, 16, 4, 4)


def silenced(block):
    """Make F(x) = 0, so that only the shortcut is left."""
    last = [m for m in block.residual.modules() if isinstance(m, nn.BatchNorm2d)][-1]
    nn.init.zeros_(last.weight)
    return block


def test_trap15_without_its_layers_a_plain_block_is_zero_and_a_residual_one_is_identity():
    x = torch.rand(2, 4, 6, 6) + 0.1
    plain = silenced(BasicBlock(4, 4, 1, shortcut=shortcut_of("none"), norm=NORM))
    residual = silenced(BasicBlock(4, 4, 1, shortcut=shortcut_of("A"), norm=NORM))
    assert not plain(x).any()
    assert torch.equal(residual(x), x)


def test_basic_block_is_conv_bn_relu_conv_bn_add_relu():
    block = BasicBlock(4, 4, 1, shortcut=shortcut_of("A"), norm=NORM).eval()
    x = torch.randn(3, 4, 6, 6)
    w1, w2 = block.residual.conv1.weight, block.residual.conv2.weight
    scale = (1 + 1e-5) ** -0.5  # fresh BN in evaluation
    hidden = F.relu(F.conv2d(x, w1, padding=1) * scale)
    expected = F.relu(F.conv2d(hidden, w2, padding=1) * scale + x)
    torch.testing.assert_close(block(x), expected)


def test_projection_has_the_stride_and_bn():
    shortcut = make_shortcut("B", 4, 8, 2, norm=NORM)
    x, zero = torch.randn(5, 4, 8, 8), torch.zeros(5, 8, 4, 4)
    expected = F.batch_norm(
        F.conv2d(x[:, :, ::2, ::2], shortcut.conv.weight), None, None, training=True
    )
    torch.testing.assert_close(shortcut(x, zero), expected)


@pytest.mark.parametrize("kind", ["A", "B"])
def test_a_and_b_are_identity_where_the_shape_stays_and_c_is_not(kind):
    x, residual = torch.randn(2, 4, 4, 4), torch.randn(2, 4, 4, 4)
    assert torch.equal(make_shortcut(kind, 4, 4, 1, norm=NORM)(x, residual), residual + x)
    assert list(make_shortcut("C", 4, 4, 1, norm=NORM).parameters())


def test_unknown_shortcut_is_named():
    with pytest.raises(ValueError, match="'D': expected one of none, A, B, C, gate"):
        make_shortcut("D", 4, 4, 1, norm=NORM)


@pytest.mark.parametrize(("bias", "left"), [(-100.0, "carry"), (100.0, "residual")])
def test_gate_interpolates_between_carry_and_residual(bias, left):
    gate = GatedShortcut(4, 8, 2, "end", bias)
    nn.init.zeros_(gate.gate.weight)
    nn.init.constant_(gate.gate.bias, bias)
    x, residual = torch.randn(2, 4, 6, 6), torch.randn(2, 8, 3, 3)
    carry = ZeroPadShortcut(4, 8, 2, "end").carry(x)
    torch.testing.assert_close(gate(x, residual), carry if left == "carry" else residual)
    nn.init.zeros_(gate.gate.bias)
    torch.testing.assert_close(gate(x, residual), (carry + residual) / 2)


@pytest.mark.parametrize("depth", [20, 56])
def test_at_the_start_gates_mostly_carry(depth):
    net = build(NetSpec("cifar", depth, "gate"), 10)
    opened = []
    for module in net.modules():
        if isinstance(module, GatedShortcut):
            module.register_forward_pre_hook(
                lambda gate, args: opened.append(gate.transform_gate(args[0]).mean().item())
            )
    net(torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    assert len(opened) == (depth - 2) // 2
    assert all(0.05 < mean < 0.25 for mean in opened)


def test_gate_bias_is_where_gates_start():
    net = build(NetSpec("cifar", 20, "gate", gate_bias=-3.5), 10)
    gates = [m.gate for m in net.modules() if isinstance(m, GatedShortcut)]
    assert len(gates) == 9
    assert all((gate.bias == -3.5).all() and gate.weight.any() for gate in gates)


@pytest.mark.parametrize("kind", ["A", "B", "C", "gate"])
def test_channels_last_is_kept_through_a_block(kind):
    block = BasicBlock(8, 16, 2, shortcut=shortcut_of(kind), norm=NORM)
    block = block.to(memory_format=torch.channels_last)
    x = torch.randn(2, 8, 8, 8).contiguous(memory_format=torch.channels_last)
    assert block(x).is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(block(x), block(x.contiguous()))


def test_the_output_of_a_bn_is_not_overwritten_by_the_relu_after_it():
    net = build(NetSpec("cifar", 8, "A"), 10)
    kept = []
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(lambda bn, args, out: kept.append((out, out.clone())))
    net(torch.randn(4, 3, 32, 32))
    assert len(kept) == 7
    assert all(torch.equal(out, copy) and (out < 0).any() for out, copy in kept)


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
