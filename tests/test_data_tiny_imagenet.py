"""Tiny ImageNet from every form, verified, decoded once; and all that is refused."""

import hashlib
import io
import lzma
import tarfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import tiny_files
from pictures import TINY_ARCHIVE, encoded, photograph
from refusals import refused
from resnet_repro.data import PARTS, DataError, digest, tiny_imagenet
from resnet_repro.data import files as files_module
from resnet_repro.data.jpeg import pixels
from resnet_repro.data.tiny_imagenet import CACHE, NAME, WANTED, find, load
from tiny_files import SHAPE, WNIDS, WRITERS, write_tar, write_zip

PICTURE = "train/n01000001/images/n01000001_4.JPEG"
SEVERAL = [PICTURE.replace("_4", f"_{number}") for number in (4, 5, 9)]
CUT, WIDE = encoded(photograph(16, 16))[:-60], encoded(photograph(17, 16))
ANNOTATIONS = "val/val_annotations.txt"


@pytest.fixture(autouse=True)
def three_classes(monkeypatch):
    monkeypatch.setattr(tiny_imagenet, "SHAPE", SHAPE)


@pytest.fixture(scope="module")
def files():
    return tiny_files.fake_files()


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("write", WRITERS)
def test_every_form_gives_the_same_arrays_and_digests(tmp_path, files, write, direct):
    odd = ("train/n01000001/images/._n01000001_4.JPEG", "train/._n0/images/0.JPEG",
           "train/@eaDir/images/0.JPEG", "val/images/._val_0.JPEG")  # fmt: skip
    place = write(tmp_path, files | dict.fromkeys(odd, b"left by a desktop"))
    for part in () if direct else ("train", "val"):  # ImageNet's may lie beside it
        (tmp_path / part).mkdir()
    arrays = load(place if direct else tmp_path)
    assert arrays.num_classes == 3
    assert arrays.train_labels.tolist() == [0] * 11 + [1] * 11 + [2] * 11
    # Picture 10 of a class comes after 9, not after 1.
    train = [f"train/{w}/images/{w}_{n}.JPEG" for w in sorted(WNIDS) for n in range(11)]
    test = [f"val/images/val_{n}.JPEG" for n in range(6)]
    assert np.array_equal(arrays.train_images, [pixels(files[name], name) for name in train])
    assert np.ptp(arrays.train_images[3], axis=2).max() == 0  # grey
    assert arrays.test_labels.tolist() == [sorted(WNIDS).index(WNIDS[i % 3]) for i in range(6)]
    assert np.array_equal(arrays.test_images, [pixels(files[name], name) for name in test])
    expected = {part: digest(getattr(arrays, part)) for part in PARTS}
    for part, names in (("train_files", train), ("test_files", test)):
        expected[part] = hashlib.sha256(b"".join(files[name] for name in names)).hexdigest()
    assert arrays.digests == expected


def test_decoded_once_then_taken_from_the_cache_unless_of_other_data(tmp_path, files, monkeypatch):
    archive = write_tar(tmp_path, files)
    (tmp_path / f".{CACHE}.123.tmp").write_bytes(b"left by a killed run")
    first = load(tmp_path)
    archive.unlink()
    monkeypatch.setattr(tiny_imagenet, "prepare", lambda *_: pytest.fail("prepared twice"))
    second = load(tmp_path)
    assert second.digests == first.digests
    assert all(np.array_equal(getattr(first, p), getattr(second, p)) for p in PARTS)
    assert not list(tmp_path.glob(".*.tmp"))
    monkeypatch.setattr(tiny_imagenet, "SHAPE", SHAPE._replace(side=17))
    refused(load, tmp_path, match="not Tiny ImageNet")


def test_two_at_once_prepare_once(tmp_path, files, monkeypatch):
    write_zip(tmp_path, files)
    calls, prepare = [], tiny_imagenet.prepare
    monkeypatch.setattr(tiny_imagenet, "prepare", lambda *a: (calls.append(1), prepare(*a)))
    with ThreadPoolExecutor(3) as threads:
        found = list(threads.map(lambda _: load(tmp_path).digests, range(3)))
    assert len(calls) == 1
    assert found[0] == found[1] == found[2]


