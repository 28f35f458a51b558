"""Protocols and precise batch norm against slow references, one image and one view at a time."""

import copy

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torchvision.transforms.functional import ten_crop

from resnet_repro.data import Arrays
from resnet_repro.evaluation import protocols
from resnet_repro.evaluation.count import count_errors
from resnet_repro.evaluation.images import SmallImages, subtract
from resnet_repro.evaluation.protocols import Geometry, precise_bn, scorer, views_of
from resnet_repro.models.build import build
from resnet_repro.models.spec import NetSpec
from test_models_formats import randomise

SMALL = Geometry(crop=24, ten_crop_side=28, scales=(24, 32, 40), window=1)


def images(count, height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, height, width, generator=generator)


class TinyNet(nn.Module):
    """Sees where things are, so that every crop and its mirror score differently."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(5, 3, 24, 24) / 8)

    def forward(self, x):
        return torch.einsum("nchw,kchw->nk", x, self.weight)


def score(protocol, net, pictures, geometry=SMALL, prepare=lambda x: x):
    return scorer(protocol, net, prepare, geometry.window)(views_of(protocol, pictures, geometry))


def pil_resize(image, height, width):
    planes = [Image.fromarray(plane.numpy()) for plane in image]
    resized = [each.resize((width, height), Image.Resampling.BILINEAR) for each in planes]
    return torch.from_numpy(np.stack([np.asarray(plane) for plane in resized]))


@pytest.mark.parametrize(("height", "width", "size"), [(30, 42, (28, 39)), (50, 37, (38, 28))])
def test_resizing_keeps_proportions_and_averages_as_pil_does(height, width, size):
    pictures = images(2, height, width)
    resized = protocols.resize_shorter(pictures, 28)
    assert resized.shape[-2:] == size
    for picture, ours in zip(pictures, resized, strict=True):
        torch.testing.assert_close(ours, pil_resize(picture, *size), rtol=0, atol=1e-4)


def test_one_crop_of_small_pictures_is_the_whole_picture():
    """The centre of full-size ones is cut as they are decoded."""
    pictures, net = images(3, 24, 24), TinyNet()
    expected = torch.cat([net(picture[None]) for picture in pictures])
    torch.testing.assert_close(score("1-crop", net, pictures), expected)


def test_trap_09_ten_crops_are_averaged_for_each_image_alone():
    """A mean over a flattened batch of crops would mix images as soon as there is more than one."""
    net, pictures = TinyNet(), images(7, 56, 80)
    together = score("10-crop", net, pictures)
    for i, picture in enumerate(pictures):
        crops = ten_crop(pil_resize(picture, 28, 40), 24)  # they are resized first
        expected = sum(net(view[None])[0].double().softmax(0) for view in crops) / 10
        torch.testing.assert_close(together[i].exp().double(), expected, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(together.exp().sum(1), torch.ones(7))
    order = torch.tensor([3, 0, 6, 2, 5, 1, 4])
    torch.testing.assert_close(score("10-crop", net, pictures[order]), together[order])


def test_a_probability_of_zero_gives_a_finite_loss():
    scores = torch.tensor([[0.0, 200.0]])
    mean = protocols.log_mean_softmax([scores, scores])
    loss = count_errors(lambda _: mean, [(scores, torch.tensor([0]))], 1).loss
    assert loss == pytest.approx(200)


@torch.no_grad()
def test_multi_scale_is_the_mean_over_scales_and_positions():
    resnet = randomise(build(NetSpec("imagenet", 18, "A"), 6))
    pictures = images(2, 64, 80)
    geometry = Geometry(crop=64, scales=(64, 96, 128), window=2)
    expected = []
    for picture in pictures:
        by_scale = []
        for side in geometry.scales:
            resized = pil_resize(picture, side, round(80 * side / 64))
            windows = F.avg_pool2d(resnet.features(resized[None]), 2, stride=1)[0]
            by_scale.append(resnet.head.fc(windows.flatten(1).T).mean(0))  # of all positions
        expected.append(torch.stack(by_scale).mean(0))
    found = score("multi-scale", resnet, pictures, geometry)
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-3, atol=1e-3)


def test_normalisation_comes_after_the_crop_and_for_other_views_the_mean_image_is_resized():
    """As in the authors' release: the mean image is as large as a crop."""
    pictures, mean, net = images(2, 28, 28), images(1, 24, 24, seed=5)[0], TinyNet()
    found = score("10-crop", net, pictures, prepare=subtract(mean))
    crops = [net(crop - mean) for crop in protocols.ten_crops(pictures, 24)]
    torch.testing.assert_close(found, torch.stack(crops).softmax(2).mean(0).log())
    pictures = images(2, 36, 48)
    expected = pictures - pil_resize(mean, 36, 48)
    torch.testing.assert_close(subtract(mean)(pictures), expected, rtol=0, atol=1e-5)


