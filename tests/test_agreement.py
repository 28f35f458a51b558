"""Our curves against the paper's: where they may be compared, and what is found."""

import math

import numpy as np
import pytest
from scipy import stats as distributions

from fabricate import fabricate, imagenet_run
from pages import agreement
from resnet_repro.analysis import paper
from resnet_repro.analysis.load import load_runs
from resnet_repro.analysis.logged_run import load_run
from resnet_repro.runs.folder import RunFolder
from resnet_repro.runs.metrics import MetricsWriter
from test_analysis_tables import evaluated


def paper_like(root, label, shift=0.0, **how):
    path = fabricate(root, label, **how)
    (path / "metrics.jsonl").unlink()
    until = how.get("until") or 64_000
    curves = {kind: paper.curve(6, label, kind) for kind in ("train", "test")}
    with MetricsWriter(path / "metrics.jsonl") as log:
        for it in range(1_000, until + 1, 1_000):
            for kind, curve in curves.items():
                error = float(curve.get(it, 30.0)) + shift
                seen = {"train": 128_000, "test": 10_000}[kind]
                log.write(kind, iter=it, top1_err=error, num_samples=seen, protocol="1-crop")
    return path


def seeds_of(root, label, shifts, **how):
    for seed, shift in enumerate(shifts):
        paper_like(root, label, shift, seed=seed, **how)
    return load_runs(root, finished_only=False)


def refusal(runs):
    """Why no curve of one net is compared."""
    stretches, ((_, reason),) = agreement.compare_curves(runs)
    assert stretches == []
    return reason


UP_TO_6000 = {"train": [4_000, 5_000, 6_000], "test": [5_000, 6_000]}


def test_the_paper_itself_is_reproduced(tmp_path):
    for label in ("plain-20", "ResNet-56"):
        runs = seeds_of(tmp_path, label, (-0.1, 0.0, 0.1))
    stretches, uncompared = agreement.compare_curves(runs)
    assert uncompared == {}
    assert len(stretches) == 2 * 2 * 3  # nets, kinds of error, rates
    for stretch in stretches:
        assert stretch.differences.abs().max() < 1e-9
        assert stretch.verdict == "reproduced"
    first = stretches[0]
    assert (first.net, first.kind, first.rate) == ("plain-20", "train", 0.1)
    assert (first.ours.index[0], first.ours.index[-1]) == (4_000, 32_000)


@pytest.mark.parametrize(
    ("shifts", "verdict"),
    [
        ((2.9, 3.0, 3.1), "differs"),
        ((-2.9, -3.0, -3.1), "differs"),
        ((-2.0, 0.0, 2.0), "compatible"),  # scatter is no agreement
        ((0.0, 0.1), "compatible"),  # two seeds whose noise is hardly known
    ],
)
def test_a_curve_is_judged_by_the_scatter_of_its_seeds(tmp_path, shifts, verdict):
    stretches, _ = agreement.compare_curves(seeds_of(tmp_path, "plain-20", shifts))
    table = agreement.agreement_table(stretches)
    mean, n = sum(shifts) / len(shifts), len(shifts)
    assert set(table["verdict"][:5]) == {verdict}  # the last has the public noise too
    assert table["mean difference"].tolist() == pytest.approx([mean] * 6)
    assert table["largest"].tolist() == pytest.approx([mean] * 6)
    assert table["sd"].tolist() == pytest.approx([0.0] * 6, abs=1e-9)
    assert table["iterations"].iloc[1] == "33,000 to 48,000"
    reach = distributions.t.ppf(0.975, n - 1) * np.std(shifts, ddof=1) * (1 + 1 / n) ** 0.5
    assert table["noise (95 %)"].iloc[0] == pytest.approx(reach)  # the paper's is one run more


def test_without_a_margin_there_is_no_verdict(tmp_path):
    stretches, _ = agreement.compare_curves(seeds_of(tmp_path, "ResNet-1202", (0.0, 0.1, 0.2)))
    assert {stretch.verdict for stretch in stretches} == {"no verdict"}


@pytest.mark.parametrize(("shift", "verdict"), [(0.1, "reproduced"), (0.5, "compatible")])
def test_one_seed_tells_the_end_of_the_test_curve_alone(tmp_path, shift, verdict):
    stretches, _ = agreement.compare_curves(seeds_of(tmp_path, "plain-20", (shift,)))
    found = {(s.kind, s.rate): s.verdict for s in stretches}
    ended = ("test", pytest.approx(0.001))
    assert [v for key, v in found.items() if key == ended] == [verdict]
    assert [v for key, v in found.items() if key != ended] == ["no verdict"] * 5
    assert agreement.agreement_table(stretches)["noise (95 %)"].notna().sum() == 1


def test_a_stopped_run_counts_as_far_as_it_goes_and_has_no_verdict(tmp_path):
    paper_like(tmp_path, "plain-20", state="preempted", until=60_000)
    stretches, _ = agreement.compare_curves(load_runs(tmp_path, finished_only=False))
    assert ("test", pytest.approx(0.001)) in [(s.kind, s.rate) for s in stretches]
    assert {s.verdict for s in stretches} == {"no verdict"}  # at the last rate neither
    paper_like(tmp_path, "plain-20", state="preempted", until=6_000)
    assert load_runs(tmp_path) == []
    stretches, _ = agreement.compare_curves(load_runs(tmp_path, finished_only=False))
    assert {s.kind: s.ours.index.tolist() for s in stretches} == UP_TO_6000
    assert [s.verdict for s in stretches] == ["no verdict"] * 2  # of one seed
    assert stretches[0].course.index.tolist() == [1_000, 2_000, 3_000, 4_000, 5_000, 6_000]
    paper_like(tmp_path, "plain-20", state="preempted", until=3_000)
    stopped = load_runs(tmp_path, finished_only=False)
    assert refusal(stopped) == "stopped at 3,000; the paper's curves begin at 4,000"


