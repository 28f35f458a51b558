"""What can be built, what it is called, and that both are known without torch."""

import re
import subprocess
import sys

import pytest

from resnet_repro.models.labels import net_label
from resnet_repro.models.registry import build, build_meta
from resnet_repro.models.rules import check_net, cifar_blocks_per_stage


@pytest.mark.parametrize("module", ["labels", "rules"])
def test_labels_and_rules_import_without_torch(module):
    code = (
        "import sys\n"
        "sys.modules['torch'] = sys.modules['numpy'] = None\n"  # importing either would fail
        f"import resnet_repro.models.{module}\n"
    )
    path = "import sys; sys.path[:0] = " + repr(sys.path) + "\n"
    done = subprocess.run([sys.executable, "-c", path + code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("net", "label"),
    [
        (("cifar", 20, "none"), "plain-20"),
        (("cifar", 56, "A"), "ResNet-56"),
        (("cifar", 1202, "A"), "ResNet-1202"),
        (("cifar", 20, "B"), "ResNet-20 B"),
        (("cifar", 20, "gate"), "Highway-20"),
        (("imagenet", 18, "none"), "plain-18"),
        (("imagenet", 18, "A"), "ResNet-18 A"),
        (("imagenet", 34, "B"), "ResNet-34 B"),
        (("imagenet", 34, "C"), "ResNet-34 C"),
        (("imagenet", 50, "B"), "ResNet-50"),
        (("imagenet", 101, "A"), "ResNet-101 A"),
        (("imagenet", 152, "none"), "plain-152"),
    ],
)
def test_nets_are_called_as_in_the_paper(net, label):
    assert net_label(*net) == label


def test_what_the_paper_has_no_name_for_is_added_in_brackets():
    assert net_label("cifar", 20, "A", layers_per_block=1) == "ResNet-20 (1-layer blocks)"
    assert net_label("cifar", 20, "A", zero_pad="both") == "ResNet-20 (zero pad both)"
    assert net_label("imagenet", 50, "B", stride_in="3x3") == "ResNet-50 (stride in 3x3)"


def test_labels_refuse_what_does_not_exist():
    with pytest.raises(ValueError, match="family='mnist': expected cifar or imagenet"):
        net_label("mnist", 20, "A")
    with pytest.raises(ValueError, match="the imagenet family has none, A, B, C"):
        net_label("imagenet", 18, "gate")


@pytest.mark.parametrize("depth", [1, 2, 7, 18, 21, 55, 0, -4])
def test_cifar_depths_other_than_6n_plus_2_are_refused_by_rule(depth):
    with pytest.raises(ValueError, match=rf"depth={depth}: a CIFAR net has 6n\+2 layers"):
        build("cifar", depth, "A", num_classes=10)


@pytest.mark.parametrize("n", [1, 2, 3, 18, 200])
def test_every_6n_plus_2_is_a_cifar_depth(n):
    assert cifar_blocks_per_stage(6 * n + 2) == n
    assert cifar_blocks_per_stage(6 * n + 2, 1) == 2 * n


def test_three_layer_blocks_need_2n_divisible_by_3():
    assert cifar_blocks_per_stage(20, 3) == 2
    assert cifar_blocks_per_stage(110, 3) == 12
    with pytest.raises(ValueError, match=re.escape("2n = 10 convs of a stage must be divisible")):
        build("cifar", 32, "A", num_classes=10, layers_per_block=3)


@pytest.mark.parametrize(
    ("net", "message"),
    [
        ({"family": "mnist"}, "family='mnist': expected one of cifar, imagenet"),
        ({"shortcut": "D"}, "shortcut='D': expected one of none, A, B, C, gate"),
        ({"zero_pad": "left"}, "zero_pad='left': expected one of end, both"),
        ({"layers_per_block": 4}, "layers_per_block=4: expected one of 1, 2, 3"),
        ({"stride_in": "7x7"}, "stride_in='7x7': expected one of 1x1, 3x3"),
        ({"family": "imagenet"}, "imagenet depth=20: expected one of 18, 34, 50, 101, 152"),
        ({"family": "imagenet", "depth": 18, "shortcut": "gate"}, "only the CIFAR family"),
        ({"bn_eps": 0.0}, "bn_eps=0.0: must be positive"),
        ({"bn_momentum": 1.5}, "bn_momentum=1.5: must be above 0 and at most 1"),
        ({"bn_momentum": float("nan")}, "bn_momentum=nan"),
        ({"bn_group": -1}, "bn_group=-1: must be 0"),
    ],
)
def test_bad_settings_are_refused_with_key_value_and_what_is_allowed(net, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        build_meta(**{"family": "cifar", "depth": 20, "shortcut": "A", "num_classes": 10} | net)


@pytest.mark.parametrize(
    "net",
    [
        {"shortcut": "B", "zero_pad": "both"},
        {"shortcut": "A", "gate_bias": -3.0},
        {"shortcut": "none", "layers_per_block": 1},
        {"shortcut": "A", "stride_in": "3x3"},
        {"family": "imagenet", "depth": 18, "shortcut": "A", "layers_per_block": 3},
        {"family": "imagenet", "depth": 34, "shortcut": "B", "stride_in": "3x3"},
    ],
)
def test_a_setting_that_the_net_would_ignore_is_refused(net):
    setting = list(net)[-1]
    with pytest.raises(ValueError, match=f"{setting}="):
        check_net(**{"family": "cifar", "depth": 20} | net)


def test_num_classes_and_init_are_checked():
    with pytest.raises(ValueError, match="num_classes=0"):
        build("cifar", 20, "A", num_classes=0)
    with pytest.raises(ValueError, match="init='xavier': expected one of he_fan_in, he_fan_out"):
        check_net("cifar", 20, "A", init="xavier")
