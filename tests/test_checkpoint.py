"""Checkpoints: verified before every load, two generations, never a silent fresh start."""

import contextlib
import os
import random
from pathlib import Path

import pytest
import torch

from reliability.damage import damage
from resnet_repro.training import checkpoint
from resnet_repro.training.checkpoint import CheckpointError, load_newest, save


def content(value: float) -> dict[str, object]:
    return {"model": {"w": torch.full((4096,), value)}, "iteration": int(value)}


def test_newest_is_loaded_and_two_are_kept(tmp_path):
    assert load_newest(tmp_path) is None
    for i in (1, 2, 3):
        save(tmp_path, i, content(i))
    assert sorted(p.name for p in tmp_path.glob("*.pt")) == ["iter_00000002.pt", "iter_00000003.pt"]
    assert len(list(tmp_path.iterdir())) == 4
    loaded = load_newest(tmp_path)
    assert loaded["iteration"] == 3
    assert torch.equal(loaded["model"]["w"], torch.full((4096,), 3.0))


@pytest.mark.parametrize("how", ["one bit flipped", "truncated", "a page zeroed", "text"])
def test_damage_is_never_loaded(tmp_path, how):
    """torch.load itself accepts most of these files."""
    rng = random.Random(how)
    for trial in range(10):
        folder = tmp_path / str(trial)
        save(folder, 1, content(1))
        newest = save(folder, 2, content(2))
        damage(how, newest, rng)
        with pytest.warns(UserWarning, match="iter_00000002.pt.*set aside"):
            assert load_newest(folder)["iteration"] == 1
        assert newest.with_name(newest.name + ".corrupt").exists()


def test_all_damaged_stops_instead_of_starting_again(tmp_path):
    save(tmp_path, 1, content(1)).write_bytes(b"")
    for expected in (pytest.warns(UserWarning, match="set aside"), contextlib.nullcontext()):
        # On a rerun the damaged file is out of the way: still no fresh start.
        with expected, pytest.raises(CheckpointError, match="no checkpoint is whole"):
            load_newest(tmp_path)


def test_another_schema_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "SCHEMA", 0)
    save(tmp_path, 1, content(1))
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="schema 0, this version reads 2"):
        load_newest(tmp_path)


def test_disk_full_keeps_what_was_there(tmp_path, monkeypatch):
    save(tmp_path, 1, content(1))

    def full(path: Path, write: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_atomic", full)
    with pytest.raises(OSError, match="space"):
        save(tmp_path, 2, content(2))
    assert load_newest(tmp_path)["iteration"] == 1


def test_code_in_a_checkpoint_is_not_run(tmp_path, hostile):
    save(tmp_path, 1, {"model": hostile})
    with pytest.raises(CheckpointError, match="holds more than data"):
        load_newest(tmp_path)
    assert not hostile.canary.exists()


def test_data_reach_the_disk_before_the_name_does(tmp_path, monkeypatch):
    """What only a power cut would show: file, then name, then folder; digest before checkpoint."""
    events: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def logged_fsync(descriptor: int) -> None:
        events.append(f"fsync {Path(f'/proc/self/fd/{descriptor}').readlink().suffix or 'folder'}")
        fsync(descriptor)

    def logged_replace(path: Path, target: Path) -> Path:
        events.append(f"name {target.suffix}")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", logged_fsync)
    monkeypatch.setattr(Path, "replace", logged_replace)
    save(tmp_path, 1, content(1))
    assert events == [
        "fsync .tmp", "name .sha256", "fsync folder", "fsync .tmp", "name .pt", "fsync folder",
    ]  # fmt: skip