def test_of_several_seeds_those_that_came_furthest_count(tmp_path):
    paper_like(tmp_path, "plain-20", 0.1)
    paper_like(tmp_path, "plain-20", 5.0, seed=1, state="preempted", until=34_000)
    stretches, _ = agreement.compare_curves(load_runs(tmp_path, finished_only=False))
    assert [len(stretch.runs) for stretch in stretches] == [2, 1, 1] * 2
    assert stretches[-2].differences.tolist() == pytest.approx([0.1] * 16)
    assert stretches[-1].verdict == "reproduced"


def test_a_short_run_is_the_papers_until_its_first_drop_and_another_rate_is_never(tmp_path):
    fabricate(tmp_path, "plain-20", profile="short")
    (run,) = load_runs(tmp_path)
    assert refusal([run]) == (
        "the rate is the paper's up to iteration 1,600; the paper's curves begin at 4,000"
    )
    other = fabricate(tmp_path / "other", "plain-20", changes={"recipe.lr": 0.05})
    assert refusal([load_run(other)]) == "recipe.lr=0.05, the paper's is 0.1"
    changes = {"recipe.max_iters": 12_000, "recipe.milestones": [6_000, 9_000]}
    longer = load_run(fabricate(tmp_path, "plain-20", profile="short", changes=changes))
    stretches, _ = agreement.compare_curves([longer])
    assert {s.kind: s.ours.index.tolist() for s in stretches} == UP_TO_6000


def test_a_training_error_is_that_of_a_whole_window(tmp_path):
    fabricate(tmp_path, "plain-20", state="preempted", until=5_500)
    (run,) = load_runs(tmp_path, finished_only=False)
    found = agreement.logged_at(run, "train", np.array([4_000, 5_000, 6_000]), 1_000)
    assert found.index.tolist() == [4_000, 5_000]  # 6,000 is not whole
    curve = run.curve("train")
    assert found[5_000] == pytest.approx(curve.loc[4_100:5_000].mean())


def test_figure_draws_what_is_compared_over_the_paper(tmp_path):
    for label in ("plain-20", "ResNet-20"):
        paper_like(tmp_path, label, 1.0)
    stretches, _ = agreement.compare_curves(load_runs(tmp_path))
    figure = agreement.agreement(stretches)
    assert [axes.get_title() for axes in figure.axes] == ["plain-20", "ResNet-20"]
    labels = {text.get_text() for text in figure.legends[0].get_texts()}
    ours = {"training error", "test error"}
    assert labels - {""} == {"20 layers"} | ours | {f"the paper's {error}" for error in ours}
    dots = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert sum(len(np.asarray(line.get_xdata())) for line in dots) == 61 + 60
    assert math.isclose(figure.axes[0].get_xlim()[1], 6.4 * 1.05)
    with pytest.raises(ValueError, match="no curve of ours"):
        agreement.agreement([])


def test_checkpoints_with_precise_statistics_stand_beside_the_logged_errors(tmp_path):
    run = load_run(paper_like(tmp_path / "runs", "plain-20", 4.0))
    own = {it: RunFolder(run.path).metrics_digest(it) for it in (30_000, 31_000, 64_000)}
    assert len({*own.values()}) == 3
    for iteration, training, bn in (
        (30_000, own[30_000], "precise"),
        (31_000, own[31_000], "precise"),
        (64_000, own[64_000], "precise"),
        (29_000, own[30_000], "precise"),  # of another training
        (32_000, RunFolder(run.path).metrics_digest(32_000), "running"),
    ):
        model = {"run": run.place, "iter": iteration, "metrics_sha256": training}
        what = {"models": [model], "bn": bn, "data": {"name": "cifar10"}, "num_samples": 10_000}
        evaluated(run.path, protocol="1-crop", top1=12.0, **what)
    table = agreement.statistics_table([run])
    assert table["iterations"].tolist() == ["30,000 to 31,000", "64,000"]
    assert table["precise statistics"].tolist() == [12.0, 12.0]
    difference = table["running averages (logged)"] - table["paper"]
    assert difference.tolist() == pytest.approx([4.0, 4.0])
    figure = agreement.agreement(agreement.compare_curves([run])[0])
    circles = [line for line in figure.axes[0].lines if line.get_markerfacecolor() == "white"]
    assert [list(line.get_xdata()) for line in circles] == [[3.0, 3.1, 6.4]]
    assert "Circles:" in figure.texts[0].get_text()
    later = {"recipe.milestones": [32_000, 50_000]}  # the paper's until 48,000
    run = load_run(paper_like(tmp_path / "runs", "plain-20", 4.0, changes=later))
    assert agreement.statistics_table([run])["iterations"].tolist() == ["30,000 to 31,000"]


def test_figure_of_imagenet_has_the_papers_validation_curve(tmp_path):
    imagenet_run(tmp_path, "plain-18")
    stretches, _ = agreement.compare_curves(load_runs(tmp_path))
    (axes,) = agreement.agreement(stretches).axes
    theirs = [line for line in axes.lines if line.get_label() == "plain-18 in the paper"]
    known = np.asarray(theirs[-1].get_ydata(), float)  # after the training error's
    curve = paper.curve(4, "plain-18", "val_center_crop", clipped=True)
    assert known[~np.isnan(known)].tolist() == curve.tolist()
