"""Runs on folders of full-size pictures: resume, shares, corrupt pictures, the record, traps."""

import multiprocessing
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from pictures import SMALL_CROP, WORDS, encoded, photograph, shrink
from ranks import StopAt, do, fingerprint, workers
from refusals import refused
from resnet_repro.compose import make_job
from resnet_repro.data import MODIFIED
from resnet_repro.data.colours import load_statistics
from resnet_repro.data.folder import load_indices
from resnet_repro.data.jpeg import centre_crop
from resnet_repro.data.loader import Decoder
from resnet_repro.data.order import BatchOrder
from resnet_repro.data.streamed import StreamedImages
from resnet_repro.progress import Watcher
from resnet_repro.training import CheckpointError
from resnet_repro.training.build import assemble, load_images
from resnet_repro.training.device import set_up
from resnet_repro.training.distributed import SOLO, World
from resnet_repro.training.launch import Job, launch
from resnet_repro.training.records import even_batch_size

# 3 classes of 4 pictures: a batch of 5 straddles epochs.
SMALL = ("experiment=imagenet_plain18", *WORDS, "evaluation.clean_train_images=3")
PROBED = "probes.response_images=4"  # as the run called whole
BAD = "train/n00000001/n00000001_2.JPEG"


def shrunk(_: World) -> None:
    shrink(pytest.MonkeyPatch())


@pytest.fixture
def spoiled(photographs, tmp_path):
    shutil.copytree(photographs, tmp_path / "spoiled")
    (tmp_path / "spoiled" / BAD).write_bytes(encoded(photograph(80, 70))[:1500])
    return tmp_path / "spoiled"


def job_on(pictures: Path, root: Path, *args: str) -> Job:
    return make_job(*SMALL, f"data.root={pictures}", f"runs_dir={root}", *args)


@pytest.fixture(scope="module")
def whole(photographs, tmp_path_factory):
    job = job_on(photographs, tmp_path_factory.mktemp("whole"), PROBED)
    assert do(job) == "finished"
    return job.folder


def test_a_run_on_pictures_is_complete(whole, photographs):
    records = whole.metrics()
    by_kind = {k: [r["iter"] for r in records if r["kind"] == k] for k in ("train", "test")}
    assert by_kind == {"train": [1, 2, 3, 4], "test": [4]}
    assert [r["lr"] for r in records if r["kind"] == "train"] == [0.1, 0.01, 0.001, 0.0001]
    assert [r["num_samples"] for r in records] == [5, 5, 5, 5, 6, 3]  # train x 4, test, clean
    assert records[1]["epoch"] == pytest.approx(2 * 5 / 12)
    data = whole.meta()["data"]
    train, _ = load_indices(photographs)
    assert data["digests"]["train_pictures"] == train.digest()
    names = {"train_pictures", "train_sizes", "test_pictures", "test_sizes", "mean_picture"}
    assert set(data["digests"]) == names | {MODIFIED}
    assert {key: data[key] for key in data if key != "digests"} == {
        "name": "folder", "train_images": 12, "test_images": 6, "classes": 3,
        "colours_measured_on": 12, "left_out": {},
    }  # fmt: skip
    assert len(whole.table("responses")) == 17


@pytest.mark.parametrize("loaders", [0, 2])
def test_stopped_and_resumed_gives_the_same_bits_with_any_loaders_and_leaves_none(
    whole, photographs, tmp_path, loaders
):
    """Stopped at 3, in the second epoch and between checkpoints; other loaders after the stop."""
    processes = set(multiprocessing.active_children())
    first = job_on(photographs, tmp_path, PROBED, f"trainer.loader_workers={loaders}")
    assert do(first, StopAt(3)) == "preempted"
    assert first.folder.status()["iter"] == 3
    assert set(multiprocessing.active_children()) <= processes
    then = job_on(photographs, tmp_path, PROBED, f"trainer.loader_workers={(loaders + 1) % 3}")
    assert do(then) == "finished"
    assert set(multiprocessing.active_children()) <= processes
    assert fingerprint(then.folder) == fingerprint(whole)
    assert do(first) == "skipped"


@pytest.mark.parametrize("change", ["content", "name", "size of a test picture", "time"])
def test_a_run_resumes_on_the_same_pictures_only(whole, photographs, tmp_path, change):
    """Files replaced under the same names are refused; copies with other times are recorded."""
    pictures = tmp_path / "pictures"
    shutil.copytree(photographs, pictures)
    job = job_on(pictures, tmp_path)
    assert do(job, StopAt(3)) == "preempted"
    place = pictures / ("val" if "test" in change else "train") / "n00000001"
    path = sorted(place.iterdir())[0]
    if change == "name":
        path.rename(path.with_name("other.JPEG"))
    elif change == "time":
        path.touch()
        assert do(job) == "finished"
        (event,) = [r for r in job.folder.metrics() if r.get("event") == "data_modified"]
        assert event["iter"] == 3
        assert event["value"] == job.folder.meta()["data"]["digests"][MODIFIED]
        records = [r for r in job.folder.metrics() if r != event]
        assert [r["iter"] for r in records] == [r["iter"] for r in whole.metrics()]
        return
    else:
        path.write_bytes(encoded(photograph(80, 70, seed=77)) if change == "content" else b"x")
    named = {"content": "mean_picture", "name": "train_pictures"}.get(change, "test_sizes")
    refused(do, job, match=f"made on other data .*{named}", kind=CheckpointError)


