"""Intervals, the numbers of a run and the verdict rule, against hand-computed values."""

import math
from itertools import pairwise

import numpy as np
import pytest

from fabricate import fabricate
from pages import fidelity
from resnet_repro.analysis import paper, stats
from resnet_repro.analysis.judge import Evidence
from resnet_repro.analysis.load import load_runs
from resnet_repro.analysis.logged_run import load_run
from resnet_repro.analysis.paper import Noise, PaperValue
from resnet_repro.analysis.stats import Difference, Side, contrast, count_interval, welch

TABLE6 = PaperValue(8.75, "Table 6")
PUBLIC = paper.seed_noise()


def test_summary_by_hand():
    summary = stats.summarise([8.0, 9.0, 10.0])
    # sd 1, t(0.975, 2) = 4.302653, half width 4.302653 / sqrt(3) = 2.484138
    assert (summary.n, summary.mean, summary.sd) == (3, 9.0, 1.0)
    assert summary.low == pytest.approx(6.515862, abs=1e-5)
    assert summary.high == pytest.approx(11.484138, abs=1e-5)
    one = stats.summarise([8.0])
    assert one.mean == 8.0
    assert all(math.isnan(value) for value in (one.sd, one.low, one.high))
    with pytest.raises(ValueError, match="nothing"):
        stats.summarise([])


def test_the_interval_of_a_count_is_the_exact_one():
    assert count_interval(0.0, 50_000) == (0.0, pytest.approx(100 * (1 - 0.025 ** (1 / 50_000))))
    low, high = count_interval(0.02, 50_000)  # 10 of 50,000: Poisson 4.795 to 18.39
    assert (low, high) == (pytest.approx(4.795 / 500, 1e-3), pytest.approx(18.39 / 500, 1e-3))
    assert count_interval(100.0, 100)[1] == 100.0


def test_welch_degrees_of_freedom():
    # equal variances 1 with 4 degrees each: 8; a known variance adds none of its own
    assert welch([(1.0, 4), (1.0, 4)]) == (pytest.approx(math.sqrt(2)), pytest.approx(8.0))
    assert welch([(1.0, 4), (1.0, math.inf)]) == (pytest.approx(math.sqrt(2)), pytest.approx(16.0))
    assert welch([(0.0, 2)]) == (0.0, math.inf)


def test_the_larger_noise_counts_and_an_unknown_one_is_no_noise_at_all():
    public = Noise(0.2, 20)
    # scatter 0.1 < 0.2: the public figure, for both sides the same estimate
    calm = contrast((1, Side([8.9, 9.0, 9.1], public)), (-1, Side([8.0], public)))
    assert (calm.se, calm.df) == (pytest.approx(0.2 * math.sqrt(1 / 3 + 1)), pytest.approx(20))
    assert calm.basis == "noise of public runs"
    # scatter 1 > 0.2: our own, by Welch with the public one
    wild = contrast((1, Side([8.0, 9.0, 10.0], public)), (-1, Side([8.0], public)))
    assert wild.se == pytest.approx(math.sqrt(1 / 3 + 0.04))
    assert wild.df == pytest.approx((1 / 3 + 0.04) ** 2 / ((1 / 3) ** 2 / 2 + 0.04**2 / 20))
    assert wild.basis == "noise of our seeds and public runs"
    own = contrast((1, Side([8.0, 9.0, 10.0])), (-1, Side([7.0, 8.0])))
    assert own.se == pytest.approx(math.sqrt(1 / 3 + 0.5 / 2))
    assert own.basis == "noise of our seeds"
    unknown = contrast((1, Side([8.0, 9.0, 10.0])), (-1, Side([2.0])))
    assert (unknown.value, unknown.known, unknown.sign()) == (7.0, False, 0)
    twice = contrast((2, Side([1.0, 2.0])))  # a factor counts squared
    assert (twice.value, twice.se) == (3.0, pytest.approx(2 * math.sqrt(0.5 / 2)))


def test_difference_from_the_paper_by_hand():
    difference = stats.difference_from_paper([8.5, 8.7, 8.9], TABLE6, PUBLIC)
    assert difference.value == pytest.approx(-0.05)
    assert difference.se == pytest.approx(PUBLIC.sd * math.sqrt(1 / 3 + 1))  # no binomial noise
    assert difference.df == pytest.approx(20)
    value = paper.test_error("ResNet-110")
    assert value == PaperValue(6.61, "Table 6, mean of 5", runs=5, sd=0.16, best=6.43)
    difference = stats.difference_from_paper([6.5, 6.6, 6.7, 6.8, 6.9], value, PUBLIC)
    assert difference.se == pytest.approx(math.sqrt((PUBLIC.sd**2 + 0.16**2) / 5))


@pytest.mark.parametrize(
    ("ours", "word"),
    [
        ([8.6, 8.7, 8.8], "reproduced"),
        ([9.1, 9.2, 9.3], "reproduced"),
        ([9.4, 9.5, 9.6], "differs"),
        ([7.4, 7.5, 7.6], "differs"),
        ([8.0, 9.5, 13.5], "compatible"),  # scatter is no evidence of agreement
        ([8.7], "reproduced"),
        ([9.3], "compatible"),
        ([8.75, 9.75], "compatible"),
        ([11.0], "differs"),
    ],
)
def test_verdict_words(ours, word):
    sentence = stats.verdict(ours, TABLE6, PUBLIC)
    assert sentence.startswith(f"{word} ({sum(ours) / len(ours) - 8.75:+.2f} points, 95 % ")
    assert sentence.endswith(f"; {len(ours)} seed{'s' * (len(ours) > 1)})")


