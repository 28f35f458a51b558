"""Nets: shortcuts, blocks, norms, what can be built, weights and seeds, sizes of Tables 1 and 6."""

import math
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from resnet_repro.config import Config
from resnet_repro.models.blocks import (
    Block,
    GroupedBatchNorm2d,
    basic_convs,
    bottleneck_convs,
    make_norm,
)
from resnet_repro.models.build import build, build_meta
from resnet_repro.models.count import conv_bn_layers
from resnet_repro.models.shortcuts import GatedShortcut, ZeroPadShortcut, make_shortcut
from resnet_repro.models.spec import NetSpec
from resnet_repro.options import ConfigError
from test_models_formats import randomise

NORM = make_norm()
CHANNELS_LAST = torch.channels_last


@pytest.fixture(autouse=True)
def _same_random_numbers():
    torch.manual_seed(0)


def shortcut_of(kind, *sizes):
    return make_shortcut(NetSpec("cifar", 20, kind), *sizes, NORM)


def basic_block(cin, cout, stride, kind, layers=2):
    convs = basic_convs(cin, cout, stride, layers=layers)
    return Block(convs, NORM, shortcut_of(kind, cin, cout, stride))


def modules_of(net, kind):
    return [module for module in net.modules() if isinstance(module, kind)]


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
    for n, c, i, j in np.ndindex(2, cin, out_size, out_size):
        expected[n, before + c, i, j] = x[n, c, i * stride, j * stride]
    shortcut = ZeroPadShortcut(cin, cout, stride, zero_pad)
    residual = torch.randn(expected.shape)
    assert torch.equal(shortcut(x, residual), residual + expected)
    assert not list(shortcut.parameters())


@pytest.mark.parametrize("kind", ["none", "A", "B", "C", "gate"])
@pytest.mark.parametrize("size", [8, 7])
def test_every_shortcut_fits_its_block_at_any_size_and_keeps_channels_last(kind, size):
    x = torch.randn(2, 4, size, size)
    for layers in (1, 2, 3):
        block = basic_block(4, 8, 2, kind, layers)
        out = block.to(memory_format=CHANNELS_LAST)(x.to(memory_format=CHANNELS_LAST))
        assert out.shape == (2, 8, 4, 4)
        # Not through a gate at odd sizes, which CIFAR nets do not have.
        assert out.is_contiguous(memory_format=CHANNELS_LAST) or (kind, size) == ("gate", 7)
        torch.testing.assert_close(out, block(x))
    if kind != "gate":
        for stride_in in ("1x1", "3x3"):
            convs = bottleneck_convs(8, 16, 2, stride_in=stride_in)
            block = Block(convs, NORM, shortcut_of(kind, 8, 16, 2))
            assert block(torch.randn(2, 8, size, size)).shape == (2, 16, 4, 4)


def silenced(block):
    nn.init.zeros_(modules_of(block.residual, nn.BatchNorm2d)[-1].weight)
    return block


