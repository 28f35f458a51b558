"""Traps that public reproductions fell into, as they apply to full-size pictures.

Trap 9 stands with the other testing protocols, 11 and 15 with the experiments.
"""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pictures import write_folder
from ranks import do, fingerprint
from resnet_repro.compose import make_job
from resnet_repro.data.colours import load_statistics
from resnet_repro.data.folder import load_indices
from resnet_repro.data.jpeg import centre_crop
from resnet_repro.data.streamed import StreamedImages
from resnet_repro.training.build import assemble, load_images
from resnet_repro.training.device import set_up
from resnet_repro.training.distributed import World
from resnet_repro.training.launch import Job
from resnet_repro.training.records import even_batch_size
from small_crops import CROP, shrink

SMALL = (
    "experiment=imagenet_plain18", "data=folder", "profile=smoke", "trainer.threads=1",
    "trainer.precision=fp32", "trainer.loader_workers=0",
)  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def small_crops():
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        patch.setattr("resnet_repro.training.build.replicate", lambda model, _: model)
        yield


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures")
    write_folder(root, val=3, size=(80, 70))
    return root


def job_on(pictures: Path, root: Path, *words: str) -> Job:
    return make_job(*SMALL, f"data.root={pictures}", f"runs_dir={root}", *words)


def images_of(job: Job, world: World | None = None) -> StreamedImages:
    setup = set_up(job.config.trainer)
    parts, _ = assemble(job.config, setup, load_images(job.config), world or World())
    assert isinstance(parts.images, StreamedImages)
    return parts.images


def test_trap_05_looking_at_pictures_does_not_move_the_statistics(root, tmp_path):
    watched = job_on(root, tmp_path / "watched", "evaluation.every_iters=1")
    blind = job_on(
        root, tmp_path / "blind", "evaluation.every_iters=4", "probes.signals=false",
        "probes.response_images=0",
    )  # fmt: skip
    assert do(watched) == do(blind) == "finished"
    key = "weights, statistics and momentum"
    assert fingerprint(watched.folder)[key] == fingerprint(blind.folder)[key]
    tests = [[r for r in j.folder.metrics() if r["kind"] == "test"] for j in (watched, blind)]
    assert [len(found) for found in tests] == [4, 1]
    assert tests[0][-1]["loss"] == tests[1][-1]["loss"]


@pytest.mark.parametrize("batch_size", [2, 4, 100])
@pytest.mark.parametrize("size", [1, 2, 4])
def test_trap_08_14_every_picture_is_tested_once_however_many_workers_there_are(
    root, tmp_path, batch_size, size
):
    """Others test on part of the pictures, or pad the last batch and count some twice."""
    job = job_on(root, tmp_path)
    seen: list[bytes] = []
    for rank in range(size):
        test = images_of(job, World(rank, size)).held_out["test"]
        even = even_batch_size(len(test), batch_size, size)
        for images, labels in test.eval_batches(even, first=rank, every=size):
            assert 0 < len(labels) <= batch_size
            seen += [image.numpy().tobytes() for image in images]
    assert len(seen) == len(set(seen)) == 9


def test_trap_10_the_mean_is_that_of_these_pictures_and_nothing_is_divided(root, tmp_path):
    """Others subtract ImageNet's mean colour whatever the pictures, and divide by a deviation."""
    images = images_of(job_on(root, tmp_path))
    train, val = load_indices(root)
    statistics = load_statistics(train, root)
    assert statistics.mean.shape == (CROP, CROP, 3)
    ((shown, _),) = images.held_out["test"].eval_batches(100)
    for row, image in enumerate(shown):
        picture = centre_crop(val.path(row).read_bytes(), "") / 255 - statistics.mean
        assert np.allclose(image.permute(1, 2, 0).numpy(), picture, atol=1e-6)
    darker = tmp_path / "darker"
    shutil.copytree(root / "train", darker / "train")
    shutil.copytree(root / "val", darker / "val")
    for path in (darker / "train").glob("n00000000/*"):  # one class becomes another's pictures
        path.write_bytes((root / "train/n00000001" / path.name.replace("0_", "1_")).read_bytes())
    ((other, _),) = images_of(job_on(darker, tmp_path)).held_out["test"].eval_batches(100)
    assert not torch.allclose(other, shown, atol=1e-3)


def test_training_pictures_are_the_crop_less_the_mean_plus_one_colour(root, tmp_path):
    """Sec. 3.4: one colour for a whole picture; the mean is subtracted from the crop."""
    images = images_of(job_on(root, tmp_path))
    statistics = load_statistics(load_indices(root)[0], root)
    count = images.share_shape[0]
    (raw,) = replace(images._decoder, workers=0).train(images._index, images.order, range(1))
    given, labels = images.batch(0)
    assert torch.equal(labels, raw.labels)
    for row in range(count):
        noise = statistics.colours @ (raw.alphas[row].numpy() * statistics.deviations)
        expected = raw.images[row].numpy() / 255 - statistics.mean + noise
        assert np.allclose(given[row].permute(1, 2, 0).numpy(), expected, atol=1e-5)
        assert np.abs(noise).max() > 1e-4
