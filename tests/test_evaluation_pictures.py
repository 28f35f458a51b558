"""Full-size pictures under every protocol against slow references, one picture and view a time."""

import multiprocessing
import random
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from pictures import encoded, photograph, write_folder
from refusals import refused
from resnet_repro.config import DataConfig
from resnet_repro.data import folder
from resnet_repro.data.colours import load_statistics
from resnet_repro.data.folder import load_indices
from resnet_repro.data.jpeg import centre_crop, scaled
from resnet_repro.data.loader import Decoder
from resnet_repro.evaluation.count import count_errors
from resnet_repro.evaluation.images import FullSize, alike, imagenet_colours
from resnet_repro.evaluation.protocols import Geometry, scorer
from resnet_repro.evaluation.session import check_classes

CPU = torch.device("cpu")
SIZES = [(300, 260), (260, 300), (300, 260), (231, 400), (640, 480), (300, 260)]
PROTOCOLS = ("1-crop", "10-crop", "multi-scale")


def fill(root):
    """Three classes; six validation pictures in four shapes, three of them alike."""
    write_folder(root, train=2, val=2)
    files = sorted((root / "val").glob("*/*.JPEG"))
    for seed, (path, size) in enumerate(zip(files, SIZES, strict=True)):
        path.write_bytes(encoded(photograph(*size, seed=seed)))
    return root


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    return fill(tmp_path_factory.mktemp("kept") / "pictures")


@pytest.fixture
def own(tmp_path):
    return fill(tmp_path / "pictures")


