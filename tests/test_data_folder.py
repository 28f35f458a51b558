"""Picture folders: what is listed, what is left out and reported, what is refused."""

import os
import socket
from pathlib import Path

import numpy as np
import pytest

from pictures import encoded, photograph, write_folder
from refusals import refused
from resnet_repro.data.folder import PictureIndex, check_imagenet, load_index, load_indices
from resnet_repro.data.jpeg import FORMATS, pixels, read_picture

CAT, PICTURE = "n00000001", "n00000001/n00000001_2.JPEG"


@pytest.fixture
def root(tmp_path):
    write_folder(tmp_path / "data", size=(60, 50))
    return tmp_path / "data" / "train"


def paths(index):
    return [index.path(row) for row in range(len(index))]


def test_sorted_by_class_and_name(root):
    train, val = load_indices(root.parent)
    assert train.classes == val.classes == ("n00000000", "n00000001", "n00000002")
    assert train.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert paths(train) == sorted(root.glob("*/*.JPEG"))
    assert train.sizes.tolist() == [path.stat().st_size for path in paths(train)]
    assert paths(val) == sorted((root.parent / "val").glob("*/*.JPEG"))


def test_what_can_be_decoded_is_found_also_in_folders_and_under_odd_names(root):
    image = photograph(30, 20)
    (root / CAT / "images").mkdir()
    names = {"images/caf\udce9.jpeg": "JPEG"}  # a byte that is not UTF-8
    for form, suffixes in FORMATS.items():
        for suffix in suffixes:
            names |= {f"x{suffix.upper()}": form, f"images/x{suffix}": form}
    for name, form in names.items():
        (root / CAT / name).write_bytes(encoded(image, form))
    index = load_index(root)
    found = [root / CAT / name for name in names]
    assert set(found) <= set(paths(index))
    assert all(pixels(read_picture(path), "x").shape == (20, 30, 3) for path in found)
    assert np.bincount(index.labels).tolist() == [4, 4 + len(names), 4]


@pytest.mark.parametrize("place", ["", CAT, f"{CAT}/images"])
@pytest.mark.parametrize(
    "name",
    ["._0.jpg", ".ipynb_checkpoints/0.jpg", "@eaDir/0.jpg", "__MACOSX/0.jpg", ".DS_Store",
     "Thumbs.db", "$RECYCLE.BIN/0.jpg", ".git/x/0.png"],
)  # fmt: skip
def test_hidden_and_temporary_files_are_ignored_at_every_level(root, capsys, place, name):
    before = load_index(root)
    assert capsys.readouterr().err == ""
    path = root / place / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    after = load_index(root)
    assert (after.classes, after.digest()) == (before.classes, before.digest())
    (output,) = capsys.readouterr().err.splitlines()
    first = (Path(place) / name.split("/")[0]).as_posix()
    assert f"left out 1 hidden or system files ({first})" in output


def test_all_that_is_left_out_is_counted_in_one_line_by_the_first_of_several_workers(
    root, monkeypatch, capsys
):
    for number in range(3):
        (root / CAT / f"notes{number}.txt").write_text("")
    (root / CAT / "x.gif").write_bytes(b"x")
    (root / "list.csv").write_text("")
    (root / CAT / "again").symlink_to(root / CAT)
    load_index(root)
    (output,) = capsys.readouterr().err.splitlines()
    assert f"4 files that are not JPEG, PNG, BMP or WEBP ({CAT}/notes0.txt)" in output
    assert "1 files beside the class folders (list.csv)" in output
    assert f"1 links to a folder that they are in ({CAT}/again)" in output
    monkeypatch.setenv("RANK", "1")
    load_index(root)
    assert capsys.readouterr().err == ""


