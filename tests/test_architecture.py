"""The counted nets: as committed, as the nets are, as the paper's numbers derive them."""

import subprocess
import sys
from dataclasses import asdict

import pytest

from resnet_repro import architecture
from resnet_repro.analysis import counted, paper
from resnet_repro.analysis.counted import pool_before
from resnet_repro.models.count import count_multiply_adds, count_params, list_layers


def net_called(label):
    (net,) = [net for net in architecture.nets() if net.label == label]
    return net


def test_counting_again_gives_the_committed_bytes(tmp_path):
    paths = architecture.write(tmp_path)
    assert [path.name for path in paths] == ["layers.csv", "summary.csv"]
    for path in paths:
        assert path.read_bytes() == (architecture.FOLDER / path.name).read_bytes(), (
            f"{path.name} is not what the nets are: python -m resnet_repro.architecture"
        )


def test_labels_are_unique():
    labels = [net.net for net in counted.nets()]
    assert len(set(labels)) == len(labels)
    assert {"VGG-19", "plain-34", "ResNet-34 C", "ResNet-50", "ResNet-1202 B"} <= set(labels)


@pytest.mark.parametrize(
    "label",
    ["VGG-19", "plain-18", "ResNet-34 C", "ResNet-101", "ResNet-50 (stride in 3x3)", "ResNet-56 B"],
)
def test_unfolded_layers_are_those_of_the_net(label):
    net = net_called(label)
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


def test_every_net_has_its_depth_in_weighted_layers_and_adds_up():
    for net in counted.nets():
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
            million = row["params_millions_incl_bn_affine_and_fc_derived"]
            assert round(adds, 5 if cifar else 3) == row["multiply_adds_1e9_derived"], label
            assert round(net.params / 1e6, 6 if cifar else 3) == million, label
            checked.add(label)
    assert len(checked) == 24


def test_blocks_pools_and_projections():
    blocks = counted.blocks("ResNet-34 B")
    assert len(blocks) == 16
    assert [b.name for b in blocks if b.changes_shape] == ["stage2.0", "stage3.0", "stage4.0"]
    assert [b.name for b in blocks if b.projection] == ["stage2.0", "stage3.0", "stage4.0"]
    assert all(block.projection is None for block in counted.blocks("ResNet-34 A"))
    assert counted.blocks("VGG-19") == []
    stem, first, *_ = counted.layers("ResNet-50")
    assert not pool_before(stem, 224)
    assert pool_before(first, stem.out_size)
    with pytest.raises(KeyError, match="'ResNet-35' was not counted; there are VGG-19"):
        counted.layers("ResNet-35")


def test_reading_needs_no_torch_and_the_command_writes_where_it_is_told(tmp_path):
    code = (
        "import sys\n"
        "from resnet_repro.items import DRAWINGS\n"
        "from pathlib import Path\n"
        "DRAWINGS['table1'].draw(None, Path(sys.argv[1]))\n"
        "print('torch' in sys.modules)\n"
    )
    words = [sys.executable, "-c", code, str(tmp_path)]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout == "False\n"
    assert (tmp_path / "table1.md").exists()
