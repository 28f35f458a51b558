"""Batches of full-size pictures from any number of workers and any start; corrupt pictures."""

import gc
import multiprocessing
import os
import pickle
import shutil
import signal
import tempfile
import threading
import time
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from pictures import SMALL_CROP
from refusals import refused
from resnet_repro.data import DataError, StoppedError
from resnet_repro.data import loader as loader_module
from resnet_repro.data.folder import load_indices
from resnet_repro.data.jpeg import centre_crop, train_crop
from resnet_repro.data.loader import Decoder
from resnet_repro.data.order import BatchOrder, picture_draw
from resnet_repro.runs.signals import stop_on_signals

CPU = torch.device("cpu")
HERE = Decoder(0, CPU)


@pytest.fixture(scope="module")
def train(photographs):
    return load_indices(photographs)[0]


@pytest.fixture(scope="module")
def val(photographs):
    return load_indices(photographs)[1]


def batches(index, iterations, workers=0, skip=False):
    order = BatchOrder(len(index), 5, seed=4)
    return Decoder(workers, CPU, skip).train(index, order, iterations)


def tensors(batch):
    return [*batch.images, batch.labels, batch.alphas]


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(tensors(a), tensors(b), strict=True))


def test_same_batches_from_any_number_of_workers_and_any_start(train):
    before = torch.get_rng_state()
    here = list(batches(train, range(6)))
    assert torch.equal(torch.get_rng_state(), before)  # the global stream is not touched
    assert len(here) == 6
    for workers in (1, 2):
        found = batches(train, range(6), workers)
        assert all(same(a, b) for a, b in zip(here, found, strict=True)), workers
    for start in range(1, 6):
        assert all(map(same, here[start:], batches(train, range(start, 6))))
    assert all(map(same, here[3:], batches(train, range(3, 6), workers=1)))


def test_a_batch_is_what_the_order_and_the_draws_say(train):
    order = BatchOrder(len(train), 5, seed=4)
    for iteration, batch in enumerate(batches(train, range(6))):
        (images,) = batch.images
        assert images.shape == (5, SMALL_CROP, SMALL_CROP, 3)
        assert images.dtype == torch.uint8
        for position, row in enumerate(order.batch(iteration).indices.tolist()):
            epoch = (5 * iteration + position) // 12  # batch 2 straddles epochs 0 and 1
            draw = picture_draw(4, epoch, row)
            crop = train_crop(train.path(row).read_bytes(), "", draw)
            assert np.array_equal(images[position].numpy(), crop)
            assert batch.labels[position] == train.labels[row]
            assert batch.alphas[position].tolist() == pytest.approx(draw.alphas)
        assert not batch.failures


@pytest.mark.parametrize("workers", [0, 2])
def test_test_pictures_come_once_and_in_order(val, workers):
    found = list(Decoder(workers, CPU).test(val, [range(4), range(4, 6)]))
    assert [len(batch.labels) for batch in found] == [4, 2]
    assert torch.cat([batch.labels for batch in found]).tolist() == val.labels.tolist()
    for row, image in enumerate(torch.cat([batch.images[0] for batch in found])):
        assert np.array_equal(image.numpy(), centre_crop(val.path(row).read_bytes(), ""))
    assert not any(batch.alphas.any() for batch in found)


def test_an_order_over_other_pictures_is_refused(train, val):
    order = BatchOrder(len(train), 5, 0)
    refused(HERE.train, val, order, range(1), match="12 pictures, not 6", kind=ValueError)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_corrupt_picture_stops_or_is_counted_and_a_missing_one_always_stops(
    photographs, train, tmp_path, workers, capsys
):
    shutil.copytree(photographs, tmp_path / "copy")
    bad = tmp_path / "copy" / "train" / "n00000001" / "n00000001_2.JPEG"
    bad.write_bytes(bad.read_bytes()[:1500])
    index, _ = load_indices(tmp_path / "copy")
    refused(list, batches(index, range(6), workers), match="n00000001_2.JPEG")
    found = list(batches(index, range(6), workers, skip=True))
    missing = [row for batch in found for row, _ in batch.failures]
    order = BatchOrder(len(index), 5, seed=4)
    rows = [order.batch(i).indices for i in range(6)]
    assert missing == [row for row in np.concatenate(rows) if index.path(row) == bad]
    assert len(missing) >= 2
    assert capsys.readouterr().err.count(f"skipped: {bad}") == 1  # told once
    for whole, batch, used in zip(batches(train, range(6)), found, rows, strict=True):
        good = torch.tensor([index.path(row) != bad for row in used])
        for tensor, left in zip(tensors(whole), tensors(batch), strict=True):
            assert torch.equal(tensor[good], left)  # nothing is put in its place
    bad.unlink()
    message = "n00000001_2.JPEG cannot be read"
    refused(list, batches(index, range(6), workers, skip=True), match=message)