class Where(nn.Module):
    """Three scores that depend on where things are; ``dense`` averages over all positions."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.weight = torch.randn(3, 3, 224, 224, generator=generator) / 60
        self.kernel = torch.randn(3, 3, 32, 32, generator=generator) / 8

    def forward(self, x):
        return torch.einsum("nchw,kchw->nk", x, self.weight)

    def forward_dense(self, x, window=7):
        at = nn.functional.conv2d(x, self.kernel, stride=32)
        return nn.functional.avg_pool2d(at, window, stride=1).mean((2, 3))


NET = Where()


def scores_of(protocol):
    return scorer(protocol, NET, lambda x: x.float() / 255)


def opened(root, workers=0, *, on_corrupt="stop", ours=False, split="test", name="folder"):
    choice = DataConfig(name=name, on_corrupt=on_corrupt)
    return FullSize(
        choice, root, split, ours=ours, decoder=Decoder(workers, CPU, on_corrupt == "skip")
    )


def shown_scores(held_out, protocol, at_once):
    score = scores_of(protocol)
    return sorted(
        [float(label), *each.tolist()]
        for shown, labels in held_out.shown(protocol, at_once)
        for label, each in zip(labels.tolist(), score(shown), strict=True)
    )


def to_tensor(pixels):
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255


def slowly(root, protocol):
    found = []
    for path in sorted((root / "val").glob("*/*.JPEG")):
        data = path.read_bytes()
        if protocol == "1-crop":
            scores = NET(to_tensor(centre_crop(data, ""))[None])[0]
        elif protocol == "10-crop":
            image = to_tensor(scaled(data, "", 256))
            height, width = image.shape[1] - 224, image.shape[2] - 224
            places = [(0, 0), (0, width), (height, 0), (height, width), (height // 2, width // 2)]
            crops = [image[:, t : t + 224, w : w + 224] for t, w in places]
            views = torch.stack([*crops, *(crop.flip(2) for crop in crops)])
            scores = NET(views).double().softmax(1).mean(0).log()
        else:
            sides = [to_tensor(scaled(data, "", side)) for side in (224, 256, 384, 480, 640)]
            scores = torch.cat([NET.forward_dense(image[None]) for image in sides]).mean(0)
        found.append([float(int(path.parent.name[1:])), *scores.tolist()])
    return found


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_trap_09_a_picture_scores_the_same_whatever_it_is_shown_with(kept, protocol):
    """In particular ten crops are averaged for each picture alone, of whatever size the others."""
    expected = sorted(slowly(kept, protocol))
    assert len({tuple(np.round(row, 3)) for row in expected}) == len(SIZES)  # they do differ
    for at_once in (1, 4, 100):
        found = shown_scores(opened(kept), protocol, at_once)
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_only_pictures_of_one_shape_are_shown_together_whole(kept):
    groups = [len(labels) for _, labels in opened(kept).shown("multi-scale", 100)]
    assert sorted(groups) == [1, 1, 1, 3]
    for shown, labels in opened(kept).shown("multi-scale", 2):
        assert [min(view.shape[2:]) for view in shown] == [224, 256, 384, 480, 640]
        assert {len(view) for view in shown} == {len(labels)}
        assert all(view.dtype == torch.uint8 for view in shown)


def test_waiting_for_ones_like_has_a_bound_and_loses_nobody():
    rng = random.Random(0)
    shapes = [rng.choice([1, 1, 1, 2, 3, 4, 5]) for _ in range(500)]
    stream = [([torch.zeros(shape)], torch.tensor([row])) for row, shape in enumerate(shapes)]
    taken = 0

    def counting():
        nonlocal taken
        for item in stream:
            taken += 1
            yield item

    seen = []
    for group in alike(counting(), 8, waiting=20):
        assert len({shapes[int(label)] for _, label in group}) == 1
        assert len(group) <= 8
        seen += [int(label) for _, label in group]
        if taken < len(stream):
            assert taken - len(seen) <= 20
    assert sorted(seen) == list(range(500))


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts open files as Linux does")
def test_pictures_that_wait_hold_no_files_open(tmp_path):
    """Tensors from a worker do, and a process may have 1,024 of them in most places."""
    write_folder(tmp_path, classes=1, train=1, val=40, size=(60, 50))
    held_out, waiting, files = opened(tmp_path, workers=1), [], []
    held_out.geometry = Geometry(scales=(24, 32))
    for picture in held_out._pictures("multi-scale"):
        waiting.append(picture)
        files.append(len(list(Path("/proc/self/fd").iterdir())))
    assert len(waiting) == 40
    assert files[-1] < min(files) + 40


def count(held_out, protocol, at_once=4):
    shown = held_out.shown(protocol, at_once)
    return count_errors(
        scores_of(protocol), shown, len(held_out), left_out=lambda: len(held_out.left_out)
    )


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_trap_14_each_picture_counts_once_under_any_number_of_workers(kept, protocol):
    here = count(opened(kept), protocol)
    assert (here.seen, here.left_out) == (len(SIZES), 0)
    for workers in (1, 2):
        assert count(opened(kept, workers), protocol) == here


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_corrupt_picture_is_named_counted_and_never_replaced(own, protocol, workers, capsys):
    bad = own / "val" / "n00000001" / "n00000001_0.JPEG"
    good = slowly(own, protocol)
    bad.write_bytes(bad.read_bytes()[:1000])
    refused(count, opened(own, workers), protocol, match="n00000001_0.JPEG")
    assert not multiprocessing.active_children()
    held_out = opened(own, workers, on_corrupt="skip")
    for _ in range(2):  # a second pass counts it again, not twice
        found = count(held_out, protocol)
        assert (found.seen, found.left_out) == (len(SIZES) - 1, 1)
        (line,) = held_out.left_out
        assert line.startswith("val/n00000001/n00000001_0.JPEG: cannot be decoded")
        assert str(own) not in line
    assert capsys.readouterr().err.count("skipped: ") == 1
    others = shown_scores(held_out, protocol, 4)
    np.testing.assert_allclose(others, sorted(good[:2] + good[3:]), rtol=1e-3, atol=1e-4)


def test_trap_08_14_a_part_or_a_padded_set_is_no_result(own):
    held_out = opened(own)
    batches = list(held_out.shown("1-crop", 2))
    score = scores_of("1-crop")
    for shown, gone, message in (
        (batches[:2], 0, "counted 4 images where there are 6"),
        (batches[:2], 1, "counted 4 images and left out 1 where there are 6"),
        ([*batches, batches[0]], 0, "counted 8 images where there are 6"),
        ([], 6, "counted 0 images and left out 6"),
    ):
        missing = {"left_out": lambda gone=gone: gone} if gone else {}
        refused(count_errors, score, shown, 6, **missing, match=message, kind=RuntimeError)
    assert count_errors(score, batches[:2], 6, left_out=lambda: 2).seen == 4
    next((own / "val").glob("*/*.JPEG")).unlink()  # listed, but gone
    for protocol in PROTOCOLS:
        refused(list, held_out.shown(protocol, 2), match="cannot be read")


@torch.no_grad()
def test_ours_are_shown_pictures_less_the_mean_of_the_training_pictures(kept):
    held_out = opened(kept, ours=True)
    mean = load_statistics(load_indices(kept)[0], kept).mean
    image = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8)
    for kind, expected in (("pixel", mean), ("channel", mean.mean((0, 1), keepdims=True))):
        label, prepare = held_out.preparation(DataConfig(name="folder", mean=kind))
        wanted = image.double() / 255 - torch.from_numpy(expected).permute(2, 0, 1)
        torch.testing.assert_close(prepare(image), wanted.float())
        assert label == f"{kind} mean of the training pictures"
        larger = image[:, :, :200]  # another size: the mean colour
        wanted = larger.double() / 255 - torch.from_numpy(mean.mean((0, 1)))[:, None, None]
        torch.testing.assert_close(prepare(larger), wanted.float())
    assert imagenet_colours(CPU)[0].startswith("mean (0.485")
    parts = {f"{part}_{what}" for part in ("train", "test") for what in ("pictures", "sizes")}
    assert set(held_out.digests) == parts | {"mean_picture"}
    assert set(opened(kept).digests) == {"test_pictures", "test_sizes"}
    assert opened(kept).digests["test_pictures"] == held_out.digests["test_pictures"]
    assert set(opened(kept, split="train").digests) == {"train_pictures", "train_sizes"}


def test_training_pictures_are_not_needed_for_other_peoples_nets(own):
    (own / "train").rename(own / "elsewhere")
    assert len(opened(own)) == len(SIZES)
    refused(opened, own, ours=True, match="train/ is missing")


def test_trap_08_a_part_of_imagenet_is_not_imagenet(own, monkeypatch):
    for ours in (False, True):
        message = "has 3 classes, ILSVRC-2012 has 1,000"
        refused(opened, own, ours=ours, name="imagenet", match=message)
    monkeypatch.setattr(folder, "CLASSES", 3)
    message = "has 6 pictures, ILSVRC-2012's validation set has 50,000"
    refused(opened, own, name="imagenet", match=message)


def test_imagenet_weights_need_classes_in_the_order_of_wordnet_ids():
    """With folders 0 to 999 label 2 is class "10", and the error is that of chance."""
    net = SimpleNamespace(data=None, num_classes=1000, source={"file": "resnet50.pth"})
    own = SimpleNamespace(data=DataConfig(), num_classes=1000, source={"file": "ours.pt"})
    wordnet, numbers = [f"n{n:08}" for n in range(1000)], sorted(map(str, range(1000)))
    assert check_classes([net, own], 1000, wordnet, "imagenet") == []
    # In any folder it may be a net of these very classes; data=imagenet refuses the folder.
    (doubt,) = check_classes([own, net], 1000, numbers, "folder")
    assert doubt.startswith("resnet50.pth: numbers its classes as their WordNet ids")
    assert "; 1,000 folders have other names, as 0; " in doubt
    assert doubt.endswith("its errors mean nothing here")
