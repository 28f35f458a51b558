"""Photographs of ImageNet at full size through whole runs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pictures import SAMPLE
from ranks import StopAt, do, fingerprint
from resnet_repro.compose import make_job
from resnet_repro.runs.folder import RunFolder
from resnet_repro.training.launch import Job

pytestmark = pytest.mark.skipif(not SAMPLE.is_dir(), reason="no sample of ImageNet pictures here")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve photographs as two made-up classes."""
    root = tmp_path_factory.mktemp("real")
    for number, file in enumerate(sorted(SAMPLE.glob("*.JPEG"))[:12]):
        folder = root / ("val" if number % 3 == 2 else "train") / f"class{number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, folder)
    return root


def job_on(pictures: Path, root: Path) -> Job:
    return make_job(
        "experiment=imagenet_resnet18_A", "data=folder", "profile=smoke", f"runs_dir={root}",
        f"data.root={pictures}", "recipe.lr=0.01", "recipe.max_iters=3", "recipe.milestones=[2]",
        "evaluation.every_iters=3", "probes.response_images=2", "evaluation.clean_train_images=2",
        "trainer.threads=1", "trainer.loader_workers=1",
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(root: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    job = job_on(root, tmp_path_factory.mktemp("runs"))
    assert do(job) == "finished"
    return job.folder


def test_real_pictures_at_full_size(whole: RunFolder) -> None:
    records, meta = whole.metrics(), whole.meta()
    assert [r["num_samples"] for r in records if r["kind"] == "test"] == [4]
    assert all(0 < record["loss"] < 50 for record in records)
    assert meta["net"]["multiply_adds"] > 1.7e9  # at 224x224
    assert meta["data"]["colours_measured_on"] == meta["data"]["train_images"] == 8
    assert sorted(path.name for path in whole.path.glob("*.csv")) == [
        "gradient_precision.csv", "gradients.csv", "responses.csv", "signal.csv",
    ]  # fmt: skip


def test_real_pictures_resume_to_the_same_bits(
    whole: RunFolder, root: Path, tmp_path: Path
) -> None:
    job = job_on(root, tmp_path)
    assert do(job, StopAt(1)) == "preempted"
    assert do(job) == "finished"
    assert fingerprint(job.folder) == fingerprint(whole)
