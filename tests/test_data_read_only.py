"""CIFAR-10 in a folder that may be read and not written."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cifar10_files import DIGESTS, no_npm, same, write_binary
from resnet_repro.data import DataError, cifar10


@contextmanager
def read_only(*, lock: bool) -> Iterator[Path]:
    """A folder of raw files that this process may read but not write, as root or as a user."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "data"
        write_binary(root)
        if lock:
            (root / ".lock").touch()
            (root / ".lock").chmod(0o666)
        Path(name).chmod(0o755)
        root.chmod(0o555)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        try:
            if not os.access(root / "test_batch.bin", os.R_OK, effective_ids=True):
                pytest.skip("another user cannot reach the folder for temporary files")
            yield root
        finally:
            os.seteuid(user)
            root.chmod(0o755)


def names(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


@pytest.mark.parametrize("source", ["auto", "folder"])
@pytest.mark.parametrize("lock", [False, True])
def test_raw_files_in_a_read_only_folder_are_used(capsys, lock: bool, source: str) -> None:
    with read_only(lock=lock) as root:
        before = names(root)
        assert same(cifar10.load(root, source, DIGESTS))
        (said,) = capsys.readouterr().err.splitlines()
        assert f"{root} is not writable" in said
        assert "no cifar10.npz could be written" in said
        assert names(root) == before
        with pytest.raises(DataError, match="not CIFAR-10"):
            cifar10.load(root, source, DIGESTS | {"test_labels": "0" * 64})


def test_a_cache_in_a_read_only_folder_is_used(capsys) -> None:
    with read_only(lock=False) as root:
        user = os.geteuid()
        os.seteuid(os.getuid())
        root.chmod(0o755)
        cifar10.load(root, "folder", DIGESTS)
        (root / "test_batch.bin").unlink()  # so that nothing but the cache can be the source
        root.chmod(0o555)
        os.seteuid(user)
        before = names(root)
        assert same(cifar10.load(root, "auto", DIGESTS))
        assert names(root) == before
    assert capsys.readouterr().err == ""


def test_a_read_only_folder_without_data_is_refused(tmp_path, monkeypatch) -> None:
    no_npm(tmp_path / "bin", monkeypatch)
    with read_only(lock=False) as root:
        with pytest.raises(DataError, match="cannot be used for data .*Permission denied"):
            cifar10.load(root / "inner", "auto", DIGESTS)
        with pytest.raises(DataError, match="cannot be used for data .*Permission denied"):
            cifar10.load(root, "official", DIGESTS)  # asked for: what lies there is not it