def test_stop_signals_do_not_reach_the_workers(train):
    stream = batches(train, range(12), workers=2)
    found = [next(stream), next(stream)]  # one of each: both have started
    workers = multiprocessing.active_children()
    assert len(workers) == 2
    for worker in workers:
        os.kill(worker.pid, signal.SIGTERM)
        os.kill(worker.pid, signal.SIGINT)
    found += list(stream)
    assert all(map(same, found, batches(train, range(12))))
    assert len(found) == 12


def leave_in_the_middle(train):
    stream = batches(train, range(12), workers=2)
    next(stream)
    gc.freeze()  # nothing collects it before the process ends
    globals()["kept"] = stream


def test_a_process_that_ends_in_the_middle_does_not_wait_for_its_workers(train):
    process = multiprocessing.get_context("fork").Process(target=leave_in_the_middle, args=(train,))
    process.start()
    process.join(60)
    ended = process.exitcode
    process.kill()
    assert ended == 0


def test_a_data_set_can_be_sent_to_spawned_workers_and_memory_is_pinned_for_cuda_only(train):
    pictures = loader_module.PictureBatches(train, partial(loader_module._train_view, 4))
    assert same(pictures[[(0, 3)]], pickle.loads(pickle.dumps(pictures))[[(0, 3)]])
    assert not HERE.loader(pictures, []).pin_memory
    assert replace(HERE, device=torch.device("cuda")).loader(pictures, []).pin_memory


def stuck(*_):
    time.sleep(600)


@pytest.mark.parametrize("stopped", [False, True])
def test_a_batch_that_never_comes_ends_in_one_line(train, monkeypatch, stopped):
    """Workers that are alive and give nothing; a signal that elsewhere is only noted."""
    monkeypatch.setattr(loader_module, "_train_view", stuck)
    monkeypatch.setattr(loader_module, "POLL_SECONDS", 0.1)
    monkeypatch.setattr(loader_module, "STOP_SECONDS" if stopped else "STALL_SECONDS", 0.5)
    stream = batches(train, range(6), workers=1)
    with stop_on_signals() as stop_asked:
        if stopped:
            threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
        message = "stopped by a signal while waiting" if stopped else "gave no batch for"
        refused(next, stream, match=message, kind=StoppedError if stopped else DataError)
        assert stop_asked() is stopped  # it reached its own handler, too
    assert not multiprocessing.active_children()


@pytest.fixture
def long_tmpdir(tmp_path, monkeypatch):
    """A folder for temporary files whose path leaves no room for the name of a socket."""
    place = tmp_path / ("x" * 90)
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    config: dict[str, Any] = multiprocessing.current_process()._config
    monkeypatch.delitem(config, "tempdir", raising=False)
    return place


@pytest.mark.usefixtures("long_tmpdir")
def test_a_path_of_temporary_files_too_long_for_sockets_is_replaced_or_refused(train, monkeypatch):
    here = list(batches(train, range(3)))
    assert all(map(same, here, list(batches(train, range(3), workers=2))))
    assert tempfile.gettempdir().endswith("xxx")  # for all else as it was
    monkeypatch.setattr(loader_module, "_SHORT_FOLDERS", ())
    message = r"too long a path .*; set TMPDIR to a shorter folder"
    refused(next, batches(train, range(3), workers=1), match=message)
