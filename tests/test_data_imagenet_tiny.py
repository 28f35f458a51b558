"""Tiny ImageNet from every form, verified, decoded once."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pictures import encoded, photograph
from resnet_repro.data import PARTS, DataError, digest, tiny_imagenet
from resnet_repro.data.jpeg import pixels
from resnet_repro.data.tiny_imagenet import CACHE, load
from tiny_files import SHAPE, WNIDS, WRITERS, Writer, fake_files, write_tar, write_zip


@pytest.fixture
def files() -> dict[str, bytes]:
    return fake_files()


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("write", WRITERS)
def test_every_form_gives_the_same_arrays(
    tmp_path: Path, files: dict[str, bytes], write: Writer, direct: bool
) -> None:
    place = write(tmp_path, files)
    arrays = load(place if direct else tmp_path, SHAPE, processes=1)
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


def test_digests_do_not_depend_on_form_or_processes(
    tmp_path: Path, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    monkeypatch.setattr(tiny_imagenet, "_CHUNK", 7)
    for number, write in enumerate(WRITERS):
        root = tmp_path / str(number)
        root.mkdir()
        write(root, files)
        found.append(load(root, SHAPE, processes=2 if number == 0 else 1).digests)
    assert found[0] == found[1] == found[2]


def test_decoded_once_then_taken_from_the_cache(
    tmp_path: Path, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = write_tar(tmp_path, files)
    (tmp_path / f".{CACHE}.123.tmp").write_bytes(b"left by a killed run")
    first = load(tmp_path, SHAPE, processes=1)
    archive.unlink()
    monkeypatch.setattr(tiny_imagenet, "prepare", lambda *_: pytest.fail("prepared twice"))
    second = load(tmp_path, SHAPE)
    assert second.digests == first.digests
    assert all(np.array_equal(getattr(first, p), getattr(second, p)) for p in PARTS)
    assert not list(tmp_path.glob(".*.tmp"))


def test_two_at_once_prepare_once(
    tmp_path: Path, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_zip(tmp_path, files)
    calls: list[int] = []
    prepare = tiny_imagenet.prepare

    def spy(*args: Any) -> None:
        calls.append(1)
        prepare(*args)

    monkeypatch.setattr(tiny_imagenet, "prepare", spy)
    found: list[object] = []
    threads = [
        threading.Thread(target=lambda: found.append(load(tmp_path, SHAPE, 1).digests))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert len(found) == 3
    assert found[0] == found[1] == found[2]


def test_a_damaged_cache_is_refused(tmp_path: Path, files: dict[str, bytes]) -> None:
    write_zip(tmp_path, files)
    good = load(tmp_path, SHAPE, processes=1)
    refusals: list[str] = []
    cache = tmp_path / CACHE
    whole = cache.read_bytes()
    for position in range(0, len(whole), max(1, len(whole) // 25)):
        broken = bytearray(whole)
        broken[position] ^= 16
        cache.write_bytes(bytes(broken))
        try:
            again = load(tmp_path, SHAPE)
        except DataError as error:
            refusals.append(str(error))
        else:  # a byte that says nothing, such as a date of the zip format
            assert all(digest(getattr(again, part)) == good.digests[part] for part in PARTS)
    assert len(refusals) > 15
    assert all(str(cache) in said and "\n" not in said for said in refusals)
    for length in (0, 10, len(whole) // 2, len(whole) - 1):
        cache.write_bytes(whole[:length])
        with pytest.raises(DataError, match="delete it"):
            load(tmp_path, SHAPE)
    cache.unlink()
    assert load(tmp_path, SHAPE, processes=1).num_classes == 3


def test_a_cache_of_another_data_set_is_refused(tmp_path: Path, files: dict[str, bytes]) -> None:
    write_zip(tmp_path, files)
    load(tmp_path, SHAPE, processes=1)
    with pytest.raises(DataError, match="not Tiny ImageNet"):
        load(tmp_path, replace(SHAPE, side=17))


@pytest.mark.parametrize("write", WRITERS)
def test_a_cache_of_files_that_were_replaced_is_made_again(
    tmp_path: Path, files: dict[str, bytes], write: Writer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Other pictures under the same names; once the source is gone, the cache is used as it is."""
    write(tmp_path, files)
    first = load(tmp_path, SHAPE, processes=1)
    assert load(tmp_path, SHAPE, processes=1).digests == first.digests
    name = "train/n01000001/images/n01000001_4.JPEG"
    place = write(tmp_path, files | {name: encoded(photograph(16, 16, seed=55))})
    capsys.readouterr()
    second = load(tmp_path, SHAPE, processes=1)
    changed = {k for k, digest in first.digests.items() if second.digests[k] != digest}
    assert changed == {"train_images", "train_files"}
    assert f"{place} has changed since" in capsys.readouterr().err
    place.rename(tmp_path / "elsewhere")
    assert load(tmp_path, SHAPE).digests == second.digests


@pytest.mark.parametrize("write", WRITERS)
def test_what_desktops_leave_is_no_picture(
    tmp_path: Path, files: dict[str, bytes], write: Writer
) -> None:
    odd = ("train/n01000001/images/._n01000001_4.JPEG", "train/._n0/images/0.JPEG",
           "train/@eaDir/images/0.JPEG", "val/images/._val_0.JPEG")  # fmt: skip
    write(tmp_path, files | dict.fromkeys(odd, b"x"))
    assert load(tmp_path, SHAPE, processes=1).num_classes == 3
