"""Weights of other people's nets give the same outputs in ours."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision import models as torchvision_models
from torchvision.models.resnet import BasicBlock

from resnet_repro.models.build import build, build_meta
from resnet_repro.models.formats import load_into, net_of, to_torchvision
from resnet_repro.models.spec import NetSpec


@pytest.fixture(autouse=True)
def _same_random_numbers():
    torch.manual_seed(0)


class Pad(nn.Module):
    def forward(self, x):
        half = x.shape[1] // 2
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, half, half))


class TheirNet(nn.Module):
    """A small replica of akamaster's CIFAR nets: names of modules and option A on both sides."""

    def __init__(self, n):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        for stage, (inputs, width) in enumerate([(16, 16), (16, 32), (32, 64)], start=1):
            first = BasicBlock(16, 16) if stage == 1 else BasicBlock(inputs, width, 2, Pad())
            blocks = [first, *(BasicBlock(width, width) for _ in range(n - 1))]
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
        self.linear = nn.Linear(64, 10)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(F.avg_pool2d(x, x.shape[3]).flatten(1))


def randomise(net):
    """Give BN everything that training would: none of it may be lost in the renaming."""
    generator = torch.Generator().manual_seed(0)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.bias.data, module.running_mean):
                tensor.normal_(0.3, 0.5, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
            module.num_batches_tracked.fill_(7)
    return net.eval()


@pytest.mark.parametrize("n", [1, 3])
def test_akamaster_weights_give_the_same_scores(n):
    theirs = randomise(TheirNet(n))
    state = theirs.state_dict()
    net = net_of("akamaster", state)
    assert net == (NetSpec("cifar", 6 * n + 2, "A", zero_pad="both"), 10)
    ours = build(*net)
    load_into(ours, state, "akamaster")
    x = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(x), theirs(x))
        padded_at_the_end = build(NetSpec("cifar", 6 * n + 2, "A"), 10)
        padded_at_the_end.load_state_dict(ours.state_dict())
        assert not torch.allclose(padded_at_the_end.eval()(x), theirs(x), rtol=1e-2)


@pytest.mark.parametrize("depth", [18, 34, 50])
def test_torchvision_weights_give_the_same_scores_and_come_back_as_they_were(depth):
    theirs = randomise(getattr(torchvision_models, f"resnet{depth}")(num_classes=12))
    state = theirs.state_dict()
    net = net_of("torchvision", state)
    assert net == (NetSpec("imagenet", depth, "B", stride_in="3x3" if depth == 50 else "1x1"), 12)
    ours = build(*net)
    load_into(ours, state, "torchvision")
    x = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        expected = theirs(x)
        torch.testing.assert_close(ours.eval()(x), expected, rtol=1e-4, atol=1e-4)
        if depth == 50:  # the stride's place is not in the weights, only in the outputs
            papers = build(NetSpec("imagenet", depth, "B"), 12)
            papers.load_state_dict(ours.state_dict())
            assert not torch.allclose(papers.eval()(x), expected, rtol=1e-2)
    written = to_torchvision(ours.state_dict(), net[0])
    assert written.keys() == state.keys()
    assert all(torch.equal(written[key], tensor) for key, tensor in state.items())


@pytest.mark.parametrize("depth", [101, 152])
def test_torchvision_keys_and_shapes_fit_the_deep_nets_both_ways(depth):
    with torch.device("meta"):
        theirs = getattr(torchvision_models, f"resnet{depth}")()
    state = theirs.state_dict()
    net = net_of("torchvision", state)
    assert net[0].depth == depth
    ours = build_meta(*net)
    load_into(ours, state, "torchvision")
    theirs.load_state_dict(to_torchvision(ours.state_dict(), net[0]), assign=True)


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        (NetSpec("cifar", 20, "B"), "ResNet-20 B cannot be saved .* ImageNet family only"),
        (NetSpec("imagenet", 18, "A"), "ResNet-18 A .* have option B, not option A"),
        (NetSpec("imagenet", 34, "C"), "ResNet-34 C .* have option B, not option C"),
        (NetSpec("imagenet", 18, "none"), "plain-18 .* have option B, not plain nets"),
        (NetSpec("imagenet", 50, "B"), "ResNet-50 .* stride in the 3x3 conv, this net's in the"),
        (NetSpec("imagenet", 18, "B", bn_eps=1e-3), "eps 1e-5, this net's 0.001"),
    ],
)
def test_nets_that_torchvision_does_not_have_are_refused_with_the_reason(spec, reason):
    with pytest.raises(ValueError, match=reason):
        to_torchvision(build_meta(spec, 10).state_dict(), spec)


def akamaster_state(**changes):
    """A state dict of 20 layers; what is changed to None is missing."""
    state = TheirNet(3).state_dict() | changes
    return {key: value for key, value in state.items() if value is not None}


RENAMED = {"layer2.1.conv2.weight": None, "layer2.1.bn9000.weight": torch.ones(1)}


@pytest.mark.parametrize(
    ("depth", "classes", "changes", "message"),
    [
        (32, 10, {}, r"missing stage1\.3\.residual\.conv1\.weight.* and \d+ more$"),
        (8, 10, {}, r"unexpected layer1\.1\.conv1\.weight \(theirs\).* and \d+ more$"),
        (20, 100, {}, r"size mismatch for head\.fc\.weight: .*\[10, 64\]"),
        (20, 10, RENAMED | {"extra": torch.zeros(1)},
         r"missing stage2\.1\.residual\.conv2\.weight; unexpected layer2\.1\.bn9000.* extra"),
        (20, 10, {"bn1.num_batches_tracked": torch.zeros(0)},
         r"size mismatch for stem\.bn\.num_batches_tracked"),
    ],
)  # fmt: skip
def test_weights_that_do_not_fit_are_refused_by_key_and_shape(depth, classes, changes, message):
    ours = build(NetSpec("cifar", depth, "A"), classes)
    with pytest.raises(ValueError, match=message):
        load_into(ours, akamaster_state(**changes), "akamaster")


def test_old_files_without_batch_counters_are_accepted():
    state = {k: v for k, v in akamaster_state().items() if "num_batches" not in k}
    ours = build(NetSpec("cifar", 20, "A"), 10)
    load_into(ours, state, "akamaster")
    assert ours.stem.bn.num_batches_tracked == 0


def test_akamasters_option_b_is_recognised():
    state = akamaster_state()
    for stage, inputs, width in ((2, 16, 32), (3, 32, 64)):
        shortcut = nn.Sequential(nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width))
        for key, tensor in shortcut.state_dict().items():
            state[f"layer{stage}.0.shortcut.{key}"] = tensor
    net = net_of("akamaster", state)
    assert net == (NetSpec("cifar", 20, "B"), 10)
    load_into(build(*net), state, "akamaster")


@pytest.mark.parametrize(
    ("fmt", "state", "message"),
    [
        ("torchvision", {}, r"missing fc\.weight"),
        ("torchvision", {"fc.weight": torch.zeros(3)}, r"missing fc\.weight"),
        ("torchvision", {"fc.weight": torch.zeros(3, 4)}, r"stages of \[\] blocks"),
        ("akamaster", {"fc.weight": torch.zeros(3, 4)}, r"no akamaster weights: missing linear\.w"),
    ],
)
def test_what_is_not_a_state_dict_of_the_format_is_refused(fmt, state, message):
    with pytest.raises(ValueError, match=message):
        net_of(fmt, state)