def images_of(pictures: Path, root: Path, *args: str, world: World = SOLO) -> StreamedImages:
    config = job_on(pictures, root, *args).config
    parts, _ = assemble(config, set_up(config.trainer), load_images(config), world)
    assert isinstance(parts.images, StreamedImages)
    return parts.images


@pytest.fixture
def no_replica(monkeypatch):
    monkeypatch.setattr("resnet_repro.training.build.replicate", lambda model, _: model)


@pytest.mark.usefixtures("no_replica")
@pytest.mark.parametrize("size", [2, 3])
def test_workers_share_a_batch(photographs, tmp_path, size):
    alone = images_of(photographs, tmp_path)
    shares = [images_of(photographs, tmp_path, world=World(rank, size)) for rank in range(size)]
    for iteration in (0, 1, 2, 5, 3):  # 2 straddles two epochs; then forward and back
        images, labels = alone.batch(iteration)
        assert images.is_contiguous(memory_format=torch.channels_last)
        parts = [share.batch(iteration) for share in shares]
        assert torch.equal(torch.cat([part[0] for part in parts]), images)
        assert torch.equal(torch.cat([part[1] for part in parts]), labels)
        assert [part[0].shape for part in parts] == [share.share_shape for share in shares]
        assert torch.equal(shares[-1].batch(iteration, whole=True)[0], images)


def test_a_sample_of_pictures_that_lie_by_class_has_all_classes(photographs, tmp_path):
    images = images_of(photographs, tmp_path)
    clean = images.clean(3)
    (batch,) = clean.eval_batches(10)
    assert (len(clean), batch[1].tolist()) == (3, [0, 1, 2])
    assert len(images.clean(12)) == 12
    (batch,) = images.held_out["test"].eval_batches(10, 3)
    assert batch[1].tolist() == [0, 1, 2]


def uses(images: int, batch: int, iterations: int, row: int) -> list[int]:
    """Updates, from 1, whose batch holds a row; twice where it holds it twice, in two epochs."""
    order = BatchOrder(images, batch, seed=0)
    return [i + 1 for i in range(iterations) for r in order.batch(i).indices.tolist() if r == row]


def test_a_corrupt_picture_is_left_out_counted_and_named_also_across_a_stop(
    spoiled, tmp_path, capsys
):
    bad_test = "val/n00000002/n00000002_1.JPEG"
    (spoiled / bad_test).write_bytes(b"not a picture")
    args = ("data.on_corrupt=skip", "recipe.max_iters=7", "trainer.log_every_iters=2")
    args += ("evaluation.clean_train_images=12", "evaluation.every_iters=7")
    job = job_on(spoiled, tmp_path / "whole", *args)
    assert do(job) == "finished"
    train, _ = load_indices(spoiled)
    (row,) = [row for row in range(12) if train.path(row) == spoiled / BAD]
    expected = uses(12, 5, 7, row)
    assert len(expected) >= 2
    records = job.folder.metrics()
    events = [(r["iter"], r["value"]) for r in records if r["kind"] == "event"]
    assert events == [*((i, BAD) for i in expected), (7, bad_test), (7, BAD)]
    assert job.folder.meta()["data"]["left_out"] == {BAD: len(expected) + 1, bad_test: 1}
    seen = {r["iter"]: r["num_samples"] for r in records if r["kind"] == "train"}
    windows = {2: (1, 2), 4: (3, 4), 6: (5, 6), 7: (7,)}
    assert seen == {
        end: 5 * len(updates) - sum(use in updates for use in expected)
        for end, updates in windows.items()
    }
    counts = {r["kind"]: r["num_samples"] for r in records if r["kind"].startswith("t")}
    assert (counts["test"], counts["train_clean"]) == (5, 11)
    assert capsys.readouterr().err.count(f"skipped: {spoiled / BAD}") == 1  # once a run

    again = job_on(spoiled, tmp_path / "parts", *args)
    assert do(again, StopAt(expected[0])) == "preempted"  # right after it was first left out
    assert do(again) == "finished"
    assert fingerprint(again.folder) == fingerprint(job.folder)
    assert again.folder.meta()["data"] == job.folder.meta()["data"]


