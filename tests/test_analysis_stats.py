"""Intervals, the numbers of a run and the verdict rule, against hand-computed values."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from fabricate import fabricate
from resnet_repro.analysis.load import load_runs
from resnet_repro.analysis.paper import Paper, PaperValue
from resnet_repro.analysis.stats import (
    best_error,
    binomial_sd,
    clean_training_error,
    difference_from_paper,
    final_training_error,
    final_training_images,
    last_error,
    mean_last_ten,
    summarise,
    verdict,
    welch,
)

TABLE6 = PaperValue(8.75, "Table 6")


def test_summary_by_hand() -> None:
    summary = summarise([8.0, 9.0, 10.0])
    # sd 1, t(0.975, 2) = 4.302653, half width 4.302653 / sqrt(3)
    assert (summary.n, summary.mean, summary.sd) == (3, 9.0, 1.0)
    assert summary.half_width == pytest.approx(2.484138, abs=1e-5)
    assert (summary.low, summary.high) == (
        pytest.approx(6.515862, abs=1e-5),
        pytest.approx(11.484138, abs=1e-5),
    )


def test_summary_of_one_run_has_no_interval() -> None:
    summary = summarise([8.0])
    assert summary.mean == 8.0
    assert all(math.isnan(value) for value in (summary.sd, summary.low, summary.high))
    with pytest.raises(ValueError, match="nothing"):
        summarise([])


def test_binomial_noise_of_ten_thousand_images() -> None:
    assert binomial_sd(7.0) == pytest.approx(0.25515, abs=1e-5)
    assert binomial_sd(8.75) == pytest.approx(0.28257, abs=1e-5)
    assert binomial_sd(0.0) == binomial_sd(100.0) == 0.0
    assert binomial_sd(50.0, 100) == pytest.approx(5.0)


def test_welch_degrees_of_freedom() -> None:
    # equal variances 1 with 4 degrees each: 8; a known variance adds none of its own
    assert welch([(1.0, 4), (1.0, 4)]) == (pytest.approx(math.sqrt(2)), pytest.approx(8.0))
    assert welch([(1.0, 4), (1.0, math.inf)]) == (pytest.approx(math.sqrt(2)), pytest.approx(16.0))
    assert welch([(1.0, math.inf)])[1] == math.inf
    assert welch([(0.0, 2)]) == (0.0, math.inf)


def test_difference_from_the_paper_by_hand() -> None:
    difference = difference_from_paper([8.5, 8.7, 8.9], TABLE6, seed_sd=0.22)
    # ours 0.2^2/3 + 0.281836^2/3, the paper 0.22^2 + 0.282571^2
    ours = 0.04 / 3 + 8.7 * 91.3 / 10_000 / 3
    theirs = 0.22**2 + 8.75 * 91.25 / 10_000
    assert difference.value == pytest.approx(-0.05)
    assert difference.se == pytest.approx(math.sqrt(ours + theirs))
    freedom = (ours + theirs) ** 2 / ((0.04 / 3) ** 2 / 2 + (0.22**2) ** 2 / 4)
    assert difference.df == pytest.approx(freedom)


def test_resnet110_is_five_runs_of_the_paper() -> None:
    paper = Paper().test_error("ResNet-110")
    assert paper == PaperValue(6.61, "Table 6, mean of 5", runs=5, sd=0.16, best=6.43)
    ours = [6.5, 6.6, 6.7, 6.8, 6.9]
    difference = difference_from_paper(ours, paper, seed_sd=0.3)
    variance = (0.025 + 6.7 * 93.3 / 10_000 + 0.16**2 + 6.61 * 93.39 / 10_000) / 5
    assert difference.se == pytest.approx(math.sqrt(variance))  # seed_sd is not needed


@pytest.mark.parametrize(
    ("ours", "word"),
    [
        ([8.6, 8.7, 8.8], "reproduced"),
        ([9.9, 10.0, 10.1], "differs"),
        ([7.4, 7.5, 7.6], "differs"),
        ([8.7], "inconclusive"),
        ([9.3, 9.4], "inconclusive"),
        ([11.0], "differs"),
    ],
)
def test_verdict_words(ours: list[float], word: str) -> None:
    result = verdict(ours, TABLE6, seed_sd=0.22)
    assert result.word == word
    assert result.difference is not None
    assert f"{sum(ours) / len(ours) - 8.75:+.2f} points" in result.sentence


def test_a_fixed_band_would_fail_a_correct_resnet56() -> None:
    paper = Paper().test_error("ResNet-56")
    assert paper is not None
    assert verdict([7.2, 7.4, 7.6], paper, seed_sd=0.27).word == "reproduced"  # 0.43 away


def test_other_profiles_get_no_verdict() -> None:
    result = verdict([8.75] * 3, TABLE6, seed_sd=0.22, not_comparable="short profile")
    assert (result.word, result.difference) == ("not comparable", None)
    assert result.sentence == "not comparable: short profile"


def test_numbers_of_a_run(tmp_path: Path) -> None:
    path = fabricate(tmp_path, "plain-20", test=9.7, train=1.4)
    (run,) = load_runs(tmp_path)
    assert last_error(run) == pytest.approx(9.7)
    assert best_error(run) == run.curve("test").min() <= 9.7
    assert mean_last_ten(run) == pytest.approx(run.curve("test").loc[55_000:].mean())
    assert clean_training_error(run) == pytest.approx(0.9 * 1.4)
    curve = run.curve("train")
    assert final_training_error(run) == pytest.approx(curve[curve.index > 60_000].mean())
    assert final_training_error(run) == pytest.approx(1.4)
    assert final_training_images(run) == 4_000 * 128
    lines = path.joinpath("metrics.jsonl").read_text().splitlines(True)
    path.joinpath("metrics.jsonl").write_text("".join(x for x in lines if '"train"' in x))
    (bare,) = load_runs(tmp_path)
    assert clean_training_error(bare) is None
    with pytest.raises(ValueError, match="no test error"):
        last_error(bare)


def test_paper_values_say_where_they_come_from() -> None:
    paper = Paper()
    assert paper.test_error("ResNet-20") == TABLE6
    assert paper.test_error("plain-56") == PaperValue(13.25, "read off Fig. 6")
    assert paper.test_error("plain-110") is None
    assert paper.test_error("Highway-20") is None
    assert paper.public("ResNet-56").runs == 13
    assert paper.public("plain-110").runs == 0
    assert paper.public("Highway-20").median is None
    assert paper.endpoint("plain-56", "train") == 5.61
    assert paper.endpoint("plain-110", "train") is None
    expected = math.sqrt((0.13**2 + 2 * 0.22**2 + 0.27**2) / 4)
    assert paper.typical_seed_sd() == pytest.approx(expected)


def test_paper_curves() -> None:
    paper = Paper()
    curve = paper.curve(1, "plain-20", "train")
    assert (curve.index[0], curve.iloc[0], curve.index[-1]) == (4_000, 19.62, 64_000)
    clipped = paper.curve(1, "plain-20", "test", clipped=True)
    assert len(clipped) == len(paper.curve(1, "plain-20", "test")) + 1
    middle = paper.curve(6, "ResNet-110", "test")
    right = paper.curve(6, "ResNet-110", "test", panel="right")
    assert len(middle) > len(right) > 0
    assert paper.curve(6, "plain-110", "test").empty
    assert len(paper.responses("ResNet-110")) == 109
    ordered = paper.responses("plain-56", ordered=True)
    assert ordered.is_monotonic_decreasing
    assert set(paper.quoted()["method"].str.split(" ").str[0]) == {
        "Maxout",
        "NIN",
        "DSN",
        "FitNet",
        "Highway",
    }


def test_paper_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="table6"):
        Paper(tmp_path).test_error("ResNet-20")
