"""``resnet_repro.evaluate data=folder|imagenet`` as a user says it, and of our runs on pictures."""

import json

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torchvision import models

from pictures import WORDS, write_folder
from ranks import do
from resnet_repro import evaluate
from resnet_repro.analysis.evaluations import load_evaluations, score_of
from resnet_repro.analysis.load import Logged
from resnet_repro.compose import make_job
from resnet_repro.data import MODIFIED
from resnet_repro.data.jpeg import centre_crop, scaled
from resnet_repro.evaluation import images
from resnet_repro.evaluation.protocols import Geometry
from resnet_repro.evaluation.subjects import from_file
from test_evaluation_commands import ask, assert_same, counted, done, last, refused, results, theirs
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
    crops = np.stack([centre_crop(path.read_bytes(), "") for path in files])
    return theirs(crops), torch.tensor([int(path.parent.name[1:]) for path in files])


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
        shown = [theirs(scaled(path.read_bytes(), "", side)[None]) for side in scales]
        scores = [sum(map(net.forward_dense, shown)) / len(shown) for net in nets]
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


# Runs of ours, counted again; from here on crops are small.
SMALL = ("experiment=imagenet_resnet18_A", *WORDS, "evaluation.clean_train_images=0")


@pytest.fixture(scope="module")
def runs(photographs, tmp_path_factory):
    place = tmp_path_factory.mktemp("results") / "runs"
    args = (*SMALL, "name=small", f"data.root={photographs}", f"runs_dir={place}")
    jobs = [make_job(*args, f"seed={seed}") for seed in (0, 1)]
    assert [do(job) for job in jobs] == ["finished", "finished"]
    return [job.folder for job in jobs]


def of_runs(photographs, *runs):
    paths = "run=" + ",".join(str(run.path) for run in runs)
    return paths, f"data.root={photographs}", "trainer.loader_workers=0"


@pytest.mark.parametrize(("split", "kind"), [("test", "test"), ("train", "train_clean")])
def test_the_single_view_counts_as_it_was_logged(runs, photographs, tmp_path, split, kind):
    found = counted(tmp_path, *of_runs(photographs, runs[0]), f"split={split}")
    assert_same(found, last(runs[0], kind))
    (model,) = found["models"]
    assert (model["run"], model["iter"]) == ("smoke/small/seed0", 4)
    assert model["normalisation"] == "pixel mean of the training pictures"
    trained_on = runs[0].meta()["data"]["digests"]
    assert trained_on.pop(MODIFIED)  # of no meaning for a count
    assert found["data"] == {"name": "folder", "digests": trained_on}


def test_ten_crops_and_an_ensemble_are_joined_with_their_runs(runs, photographs):
    out = runs[0].path.parents[3] / "evaluations"
    done(evaluate, *of_runs(photographs, runs[0]), "protocol=10-crop", f"results_dir={out}")
    done(evaluate, *of_runs(photographs, *runs), f"results_dir={out}")
    loaded = Logged(runs[0].path.parents[2]).runs
    evaluations = load_evaluations(out)
    alone = score_of(loaded[0], "10-crop", evaluations)
    assert (alone.images, alone.left_out) == (6, 0)
    assert score_of(loaded[1], "10-crop", evaluations) is None
    (both,) = [found for found in evaluations if found.is_of(loaded)]
    assert both.score.protocol == "ensemble of 2, 1-crop"


def test_precise_statistics_are_those_of_training_pictures(runs, photographs, tmp_path):
    found = counted(tmp_path, *of_runs(photographs, runs[0]), "bn=precise")
    assert (found["bn"], found["models"][0]["bn_images"]) == ("precise", 10)  # two batches of 5
    assert found["loss"] != pytest.approx(last(runs[0], "test")["loss"], rel=1e-3)


def test_the_mean_of_other_pictures_is_refused(runs, photographs, tmp_path):
    write_folder(tmp_path / "other", size=(80, 70), train=5)
    out = f"results_dir={tmp_path / 'results'}"
    message = "smoke/small/seed0: was trained with other train pictures"
    code, _, err = ask(evaluate, *of_runs(tmp_path / "other", runs[0]), out)
    assert (code, message in err.splitlines()[-1]) == (2, True)
    assert not (tmp_path / "results").exists()
