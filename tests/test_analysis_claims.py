"""Every claim about CIFAR holds on runs made to hold it and fails on runs made to fail it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fabricate import fabricate
from resnet_repro.analysis import paper
from resnet_repro.analysis.judge import public_noise
from resnet_repro.analysis.load import Run, load_run, load_runs
from resnet_repro.items import claims_cifar as claims

SPARSE = {"trainer.log_every_iters": 1_000, "evaluation.every_iters": 16_000}
Ends = Mapping[str, tuple[float, float]]
PLAIN = {
    "plain-20": (9.7, 1.4),
    "plain-32": (10.1, 1.3),
    "plain-44": (11.5, 2.7),
    "plain-56": (13.2, 5.6),
}
RESIDUAL = {
    "ResNet-20": (8.75, 0.7),
    "ResNet-32": (7.5, 0.3),
    "ResNet-56": (6.97, 0.1),
    "ResNet-110": (6.6, 0.05),
}
PAIR_20 = {label: ends for label, ends in (PLAIN | RESIDUAL).items() if label.endswith("-20")}
PLAIN_20_56 = {label: PLAIN[label] for label in ("plain-20", "plain-56")}


def all_below(root: Path) -> list[Run]:
    """Every run, also those that are no net's because they log more rarely than its experiment."""
    return [load_run(path) for path in sorted(root.glob("*/*/seed*"))]


def made(
    root: Path,
    ends: Ends,
    seeds: int = 3,
    profile: str = "paper",
    changes: dict[str, Any] | None = None,
    deviations: dict[str, list[Any]] | None = None,
) -> list[Run]:
    """Runs with given test and training errors; seeds spread by 0.1 around them."""
    for label, (test, train) in ends.items():
        for seed in range(seeds):
            shift = 0.1 * (seed - (seeds - 1) / 2)
            fabricate(
                root,
                label,
                profile=profile,
                seed=seed,
                test=test + shift,
                train=max(train + shift / 4, 0.01),
                changes=(SPARSE if profile == "paper" else {}) | (changes or {}),
                deviations=deviations,
            )
    return all_below(root)


@pytest.mark.parametrize(
    ("deep", "verdict", "elsewhere"),
    [
        (5.6, "holds", "same order as the paper"),
        (0.4, "fails", "opposite order"),
        (1.41, "inconclusive", "open"),
    ],
)
def test_only_the_papers_protocol_decides(tmp_path, deep, verdict, elsewhere):
    ends = {"plain-20": (9.7, 1.4), "plain-56": (13.2, deep)}
    result = claims.plain_training_error_rises(made(tmp_path / "paper", ends))
    assert (result.id, result.verdict, result.profile) == ("C2", verdict, "paper")
    assert result.sentence.startswith("training error of plain-56 is ")
    assert "from the noise of our seeds)" in result.sentence
    assert result.numbers["training error of plain-56 minus plain-20"] == pytest.approx(deep - 1.4)
    assert result.seeds == {"plain-20": [0, 1, 2], "plain-56": [0, 1, 2]}
    assert result.experiments == ("cifar10_plain20", "cifar10_plain56")
    assert result.line().startswith(f"C2 {verdict}: ")
    short = claims.plain_training_error_rises(made(tmp_path / "short", ends, profile="short"))
    assert short.verdict == elsewhere
    where = "CIFAR-10, short profile, 3 seeds each, 3,200 iterations, test error 9.7 to 13.2 %"
    assert short.where == where
    assert f"{where}." in short.sentence
    for key, value in (("recipe.batch_size", 64), ("recipe.lr", 0.05)):
        changed = made(tmp_path / key, ends, changes={key: value})
        assert claims.plain_training_error_rises(changed).verdict == elsewhere
    for key, found in (("recipe.nesterov", elsewhere), ("trainer.threads", verdict)):
        recorded = made(tmp_path / key, ends, deviations={key: [0, 1]})
        assert claims.plain_training_error_rises(recorded).verdict == found


C1, C2, C3, C4 = claims.CIFAR_CLAIMS[:4]
SHRINKS = PAIR_20 | {"plain-56": (7.3, 1.0), "ResNet-56": (7.0, 0.1)}
LOSES = {"plain-20": (8.0, 1.4), "ResNet-20": (9.0, 0.7)}
NEIGHBOUR = PLAIN_20_56 | {"plain-32": (10.1, 0.9)}
ONLY_110_RISES = {"plain-20": (9.7, 1.4), "plain-56": (9.0, 0.4), "plain-110": (65.0, 66.0)}