def test_trap15_without_its_layers_a_plain_block_is_zero_and_a_residual_one_is_identity():
    x = torch.rand(2, 4, 6, 6) + 0.1
    plain = silenced(basic_block(4, 4, 1, "none"))
    residual = silenced(basic_block(4, 4, 1, "A"))
    assert not plain(x).any()
    assert torch.equal(residual(x), x)


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
def test_gates_start_at_their_bias_and_by_default_mostly_carry(depth):
    biased = build(NetSpec("cifar", depth, "gate", gate_bias=-3.5), 10)
    for module in modules_of(biased, GatedShortcut):
        assert (module.gate.bias == -3.5).all()
        assert module.gate.weight.any()
    net = build(NetSpec("cifar", depth, "gate"), 10)
    opened = []
    for module in modules_of(net, GatedShortcut):
        module.register_forward_pre_hook(
            lambda gate, args: opened.append(gate.transform_gate(args[0]).mean().item())
        )
    net(torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    assert len(opened) == len(modules_of(biased, GatedShortcut)) == (depth - 2) // 2
    assert all(0.05 < mean < 0.25 for mean in opened)


def test_the_output_of_a_bn_is_not_overwritten_by_the_relu_after_it():
    net = build(NetSpec("cifar", 8, "A"), 10)
    kept = []
    for bn in modules_of(net, nn.BatchNorm2d):
        bn.register_forward_hook(lambda _, args, out: kept.append((out, out.clone())))
    net(torch.randn(4, 3, 32, 32))
    assert len(kept) == 7
    assert all(torch.equal(out, copy) and (out < 0).any() for out, copy in kept)


def copy_of(bn):
    plain = nn.BatchNorm2d(bn.num_features, eps=bn.eps, momentum=bn.momentum)
    plain.load_state_dict(bn.state_dict())  # strict: the keys must be the same
    return plain


@pytest.mark.parametrize("fmt", [torch.contiguous_format, CHANNELS_LAST])
def test_grouped_bn_equals_bn_run_on_the_two_halves(fmt):
    grouped = randomise(make_norm(group=4)(6)).train()
    first, second = copy_of(grouped), copy_of(grouped)
    x = torch.randn(8, 6, 5, 5) * torch.arange(1.0, 9).view(8, 1, 1, 1)
    x = x.contiguous(memory_format=fmt)
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
    assert grouped.num_batches_tracked == first.num_batches_tracked == 8

    whole = copy_of(grouped)
    assert not torch.allclose(whole(x), out, atol=1e-2)  # groups do make a difference


@pytest.mark.parametrize(("group", "training"), [(4, False), (7, False), (7, True)])
def test_grouped_bn_in_evaluation_or_of_one_group_is_bn(group, training):
    grouped = randomise(make_norm(group=group)(3)).train(training)
    plain = copy_of(grouped).train(training)
    x = torch.randn(7, 3, 4, 4)
    torch.testing.assert_close(grouped(x), plain(x))
    torch.testing.assert_close(grouped.state_dict(), plain.state_dict())


@pytest.mark.parametrize("group", [0, 2])
def test_every_bn_of_a_net_starts_fresh_with_the_eps_momentum_and_group_of_the_net(group):
    net = build(NetSpec("cifar", 8, "B", bn_eps=1e-3, bn_momentum=0.01, bn_group=group), 10)
    layers = modules_of(net, nn.BatchNorm2d)
    assert len(layers) == 9
    for bn in layers:
        assert (bn.eps, bn.momentum) == (1e-3, 0.01)
        assert isinstance(bn, GroupedBatchNorm2d) == bool(group)
        for tensor, start in zip(bn.state_dict().values(), (1, 0, 0, 1, 0), strict=True):
            assert (tensor == start).all()  # weight, bias, running mean, variance, batches


@pytest.mark.parametrize(
    ("net", "label"),
    [
        (NetSpec("cifar", 56, "A"), "ResNet-56"),
        (NetSpec("cifar", 20, "B"), "ResNet-20 B"),
        (NetSpec("cifar", 20, "gate"), "Highway-20"),
        (NetSpec("imagenet", 34, "A"), "ResNet-34 A"),
        (NetSpec("imagenet", 50, "B"), "ResNet-50"),
        (NetSpec("imagenet", 101, "A"), "ResNet-101 A"),
        (NetSpec("imagenet", 152, "none"), "plain-152"),
        # what the paper has no name for is added in brackets
        (NetSpec("cifar", 20, "A", layers_per_block=1), "ResNet-20 (1-layer blocks)"),
        (NetSpec("imagenet", 50, "B", stride_in="3x3"), "ResNet-50 (stride in 3x3)"),
    ],
)
def test_nets_are_called_as_in_the_paper(net, label):
    """Those of its tables in test_sizes_are_those_derived_from_the_paper."""
    assert net.label == label


@pytest.mark.parametrize("n", [1, 2, 3, 18, 200])
def test_a_cifar_net_of_6n_plus_2_layers_has_2n_convs_in_each_stage(n):
    for layers in [each for each in (1, 2, 3) if 2 * n % each == 0]:
        net = NetSpec("cifar", 6 * n + 2, "A", layers_per_block=layers)
        assert net.blocks_per_stage == (2 * n // layers,) * 3


@pytest.mark.parametrize(
    ("net", "message"),
    [
        ({"family": "mnist"}, "family=mnist: must be one of cifar, imagenet"),
        ({"shortcut": "D"}, "shortcut=D: must be one of none, A, B, C, gate"),
        ({"zero_pad": "left"}, "zero_pad=left: must be one of end, both"),
        ({"init": "xavier"}, "init=xavier: must be one of he_fan_in, he_fan_out"),
        ({"layers_per_block": 4}, "layers_per_block=4: must be one of 1, 2, 3"),
        ({"stride_in": "7x7"}, "stride_in=7x7: must be one of 1x1, 3x3"),
        *(({"depth": n}, f"depth={n}: must be an integer >= 8") for n in (-4, 0, 2, 7)),
        *(({"depth": n}, f"depth={n}: a CIFAR net has 6n+2 layers") for n in (18, 21, 55)),
        ({"depth": "20"}, "depth=20: must be an integer"),
        ({"depth": 32, "layers_per_block": 3}, "2n = 10 convs of a stage must be divisible by 3"),
        ({"family": "imagenet"}, "depth=20: must be one of 18, 34, 50, 101, 152 in the imagenet"),
        ({"family": "imagenet", "depth": 18, "shortcut": "gate"}, "only the CIFAR family"),
        ({"bn_eps": 0.0}, "bn_eps=0.0: must be a finite number > 0"),
        ({"bn_momentum": 1.5}, "bn_momentum=1.5: must be a finite number in (0, 1)"),
        ({"bn_momentum": 0.0}, "bn_momentum=0.0: must be a finite number in (0, 1)"),
        ({"bn_momentum": float("nan")}, "bn_momentum=nan"),
        ({"bn_group": -1}, "bn_group=-1: must be an integer >= 0"),
        # a setting that the net would ignore
        ({"shortcut": "B", "zero_pad": "both"}, "zero_pad=both"),
        ({"gate_bias": -3.0}, "gate_bias=-3.0"),
        ({"shortcut": "none", "layers_per_block": 1}, "layers_per_block=1"),
        ({"stride_in": "3x3"}, "stride_in=3x3"),
        ({"family": "imagenet", "depth": 18, "layers_per_block": 3}, "layers_per_block=3"),
        ({"family": "imagenet", "depth": 34, "stride_in": "3x3"}, "stride_in=3x3"),
    ],
)
def test_bad_settings_are_refused_with_key_value_and_what_is_allowed(net, message):
    net = {"family": "cifar", "depth": 20, "shortcut": "A"} | net
    with pytest.raises(ConfigError, match=re.escape(message)) as bare:
        NetSpec(**net)
    if "nan" not in message:  # in a configuration the same, under the key's full name
        with pytest.raises(ConfigError) as grouped:
            Config.from_mapping({"experiment": "x", "name": "x", "model": net})
        assert str(grouped.value) == f"model.{bare.value}"


def equal_weights(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("shortcut", ["A", "B", "gate"])
def test_same_seed_same_weights_whatever_the_global_generator(shortcut):
    torch.manual_seed(1)
    first = build(NetSpec("cifar", 20, shortcut), 10, seed=5)
    torch.manual_seed(2)
    second = build(NetSpec("cifar", 20, shortcut), 10, seed=5)
    assert equal_weights(first, second)
    assert not equal_weights(first, build(NetSpec("cifar", 20, shortcut), 10, seed=6))
    torch.manual_seed(2)  # nor is it moved
    before = torch.get_rng_state()
    build(NetSpec("cifar", 20, shortcut), 10)
    assert torch.equal(torch.get_rng_state(), before)


def test_nets_that_differ_in_the_shortcut_start_with_the_same_main_path():
    plain = build(NetSpec("cifar", 20, "none"), 10, seed=1).state_dict()
    for shortcut in ("A", "B", "C", "gate"):
        other = build(NetSpec("cifar", 20, shortcut), 10, seed=1).state_dict()
        assert all(torch.equal(tensor, other[key]) for key, tensor in plain.items())


@pytest.mark.parametrize("init", ["he_fan_in", "he_fan_out"])
def test_init_std_is_sqrt_2_over_fan(init):
    net = build(NetSpec("imagenet", 50, "B", init=init), 1000)
    for layer in modules_of(net, nn.Conv2d | nn.Linear):
        weight = layer.weight.detach()
        outputs, inputs = weight.shape[:2]
        channels = inputs if init == "he_fan_in" else outputs
        std = math.sqrt(2 / (channels * weight[0, 0].numel()))
        spread = 5 * std / math.sqrt(weight.numel())  # five standard errors
        assert weight.std().item() == pytest.approx(std, abs=spread)
        assert weight.mean().item() == pytest.approx(0, abs=spread)
        assert weight.abs().max() > 3 * std  # normal, not truncated or uniform
    assert not net.head.fc.bias.any()


def test_a_net_is_float32_on_the_cpu_in_training_mode_without_conv_biases():
    torch.set_default_dtype(torch.float64)
    try:
        net = build(NetSpec("cifar", 20, "B"), 100)
    finally:
        torch.set_default_dtype(torch.float32)
    assert net.training
    assert {p.dtype for p in net.parameters()} == {torch.float32}
    assert {p.device.type for p in net.parameters()} == {"cpu"}
    assert all(conv.bias is None for conv in modules_of(net, nn.Conv2d))
    assert list(dict(net.named_children())) == ["stem", "stage1", "stage2", "stage3", "head"]
    assert net(torch.randn(2, 3, 32, 32)).shape == (2, 100)


@torch.no_grad()
@pytest.mark.parametrize(("depth", "shortcut"), [(18, "A"), (50, "B")])
def test_imagenet_nets_take_any_size_from_one_window_on_and_dense_is_the_same_at_224(
    depth, shortcut
):
    """Larger ones against a reference: test_multi_scale_is_the_mean_over_scales_and_positions."""
    net = build(NetSpec("imagenet", depth, shortcut), 7).eval()
    assert net(torch.randn(1, 3, 65, 97)).shape == (1, 7)
    x = torch.randn(1, 3, 224, 224)
    torch.testing.assert_close(net.forward_dense(x), net(x), rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="map is 6x7, smaller than the pooling window 7"):
        net.forward_dense(torch.randn(1, 3, 192, 224))


def test_a_deep_net_keeps_two_maps_a_layer():
    net = build(NetSpec("cifar", 110, "A"), 10)
    weights = {p.data_ptr() for p in net.parameters()}
    kept = {}

    def keep(tensor):
        if tensor.data_ptr() not in weights:
            kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        scores = net(torch.randn(2, 3, 32, 32))
    F.cross_entropy(scores, torch.tensor([1, 2])).backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters())
    maps = 37 * 16 * 32**2 + 36 * 32 * 16**2 + 36 * 64 * 8**2  # conv outputs of one image
    # The conv's output for BN and the ReLU's for the next conv; with 1202 layers and 128 images
    # that is 12 GB.
    assert 2 * 2 * 4 * maps <= sum(kept.values()) < 1.02 * 2 * 2 * 4 * maps


@pytest.mark.parametrize("shortcut", ["none", "A", "C", "gate"])
@pytest.mark.parametrize("depth", [8, 20])
def test_probes_see_the_6n_plus_1_layers_in_the_order_they_run(depth, shortcut):
    net = build(NetSpec("cifar", depth, shortcut), 10)
    layers = conv_bn_layers(net)
    assert len(layers) == depth - 1
    ran = []
    for name, conv, bn in layers:
        assert net.get_submodule(name) is conv
        conv.register_forward_hook(lambda m, a, out, name=name: ran.append((name, out.data_ptr())))
        bn.register_forward_hook(lambda m, a, out, name=name: ran.append((name, a[0].data_ptr())))
    net(torch.randn(2, 3, 32, 32))
    assert ran[::2] == ran[1::2]  # each BN read what its conv wrote
    assert [name for name, _ in ran[::2]] == [name for name, _, _ in layers]
    assert layers[0][0] == "stem.conv"


@pytest.mark.parametrize(("depth", "count"), [(18, 17), (34, 33), (50, 17), (101, 34)])
def test_probes_see_stem_and_3x3_convs_of_imagenet_nets(depth, count):
    layers = conv_bn_layers(build_meta(NetSpec("imagenet", depth, "C"), 10))
    assert len(layers) == count
    assert layers[0][1].kernel_size == (7, 7)
    assert {conv.kernel_size for _, conv, _ in layers[1:]} == {(3, 3)}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: shortcut_of("A", 4, 2, 2), "from 4 to 2 channels"),
        (lambda: make_norm(group=4)(3)(torch.randn(7, 3, 4, 4)),
         "batch of 7 images cannot be cut into BN groups of 4"),
        (lambda: conv_bn_layers(nn.Sequential(nn.Conv2d(3, 4, 3))),
         "Sequential has no conv followed by BN"),
        (lambda: build(NetSpec("cifar", 8, "A"), 0), "num_classes=0: must be at least 1"),
    ],
)  # fmt: skip
def test_what_cannot_be_made_or_run_is_refused_with_its_numbers(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()


@pytest.mark.parametrize("shortcut", ["none", "A", "B", "gate"])
def test_bf16_autocast_runs_every_shortcut(shortcut):
    net = build(NetSpec("cifar", 8, shortcut), 10)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = net(torch.randn(2, 3, 32, 32)).float().square().mean()
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters())