def small_images(pixels, labels):
    arrays = Arrays(pixels, labels, pixels, labels, 10, {})
    return SmallImages(arrays, {"all"}, "test", torch.device("cpu"))


@pytest.mark.parametrize("batch_size", [1, 3, 10, 11])
def test_trap_08_14_every_image_is_shown_once_whatever_the_batch(batch_size):
    pixels = np.arange(10, dtype=np.uint8)[:, None, None, None].repeat(2, 1).repeat(2, 2)
    held_out = small_images(pixels.repeat(3, 3), np.arange(10, dtype=np.uint8))
    seen = [
        (round(float(image[0, 0, 0]) * 255), int(label))
        for [shown], labels in held_out.shown("1-crop", batch_size)
        for image, label in zip(shown, labels, strict=True)
    ]
    assert seen == [(i, i) for i in range(10)]


def test_small_pictures_keep_the_papers_proportions():
    paper = Geometry()
    assert paper.scales == (224, 256, 384, 480, 640)
    assert (paper.crop, paper.ten_crop_side, paper.window) == (224, 256, 7)
    assert Geometry.of_small_pictures(224) == Geometry()
    tiny = Geometry.of_small_pictures(64)
    assert (tiny.crop, tiny.ten_crop_side, tiny.window) == (64, 73, 2)
    assert tiny.scales == (64, 73, 110, 137, 183)


def test_scores_of_half_precision_are_averaged_in_single():
    class Half(nn.Module):
        def forward(self, x, window=7):
            return x.flatten(1)[:, :5].to(torch.bfloat16)

        forward_dense = forward

    for protocol in ("1-crop", "10-crop", "multi-scale"):
        assert score(protocol, Half(), images(2, 28, 28)).dtype == torch.float32


def batches(*sizes):
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(size, 3, 8, 8, generator=generator) + size for size in sizes]


def trained_net(**settings):
    """A net, and a copy of its state."""
    net = build(NetSpec("cifar", 8, "B", **settings), 4, seed=2)
    for norm in norms(net).values():
        norm.running_mean.fill_(0.7)
        norm.running_var.fill_(3.0)
        norm.num_batches_tracked.fill_(11)
    return net.eval(), copy.deepcopy(net.state_dict())


def norms(net):
    return {name: m for name, m in net.named_modules() if isinstance(m, nn.BatchNorm2d)}


def assert_untouched(net, before):
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(norm.momentum == 0.1 for norm in norms(net).values())


def test_statistics_are_the_averages_over_all_batches():
    """Of every layer: what it normalises by in training mode, each image counted the same."""
    net, _ = trained_net()
    shown = batches(4, 12, 8, 8, 8)
    share = torch.tensor([len(images) / 40 for images in shown], dtype=torch.double)
    twin = copy.deepcopy(net).train()
    seen = {name: [] for name in norms(net)}
    for name, norm in norms(twin).items():

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
        for name, norm in norms(net).items():
            mean, var = (
                (share @ torch.stack(each)).float() for each in zip(*seen[name], strict=True)
            )
            torch.testing.assert_close(norm.running_mean, mean, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(norm.running_var, var, rtol=1e-4, atol=1e-5)


def test_groups_of_images_are_averaged_too():
    net, before = trained_net(bn_group=4)
    shown = batches(8, 8)
    with precise_bn(net, shown):
        with torch.no_grad():
            made = [net.stem.conv(images).transpose(0, 1) for images in shown]
        parts = [part.flatten(1).var(1) for out in made for part in out.split(4, dim=1)]
        expected = torch.stack(parts).mean(0)
        torch.testing.assert_close(net.stem.bn.running_var, expected, rtol=1e-4, atol=1e-5)
    assert_untouched(net, before)


@pytest.mark.parametrize("training", [True, False])
def test_afterwards_all_is_as_before(training):
    net, before = trained_net()
    net.train(training)
    x = torch.randn(2, 3, 8, 8)
    with precise_bn(net, batches(6)), torch.no_grad():
        inside = net(x)
    assert net.training is training
    assert_untouched(net, before)
    with torch.no_grad():
        assert not torch.allclose(net.eval()(x), inside, rtol=1e-2)


def test_a_failure_inside_leaves_no_trace_and_nothing_to_average_is_one():
    net, before = trained_net()
    with pytest.raises(KeyError), precise_bn(net, batches(6)):
        raise KeyError
    assert_untouched(net, before)
    wrong = [*batches(6), torch.zeros(2, 5, 8, 8)]
    for shown, error, message in (
        (wrong, RuntimeError, "5 channels"),
        ([], ValueError, "at least one batch"),
    ):
        with pytest.raises(error, match=message), precise_bn(net, shown):
            pytest.fail("the batches should have failed")
        assert_untouched(net, before)
        assert not net.training
