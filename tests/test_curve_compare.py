"""Our curves against the paper's: where they may be compared, and what is found."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fabricate import fabricate
from resnet_repro.analysis.agreement import agreement
from resnet_repro.analysis.curve_compare import (
    agreement_table,
    compare_curves,
    logged_at,
    wiggle,
)
from resnet_repro.analysis.load import load_runs
from resnet_repro.analysis.paper import Paper
from resnet_repro.analysis.protocol import paper_horizon
from resnet_repro.runs.metrics import MetricsWriter


def paper_like(root: Path, label: str, shift: float = 0.0, **how: Any) -> Path:
    """A run whose curves are the paper's, moved by so many points."""
    path = fabricate(root, label, **how)
    book = Paper()
    (path / "metrics.jsonl").unlink()
    until = how.get("until") or 64_000
    curves = {kind: book.curve(6, label, kind) for kind in ("train", "test")}
    with MetricsWriter(path / "metrics.jsonl") as log:
        for it in range(1_000, until + 1, 1_000):
            for kind, curve in curves.items():
                error = float(curve.get(it, 30.0)) + shift
                seen = {"train": 128_000, "test": 10_000}[kind]
                log.write(kind, iter=it, top1_err=error, num_samples=seen, protocol="1-crop")
    return path


def test_the_paper_itself_lies_within_the_noise(tmp_path: Path) -> None:
    for label in ("plain-20", "ResNet-56"):
        paper_like(tmp_path, label)
    stretches, uncompared = compare_curves(load_runs(tmp_path))
    assert uncompared == []
    assert len(stretches) == 2 * 2 * 3  # nets, kinds of error, rates
    for stretch in stretches:
        assert stretch.differences.abs().max() < 1e-9
        assert stretch.verdict == "within the noise"
    first = stretches[0]
    assert (first.net, first.kind, first.rate) == ("plain-20", "train", 0.1)
    assert (first.ours.index[0], first.ours.index[-1]) == (4_000, 32_000)


@pytest.mark.parametrize(("shift", "verdict"), [(3.0, "above"), (-3.0, "below")])
def test_a_curve_that_lies_elsewhere_is_said_to(tmp_path: Path, shift: float, verdict: str) -> None:
    paper_like(tmp_path, "plain-20", shift)
    stretches, _ = compare_curves(load_runs(tmp_path))
    table = agreement_table(stretches)
    assert set(table["ours is"]) == {verdict}
    assert table["mean difference"].tolist() == pytest.approx([shift] * 6)
    assert table["largest"].tolist() == pytest.approx([shift] * 6)
    assert table["sd"].tolist() == pytest.approx([0.0] * 6, abs=1e-9)
    assert table["iterations"].iloc[1] == "33,000 to 48,000"


def test_a_stopped_run_counts_as_far_as_it_goes(tmp_path: Path) -> None:
    paper_like(tmp_path, "plain-20", state="preempted", until=6_000)
    assert load_runs(tmp_path) == []
    stretches, _ = compare_curves(load_runs(tmp_path, finished_only=False))
    assert {s.kind: s.ours.index.tolist() for s in stretches} == {
        "train": [4_000, 5_000, 6_000],
        "test": [5_000, 6_000],
    }
    assert [s.verdict for s in stretches] == ["within the noise"] * 2
    assert stretches[0].course.index.tolist() == [1_000, 2_000, 3_000, 4_000, 5_000, 6_000]
    paper_like(tmp_path, "plain-20", state="preempted", until=3_000)
    stretches, (uncompared,) = compare_curves(load_runs(tmp_path, finished_only=False))
    assert stretches == []
    assert uncompared.reason == "stopped at 3,000; the paper's curves begin at 4,000"


