"""Traps that public reproductions fell into and that no other test file speaks of.

docs/FIDELITY.md lists all eighteen with the test that keeps this project out of each.
"""

import pandas as pd
import pytest

from fabricate import fabricate
from ranks import StopAt, do, fingerprint, newest, small_job
from resnet_repro.analysis import paper
from resnet_repro.analysis.load import load_runs
from resnet_repro.analysis.protocol import comparison_notes
from resnet_repro.compose import compose_run
from resnet_repro.conf import names
from resnet_repro.data.cifar10 import DIGESTS
from resnet_repro.items.table6 import table6

pytestmark = pytest.mark.usefixtures("few_images")


def test_trap_05_looking_at_a_net_does_not_move_its_statistics(tmp_path):
    """Another forward pass in training mode, to measure an error, changes batch-norm."""
    unseen = ("evaluation.every_iters=12", "probes.signals=false", "probes.response_images=0")
    watched, blind = small_job(tmp_path / "watched"), small_job(tmp_path / "blind", *unseen)
    do(watched)
    do(blind)
    assert blind.folder.table("gradients") == []
    key = "weights, statistics and momentum"
    assert fingerprint(watched.folder)[key] == fingerprint(blind.folder)[key]


def test_trap_06_resume_takes_the_last_checkpoint_not_the_best(tmp_path):
    job = small_job(tmp_path)
    do(job, StopAt(7))
    saved = newest(job.folder)
    assert saved["iteration"] == job.folder.resumes_at == 7


def test_trap_13_precision_is_one_for_all_nets_and_mixing_is_said(tmp_path):
    listed = [name for name in names("experiment") if not name.endswith("_fp32")]  # the controls
    asked = {compose_run(f"experiment={name}").trainer.precision for name in listed}
    assert asked == {"auto"}  # which becomes what the device does best, whatever the net
    fabricate(tmp_path, "plain-20", precision="fp32")
    fabricate(tmp_path, "plain-56", precision="bf16")
    (note,) = comparison_notes(load_runs(tmp_path))
    assert note.startswith("Mixed precision: bf16 (plain-56 seed 0); fp32 (plain-20 seed 0)")


def test_trap_16_values_the_paper_does_not_print_are_labelled(tmp_path):
    fabricate(tmp_path, "plain-20")
    table = table6(load_runs(tmp_path)).set_index("net")
    column = next(name for name in table.columns if name.startswith("paper"))
    for depth in (20, 32, 44, 56):
        assert "Fig. 6" in str(table.loc[f"plain-{depth}", column])
        assert "Fig. 6" not in str(table.loc[f"ResNet-{depth}", column])
    printed = paper.read("table6")
    assert isinstance(printed, pd.DataFrame)
    assert not printed["method"].str.contains("plain").any()


def test_trap_17_a_rerun_gives_the_same_bits_on_the_cpu(tmp_path):
    """Elsewhere a rerun of the same seed moved ResNet-56 from 8.22 to 7.57."""
    runs = [small_job(tmp_path / name) for name in ("first", "second")]
    runs.append(small_job(tmp_path / "third", "trainer.deterministic=true"))
    for job in runs:
        do(job)
    first, *others = (fingerprint(job.folder) for job in runs)
    assert others == [first, first]


def test_trap_18_every_source_is_held_against_one_truth():
    assert set(DIGESTS) == {"train_images", "train_labels", "test_images", "test_labels"}
    assert all(len(digest) == 64 for digest in DIGESTS.values())
    assert compose_run("experiment=cifar10_plain20").data.source == "auto"
