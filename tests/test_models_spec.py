"""What can be built, what it is called, and that both are known without torch."""

import dataclasses
import re
import subprocess
import sys

import pytest

from resnet_repro.config import Config
from resnet_repro.models.build import build, build_meta
from resnet_repro.models.spec import NetSpec
from resnet_repro.options import ConfigError


def test_specs_import_without_torch():
    code = (
        "import sys\n"
        "sys.modules['torch'] = sys.modules['numpy'] = None\n"  # importing either would fail
        "import resnet_repro.models.spec\n"
    )
    path = "import sys; sys.path[:0] = " + repr(sys.path) + "\n"
    done = subprocess.run([sys.executable, "-c", path + code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("net", "label"),
    [
        (NetSpec("cifar", 20, "none"), "plain-20"),
        (NetSpec("cifar", 56, "A"), "ResNet-56"),
        (NetSpec("cifar", 1202, "A"), "ResNet-1202"),
        (NetSpec("cifar", 20, "B"), "ResNet-20 B"),
        (NetSpec("cifar", 20, "gate"), "Highway-20"),
        (NetSpec("imagenet", 18, "none"), "plain-18"),
        (NetSpec("imagenet", 18, "A"), "ResNet-18 A"),
        (NetSpec("imagenet", 34, "B"), "ResNet-34 B"),
        (NetSpec("imagenet", 34, "C"), "ResNet-34 C"),
        (NetSpec("imagenet", 50, "B"), "ResNet-50"),
        (NetSpec("imagenet", 101, "A"), "ResNet-101 A"),
        (NetSpec("imagenet", 152, "none"), "plain-152"),
        # what the paper has no name for is added in brackets
        (NetSpec("cifar", 20, "A", layers_per_block=1), "ResNet-20 (1-layer blocks)"),
        (NetSpec("cifar", 20, "A", zero_pad="both"), "ResNet-20 (zero pad both)"),
        (NetSpec("imagenet", 50, "B", stride_in="3x3"), "ResNet-50 (stride in 3x3)"),
    ],
)
def test_nets_are_called_as_in_the_paper(net, label):
    assert net.label == label


@pytest.mark.parametrize("n", [1, 2, 3, 18, 200])
def test_every_6n_plus_2_is_a_cifar_depth(n):
    assert NetSpec("cifar", 6 * n + 2).blocks_per_stage == (n, n, n)
    assert NetSpec("cifar", 6 * n + 2, "A", layers_per_block=1).blocks_per_stage[0] == 2 * n


@pytest.mark.parametrize(("depth", "blocks"), [(20, 2), (110, 12)])
def test_three_layer_blocks_need_2n_divisible_by_3(depth, blocks):
    assert NetSpec("cifar", depth, "A", layers_per_block=3).blocks_per_stage == (blocks,) * 3


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
        ({"shortcut": "B", "zero_pad": "both"}, "zero_pad='both'"),
        ({"gate_bias": -3.0}, "gate_bias=-3.0"),
        ({"shortcut": "none", "layers_per_block": 1}, "layers_per_block=1"),
        ({"stride_in": "3x3"}, "stride_in='3x3'"),
        ({"family": "imagenet", "depth": 18, "layers_per_block": 3}, "layers_per_block=3"),
        ({"family": "imagenet", "depth": 34, "stride_in": "3x3"}, "stride_in='3x3'"),
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


def test_num_classes_is_checked():
    for make in (build, build_meta):
        with pytest.raises(ValueError, match="num_classes=0"):
            make(NetSpec("cifar", 20, "A"), 0)


def test_a_spec_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        NetSpec().depth = 32