def test_a_short_run_is_the_papers_until_its_first_drop(tmp_path: Path) -> None:
    fabricate(tmp_path, "plain-20", profile="short")
    (run,) = load_runs(tmp_path)
    assert paper_horizon(run).iters == 1_600
    stretches, (uncompared,) = compare_curves([run])
    assert stretches == []
    assert uncompared.reason == (
        "the rate is the paper's up to iteration 1,600; the paper's curves begin at 4,000"
    )
    changes = {"recipe.max_iters": 12_000, "recipe.milestones": [6_000, 9_000]}
    fabricate(tmp_path / "longer", "plain-20", profile="short", changes=changes)
    runs = load_runs(tmp_path / "longer")
    stretches, _ = compare_curves(runs)
    assert {s.kind: s.ours.index.tolist() for s in stretches} == {
        "train": [4_000, 5_000, 6_000],
        "test": [5_000, 6_000],
    }


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data.train_split": "45k"}, "data.train_split=45k, the paper's is all"),
        ({"recipe.batch_size": 64}, "recipe.batch_size=64, the paper's is 128"),
        ({"recipe.lr": 0.05}, "recipe.lr=0.05, the paper's is 0.1"),
    ],
)
def test_another_protocol_is_not_compared(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    fabricate(tmp_path, "plain-20", changes=changes)
    stretches, (uncompared,) = compare_curves(load_runs(tmp_path))
    assert stretches == []
    assert uncompared.reason == said


def test_a_deviation_named_in_the_run_counts_from_the_start(tmp_path: Path) -> None:
    path = fabricate(tmp_path, "ResNet-56")
    meta = json.loads((path / "meta.json").read_text())
    meta["deviations"] = {"trainer.threads": [0, 1], "recipe.nesterov": [False, True]}
    (path / "meta.json").write_text(json.dumps(meta))
    (run,) = load_runs(tmp_path)
    horizon = paper_horizon(run)
    assert (horizon.iters, horizon.reason) == (0, "recipe.nesterov=True, the paper's is False")


def test_a_training_error_is_that_of_a_whole_window(tmp_path: Path) -> None:
    fabricate(tmp_path, "plain-20", state="preempted", until=5_500)
    (run,) = load_runs(tmp_path, finished_only=False)
    found = logged_at([run], "train", np.array([4_000, 5_000, 6_000]), 1_000)
    assert found.index.tolist() == [4_000, 5_000]  # 6,000 is not whole
    curve = run.curve("train")
    assert found[5_000] == pytest.approx(curve.loc[4_100:5_000].mean())


def test_seeds_narrow_the_noise(tmp_path: Path) -> None:
    reach = {}
    for seeds in (1, 4):
        for seed in range(seeds):
            paper_like(tmp_path / str(seeds), "ResNet-20", seed=seed)
        stretches, _ = compare_curves(load_runs(tmp_path / str(seeds)))
        assert stretches[0].gap is not None
        reach[seeds] = stretches[0].gap.reach
    assert reach[4] < 0.9 * reach[1]


def test_wiggle_is_blind_to_a_slope_and_a_drop() -> None:
    random = np.random.default_rng(0)
    noise = random.standard_normal(400) * 0.5
    slope = pd.Series(noise + np.arange(400) * 0.3)
    slope.iloc[200:] -= 8.0
    assert wiggle(slope) == pytest.approx(0.5, rel=0.15)
    assert wiggle(slope.iloc[:3]) is None


def test_figure_draws_what_is_compared_over_the_paper(tmp_path: Path) -> None:
    for label in ("plain-20", "ResNet-20"):
        paper_like(tmp_path, label, 1.0)
    stretches, _ = compare_curves(load_runs(tmp_path))
    figure = agreement(stretches)
    assert [axes.get_title() for axes in figure.axes] == ["plain-20", "ResNet-20"]
    labels = {text.get_text() for text in figure.legends[0].get_texts()}
    assert labels == {
        "training error",
        "training error in the paper",
        "test error",
        "test error in the paper",
    }
    ours = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert sum(len(np.asarray(line.get_xdata())) for line in ours) == 61 + 60
    assert math.isclose(figure.axes[0].get_xlim()[1], 6.4 * 1.05)
    with pytest.raises(ValueError, match="no curve of ours"):
        agreement([])
