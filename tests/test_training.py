"""Training end to end on made-up images: the loop, exact resume, divergence, traps of others."""

import json
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ranks import UNSEEN, StopAt, do, fingerprint, finished, never, newest, small_job
from refusals import refused
from resnet_repro.conf import names, protocol
from resnet_repro.data import Arrays, StoppedError, cifar10
from resnet_repro.data.resident import DeviceDataset, ResidentImages
from resnet_repro.progress import Watcher
from resnet_repro.runs import provenance
from resnet_repro.runs.folder import RunFolder, RunFolderError
from resnet_repro.training import CheckpointError, DivergedError
from resnet_repro.training import run as run_module
from resnet_repro.training.launch import begin, launch
from resnet_repro.training.run import TrainingRun

pytestmark = pytest.mark.usefixtures("few_images")


class Kill(Watcher):
    def update(self, iteration: int, top1_err: float | None, lr: float) -> None:
        if iteration == 7:  # checkpoints are made at 4, 8 and 12
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    job = small_job(tmp_path_factory.mktemp("whole"))
    assert do(job) == "finished"
    return job.folder


def test_run_folder_is_complete(whole):
    records = whole.metrics()
    by_kind = {k: [r["iter"] for r in records if r["kind"] == k] for k in ("train", "test")}
    assert by_kind == {"train": [2, 4, 6, 8, 10, 12], "test": [4, 8, 12]}
    assert [r["lr"] for r in records if r["kind"] == "train"] == [0.1, 0.1, 0.1, 0.01, 0.001, 0.001]
    (clean,) = [r for r in records if r["kind"] == "train_clean"]
    assert clean["num_samples"] == 50
    assert all(r["num_samples"] == 60 for r in records if r["kind"] == "test")
    assert all(list(r)[:2] == ["kind", "iter"] and list(r)[-1] == "time" for r in records)
    meta = whole.meta()
    assert meta["net"]["label"] == "ResNet-8"
    assert meta["command"].startswith("python -m resnet_repro.train experiment=cifar10_resnet20")
    assert meta["deviations"]["model.depth"] == [20, 8]
    assert meta["images_per_second"] > 0
    assert meta["engine"] == {"step": "eager", "blocks": "eager", "remarks": []}
    assert whole.is_finished
    layers = [row["name"] for row in whole.table("responses")]
    assert len(layers) == 7
    assert [row["name"] for row in whole.table("signal")] == layers
    assert {row["iter"] for row in whole.table("gradients")} == {"1", "2", "3", "6", "9", "12"}


def test_gradients_are_measured_at_bn_outputs_and_against_float64(whole):
    rows = whole.table("gradients")
    assert all(float(row["bn_output_grad_norm"]) > 0 for row in rows)
    precision = whole.table("gradient_precision")
    first = [row for row in rows if row["iter"] == "1"]
    for row, update in zip(precision, first, strict=True):
        assert row["name"] == update["name"]
        assert float(row["cosine"]) > 0.999  # fp32
        assert 0 < float(row["relative_error"]) < 0.05
        # The same gradients as the first update's: those of the untrained net.
        assert float(row["grad_norm"]) == pytest.approx(float(update["grad_norm"]), rel=1e-3)
        known = float(update["bn_output_grad_norm"])
        assert float(row["bn_output_grad_norm_float64"]) == pytest.approx(known, rel=1e-2)


def test_bf16_gradients_are_further_from_float64_and_weights_stay_in_fp32(whole, tmp_path):
    once = ("recipe.max_iters=1", "recipe.milestones=[]", "probes.response_images=0")
    job = small_job(tmp_path, "trainer.precision=bf16", "evaluation.clean_train_images=1", *once)
    do(job)
    fp32, bf16 = whole.table("gradient_precision"), job.folder.table("gradient_precision")
    for b, f in zip(bf16, fp32, strict=True):
        assert float(b["relative_error"]) > float(f["relative_error"])
        assert b["grad_norm_float64"] == f["grad_norm_float64"]
    saved = newest(job.folder)
    assert saved["precision"] == "bf16"
    assert all(v.dtype in (torch.float32, torch.int64) for v in saved["model"].values())