def test_a_real_difference_within_the_margin_is_reproduced_and_unknown_noise_gives_none():
    value = PaperValue(8.75, "many", runs=1000, sd=0.2)
    ours = [8.3, 8.31, 8.29] * 20
    assert stats.difference_from_paper(ours, value, PUBLIC).high < 0
    assert stats.verdict(ours, value, PUBLIC).startswith("reproduced (-0.45 points")
    sentence = stats.verdict([7.9, 8.0], PaperValue(7.93, "Table 6"), None)
    assert sentence == "no verdict (+0.02 points, seed noise unknown; 2 seeds)"


@pytest.mark.parametrize("seeds", fidelity.SEEDS)
def test_error_rates_of_the_verdict(seeds):
    same = fidelity.verdict_rates(0.0, seeds)
    assert same["differs"] <= 5.5  # of 20,000: 5 % and three standard errors
    assert same["reproduced"] > 70
    assert fidelity.verdict_rates(1.0, seeds)["reproduced"] <= 3.0
    assert fidelity.verdict_rates(2.0, seeds)["differs"] > 95
    assert fidelity.verdict_rates(0.5, seeds)["reproduced"] < 60
    scattered = fidelity.verdict_rates(0.0, seeds, 2.0)["differs"]
    assert (scattered > 10) if seeds == 1 else (scattered < 7)  # one seed cannot know


def simulated(steps, seeds, trials=1000):
    """Verdicts of a claim that four nets rise, of normal runs around these means."""
    random, found = np.random.default_rng(3), []
    for _ in range(trials):
        nets = [Side(mean + random.standard_normal(seeds)) for mean in steps]
        pairs = [(nets[0], nets[-1]), *pairwise(nets)]
        ends, *rest = (contrast((1, upper), (-1, lower)) for lower, upper in pairs)
        evidence = Evidence([], parts=[(ends, 1)], barred=[(step, 1) for step in rest])
        found.append(evidence.decide())
    return found


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_error_rates_of_a_claim_of_several_parts(seeds):
    level = simulated([0, 0, 0, 0], seeds)
    assert level.count("fails") <= 45  # 2.5 % meant, shared among four parts
    assert level.count("holds") <= 45
    assert simulated([0, 9, 18, 27], seeds, 200).count("holds") > 150
    assert simulated([27, 18, 9, 0], seeds, 200).count("fails") > 100


def test_a_claim_is_decided_by_its_parts():
    up, down, flat = (Difference(value, 1.0, 50, "") for value in (5.0, -5.0, 0.1))
    slight = Difference(-2.1, 1.0, 50, "")  # beyond 95 %, but not if it is one of several

    def verdict_of(*values, barred=None):
        return Evidence([], parts=[(value, 1) for value in values], barred=barred or []).decide()

    assert verdict_of(up, up) == "holds"
    assert verdict_of(up, flat) == "inconclusive"
    assert verdict_of(up, down) == "fails"
    assert verdict_of(up, barred=[(flat, 1)]) == "holds"
    assert verdict_of(up, barred=[(down, 1)]) == "fails"
    assert verdict_of(slight) == "fails"
    assert verdict_of(up, up, slight) == "inconclusive"
    assert verdict_of(up, Difference(5.0, math.nan, math.nan, "unknown")) == "inconclusive"
    assert Evidence([], parts=[(up, 1)], complete=False).decide() == "inconclusive"
    assert Evidence([], parts=[(down, 1)], complete=False).decide() == "fails"


def test_numbers_of_a_run(tmp_path):
    fabricate(tmp_path, "plain-20", test=9.7, train=1.4)
    (run,) = load_runs(tmp_path)
    assert stats.last_error(run) == pytest.approx(9.7)
    assert stats.clean_training_error(run) == pytest.approx(0.9 * 1.4)
    curve = run.curve("train")
    assert stats.final_training_error(run) == pytest.approx(curve[curve.index > 60_000].mean())
    assert stats.final_training_error(run) == pytest.approx(1.4)
    path = fabricate(tmp_path / "begun", "plain-20", state="preempted", until=900)
    bare = load_run(path)
    assert stats.clean_training_error(bare) is None
    with pytest.raises(ValueError, match="no test error"):
        stats.last_error(bare)


def test_paper_values_say_where_they_come_from():
    assert paper.test_error("ResNet-20") == TABLE6
    assert paper.test_error("plain-56") == PaperValue(13.25, "read off Fig. 6")
    assert paper.test_error("plain-110") is None
    assert paper.test_error("Highway-20") is None
    assert paper.public_runs("ResNet-56")["runs"] == 13
    assert paper.public_runs("plain-110")["runs"] == 0
    assert paper.public_runs("Highway-20").isna().all()
    expected = math.sqrt((0.13**2 + 2 * 0.22**2 + 0.27**2 + 0.16**2) / 5)
    assert (PUBLIC.sd, PUBLIC.df) == (pytest.approx(expected), 20)


def test_curves_of_the_paper_are_read_and_a_missing_file_is_named():
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
    with pytest.raises(FileNotFoundError, match="table7"):
        paper.read("table7")
