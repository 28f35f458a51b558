"""The deepest net of the paper through the whole harness, on a handful of images."""

import resource

import pytest

from ranks import Silent, never
from resnet_repro.compose import make_job
from resnet_repro.data import synthetic
from resnet_repro.training.launch import launch


def test_1202_layers_train_and_evaluate_within_8_gib(tmp_path, monkeypatch):
    monkeypatch.setattr(synthetic, "SIZES", (4, 2))
    job = make_job(
        "experiment=cifar10_resnet1202", "data=synthetic", "profile=smoke", "trainer.threads=1",
        "recipe.batch_size=2", "recipe.max_iters=1", "recipe.milestones=[]",
        "evaluation.clean_train_images=1", "probes.response_images=1", f"runs_dir={tmp_path}",
    )  # fmt: skip
    assert launch(job, Silent(), never) == "finished"
    folder = job.folder
    assert folder.meta()["net"] == {
        "label": "ResNet-1202",
        "params": 19_421_274,
        "multiply_adds": pytest.approx(2.82924e9, rel=1e-5),
    }
    records = {record["kind"]: record for record in folder.metrics()}
    assert records["train"]["lr"] == 0.01  # still in the warm-up
    assert records["test"]["num_samples"] == 2
    assert len(folder.table("responses")) == 1201
    assert len(folder.table("gradients")) == 1201
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    assert peak < 8, f"{peak:.1f} GiB"
