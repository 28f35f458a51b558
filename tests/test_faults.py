"""Checkpoints; full disks, folders that cannot be used, divergence."""

import contextlib
import dataclasses
import os
import random
import resource
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ranks import StopAt, do, finished, never, newest, small_job, together
from refusals import refused
from reliability.damage import damage
from resnet_repro.data import synthetic
from resnet_repro.exits import exit_code
from resnet_repro.progress import Watcher
from resnet_repro.runs.atomic import DiskFullError
from resnet_repro.runs.folder import RunFolderError
from resnet_repro.training import CheckpointError, DivergedError, checkpoint
from resnet_repro.training import build as build_module
from resnet_repro.training import loop as loop_module
from resnet_repro.training.checkpoint import load_newest
from resnet_repro.training.launch import Job, launch

# Checkpoints at 2, 4 and 6: the third is the first that lets an older one go.
QUICK = ("recipe.max_iters=6", "recipe.milestones=[4]", "trainer.checkpoint_every_iters=2",
         "evaluation.every_iters=6", "probes.response_images=20")  # fmt: skip

pytestmark = pytest.mark.usefixtures("few_images")


def content(value: float) -> dict[str, object]:
    return {"model": {"w": torch.full((4096,), value)}, "iteration": int(value)}


def save(folder: Path, iteration: int, content: dict[str, object]) -> Path:
    path = folder / f"iter_{iteration:08d}.pt"
    checkpoint.save(path, content)
    return path


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


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing disturbed, in a folder with an odd name."""
    return finished(small_job(tmp_path_factory.mktemp("whole") / "mit Leerzeichen/Läufe", *QUICK))


def fill(job: Job, after: int, file: str, more: int) -> str:
    """From an iteration on no file of this process may be larger than ``file`` and ``more``."""

    def update(iteration: int, *_: object) -> None:
        if iteration == after:
            size = max(job.folder.path.glob(file)).stat().st_size + more
            _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))

    watcher = Watcher()
    watcher.update = update
    return launch(job, watcher, never)


@pytest.mark.parametrize(
    ("after", "file", "more", "named"),
    [
        (2, "checkpoints/iter_*.pt", -1, "checkpoints/iter_00000004.pt"),
        (3, "metrics.jsonl", 30, "metrics.jsonl"),
    ],
)
def test_a_full_disk_is_named_and_costs_no_bit(whole, tmp_path, after, file, more, named):
    job = small_job(tmp_path, *QUICK)
    cause = rf"{named}: cannot be written \(File too large, [\d,]+ bytes free\)"
    refused(together, 1, fill, job, after, file, more, match=cause, kind=DiskFullError)
    assert not list(job.folder.path.rglob("*.tmp"))
    assert job.folder.metrics_path.read_bytes().endswith(b"}\n")  # no half record
    assert newest(job.folder)["iteration"] == 2
    assert finished(job) == whole  # there is room again
    assert exit_code(DiskFullError(28, "full")) == 74


UNUSABLE = [
    "file/runs", "file", "/dev/full/runs", "/proc/runs", f"new/{'x' * 300}", "loop/runs", "taken",
]  # fmt: skip


@pytest.mark.parametrize("place", UNUSABLE)
def test_an_unusable_folder_is_refused_and_nothing_is_made(tmp_path, place):
    """In the last a file is in the place of the run folder itself."""
    job, taken = small_job(tmp_path / place), small_job(tmp_path / "taken").folder.path
    taken.parent.mkdir(parents=True)
    for file in (tmp_path / "file", taken):
        file.write_text("mine")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    before = sorted(tmp_path.rglob("*"))
    named = "cannot be read" if place == "loop/runs" else "no run folder .*seed0 can be made"
    assert str(tmp_path / place) in refused(do, job, match=named, kind=RunFolderError)
    assert exit_code(RunFolderError()) == 2
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "file").read_text() == taken.read_text() == "mine"


def spoil_gradient(monkeypatch: pytest.MonkeyPatch, update: int) -> None:
    """Make the gradient of one update infinite while its loss is what it should be."""
    build = build_module.build
    seen = []

    def spoiled(gradient: Tensor) -> Tensor:
        seen.append(0)
        return gradient * torch.inf if len(seen) == update else gradient

    def hooked(*args: object, **more: object) -> nn.Module:
        net = build(*args, **more)
        list(net.parameters())[-1].register_hook(spoiled)
        return net

    monkeypatch.setattr(build_module, "build", hooked)


def test_a_gradient_that_is_not_finite_stops_the_run(tmp_path, monkeypatch):
    spoil_gradient(monkeypatch, 5)
    job = small_job(tmp_path, *QUICK)
    message = "norm of the gradient is not finite at iteration 5 "
    refused(do, job, match=message, kind=DivergedError)
    saved = newest(job.folder)
    assert saved["iteration"] == 4
    assert all(value.isfinite().all() for value in saved["model"].values())


def test_on_a_gpu_a_bad_loss_is_found_before_it_is_saved(tmp_path, monkeypatch):
    """There the loss is read only where something is logged or saved: here at 6 and 12."""
    look, seen = loop_module.check_stop_and_finite, []

    def look_as_on_gpu(context: Any, state: Any, *args: Any, reads: bool) -> bool:
        seen.append((state.iteration, reads))
        setup = dataclasses.replace(context.setup, device=torch.device("cuda"))
        return look(dataclasses.replace(context, setup=setup), state, *args, reads=reads)

    monkeypatch.setattr(loop_module, "check_stop_and_finite", look_as_on_gpu)
    spoil_gradient(monkeypatch, 2)
    job = small_job(
        tmp_path, "trainer.log_every_iters=12", "trainer.checkpoint_every_iters=6",
        "evaluation.every_iters=12",
    )  # fmt: skip
    with pytest.raises(DivergedError, match=r"the loss is not finite at iteration 3 \(lr 0.1"):
        do(job)
    assert seen == [(i, i == 6) for i in range(1, 7)]
    assert load_newest(job.folder.checkpoints) is None


def another_run(begun: Job, _: pytest.MonkeyPatch) -> Job:
    other = small_job(Path(begun.config.runs_dir), *QUICK, "seed=1")
    other.folder.path.mkdir(parents=True)
    begun.folder.checkpoints.rename(other.folder.checkpoints)
    return other


def other_data(begun: Job, patch: pytest.MonkeyPatch) -> Job:
    patch.setattr(synthetic, "SIZES", (500, 60))
    return begun


def another_net(begun: Job, patch: pytest.MonkeyPatch) -> Job:
    build = build_module.build
    deeper = lambda spec, *rest: build(dataclasses.replace(spec, depth=14), *rest)  # noqa: E731
    patch.setattr(build_module, "build", deeper)
    return begun


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (another_run, r"made by another run \(seed was 0, now 1\)"),
        (other_data, r"made on other data \(train_images, train_labels"),
        (another_net, r"made by another net \(\d+ weights differ; .* None"),
    ],
)
def test_a_checkpoint_that_is_not_this_runs_is_named(tmp_path, monkeypatch, change, named):
    begun = small_job(tmp_path, *QUICK)
    assert do(begun, StopAt(3)) == "preempted"
    job = change(begun, monkeypatch)
    refused(do, job, match=named, kind=CheckpointError)
    assert job.folder.status()["state"] == "failed"
