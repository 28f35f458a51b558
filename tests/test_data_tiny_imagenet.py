"""Tiny ImageNet from every form, verified, decoded once; and all that is refused."""

import io
import lzma
import tarfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import tiny_files
from pictures import TINY_ARCHIVE, encoded, photograph
from resnet_repro.data import PARTS, DataError, digest, tiny_imagenet
from resnet_repro.data import files as files_module
from resnet_repro.data.jpeg import pixels
from resnet_repro.data.tiny_imagenet import CACHE, NAME, WANTED, find, load
from tiny_files import SHAPE, WNIDS, WRITERS, write_tar, write_zip

PICTURE = "train/n01000001/images/n01000001_4.JPEG"


@pytest.fixture(autouse=True)
def three_classes(monkeypatch):
    monkeypatch.setattr(tiny_imagenet, "SHAPE", SHAPE)


@pytest.fixture(scope="module")
def whole():
    return tiny_files.fake_files()


@pytest.fixture
def files(whole):
    return dict(whole)


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("write", WRITERS)
def test_every_form_gives_the_same_arrays(tmp_path, files, write, direct):
    place = write(tmp_path, files)
    arrays = load(place if direct else tmp_path)
    assert arrays.num_classes == 3
    assert arrays.train_images.shape == (33, 16, 16, 3)
    assert arrays.train_labels.tolist() == [0] * 11 + [1] * 11 + [2] * 11
    row = 0
    for wnid in sorted(WNIDS):
        for number in range(11):  # 10 comes after 9, not after 1
            name = f"train/{wnid}/images/{wnid}_{number}.JPEG"
            assert np.array_equal(arrays.train_images[row], pixels(files[name], name))
            row += 1
    assert np.ptp(arrays.train_images[3], axis=2).max() == 0  # grey
    assert arrays.test_images.shape == (6, 16, 16, 3)
    assert arrays.test_labels.tolist() == [sorted(WNIDS).index(WNIDS[i % 3]) for i in range(6)]
    assert np.array_equal(arrays.test_images[5], pixels(files["val/images/val_5.JPEG"], ""))
    assert set(arrays.digests) == {*PARTS, "train_files", "test_files"}


def test_digests_do_not_depend_on_form_or_threads(tmp_path, files, monkeypatch):
    found = []
    monkeypatch.setattr(tiny_imagenet, "_CHUNK", 7)
    for number, write in enumerate(WRITERS):
        root = tmp_path / str(number)
        root.mkdir()
        write(root, files)
        found.append(load(root).digests)
    assert found[0] == found[1] == found[2]


def test_decoded_once_then_taken_from_the_cache(tmp_path, files, monkeypatch):
    archive = write_tar(tmp_path, files)
    (tmp_path / f".{CACHE}.123.tmp").write_bytes(b"left by a killed run")
    first = load(tmp_path)
    archive.unlink()
    monkeypatch.setattr(tiny_imagenet, "prepare", lambda *_: pytest.fail("prepared twice"))
    second = load(tmp_path)
    assert second.digests == first.digests
    assert all(np.array_equal(getattr(first, p), getattr(second, p)) for p in PARTS)
    assert not list(tmp_path.glob(".*.tmp"))


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
        with pytest.raises(DataError, match="delete it"):
            load(tmp_path)
    cache.unlink()
    assert load(tmp_path).num_classes == 3


def test_a_cache_of_another_data_set_is_refused(tmp_path, files, monkeypatch):
    write_zip(tmp_path, files)
    load(tmp_path)
    monkeypatch.setattr(tiny_imagenet, "SHAPE", SHAPE._replace(side=17))
    with pytest.raises(DataError, match="not Tiny ImageNet"):
        load(tmp_path)


@pytest.mark.parametrize("write", WRITERS)
def test_a_cache_of_files_that_were_replaced_is_made_again(tmp_path, files, write, capsys):
    write(tmp_path, files)
    first = load(tmp_path)
    assert load(tmp_path).digests == first.digests
    name = "train/n01000001/images/n01000001_4.JPEG"
    place = write(tmp_path, files | {name: encoded(photograph(16, 16, seed=55))})
    capsys.readouterr()
    second = load(tmp_path)
    changed = {k for k, digest in first.digests.items() if second.digests[k] != digest}
    assert changed == {"train_images", "train_files"}
    assert f"{place} has changed since" in capsys.readouterr().err
    place.rename(tmp_path / "elsewhere")
    assert load(tmp_path).digests == second.digests


