"""Tiny ImageNet that is incomplete, damaged or hostile: what is refused, and how it is said."""

from __future__ import annotations

import io
import lzma
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from pictures import TINY_ARCHIVE, encoded, photograph
from resnet_repro.data import DataError
from resnet_repro.data import files as files_module
from resnet_repro.data.tiny_imagenet import CACHE, NAME, WANTED, find, load
from tiny_files import SHAPE, WRITERS, Writer, fake_files, write_tar, write_zip


@pytest.fixture
def files() -> dict[str, bytes]:
    return fake_files()


PICTURE = "train/n01000001/images/n01000001_4.JPEG"


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        (PICTURE, b"", "n01000001_4.JPEG: the file is empty"),
        (PICTURE, b"<html>", "n01000001_4.JPEG: not a JPEG"),
        (PICTURE, encoded(photograph(16, 16))[:-60], "n01000001_4.JPEG: cannot be decoded"),
        (PICTURE, encoded(photograph(17, 16)), "n01000001_4.JPEG: 17x16 pixels, not 16x16"),
        (PICTURE, None, "train/n01000001 has 10 pictures, not 11"),
        (PICTURE.replace("_4", "_99"), b"x", "train/n01000001 has 12 pictures, not 11"),
        ("train/n09/images/n09_0.JPEG", b"x", "4 classes below train/, not 3"),
        ("wnids.txt", b"n01000001\nn02000002\nn0", "wnids.txt and the folders"),
        ("val/val_annotations.txt", None, "no val/val_annotations.txt"),
        ("val/val_annotations.txt", b"words", "not tab-separated"),
        ("val/val_annotations.txt", b"val_0.JPEG\tn09\t0", "no known class to val/images/val_0"),
        ("val/images/val_0.JPEG", None, "val/images has 1 pictures of class n02000002, not 2"),
        (PICTURE, b"x" * 300_000, "300,000 bytes, more than 262,144"),
    ],
)
@pytest.mark.parametrize("write", WRITERS)
def test_what_is_wrong_is_named(
    tmp_path: Path,
    files: dict[str, bytes],
    write: Writer,
    name: str,
    content: bytes | None,
    says: str,
) -> None:
    files.pop(name, None)
    if content is not None:
        files[name] = content
    place = write(tmp_path, files)
    with pytest.raises(DataError) as caught:
        load(tmp_path, SHAPE, processes=1)
    assert says in str(caught.value)
    assert str(place) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / CACHE).exists()


def test_several_corrupt_pictures_are_counted(tmp_path: Path, files: dict[str, bytes]) -> None:
    for number in (4, 5, 9):
        files[f"train/n01000001/images/n01000001_{number}.JPEG"] = b"junk"
    write_zip(tmp_path, files)
    with pytest.raises(DataError, match=r"n01000001_4.JPEG.*and 2 others"):
        load(tmp_path, SHAPE, processes=1)


@pytest.mark.parametrize("write", WRITERS[1:])
def test_archives_cut_anywhere_are_refused(
    tmp_path: Path, files: dict[str, bytes], write: Writer
) -> None:
    archive = write(tmp_path, files)
    whole = archive.read_bytes()
    for length in [0, 1, 100, len(whole) // 3, len(whole) // 2, len(whole) - 30, len(whole) - 1]:
        archive.write_bytes(whole[:length])
        with pytest.raises(DataError, match="tiny-imagenet-200"):
            load(tmp_path, SHAPE, processes=1)
    archive.write_bytes(whole)
    assert load(tmp_path, SHAPE, processes=1).num_classes == 3  # a rerun repairs


def test_nothing_there_says_where_it_looked(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="tiny-imagenet-200.zip"):
        load(tmp_path / "nowhere", SHAPE)
    assert not (tmp_path / "nowhere").exists()


def test_hostile_members_are_not_followed(tmp_path: Path, files: dict[str, bytes]) -> None:
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
    with pytest.raises(DataError, match="train/n01000001 has 10 pictures"):
        load(tmp_path, SHAPE, processes=1)
    assert not list(tmp_path.parent.glob("**/escaped.JPEG"))


def test_an_archive_without_end_is_refused(
    tmp_path: Path, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files_module, "_MOST_BYTES", 300_000)
    write_tar(tmp_path, files | {"zeros": bytes(5_000_000)})
    with pytest.raises(DataError, match="far more than the data set"):
        load(tmp_path, SHAPE, processes=1)
    monkeypatch.undo()
    monkeypatch.setattr(files_module, "_MOST_MEMBERS", 20)
    for write in WRITERS[1:]:
        with pytest.raises(DataError, match="members"):
            files_module.read(write(tmp_path, files), WANTED, f"{NAME}/")


def test_a_zip_that_lies_about_sizes_is_refused(tmp_path: Path, files: dict[str, bytes]) -> None:
    path = write_zip(tmp_path, files | {PICTURE: bytes(1_000_000)})
    content = bytearray(path.read_bytes())
    directory = content.rindex(b"tiny-imagenet-200/" + PICTURE.encode()) - 46
    content[directory + 24 : directory + 28] = (100).to_bytes(4, "little")
    path.write_bytes(bytes(content))
    with pytest.raises(DataError):
        load(tmp_path, SHAPE, processes=1)


def test_other_pictures_than_those_of_the_logged_runs_are_noted(
    tmp_path: Path, files: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    write_zip(tmp_path, files)
    load(tmp_path, replace(SHAPE, train_files="0" * 64), processes=1)
    assert "note: train_files differ" in capsys.readouterr().err


@pytest.mark.skipif(not TINY_ARCHIVE.exists(), reason="the shared archive is not here")
def test_the_real_archive_is_found_and_a_cut_copy_refused(tmp_path: Path) -> None:
    assert find(TINY_ARCHIVE.parent) == TINY_ARCHIVE
    with TINY_ARCHIVE.open("rb") as file:
        (tmp_path / TINY_ARCHIVE.name).write_bytes(file.read(3_000_000))
    with pytest.raises(DataError, match="cut off or damaged"):
        load(tmp_path)