def test_a_damaged_cache_is_refused(tmp_path, files):
    write_zip(tmp_path, files)
    good = load(tmp_path)
    refusals: list[str] = []
    cache = tmp_path / CACHE
    whole = cache.read_bytes()
    for position in range(0, len(whole), max(1, len(whole) // 25)):
        broken = bytearray(whole)
        broken[position] ^= 16
        cache.write_bytes(bytes(broken))
        try:
            again = load(tmp_path)
        except DataError as error:
            refusals.append(str(error))
        else:  # a byte that says nothing, such as a date of the zip format
            assert all(digest(getattr(again, part)) == good.digests[part] for part in PARTS)
    assert len(refusals) > 15
    assert all(str(cache) in output and "\n" not in output for output in refusals)
    for length in (0, 10, len(whole) // 2, len(whole) - 1):
        cache.write_bytes(whole[:length])
        refused(load, tmp_path, match="delete it")
    cache.unlink()
    assert load(tmp_path).num_classes == 3


@pytest.mark.parametrize("write", WRITERS)
def test_a_cache_of_files_that_were_replaced_is_made_again(tmp_path, files, write, capsys):
    write(tmp_path, files)
    first = load(tmp_path)
    assert load(tmp_path).digests == first.digests
    place = write(tmp_path, files | {PICTURE: encoded(photograph(16, 16, seed=55))})
    capsys.readouterr()
    second = load(tmp_path)
    changed = {k for k, digest in first.digests.items() if second.digests[k] != digest}
    assert changed == {"train_images", "train_files"}
    assert f"{place} has changed since" in capsys.readouterr().err
    place.rename(tmp_path / "elsewhere")
    assert load(tmp_path).digests == second.digests


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({PICTURE: b""}, "n01000001_4.JPEG: the file is empty"),
        ({PICTURE: b"<html>"}, "n01000001_4.JPEG: not a JPEG"),
        (dict.fromkeys(SEVERAL, b"x"), r"n01000001_4.JPEG: not a JPEG.* \(and 2 others\)"),
        ({PICTURE: CUT}, "n01000001_4.JPEG: cannot be decoded"),
        ({PICTURE: WIDE}, "n01000001_4.JPEG: 17x16 pixels, not 16x16"),
        ({PICTURE: None}, "train/ has 10 pictures of class n01000001, not 11"),
        ({PICTURE.replace("_4", "_99"): b"x"}, "train/ has 12 pictures of class n01000001, not 11"),
        ({"train/n09/images/n09_0.JPEG": b"x"}, "4 classes below train/, not 3"),
        ({"wnids.txt": b"n01000001\nn02000002\nn0"}, "wnids.txt and the folders"),
        ({ANNOTATIONS: None}, "no val/val_annotations.txt"),
        ({ANNOTATIONS: b"words"}, "not tab-separated"),
        ({ANNOTATIONS: b"val_0.JPEG\tn09\t0"}, "no known class to val/images/val_0"),
        ({"val/images/val_0.JPEG": None}, "val/images/ has 1 pictures of class n02000002, not 2"),
        ({PICTURE: b"x" * 300_000}, "_4.JPEG has more than 262,144 bytes"),
    ],
)
@pytest.mark.parametrize("write", WRITERS)
def test_what_is_wrong_is_named(tmp_path, files, write, changed, message):
    files = {name: file for name, file in (files | changed).items() if file is not None}
    place = write(tmp_path, files)
    assert str(place) in refused(load, tmp_path, match=message)
    assert not (tmp_path / CACHE).exists()


@pytest.mark.parametrize("write", WRITERS[1:])
def test_archives_cut_anywhere_are_refused(tmp_path, files, write):
    archive = write(tmp_path, files)
    whole = archive.read_bytes()
    for length in [0, 1, 100, len(whole) // 3, len(whole) // 2, len(whole) - 30, len(whole) - 1]:
        archive.write_bytes(whole[:length])
        refused(load, tmp_path, match="tiny-imagenet-200")
    archive.write_bytes(whole)
    assert load(tmp_path).num_classes == 3  # a rerun repairs


def test_nothing_there_says_where_it_looked(tmp_path):
    refused(load, tmp_path / "nowhere", match="tiny-imagenet-200.zip")
    assert not (tmp_path / "nowhere").exists()


def test_hostile_members_are_not_followed(tmp_path, files):
    secret = tmp_path / "secret.JPEG"
    secret.write_bytes(encoded(photograph(16, 16)))
    path = write_tar(tmp_path, {k: v for k, v in files.items() if k != PICTURE})
    content = io.BytesIO(lzma.decompress(path.read_bytes()))
    with tarfile.open(fileobj=content, mode="a") as archive:
        link = tarfile.TarInfo(f"tiny-imagenet-200/{PICTURE}")
        link.type, link.linkname = tarfile.SYMTYPE, str(secret)
        archive.addfile(link)
        for name in ("tiny-imagenet-200/train/../../../escaped.JPEG", f"{tmp_path}/escaped.JPEG"):
            outside = tarfile.TarInfo(name)
            outside.size = 1
            archive.addfile(outside, io.BytesIO(b"x"))
    path.write_bytes(lzma.compress(content.getvalue()))
    refused(load, tmp_path, match="train/ has 10 pictures of class n01000001")
    assert not list(tmp_path.parent.glob("**/escaped.JPEG"))


def test_an_archive_without_end_is_refused(tmp_path, files, monkeypatch):
    monkeypatch.setattr(files_module, "_MAX_BYTES", 300_000)
    write_tar(tmp_path, files | {"zeros": bytes(5_000_000)})
    refused(load, tmp_path, match="far more than the data set")
    monkeypatch.undo()
    monkeypatch.setattr(files_module, "_MAX_MEMBERS", 20)
    for write in WRITERS[1:]:
        archive = write(tmp_path, files)
        refused(files_module.read, archive, WANTED, f"{NAME}/", match="members")


def test_a_zip_that_lies_about_sizes_is_refused(tmp_path, files):
    path = write_zip(tmp_path, files | {PICTURE: bytes(1_000_000)})
    content = bytearray(path.read_bytes())
    directory = content.rindex(b"tiny-imagenet-200/" + PICTURE.encode()) - 46
    content[directory + 24 : directory + 28] = (100).to_bytes(4, "little")
    path.write_bytes(bytes(content))
    refused(load, tmp_path, match=NAME)


def test_other_pictures_than_the_logged_runs_had_are_noted(tmp_path, files, monkeypatch, capsys):
    write_zip(tmp_path, files)
    monkeypatch.setattr(tiny_imagenet, "SHAPE", SHAPE._replace(train_files="0" * 64))
    load(tmp_path)
    assert "note: train_files differ" in capsys.readouterr().err


@pytest.mark.skipif(not TINY_ARCHIVE.exists(), reason="the shared archive is not here")
def test_the_real_archive_is_found_and_a_cut_copy_refused(tmp_path):
    assert find(TINY_ARCHIVE.parent) == TINY_ARCHIVE
    with TINY_ARCHIVE.open("rb") as file:
        (tmp_path / TINY_ARCHIVE.name).write_bytes(file.read(3_000_000))
    refused(load, tmp_path, match="cut off or damaged")