@pytest.mark.parametrize("write", WRITERS)
def test_files_of_desktops_are_not_pictures(tmp_path, files, write):
    odd = ("train/n01000001/images/._n01000001_4.JPEG", "train/._n0/images/0.JPEG",
           "train/@eaDir/images/0.JPEG", "val/images/._val_0.JPEG")  # fmt: skip
    write(tmp_path, files | dict.fromkeys(odd, b"x"))
    assert load(tmp_path).num_classes == 3


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (PICTURE, b"", "n01000001_4.JPEG: the file is empty"),
        (PICTURE, b"<html>", "n01000001_4.JPEG: not a JPEG"),
        (PICTURE, encoded(photograph(16, 16))[:-60], "n01000001_4.JPEG: cannot be decoded"),
        (PICTURE, encoded(photograph(17, 16)), "n01000001_4.JPEG: 17x16 pixels, not 16x16"),
        (PICTURE, None, "train/ has 10 pictures of class n01000001, not 11"),
        (PICTURE.replace("_4", "_99"), b"x", "train/ has 12 pictures of class n01000001, not 11"),
        ("train/n09/images/n09_0.JPEG", b"x", "4 classes below train/, not 3"),
        ("wnids.txt", b"n01000001\nn02000002\nn0", "wnids.txt and the folders"),
        ("val/val_annotations.txt", None, "no val/val_annotations.txt"),
        ("val/val_annotations.txt", b"words", "not tab-separated"),
        ("val/val_annotations.txt", b"val_0.JPEG\tn09\t0", "no known class to val/images/val_0"),
        ("val/images/val_0.JPEG", None, "val/images/ has 1 pictures of class n02000002, not 2"),
        (PICTURE, b"x" * 300_000, "300,000 bytes, more than 262,144"),
    ],
)
@pytest.mark.parametrize("write", WRITERS)
def test_what_is_wrong_is_named(tmp_path, files, write, name, content, message):
    files.pop(name, None)
    if content is not None:
        files[name] = content
    place = write(tmp_path, files)
    with pytest.raises(DataError) as caught:
        load(tmp_path)
    assert message in str(caught.value)
    assert str(place) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / CACHE).exists()


def test_several_corrupt_pictures_are_counted(tmp_path, files):
    for number in (4, 5, 9):
        files[f"train/n01000001/images/n01000001_{number}.JPEG"] = b"junk"
    write_zip(tmp_path, files)
    with pytest.raises(DataError, match=r"n01000001_4.JPEG.*and 2 others"):
        load(tmp_path)


@pytest.mark.parametrize("write", WRITERS[1:])
def test_archives_cut_anywhere_are_refused(tmp_path, files, write):
    archive = write(tmp_path, files)
    whole = archive.read_bytes()
    for length in [0, 1, 100, len(whole) // 3, len(whole) // 2, len(whole) - 30, len(whole) - 1]:
        archive.write_bytes(whole[:length])
        with pytest.raises(DataError, match="tiny-imagenet-200"):
            load(tmp_path)
    archive.write_bytes(whole)
    assert load(tmp_path).num_classes == 3  # a rerun repairs


def test_nothing_there_says_where_it_looked(tmp_path):
    with pytest.raises(DataError, match="tiny-imagenet-200.zip"):
        load(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_hostile_members_are_not_followed(tmp_path, files):
    secret = tmp_path / "secret.JPEG"
    secret.write_bytes(encoded(photograph(16, 16)))
    path = write_tar(tmp_path, {k: v for k, v in files.items() if k != PICTURE})
    content = lzma.decompress(path.read_bytes())
    path.unlink()
    plain = tmp_path / "tiny-imagenet-200.tar.xz"
    (tmp_path / "x.tar").write_bytes(content)
    with tarfile.open(tmp_path / "x.tar", "a") as archive:
        link = tarfile.TarInfo(f"tiny-imagenet-200/{PICTURE}")
        link.type, link.linkname = tarfile.SYMTYPE, str(secret)
        archive.addfile(link)
        outside = tarfile.TarInfo("tiny-imagenet-200/train/../../../escaped.JPEG")
        outside.size = 1
        archive.addfile(outside, io.BytesIO(b"x"))
    plain.write_bytes(lzma.compress((tmp_path / "x.tar").read_bytes()))
    with pytest.raises(DataError, match="train/ has 10 pictures of class n01000001"):
        load(tmp_path)
    assert not list(tmp_path.parent.glob("**/escaped.JPEG"))


def test_an_archive_without_end_is_refused(tmp_path, files, monkeypatch):
    monkeypatch.setattr(files_module, "_MAX_BYTES", 300_000)
    write_tar(tmp_path, files | {"zeros": bytes(5_000_000)})
    with pytest.raises(DataError, match="far more than the data set"):
        load(tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr(files_module, "_MAX_MEMBERS", 20)
    for write in WRITERS[1:]:
        with pytest.raises(DataError, match="members"):
            files_module.read(write(tmp_path, files), WANTED, f"{NAME}/")


def test_a_zip_that_lies_about_sizes_is_refused(tmp_path, files):
    path = write_zip(tmp_path, files | {PICTURE: bytes(1_000_000)})
    content = bytearray(path.read_bytes())
    directory = content.rindex(b"tiny-imagenet-200/" + PICTURE.encode()) - 46
    content[directory + 24 : directory + 28] = (100).to_bytes(4, "little")
    path.write_bytes(bytes(content))
    with pytest.raises(DataError):
        load(tmp_path)


def test_other_pictures_than_those_of_the_logged_runs_are_noted(
    tmp_path, files, monkeypatch, capsys
):
    write_zip(tmp_path, files)
    monkeypatch.setattr(tiny_imagenet, "SHAPE", SHAPE._replace(train_files="0" * 64))
    load(tmp_path)
    assert "note: train_files differ" in capsys.readouterr().err


@pytest.mark.skipif(not TINY_ARCHIVE.exists(), reason="the shared archive is not here")
def test_the_real_archive_is_found_and_a_cut_copy_refused(tmp_path):
    assert find(TINY_ARCHIVE.parent) == TINY_ARCHIVE
    with TINY_ARCHIVE.open("rb") as file:
        (tmp_path / TINY_ARCHIVE.name).write_bytes(file.read(3_000_000))
    with pytest.raises(DataError, match="cut off or damaged"):
        load(tmp_path)
