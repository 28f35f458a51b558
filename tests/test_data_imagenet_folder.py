"""Picture folders: the list and its cache."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pictures import settle, write_folder
from resnet_repro.data import DataError
from resnet_repro.data.folder import load_index, load_indices

CPU = torch.device("cpu")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_folder(tmp_path / "data")
    return tmp_path / "data"


def count_walks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    walked: list[str] = []
    walk = os.walk

    def spy(top: Path, *args: Any, **options: Any) -> Any:
        walked.append(str(top))
        return walk(top, *args, **options)

    monkeypatch.setattr(os, "walk", spy)
    return walked


def test_sorted_by_class_and_name(root: Path) -> None:
    train, val = load_indices(root)
    assert train.classes == val.classes == ("n00000000", "n00000001", "n00000002")
    assert len(train) == 12
    assert train.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    paths = [train.path(row) for row in range(len(train))]
    assert paths == sorted((root / "train").glob("*/*.JPEG"))
    assert [val.path(row) for row in range(6)] == sorted((root / "val").glob("*/*.JPEG"))


def test_pictures_in_folders_of_a_class_and_odd_names(root: Path) -> None:
    inner = root / "train" / "n00000001" / "images"
    inner.mkdir()
    for name in (b"a.PNG", b"b.jpg", b"caf\xe9.jpeg"):  # the last is not UTF-8
        (inner / os.fsdecode(name)).write_bytes(b"x")
    (inner / "notes.txt").write_text("not a picture")
    (root / "train" / ".hidden").mkdir()
    settle(root)
    for _ in range(2):  # made, then taken from the cache
        index = load_index(root / "train", root / "index.npz")
        assert np.bincount(index.labels).tolist() == [4, 7, 4]
        assert all(index.path(row).exists() for row in range(len(index)))
    assert (root / "index.npz").exists()


def test_the_list_is_kept(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_index(root / "train", root / "index.npz")
    walked = count_walks(monkeypatch)
    second = load_index(root / "train", root / "index.npz")
    assert walked == []
    assert second.digest() == first.digest()
    assert second.path(7) == first.path(7)


@pytest.mark.parametrize("change", ["add", "remove", "rename", "new class", "swap folders"])
def test_a_changed_folder_is_listed_again(root: Path, change: str) -> None:
    before = load_index(root / "train", root / "index.npz")
    one = root / "train" / "n00000001"
    if change == "add":
        (one / "new.JPEG").write_bytes(b"x")
    elif change == "remove":
        (one / "n00000001_2.JPEG").unlink()
    elif change == "rename":
        (one / "n00000001_2.JPEG").rename(one / "other.JPEG")
    elif change == "new class":
        (root / "train" / "n9").mkdir()
        (root / "train" / "n9" / "x.JPEG").write_bytes(b"x")
    else:
        one.rename(root / "train" / "n9")
    after = load_index(root / "train", root / "index.npz")
    assert after.digest() != before.digest()
    fresh = load_index(root / "train", root / "fresh.npz")
    assert after.digest() == fresh.digest()


def test_a_folder_changed_just_now_is_not_trusted(root: Path) -> None:
    (root / "train" / "n00000001" / "new.JPEG").write_bytes(b"x")
    load_index(root / "train", root / "index.npz")
    assert not (root / "index.npz").exists()


def test_a_damaged_list_is_made_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = load_index(root / "train", root / "index.npz").digest()
    whole = (root / "index.npz").read_bytes()
    walked = count_walks(monkeypatch)
    for damage in (b"", whole[: len(whole) // 2], b"text", whole.replace(b"JPEG", b"JPEX")):
        (root / "index.npz").write_bytes(damage)
        walked.clear()
        assert load_index(root / "train", root / "index.npz").digest() == digest
        assert len(walked) == 3


def test_a_list_of_another_folder_is_not_taken(root: Path) -> None:
    write_folder(root / "other")
    load_index(root / "train", root / "index.npz")
    other = load_index(root / "other" / "train", root / "index.npz")
    assert other.path(0).is_relative_to(root / "other")


def test_a_place_that_cannot_be_written(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "file").write_text("")
    settle(root)
    assert len(load_index(root / "train", root / "file" / "index.npz")) == 12
    assert "not kept" in capsys.readouterr().err


def test_val_without_class_folders_says_what_to_do(root: Path) -> None:
    for path in sorted((root / "val").glob("*/*")):
        path.rename(root / "val" / path.name)
    for folder in list((root / "val").iterdir()):
        if folder.is_dir():
            folder.rmdir()
    with pytest.raises(DataError, match="no class folders: move each into a folder") as caught:
        load_indices(root)
    assert "val/<class>/" in str(caught.value)


def test_unusable_folders_are_named(root: Path) -> None:
    with pytest.raises(DataError, match="train/ is missing"):
        load_indices(root / "nowhere")
    (root / "train" / "n5").mkdir()
    with pytest.raises(DataError, match="n5 has no pictures"):
        load_indices(root)
    (root / "train" / "n5" / "x.JPEG").write_bytes(b"x")
    with pytest.raises(DataError, match="n5 is in train/ and not in val/"):
        load_indices(root)
