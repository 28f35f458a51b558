"""The control for precision: continuations of a run in other precisions, layouts and seeds."""

import json

from benchmarks.precision import main
from ranks import StopAt, do, small_job


def test_continuations_start_at_the_checkpoint_and_differ(tmp_path):
    job = small_job(tmp_path)
    assert do(job, StopAt(6)) == "preempted"
    words = [str(job.folder.path), str(job.folder.checkpoints), "--iterations", "2"]
    main([*words, "--out", str(tmp_path)])
    kept = json.loads((tmp_path / "precision_cpu.json").read_text())
    rows = kept["rows"]
    assert kept["net"] == "ResNet-8"
    assert [row["from"] for row in rows] == [6] * 4
    by_name = {row["continuation"]: row for row in rows}
    own, again = by_name["fp32, channels last, seed 0"], by_name["fp32, NCHW, seed 0"]
    logged = [r["loss"] for r in do_all(job) if r["kind"] == "train" and r["iter"] == 8]
    assert own["loss"] == round(logged[0], 4)  # what the run itself did next
    assert abs(again["loss"] - own["loss"]) < 1e-2
    assert by_name["fp32, channels last, seed 1001"]["loss"] != own["loss"]


def do_all(job):
    assert do(job) == "finished"
    return job.folder.metrics()
