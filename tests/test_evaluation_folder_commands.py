"""``resnet_repro.evaluate data=folder|imagenet`` as a user says it."""

import json

import pytest
import torch
from torch.nn import functional as F
from torchvision import models

from resnet_repro import evaluate
from resnet_repro.data.jpeg import centre_crop, scaled
from resnet_repro.evaluation import images
from resnet_repro.evaluation.protocols import Geometry
from resnet_repro.evaluation.subjects import from_file
from test_evaluation_commands import MEAN, STD, counted, done, refused, results
from test_evaluation_pictures import SIZES, fill
from test_models_formats import randomise


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Two files as torchvision's, of nets with three classes."""
    folder, paths, nets = tmp_path_factory.mktemp("weights"), [], []
    for seed in (0, 1):
        torch.manual_seed(seed)
        nets.append(randomise(models.resnet18(num_classes=3)).eval())
        paths.append(folder / f"resnet18-{seed}.pth")
        torch.save(nets[-1].state_dict(), paths[-1])
    return paths, nets


@pytest.fixture
def root(tmp_path):
    return fill(tmp_path / "pictures")


@pytest.fixture
def two_scales(monkeypatch):
    scales = (224, 256)
    monkeypatch.setattr(images, "Geometry", lambda: Geometry(scales=scales))
    return scales


def args(root, paths, *more):
    files = "weights=" + ",".join(map(str, paths))
    fixed = ("format=torchvision", "data=folder", f"data.root={root}", "trainer.loader_workers=1")
    return [files, *fixed, *more]


def pixels(root):
    files = sorted((root / "val").glob("*/*.JPEG"))
    crops = [torch.from_numpy(centre_crop(path.read_bytes(), "")) for path in files]
    images = (torch.stack(crops).permute(0, 3, 1, 2).float() / 255 - MEAN) / STD
    return images, torch.tensor([int(path.parent.name[1:]) for path in files])


def test_one_crop_counts_as_torchvisions_net(root, weights):
    (path, _), (net, _) = weights
    found = counted(root.parent / "results", *args(root, [path]))
    images, labels = pixels(root)
    with torch.no_grad():
        scores = net(images)
    assert found["wrong1"] == int((scores.argmax(1) != labels).sum())
    assert found["loss"] == pytest.approx(F.cross_entropy(scores, labels).item(), rel=1e-4)
    assert (found["num_samples"], found["left_out"], found["left_out_images"]) == (6, 0, [])
    assert (found["protocol"], found["kind"]) == ("1-crop", "test")
    assert found["data"]["name"] == "folder"
    assert set(found["data"]["digests"]) == {"test_pictures", "test_sizes"}
    assert len(found["data"]["digests"]["test_pictures"]) == 64
    assert str(root.parent) not in json.dumps(found)


def test_ensembles_and_protocols_are_stored_as_such(root, weights, two_scales):
    paths, _ = weights
    for path in sorted((root / "val").glob("*/*_1.JPEG")):
        path.unlink()  # one of each class will do
    out = root.parent / "results"
    for members, protocol in ((paths[:1], "10-crop"), (paths, "multi-scale")):
        done(evaluate, *args(root, members, f"protocol={protocol}", f"results_dir={out}"))
    found = results(out)
    assert set(found) == {"resnet18-0_10-crop", "ensemble2_resnet18-0_multi-scale"}
    assert found["resnet18-0_10-crop"]["protocol"] == "10-crop"
    both = found["ensemble2_resnet18-0_multi-scale"]
    assert both["protocol"] == "ensemble of 2, multi-scale"
    assert both["loss"] == pytest.approx(slow_ensemble_loss(root, paths, two_scales), rel=1e-3)


@torch.no_grad()
def slow_ensemble_loss(root, paths, scales):
    nets, losses = [from_file(path, "torchvision").net for path in paths], []
    for path in sorted((root / "val").glob("*/*.JPEG")):
        sides = [torch.from_numpy(scaled(path.read_bytes(), "", side)) for side in scales]
        shown = [(side.permute(2, 0, 1).float() / 255 - MEAN) / STD for side in sides]
        scores = [sum(net.forward_dense(x[None]) for x in shown) / len(shown) for net in nets]
        average = torch.cat(scores).double().softmax(1).mean(0)
        losses.append(-float(average[int(path.parent.name[1:])].log()))
    return sum(losses) / len(losses)


def test_corrupt_pictures_end_it_or_are_stored_by_name(root, weights):
    (path, _), _ = weights
    bad = sorted((root / "val").glob("*/*.JPEG"))[3]
    bad.write_bytes(b"no picture")
    out = f"results_dir={root.parent / 'results'}"
    assert bad.name in refused("data.on_corrupt=skip", *args(root, [path], out), code=3)
    assert not (root.parent / "results").exists()
    output = done(evaluate, *args(root, [path], "data.on_corrupt=skip", out))
    assert "| folder test " in output
    assert "1 left out" in output
    (found,) = results(root.parent / "results").values()
    assert (found["num_samples"], found["left_out"]) == (len(SIZES) - 1, 1)
    (line,) = found["left_out_images"]
    assert line.startswith(f"val/{bad.parent.name}/{bad.name}: ")
    assert found["command"].endswith(" data=folder data.on_corrupt=skip")


def test_what_does_not_fit_is_refused(root, weights, tmp_path):
    (path, _), _ = weights
    out, nowhere = f"results_dir={tmp_path}", tmp_path / "nowhere"
    refused("split=val: must be test", *args(root, [path], "split=val", out))
    (root / "val" / "n00000002").rename(root / "elsewhere")
    message = "resnet18-0.pth: its net has 3 classes, folder has 2"
    refused(message, *args(root, [path], out))
    refused(str(nowhere / "val"), *args(nowhere, [path], out), code=3)
