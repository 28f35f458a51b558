"""A CIFAR-10 of eight images a file, in every form in which the real one comes."""

import hashlib
import json
import os
import tarfile

import numpy as np
from PIL import Image
from torchvision.datasets import CIFAR10

from resnet_repro.data import PARTS, digest

ROWS = 8  # images in each file


_RNG = np.random.default_rng(0)
FAKE = {
    "train_images": _RNG.integers(0, 256, (5 * ROWS, 32, 32, 3), dtype=np.uint8),
    "train_labels": _RNG.integers(0, 10, 5 * ROWS, dtype=np.uint8),
    "test_images": _RNG.integers(0, 256, (ROWS, 32, 32, 3), dtype=np.uint8),
    "test_labels": _RNG.integers(0, 10, ROWS, dtype=np.uint8),
}
DIGESTS = {name: digest(FAKE[name]) for name in PARTS}


def same(arrays):
    return all(np.array_equal(getattr(arrays, name), FAKE[name]) for name in PARTS)


def _names(ending):
    return [*(f"data_batch_{i}{ending}" for i in range(1, 6)), f"test_batch{ending}"]


def _of_file(i):
    part, rows = ("test", slice(None)) if i == 5 else ("train", slice(i * ROWS, (i + 1) * ROWS))
    return FAKE[f"{part}_images"][rows], FAKE[f"{part}_labels"][rows]


def write_npm(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(_names(".png")):
        Image.fromarray(_of_file(i)[0].reshape(-1, 1024, 3)).save(folder / name)
    (folder / "train_lables.json").write_text(json.dumps(FAKE["train_labels"].tolist()))
    (folder / "test_lables.json").write_text(json.dumps(FAKE["test_labels"].tolist()))


def write_binary(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(_names(".bin")):
        (folder / name).write_bytes(binary_batch(*_of_file(i)))


def binary_batch(images, labels):
    return np.hstack([labels[:, None], _planes(images)]).tobytes()


def python_batch(images, labels):
    """A pickle as Python 2 and its NumPy wrote the official ones, opcode by opcode."""
    data = _planes(images).tobytes()
    size = len(data).to_bytes(4, "little")
    return (
        b"\x80\x02}(U\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K" + bytes([len(images)]) + b"M\x00\x0c\x86"
        b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"
        b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89T" + size + data + b"tb"
        b"U\x06labels](" + b"".join(b"K" + bytes([label]) for label in labels) + b"eu."
    )


def write_python(folder, monkeypatch):
    """Write the Python files, and let their MD5 sums be the published ones."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(_names("")):
        (folder / name).write_bytes(python_batch(*_of_file(i)))
    publish(monkeypatch, folder)


def publish(monkeypatch, folder):
    """Let the MD5 sums of the files of ``folder`` be those that torchvision lists."""
    sums = [[path.name, md5(path.read_bytes())] for path in sorted(folder.iterdir())]
    monkeypatch.setattr(CIFAR10, "train_list", sums)
    monkeypatch.setattr(CIFAR10, "test_list", [])


def pack(folder, archive, prefix="package/"):
    archive.parent.mkdir(exist_ok=True)
    with tarfile.open(archive, "w:gz") as tar:
        for path in sorted(folder.iterdir()):
            tar.add(path, f"{prefix}{path.name}")
    return archive


def md5(content):
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def fake_npm(folder, monkeypatch, script):
    """Put an npm of ours before any other on the path; ``$5`` is the folder for the archive."""
    folder.mkdir()
    npm = folder / "npm"
    npm.write_text(script if script.startswith("#!") else f"#!/bin/sh\n{script}\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def no_npm(folder, monkeypatch):
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))


def _planes(images):
    return images.transpose(0, 3, 1, 2).reshape(-1, 3072)