def test_memory_of_the_first_probes_is_returned(tmp_path, monkeypatch):
    """Gradients in float64 take gigabytes for deep nets, which would stay with the process."""
    done: list[str] = []
    for name in ("tables_at_start", "return_freed_memory"):
        monkeypatch.setattr(run_module, name, lambda *_, name=name: done.append(name) or {})
    run = begin(small_job(tmp_path), Watcher(), never)
    run.advance()
    run.close()
    assert done == ["tables_at_start", "return_freed_memory"]


@pytest.mark.parametrize("at", [None, 0, 3])
def test_a_stop_while_waiting_for_data_is_a_stop(whole, tmp_path, monkeypatch, at):
    """While they are loaded (``None``), or for the batch of an iteration."""
    batch = ResidentImages.batch

    def stopping(*asked: Any, **how: Any) -> Any:
        if at is None or (asked[-1] == at and not how):  # not the whole batch of a probe
            raise StoppedError("stopped by a signal")
        return batch(*asked, **how)

    where = (run_module, "load_images") if at is None else (ResidentImages, "batch")
    job = small_job(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(*where, stopping)
        assert do(job) == "preempted"
    assert job.folder.status()["state"] == "preempted"
    assert job.folder.resumes_at == (at or 0)
    assert finished(job) == fingerprint(whole)


def test_another_seed_gives_other_bits(whole, tmp_path):
    first = finished(small_job(tmp_path, "seed=1", *SHORT))["metrics"][0]
    assert (first["kind"], first["iter"]) == ("train", 2)
    assert first["loss"] != whole.metrics()[0]["loss"]


@pytest.mark.parametrize("every", [1, 3])
def test_stopped_and_resumed_gives_the_same_bits(whole, tmp_path, every):
    """Everywhere, as at an evaluation or a drop of the rate; and with iterations between stops."""
    job = small_job(tmp_path)
    for stop_at in range(every, 12, every):
        assert do(job, StopAt(every)) == "preempted"
        status = job.folder.status()
        assert (status["state"], status["iter"]) == ("preempted", stop_at)
    assert do(job, StopAt(every)) == "finished"  # too late to stop it
    assert fingerprint(job.folder) == fingerprint(whole)


def test_parts_by_other_hardware_or_code_are_recorded(tmp_path, monkeypatch):
    job = small_job(tmp_path, *UNSEEN)
    for stop_at, label in ((3, "A"), (2, "A"), (1, "B"), (0, "C"), (9, "A")):
        made_by = {"label": label, "cpu": label}
        monkeypatch.setattr(provenance, "hardware", lambda *_, made_by=made_by: made_by)
        with nullcontext() if stop_at else pytest.raises(KeyboardInterrupt):
            launch(job, Watcher() if stop_at else Kill(), StopAt(stop_at))
    meta = job.folder.meta()
    first, second = meta["earlier"]
    assert (first["until"], first["hardware"]["label"]) == (5, "A")
    assert (second["until"], second["hardware"]["label"]) == (6, "B")
    assert set(first) == {"until", "git", "versions", "hardware", "engine"}
    assert (meta["hardware"]["label"], first["git"]) == ("A", meta["git"])


def test_killed_without_warning_goes_back_to_its_checkpoint(whole, tmp_path):
    """Work after the last checkpoint is lost and done again; its records do not come twice."""
    job = small_job(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        launch(job, Kill(), never)
    assert [r["iter"] for r in job.folder.metrics()][-1] == 6
    assert do(job, StopAt(1)) == "preempted"  # before it has written a record
    assert finished(job) == fingerprint(whole)


def test_stopped_while_an_evaluation_waits_for_data_loses_no_record(whole, tmp_path, monkeypatch):
    """It goes back to the checkpoint before; a stop after the last update measures nothing."""
    job, evaluations = small_job(tmp_path), count()
    original = DeviceDataset.eval_batches

    def waits(images, *args, **share):
        if next(evaluations) in (1, 4):  # that at 8, the clean training error at the end
            raise StoppedError("stopped by a signal while waiting for pictures")
        return original(images, *args, **share)

    monkeypatch.setattr(DeviceDataset, "eval_batches", waits)
    for reached in (8, 12):
        assert do(job) == "preempted"
        assert job.folder.metrics()[-1]["iter"] == reached
    assert do(job, StopAt(1)) == "preempted"
    assert not any(record["kind"] == "train_clean" for record in job.folder.metrics())
    assert finished(job) == fingerprint(whole)


SHORT = ("recipe.max_iters=2", "recipe.milestones=[]", *UNSEEN)


def written(folder: RunFolder) -> dict[Path, tuple[int, bytes]]:
    """When each file was written, and what it holds."""
    return {
        path: (path.lstat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in folder.path.rglob("*")
    }


def test_finished_run_is_skipped_and_another_configuration_refused(tmp_path):
    job = small_job(tmp_path, *SHORT)
    assert do(job) == "finished"
    before = written(job.folder)
    assert do(job) == "skipped"
    assert do(small_job(tmp_path, *SHORT, "evaluation.batch_size=100")) == "skipped"  # only how
    assert written(job.folder) == before
    name = f"name={job.config.name}"  # without it, another configuration has its own folder
    other, named = small_job(tmp_path, *SHORT, "recipe.lr=0.2", name), "lr was 0.1, now 0.2.*name="
    refused(do, other, match=named, kind=RunFolderError)
    assert do(small_job(tmp_path, *SHORT, "recipe.lr=0.2")) == "finished"


def test_divergence_is_named_and_final_until_something_changes(tmp_path):
    job = small_job(tmp_path, "recipe.lr=1e30", *UNSEEN)
    named = r"not finite at iteration \d+ \(lr 1e\+30, images \["
    first = refused(do, job, match=named, kind=DivergedError)
    assert job.folder.status()["state"] == "diverged"
    assert not job.folder.is_finished
    for line in job.folder.metrics_path.read_text().splitlines():
        assert "NaN" not in line
        json.loads(line)
    before = written(job.folder)
    again = refused(do, job, match="did so when it was last tried.*name=", kind=DivergedError)
    assert again.startswith(first)
    assert written(job.folder) == before


WARM = ("recipe.warmup=error80", "recipe.max_iters=150", "recipe.milestones=[140]",
        "recipe.batch_size=8", "trainer.log_every_iters=10", "evaluation.every_iters=150",
        "trainer.checkpoint_every_iters=50", *UNSEEN)  # fmt: skip


@pytest.fixture(scope="module")
def warmed(tmp_path_factory):
    job = small_job(tmp_path_factory.mktemp("warm"), *WARM)
    assert do(job) == "finished"
    return job.folder


def warmup_exit(folder: RunFolder) -> int:
    (event,) = [r for r in folder.metrics() if r["kind"] == "event"]
    assert event["event"] == "warmup_end"
    assert event["value"] < 80
    return int(event["iter"])


def test_trap_03_04_warm_up_ends_by_the_smoothed_error_and_is_logged(warmed):
    """Others never end it, or end it at iteration 14 by one lucky batch."""
    left = warmup_exit(warmed)
    assert left >= 100  # the mean is over the last 100 iterations
    assert warmed.meta()["warmup_exit_iter"] == left
    records = [r for r in warmed.metrics() if r["kind"] == "train"]
    smoothed = sum(r["top1_err"] for r in records if r["iter"] <= 100) / 10
    assert (smoothed < 80) == (left == 100)
    for record in records:  # the rate of the window's last update
        expected = 0.01 if record["iter"] <= left else 0.1 if record["iter"] <= 140 else 0.01
        assert record["lr"] == expected, record


def test_resume_across_the_end_of_the_warm_up_gives_the_same_bits(warmed, tmp_path):
    left = warmup_exit(warmed)
    job = small_job(tmp_path, *WARM)
    for stop_at in (left - 60, 59, 1, 1):  # before it, one before it, at it, after it
        assert do(job, StopAt(stop_at)) == "preempted"
    assert finished(job) == fingerprint(warmed)


def test_45k_split_logs_validation_beside_test(tmp_path, monkeypatch):
    """On as many training images as CIFAR-10 has, and few test images."""
    images = np.random.default_rng(0).integers(0, 256, (50_060, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(50_060, dtype=np.uint8) % 10
    arrays = Arrays(images[60:], labels[60:], images[:60], labels[:60], 10, {})
    monkeypatch.setattr(cifar10, "load", lambda *_: arrays)
    args = ("data=cifar10", "data.train_split=45k", "evaluation.batch_size=1000")
    job = small_job(tmp_path, *SHORT, *args)
    assert do(job) == "finished"
    counts = {r["kind"]: r["num_samples"] for r in job.folder.metrics()}
    assert counts == {"train": 32, "test": 60, "val": 5_000, "train_clean": 50}


LOST: dict[str, Callable[[RunFolder], Any]] = {
    "folder": lambda folder: shutil.rmtree(folder.checkpoints),
    "all but digests": lambda folder: [p.unlink() for p in folder.checkpoints.glob("*.pt")],
    "status, too": lambda folder: [
        shutil.rmtree(folder.checkpoints), (folder.path / "status.json").unlink()
    ],
    "link to another disk": lambda folder: [
        shutil.rmtree(folder.checkpoints), folder.checkpoints.symlink_to("/not/mounted")
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    job = small_job(tmp_path_factory.mktemp("stopped"), "trainer.checkpoint_every_iters=4")
    assert do(job, StopAt(6)) == "preempted"
    return job.folder


@pytest.mark.parametrize("lost", LOST)
@pytest.mark.parametrize("launcher", ["local", "external"])
def test_a_run_without_its_checkpoints_is_not_started_again(tmp_path, stopped, lost, launcher):
    """Nothing is written: the records would be lost. Neither by the command nor by a worker."""
    job = small_job(tmp_path, f"trainer.launcher={launcher}")
    shutil.copytree(stopped.path, job.folder.path)
    LOST[lost](job.folder)
    before, log = written(job.folder), job.folder.metrics_path
    for tried in (lambda: do(job), TrainingRun(job.folder, Watcher(), never).finish):
        assert written(job.folder) == before
        refused(tried, match="logged.*checkpoints/ has no checkpoint to res", kind=CheckpointError)
    assert written(job.folder)[log] == before[log]


def test_external_launch_only_makes_the_folder(tmp_path, capsys):
    job = small_job(tmp_path, "trainer.devices=16", "trainer.launcher=external")
    assert do(job) == "created"
    assert capsys.readouterr().out.strip() == str(job.folder.path)
    assert job.folder.status()["state"] == "created"
    assert job.folder.config() == job.config.as_mapping()


def test_trap_05_looking_at_a_net_does_not_move_its_statistics(whole, tmp_path):
    """Another forward pass in training mode, to measure an error, changes batch-norm."""
    blind = finished(small_job(tmp_path, "evaluation.every_iters=12", *UNSEEN))
    assert blind["gradients"] == []
    key = "weights, statistics and momentum"
    assert fingerprint(whole)[key] == blind[key]


def test_trap_06_resume_takes_the_last_checkpoint_not_the_best(tmp_path):
    job = small_job(tmp_path)
    do(job, StopAt(7))
    saved = newest(job.folder)
    assert saved["iteration"] == job.folder.resumes_at == 7


def test_trap_13_precision_is_the_same_for_all_nets():
    listed = [name for name in names("experiment") if not name.endswith("_fp32")]  # the controls
    asked = {protocol(name).trainer.precision for name in listed}
    assert asked == {"auto"}  # which becomes what the device does best, whatever the net


@pytest.mark.parametrize("how", ["false", "true"])
def test_trap_17_a_rerun_gives_the_same_bits_on_the_cpu(whole, tmp_path, how):
    """Elsewhere a rerun of the same seed moved ResNet-56 from 8.22 to 7.57."""
    rerun = small_job(tmp_path, f"trainer.deterministic={how}")
    assert finished(rerun) == fingerprint(whole)
