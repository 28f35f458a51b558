"""Sizes: as the paper's Tables 1 and 6 print them, and as committed in results/architecture."""

from collections import Counter
from dataclasses import asdict

import pytest

from resnet_repro import architecture
from resnet_repro.analysis import counted, paper
from resnet_repro.models.build import build_meta
from resnet_repro.models.count import count_multiply_adds, count_params, list_layers
from resnet_repro.models.spec import NetSpec

CIFAR_B = {20: 272474, 56: 855770, 110: 1730714}


def cifar(depth, shortcut, **options):
    return build_meta(NetSpec("cifar", depth, shortcut, **options), 10)


def imagenet(depth, shortcut, **options):
    return build_meta(NetSpec("imagenet", depth, shortcut, **options), 1000)


def kinds_of_shortcuts(net):
    named = net.named_modules()
    return Counter(type(module).__name__ for name, module in named if name.endswith("shortcut"))


@pytest.mark.parametrize("depth", CIFAR_B)
def test_trap11_option_b_where_a_is_claimed_shows_in_the_parameter_count(depth):
    assert count_params(cifar(depth, "B")) == CIFAR_B[depth] != count_params(cifar(depth, "A"))


def test_gate_costs_a_1x1_conv_and_bias_per_block():
    gates = 3 * (16 * 16 + 16)
    gates += (16 * 32 + 32) + 2 * (32 * 32 + 32)
    gates += (32 * 64 + 64) + 2 * (64 * 64 + 64)
    assert count_params(cifar(20, "gate")) == count_params(cifar(20, "A")) + gates


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("depth", [20, 56])
def test_layers_per_block_regroups_the_same_convs(depth, layers):
    net, usual = cifar(depth, "A", layers_per_block=layers), cifar(depth, "A")
    assert count_params(net) == count_params(usual)
    assert count_multiply_adds(net, 32) == count_multiply_adds(usual, 32)
    assert sum(kinds_of_shortcuts(net).values()) == (depth - 2) // layers


def test_trap15_a_plain_net_has_no_shortcut_and_a_residual_net_has_3n():
    assert kinds_of_shortcuts(cifar(56, "none")) == {"NoShortcut": 27}
    residual = kinds_of_shortcuts(cifar(56, "A"))
    assert residual == {"IdentityShortcut": 25, "ZeroPadShortcut": 2}


def test_counting_leaves_a_real_net_as_it_was():
    net = cifar(20, "A").to_empty(device="cpu").train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    assert count_multiply_adds(net, 32) == sum(la.multiply_adds for la in list_layers(net, 32))
    assert net.training
    for name, tensor in net.state_dict().items():
        assert tensor.device.type == "cpu"
        assert tensor.numpy().tobytes() == before[name].numpy().tobytes()


def test_counting_again_gives_the_committed_bytes(tmp_path):
    paths = architecture.write(tmp_path)
    assert [path.name for path in paths] == ["layers.csv", "summary.csv"]
    for path in paths:
        assert path.read_bytes() == (architecture.FOLDER / path.name).read_bytes(), (
            f"{path.name} is not what the nets are: python -m resnet_repro.architecture"
        )


@pytest.mark.parametrize(
    "label",
    ["VGG-19", "plain-18", "ResNet-34 C", "ResNet-101", "ResNet-50 (stride in 3x3)", "ResNet-56 B"],
)
def test_unfolded_layers_are_those_of_the_net(label):
    (net,) = [net for net in architecture.nets() if net.label == label]
    model = net.build()
    real = list_layers(model, architecture.IMAGE_SIZE[net.family])
    read = counted.layers(label)
    assert [layer.layer for layer in read] == [layer.name for layer in real]
    for ours, theirs in zip(read, real, strict=True):
        facts = asdict(theirs)
        assert facts["out_height"] == facts["out_width"] == ours.out_size
        same = ("kind", "kernel", "stride", "in_channels", "out_channels", "params")
        for name in (*same, "multiply_adds", "on_shortcut"):
            assert getattr(ours, name) == facts[name], (ours.layer, name)
    size = counted.net(label)
    assert size.params == count_params(model)
    assert size.multiply_adds == count_multiply_adds(model, size.image_size)


def test_every_net_has_a_label_of_its_own_its_depth_in_weighted_layers_and_adds_up():
    nets = counted.nets()
    assert len({net.net for net in nets}) == len(nets)
    for net in nets:
        layers = counted.layers(net.net)
        assert sum(not layer.on_shortcut for layer in layers) == net.depth, net.net
        assert sum(layer.multiply_adds for layer in layers) == net.multiply_adds, net.net


def test_sizes_are_those_derived_from_the_paper():
    checked = set()
    for _, row in paper.read("derived_counts").iterrows():
        name, option = str(row["net"]), str(row["shortcut_option"])
        cifar, depth = "CIFAR" in name, name.rpartition("-")[2]
        if option == "none/A":
            labels = [f"plain-{depth}", f"ResNet-{depth}" + ("" if cifar else " A")]
        elif cifar or int(depth) >= 50:
            labels = [f"ResNet-{depth}"]
        else:
            labels = [f"ResNet-{depth} {option}"]
        if row["bottleneck_stride_position"] == "3x3":
            labels = [f"{label} (stride in 3x3)" for label in labels]
        for label in labels:
            net = counted.net(label)
            adds = net.multiply_adds / 1e9
            millions = net.params / 1e6
            assert round(adds, 5 if cifar else 3) == row["multiply_adds_1e9_derived"], label
            derived = row["params_millions_incl_bn_affine_and_fc_derived"]
            assert round(millions, 6 if cifar else 3) == derived, label
            if cifar:  # as Table 6 prints it
                printed = str(row["paper_params_millions"])
                assert f"{millions:.{len(printed.partition('.')[2])}f}" == printed, label
            checked.add(label)
    assert len(checked) == 24


def test_blocks_and_projections():
    growing = ["stage2.0", "stage3.0", "stage4.0"]
    assert [b.name for b in counted.blocks("ResNet-34 B") if b.projection] == growing
    assert all(block.projection is None for block in counted.blocks("ResNet-34 A"))
    assert counted.blocks("VGG-19") == []
    with pytest.raises(KeyError, match="'ResNet-35' was not counted; there are VGG-19"):
        counted.layers("ResNet-35")
