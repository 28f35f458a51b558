"""Photographs of ImageNet at full size through whole runs."""

import shutil

import pytest

from pictures import SAMPLE
from ranks import StopAt, do, fingerprint
from resnet_repro.compose import make_job


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="no sample of ImageNet pictures here")
def test_real_pictures_at_full_size_also_across_a_stop(tmp_path):
    """Twelve photographs as two made-up classes."""
    for number, file in enumerate(sorted(SAMPLE.glob("*.JPEG"))[:12]):
        folder = tmp_path / ("val" if number % 3 == 2 else "train") / f"class{number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, folder)
    words = (
        "experiment=imagenet_resnet18_A", "data=folder", "profile=smoke", f"data.root={tmp_path}",
        "recipe.lr=0.01", "recipe.max_iters=3", "recipe.milestones=[2]", "trainer.threads=1",
        "evaluation.every_iters=3", "probes.response_images=2", "evaluation.clean_train_images=2",
        "trainer.loader_workers=1",
    )  # fmt: skip
    whole, parts = (make_job(*words, f"runs_dir={tmp_path}/runs", f"name={n}") for n in "ab")
    assert do(whole) == "finished"
    records, meta = whole.folder.metrics(), whole.folder.meta()
    assert [r["num_samples"] for r in records if r["kind"] == "test"] == [4]
    assert all(0 < record["loss"] < 50 for record in records)
    assert meta["net"]["multiply_adds"] > 1.7e9  # at 224x224
    assert meta["data"]["colours_measured_on"] == meta["data"]["train_images"] == 8
    tables = {"gradient_precision.csv", "gradients.csv", "responses.csv", "signal.csv"}
    assert {path.name for path in whole.folder.path.glob("*.csv")} == tables
    assert do(parts, StopAt(1)) == "preempted"
    assert do(parts) == "finished"
    assert fingerprint(parts.folder) == fingerprint(whole.folder)