@pytest.mark.parametrize(
    ("claim", "ends", "verdict", "said"),
    [
        (C1, PLAIN | {"plain-110": (65.0, 66.0)}, "holds", "plain-110's is 65.0 %, above 60 %"),
        (C1, PLAIN | {"plain-110": (20.0, 15.0)}, "fails", "plain-110's is 20.0 %, not above 60 %"),
        (
            C1,
            PLAIN | {"plain-32": (12.5, 2.0)},
            "fails",
            "from plain-32 to plain-44 it falls by 1.0",
        ),
        (C1, dict.fromkeys(PLAIN, (10.0, 1.0)), "inconclusive", ""),
        (C2, NEIGHBOUR, "holds", "from plain-20 to plain-32 it falls by 0.50, beyond the noise"),
        (C2, ONLY_110_RISES, "fails", ""),
        (C3, RESIDUAL, "holds", ""),
        (
            C3,
            RESIDUAL | {"ResNet-110": (9.5, 0.05)},
            "fails",
            "ResNet-110 is above ResNet-20's by 0.7",
        ),
        (C4, PLAIN | RESIDUAL, "holds", "the gap grows by 5.28 points"),
        (C4, PAIR_20, "inconclusive", "one depth cannot show"),
        (C4, SHRINKS, "fails", "the gap shrinks by 0.65 points"),
        (C4, LOSES, "fails", "-1.00 points at 20 layers"),
    ],
)
def test_c1_to_c4_both_ways(tmp_path, claim, ends, verdict, said):
    result = claim(made(tmp_path, ends))
    assert result.verdict == verdict
    assert said in result.sentence
    if ends is SHRINKS:
        assert result.sentence.count("95 % interval") == 3  # two gaps and their growth


def test_c1_asks_sixty_percent_of_the_paper_schedule_only(tmp_path):
    ends = {"plain-20": (30.0, 30.0), "plain-110": (55.0, 55.0)}
    result = claims.plain_test_error_rises(made(tmp_path, ends, profile="short"))
    assert result.verdict == "same order as the paper"
    assert "60 %" not in result.sentence


@pytest.mark.parametrize("claim", [claims.plain_training_error_rises, claims.residual_errors_fall])
def test_one_seed_cannot_tell_a_training_error(tmp_path, claim):
    """Nobody has published the noise of one: not even the paper's own nets can be told apart."""
    result = claim(made(tmp_path / "one", PLAIN | RESIDUAL, seeds=1))
    assert result.verdict == "inconclusive"
    assert "no interval: one seed, and no public figure of its noise" in result.sentence
    assert claim(made(tmp_path / "two", PLAIN | RESIDUAL, seeds=2)).verdict == "holds"


def test_one_seed_tells_a_test_error_at_the_papers_protocol_alone(tmp_path):
    result = claims.plain_test_error_rises(made(tmp_path / "paper", PLAIN_20_56, seeds=1))
    assert result.verdict == "holds"
    assert "from the noise of public runs)" in result.sentence
    short = made(tmp_path / "short", PLAIN_20_56, seeds=1, profile="short")
    assert claims.plain_test_error_rises(short).verdict == "open"
    close = PLAIN_20_56 | {"plain-56": (10.0, 5.6)}
    result = claims.plain_test_error_rises(made(tmp_path / "close", close, seeds=1))
    assert result.verdict == "inconclusive"


def test_public_noise_applies_to_what_was_measured(tmp_path):
    nets = ("plain-56", "plain-110", "ResNet-110", "ResNet-1202")
    runs = {run.label: run for run in made(tmp_path, dict.fromkeys(nets, (9.0, 1.0)), seeds=1)}
    known = paper.seed_noise()
    assert [public_noise([runs[net]]) for net in nets] == [known, None, known, None]
    short = made(tmp_path / "s", {"plain-20": (20.0, 20.0)}, seeds=1, profile="short")
    assert public_noise(short) is None


@pytest.mark.parametrize(
    ("deep", "seeds", "verdict"),
    [
        ((7.9, 0.04), 3, "holds"),
        ((7.9, 0.5), 3, "fails"),
        ((5.9, 0.04), 3, "fails"),
        ((7.9, 0.11), 3, "inconclusive"),
        ((7.9, 0.04), 1, "inconclusive"),
    ],
)
def test_c5_both_ways(tmp_path, deep, seeds, verdict):
    ends = {"ResNet-110": (6.6, 0.05), "ResNet-1202": deep}
    result = claims.depth_1202_overfits(made(tmp_path, ends, seeds=seeds))
    assert result.verdict == verdict
    level = result.numbers["clean training error of ResNet-1202"]
    assert level == pytest.approx(0.9 * deep[1], abs=0.005)
    assert f"clean training error of ResNet-1202 is {level:.3f} % (95 % interval" in result.sentence
    if seeds == 1:
        assert "interval 0.021 to 0.057 from the count alone)" in result.sentence


LEVELS = {"plain-20": 1.82, "plain-56": 1.52, "ResNet-20": 1.62, "ResNet-56": 1.13}