def test_two_workers_train_on_the_same_pictures_as_one_and_name_what_each_left_out(
    spoiled, tmp_path
):
    """Batch-norm over both, so that their losses are one worker's."""
    (spoiled / "train/n00000000/n00000000_0.JPEG").write_bytes(b"")
    args = ("data.on_corrupt=skip", "recipe.batch_size=6", "recipe.lr=0.01", "trainer.sync_bn=true")
    alone, two = (
        job_on(spoiled, tmp_path, *args, f"name=by{n}", f"trainer.devices={n}") for n in (1, 2)
    )
    assert do(alone) == "finished"
    assert workers(two, spoil=shrunk) == "finished"
    records = [job.folder.metrics() for job in (alone, two)]
    keys = ("kind", "iter", "num_samples", "value")
    output = [[[r.get(key) for key in keys] for r in each] for each in records]
    assert output[0] == output[1]
    assert len({r["value"] for r in records[1] if r["kind"] == "event"}) == 2
    assert alone.folder.meta()["data"]["left_out"] == two.folder.meta()["data"]["left_out"]
    losses = [[r["loss"] for r in each if r["kind"] == "train"] for each in records]
    assert losses[1][0] == pytest.approx(losses[0][0], rel=1e-5)
    assert losses[1][1] == pytest.approx(losses[0][1], rel=2e-2)


def test_a_batch_without_any_picture_left_stops(spoiled, tmp_path):
    for path in (spoiled / "train").rglob("*.JPEG"):
        if path.name.endswith(("_0.JPEG", "_1.JPEG", "_2.JPEG")):
            path.write_bytes(b"")
    job = job_on(spoiled, tmp_path, "data.on_corrupt=skip", "recipe.batch_size=2")
    refused(do, job, match="no picture of its batch is left")


class Killer(Watcher):
    def update(self, iteration: int, top1_err: float | None, lr: float) -> None:
        for child in multiprocessing.active_children():
            if iteration == 1:
                child.kill()


def test_a_killed_loader_is_named_in_one_line_and_a_rerun_resumes(whole, photographs, tmp_path):
    job = job_on(photographs, tmp_path, PROBED, "trainer.loader_workers=1")
    message = "a process that decodes pictures was killed"
    refused(launch, job, Killer(), lambda: False, match=message)
    assert job.folder.status()["state"] == "failed"
    assert do(job) == "finished"
    assert fingerprint(job.folder) == fingerprint(whole)


def test_trap_05_looking_at_pictures_does_not_move_the_statistics(photographs, tmp_path):
    watching = (PROBED, "probes.signals=true", "evaluation.every_iters=1")
    watched = job_on(photographs, tmp_path / "watched", *watching)
    blind = job_on(photographs, tmp_path / "blind")
    assert do(watched) == do(blind) == "finished"
    assert len(watched.folder.table("signal")) == 17
    key = "weights, statistics and momentum"
    assert fingerprint(watched.folder)[key] == fingerprint(blind.folder)[key]
    tests = [[r for r in j.folder.metrics() if r["kind"] == "test"] for j in (watched, blind)]
    assert [len(found) for found in tests] == [4, 1]
    assert tests[0][-1]["loss"] == tests[1][-1]["loss"]


@pytest.mark.usefixtures("no_replica")
@pytest.mark.parametrize("batch_size", [2, 4, 100])
@pytest.mark.parametrize("size", [1, 2, 4])
def test_trap_08_14_every_picture_is_tested_once_however_many_workers_there_are(
    photographs, tmp_path, batch_size, size
):
    """Others test on part of the pictures, or pad the last batch and count some twice."""
    seen: list[bytes] = []
    for rank in range(size):
        test = images_of(photographs, tmp_path, world=World(rank, size)).held_out["test"]
        even = even_batch_size(len(test), batch_size, size)
        for images, labels in test.eval_batches(even, first=rank, every=size):
            assert 0 < len(labels) <= batch_size
            seen += [image.numpy().tobytes() for image in images]
    assert len(seen) == len(set(seen)) == 6


def test_trap_10_the_mean_is_that_of_these_pictures_and_nothing_is_divided(photographs, tmp_path):
    """Others subtract ImageNet's mean colour whatever the pictures, and divide by a deviation."""
    images = images_of(photographs, tmp_path)
    train, val = load_indices(photographs)
    statistics = load_statistics(train, photographs)
    assert statistics.mean.shape == (SMALL_CROP, SMALL_CROP, 3)
    ((shown, _),) = images.held_out["test"].eval_batches(100)
    for row, image in enumerate(shown):
        picture = centre_crop(val.path(row).read_bytes(), "") / 255 - statistics.mean
        assert np.allclose(image.permute(1, 2, 0).numpy(), picture, atol=1e-6)
    # Sec. 3.4: a training picture is a crop less the mean, plus one colour for all of it.
    (raw,) = Decoder(0, torch.device("cpu")).train(train, images.order, range(1))
    given, labels = images.batch(0)
    assert torch.equal(labels, raw.labels)
    for row in range(images.share_shape[0]):
        noise = statistics.colours @ (raw.alphas[row].numpy() * statistics.deviations)
        expected = raw.images[0][row].numpy() / 255 - statistics.mean + noise
        assert np.allclose(given[row].permute(1, 2, 0).numpy(), expected, atol=1e-5)
        assert np.abs(noise).max() > 1e-4