def test_links_are_followed_and_circles_are_not(root):
    elsewhere = root.parent.parent / "elsewhere"
    (elsewhere / "deep").mkdir(parents=True)
    for path in (elsewhere / "a.jpg", elsewhere / "deep" / "b.jpg"):
        path.write_bytes(b"x")
    (root / CAT / "linked").symlink_to(elsewhere)
    (root / CAT / "c.jpg").symlink_to(elsewhere / "a.jpg")
    (root / "n00000003").symlink_to(elsewhere)
    for number, up in enumerate((".", "..", "../..", "../../..")):
        (root / CAT / f"up{number}").symlink_to(up)
    (elsewhere / "back").symlink_to(root / CAT)
    mine = [path for path in paths(load_index(root)) if path.is_relative_to(root / CAT)]
    names = [*(f"{CAT}_{number}.JPEG" for number in range(4)), "c.jpg", "linked/a.jpg"]
    assert mine == [root / CAT / name for name in sorted([*names, "linked/deep/b.jpg"])]


def link(target):
    return lambda path: path.symlink_to(target)


def listening(path):
    with socket.socket(socket.AF_UNIX) as server:
        before = Path.cwd()
        os.chdir(path.parent)  # for the length of its name
        server.bind(path.name)
        os.chdir(before)


@pytest.mark.parametrize(
    "make", [link("x.jpg"), link("nowhere"), link("/dev/zero"), os.mkfifo, listening]
)
@pytest.mark.parametrize("name", [f"{CAT}/x.jpg", f"{CAT}/deep/x.jpg"])
def test_anything_but_a_regular_file_is_refused(root, make, name):
    path = root / name
    path.parent.mkdir(exist_ok=True)
    make(path)
    refused(load_index, root, match=f"{name} (cannot be read|is a .*, not a regular file)")
    refused(read_picture, path, match=r"x\.jpg")  # put there after the listing: never waits


@pytest.mark.parametrize("target", ["n00000009", "nowhere"])  # a loop, a dangling link
def test_a_class_that_is_a_link_to_nothing_is_refused(root, target):
    (root / "n00000009").symlink_to(target)
    refused(load_index, root, match="n00000009 cannot be read")


@pytest.mark.parametrize("change", ["add", "remove", "rename", "size", "time"])
def test_every_change_of_a_file_shows(root, change):
    before, path = load_index(root), root / PICTURE
    about = path.stat()
    if change == "add":
        (path.parent / "new.JPEG").write_bytes(b"x")
    elif change == "remove":
        path.unlink()
    elif change == "rename":
        path.rename(path.with_name("other.JPEG"))
    elif change == "size":
        path.write_bytes(b"x")
        os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    else:
        path.write_bytes(bytes(about.st_size))
    after = load_index(root)
    assert after.stamp() != before.stamp()
    assert (after.digests("train") == before.digests("train")) is (change == "time")
    assert (after.digest() == before.digest()) is (change in ("size", "time"))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([str(i) for i in range(1000)], "0 is no WordNet id like n01440764"),
        ([f"n{i:08d}" for i in range(999)] + ["tench"], "tench is no WordNet id"),
        ([f"n{i:08d}" for i in range(999)], "999 classes, ILSVRC-2012 has 1,000"),
    ],
)
def test_classes_that_cannot_be_imagenets_are_refused(names, message):
    none = np.empty(0, np.int64)
    index = PictureIndex(
        Path("x"), tuple(names), none.astype(np.int32), none.astype(np.bytes_), none, none
    )
    refused(check_imagenet, index, match=f"{message}.*data=folder")


def test_unusable_folders_are_named(root):
    refused(load_indices, root, match="train/ is missing")
    (root / "n5").mkdir()
    refused(load_indices, root.parent, match="n5 has no pictures")
    (root / "n5" / "x.JPEG").write_bytes(b"x")
    refused(load_indices, root.parent, match="n5 is in train/ and not in val/")
    val = root.parent / "val"
    for path in sorted(val.glob("*/*")):
        path.rename(val / path.name)
    for folder in val.glob("n*/"):
        folder.rmdir()
    message = "no class folders: move each into a folder .*val/<class>/"
    refused(load_indices, root.parent, match=message)