@pytest.mark.parametrize(
    ("levels", "seeds", "verdict"),
    [
        (LEVELS, 3, "holds"),
        (LEVELS, 1, "inconclusive"),  # no figure of the noise of one run
        (LEVELS | {"ResNet-56": 1.9}, 3, "fails"),
        ({"plain-20": 1.50, "ResNet-20": 1.49}, 3, "inconclusive"),
    ],
)
def test_c6_both_ways(tmp_path, levels, seeds, verdict):
    for label, level in levels.items():
        for seed in range(seeds):
            std = level + 0.02 * (seed - (seeds - 1) / 2)
            layers = [std] * (int(label.split("-")[1]) - 1)
            fabricate(tmp_path, label, seed=seed, responses=layers, changes=SPARSE)
    result = claims.responses_are_smaller(all_below(tmp_path))
    assert result.verdict == verdict
    if verdict == "holds":
        assert "ResNet-56 below plain-56 by 0.39 (95 % interval" in result.sentence


Norms = dict[int, list[float]]


def norms(*ratios: float) -> Norms:
    """Gradients of a net of 56 layers: first over last at initialisation and at later updates."""
    return {1000 * k + 1: list(np.geomspace(r, 1.0, 55)) for k, r in enumerate(ratios)}


@pytest.mark.parametrize(
    ("seeds", "verdict", "said"),
    [
        (
            [norms(1.0, 2.5), norms(0.5, 0.4)],
            "holds",
            "seed 0 1 to 2.5: vanishing no, exploding no",
        ),
        ([norms(1.0, 0.05), norms(1.0, 1.0)], "fails", "seed 0 0.05 to 1: vanishing yes, explo"),
        ([norms(1.0), norms(536.0, 1.0)], "fails", "seed 1 1 to 536: vanishing no, exploding yes"),
        ([norms(1.0), norms(536.0, 0.01)], "fails", "vanishing yes, exploding yes"),
        ([norms(0.2), norms(5.0)], "inconclusive", "exploding unclear"),
        ([norms(1e-3), norms(1e3)], "fails", "vanishing yes, exploding no"),  # no mean of seeds
    ],
)
def test_c10_answers_for_each_seed(tmp_path, seeds, verdict, said):
    for seed, found in enumerate(seeds):
        weights = dict.fromkeys(found, norms(50.0)[1])  # decide nothing beside the others
        fabricate(tmp_path, "plain-56", seed=seed, gradients=weights, bn_gradients=found)
    residual = norms(1.0, 1e-3)  # decides nothing
    fabricate(tmp_path, "ResNet-56", gradients=residual, bn_gradients=residual)
    result = claims.gradients_stay_healthy(load_runs(tmp_path))
    assert result.verdict == verdict
    assert said in result.sentence
    lowest = min(x[0] for x in seeds[0].values())
    assert result.numbers["plain-56 seed 0 lowest"] == pytest.approx(lowest)
    assert "ResNet-56 seed 0 0.001 to 1: vanishing yes, exploding no" in result.sentence


def test_c10_survives_a_dead_layer(tmp_path):
    dead = {1: [0.0] + [1.0] * 18}
    fabricate(tmp_path, "plain-20", profile="quick", gradients=dead, bn_gradients=dead)
    result = claims.gradients_stay_healthy(load_runs(tmp_path))
    assert result.verdict == "not as the paper says"


def test_c10_of_older_runs_shows_both_measures_and_no_verdict(tmp_path):
    for seed, ratio in enumerate((536.0, 0.01)):
        fabricate(tmp_path, "plain-56", seed=seed, gradients=norms(ratio, 1.0))
    result = claims.gradients_stay_healthy(load_runs(tmp_path))
    assert result.verdict == "inconclusive"
    assert result.sentence.startswith("no verdict where only gradients of weights were logged")
    assert "plain-56 seed 0 1 to 536 (1 to 536)" in result.sentence
    assert result.numbers == {}
    newer = norms(1.0, 2.0)
    fabricate(tmp_path, "plain-56", seed=2, gradients=newer, bn_gradients=newer)
    result = claims.gradients_stay_healthy(load_runs(tmp_path))
    assert result.verdict == "holds"  # of the seed that logged it
    assert "plain-56 seed 0 1 to 536 (1 to 536)" in result.sentence


def test_without_runs_every_claim_says_so(tmp_path):
    fabricate(tmp_path, "plain-20", profile="quick")
    results = claims.check_all(load_runs(tmp_path))
    assert [result.id for result in results] == ["C1", "C2", "C3", "C4", "C5", "C6", "C10"]
    assert {result.verdict for result in results} == {"no runs"}
    assert results == claims.check_all([])


def test_what_is_mixed_is_named_but_profiles_never_are_mixed(tmp_path):
    fabricate(tmp_path / "one", "plain-20", profile="quick", precision="fp32")
    fabricate(tmp_path / "one", "plain-56", profile="quick", precision="bf16")
    result = claims.plain_training_error_rises(load_runs(tmp_path / "one"))
    assert "Mixed precision: bf16 (plain-56 seed 0); fp32 (plain-20 seed 0)." in result.sentence
    fabricate(tmp_path / "two", "plain-20", profile="quick")
    fabricate(tmp_path / "two", "plain-56", profile="paper")
    with pytest.raises(ValueError, match="paper, quick"):
        claims.plain_training_error_rises(load_runs(tmp_path / "two"))
