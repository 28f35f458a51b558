"""Every claim holds on runs made to hold it and fails on runs made to fail it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fabricate import fabricate
from resnet_repro.analysis import claims
from resnet_repro.analysis.judge import one_run_sd
from resnet_repro.analysis.load import Run, load_runs

Ends = dict[str, tuple[float, float]]


def made(
    root: Path, ends: Ends, seeds: int = 1, profile: str = "paper", **more: object
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
                **more,  # type: ignore[arg-type]
            )
    return load_runs(root)


def test_c2_from_one_seed_of_the_two_nets_of_fig1(tmp_path: Path) -> None:
    runs = made(tmp_path, {"plain-20": (60.0, 62.0), "plain-56": (72.0, 74.3)}, profile="quick")
    result = claims.plain_training_error_rises(runs)
    assert (result.id, result.verdict, result.profile) == ("C2", "holds", "quick")
    assert result.sentence.startswith(
        "training error of plain-56 is above plain-20's by 12.3 points (quick profile, 1 seed each;"
    )
    assert "noise of one run" in result.sentence
    assert result.numbers["training error of plain-56 minus plain-20"] == pytest.approx(12.3)
    assert result.seeds == {"plain-20": [0], "plain-56": [0]}
    assert result.experiments == ("cifar10_plain20", "cifar10_plain56")
    assert result.line().startswith("C2 holds: ")


@pytest.mark.parametrize(
    ("deep", "verdict", "word"),
    [(80.0, "holds", "above"), (62.5, "inconclusive", "above"), (50.0, "fails", "below")],
)
def test_c2_both_ways_with_one_seed(tmp_path: Path, deep: float, verdict: str, word: str) -> None:
    ends = {"plain-20": (60.0, 62.0), "plain-56": (60.0, deep)}
    result = claims.plain_training_error_rises(made(tmp_path, ends, profile="quick"))
    assert result.verdict == verdict
    assert f"{word} plain-20's by" in result.sentence


def test_c2_with_seeds_uses_the_noise_over_seeds(tmp_path: Path) -> None:
    ends = {"plain-20": (9.7, 1.4), "plain-56": (13.2, 1.6)}
    result = claims.plain_training_error_rises(made(tmp_path / "one", ends))
    assert result.verdict == "inconclusive"
    result = claims.plain_training_error_rises(made(tmp_path / "five", ends, seeds=5))
    assert result.verdict == "holds"
    assert "5 seeds each" in result.sentence
    assert "noise over seeds" in result.sentence


def test_c2_names_a_neighbour_that_goes_the_other_way(tmp_path: Path) -> None:
    ends = {"plain-20": (9.7, 1.4), "plain-32": (10.1, 0.9), "plain-56": (13.2, 5.6)}
    result = claims.plain_training_error_rises(made(tmp_path, ends, seeds=3))
    assert result.verdict == "holds"  # the ends decide
    assert "from plain-20 to plain-32 it falls by 0.50, beyond the noise" in result.sentence


def test_c2_is_not_decided_by_plain110(tmp_path: Path) -> None:
    ends = {"plain-20": (9.7, 1.4), "plain-56": (9.0, 0.4), "plain-110": (65.0, 66.0)}
    result = claims.plain_training_error_rises(made(tmp_path, ends, seeds=3))
    assert result.verdict == "fails"


PLAIN: Ends = {
    "plain-20": (9.7, 1.4),
    "plain-32": (10.1, 1.3),
    "plain-44": (11.5, 2.7),
    "plain-56": (13.2, 5.6),
}


def test_c1_both_ways(tmp_path: Path) -> None:
    runs = made(tmp_path / "paper", PLAIN | {"plain-110": (65.0, 66.0)}, seeds=3)
    result = claims.plain_test_error_rises(runs)
    assert result.verdict == "holds"
    assert "plain-110's is 65.0 %, above 60 %" in result.sentence
    runs = made(tmp_path / "trains", PLAIN | {"plain-110": (20.0, 15.0)}, seeds=3)
    result = claims.plain_test_error_rises(runs)
    assert result.verdict == "fails"
    assert "plain-110's is 20.0 %, not above 60 %" in result.sentence
    swapped = PLAIN | {"plain-32": (12.5, 2.0)}
    result = claims.plain_test_error_rises(made(tmp_path / "swapped", swapped, seeds=3))
    assert result.verdict == "fails"
    assert "from plain-32 to plain-44 it falls by 1.00" in result.sentence
    flat = dict.fromkeys(PLAIN, (10.0, 1.0))
    result = claims.plain_test_error_rises(made(tmp_path / "flat", flat, seeds=3))
    assert result.verdict == "inconclusive"


def test_c1_asks_sixty_percent_of_the_paper_schedule_only(tmp_path: Path) -> None:
    ends = {"plain-20": (30.0, 30.0), "plain-110": (55.0, 55.0)}
    result = claims.plain_test_error_rises(made(tmp_path, ends, profile="short"))
    assert result.verdict == "holds"
    assert "60 %" not in result.sentence


RESIDUAL: Ends = {
    "ResNet-20": (8.75, 0.7),
    "ResNet-32": (7.5, 0.3),
    "ResNet-56": (6.97, 0.1),
    "ResNet-110": (6.6, 0.05),
}


def test_c3_both_ways(tmp_path: Path) -> None:
    result = claims.residual_errors_fall(made(tmp_path / "paper", RESIDUAL, seeds=3))
    assert result.verdict == "holds"
    worse = RESIDUAL | {"ResNet-110": (9.5, 0.05)}
    result = claims.residual_errors_fall(made(tmp_path / "worse", worse, seeds=3))
    assert result.verdict == "fails"
    assert "test error of ResNet-110 is above ResNet-20's by 0.75" in result.sentence


def test_c4_both_ways(tmp_path: Path) -> None:
    result = claims.residual_beats_plain(made(tmp_path / "paper", PLAIN | RESIDUAL, seeds=3))
    assert result.verdict == "holds"
    assert result.numbers["growth"] == pytest.approx((13.2 - 6.97) - (9.7 - 8.75))
    one = {"plain-20": (9.7, 1.4), "ResNet-20": (8.75, 0.7)}
    result = claims.residual_beats_plain(made(tmp_path / "one", one, seeds=3))
    assert result.verdict == "inconclusive"
    assert "one depth cannot show" in result.sentence
    shrinks = one | {"plain-56": (7.3, 1.0), "ResNet-56": (7.0, 0.1)}
    result = claims.residual_beats_plain(made(tmp_path / "shrinks", shrinks, seeds=3))
    assert result.verdict == "fails"
    assert "the gap shrinks by 0.65 points" in result.sentence
    loses = {"plain-20": (8.0, 1.4), "ResNet-20": (9.0, 0.7)}
    assert claims.residual_beats_plain(made(tmp_path / "l", loses, seeds=3)).verdict == "fails"


@pytest.mark.parametrize(
    ("deep", "verdict"),
    [((7.9, 0.05), "holds"), ((7.9, 0.5), "fails"), ((5.9, 0.05), "fails")],
)
def test_c5_both_ways(tmp_path: Path, deep: tuple[float, float], verdict: str) -> None:
    ends = {"ResNet-110": (6.6, 0.05), "ResNet-1202": deep}
    assert claims.depth_1202_overfits(made(tmp_path, ends, seeds=3)).verdict == verdict


def test_c6_both_ways(tmp_path: Path) -> None:
    levels = {"plain-20": 1.82, "plain-56": 1.52, "ResNet-20": 1.62, "ResNet-56": 1.13}

    def runs_of(root: Path, levels: dict[str, float]) -> list[Run]:
        for label, level in levels.items():
            depth = int(label.split("-")[1])
            fabricate(root, label, profile="quick", responses=[level] * (depth - 1))
        return load_runs(root)

    result = claims.responses_are_smaller(runs_of(tmp_path / "paper", levels))
    assert result.verdict == "holds"
    assert "ResNet-56 below plain-56 by 0.39" in result.sentence
    result = claims.responses_are_smaller(runs_of(tmp_path / "big", levels | {"ResNet-56": 1.9}))
    assert result.verdict == "fails"
    level = {"plain-20": 1.50, "ResNet-20": 1.49}
    result = claims.responses_are_smaller(runs_of(tmp_path / "level", level))
    assert result.verdict == "inconclusive"


@pytest.mark.parametrize(
    ("ratio", "verdict"), [(1200.0, "holds"), (0.2, "inconclusive"), (0.01, "fails")]
)
def test_c10_says_what_the_gradients_do(tmp_path: Path, ratio: float, verdict: str) -> None:
    norms = {1: np.geomspace(50.0, 1.0, 55), 400: np.geomspace(ratio, 1.0, 55)}
    fabricate(tmp_path, "plain-56", profile="quick", gradients=norms)
    residual = {1: np.geomspace(5.0, 1.0, 55), 400: np.geomspace(0.01, 1.0, 55)}  # decides nothing
    fabricate(tmp_path, "ResNet-56", profile="quick", gradients=residual)
    result = claims.gradients_do_not_vanish(load_runs(tmp_path))
    assert result.verdict == verdict
    assert result.numbers["plain-56 at initialisation"] == pytest.approx(50.0)
    assert result.numbers["plain-56 lowest"] == pytest.approx(min(50.0, ratio))
    assert result.numbers["ResNet-56 at initialisation"] == pytest.approx(5.0)


def test_c10_survives_a_dead_layer(tmp_path: Path) -> None:
    fabricate(tmp_path, "plain-20", profile="quick", gradients={1: [0.0] + [1.0] * 18})
    assert claims.gradients_do_not_vanish(load_runs(tmp_path)).verdict == "fails"


def test_without_runs_every_claim_says_so(tmp_path: Path) -> None:
    fabricate(tmp_path, "plain-20", profile="quick")
    results = claims.check_all(load_runs(tmp_path))
    assert [result.id for result in results] == ["C1", "C2", "C3", "C4", "C5", "C6", "C10"]
    assert {result.verdict for result in results} == {"no runs"}
    assert results == claims.check_all([])


def test_a_confound_is_named_in_the_sentence(tmp_path: Path) -> None:
    fabricate(tmp_path, "plain-20", profile="quick", precision="fp32")
    fabricate(tmp_path, "plain-56", profile="quick", precision="bf16")
    result = claims.plain_training_error_rises(load_runs(tmp_path))
    assert "Mixed precision: bf16 (plain-56 seed 0); fp32 (plain-20 seed 0)." in result.sentence


def test_profiles_are_not_mixed(tmp_path: Path) -> None:
    fabricate(tmp_path, "plain-20", profile="quick")
    fabricate(tmp_path, "plain-56", profile="paper")
    with pytest.raises(ValueError, match="paper, quick"):
        claims.plain_training_error_rises(load_runs(tmp_path))


def test_noise_of_one_run_grows_with_the_error() -> None:
    assert one_run_sd("plain-56", 13.0) == pytest.approx(0.32, abs=0.02)
    assert one_run_sd("plain-20", 1.4) == pytest.approx(0.13)
    assert one_run_sd("plain-20", 60.0) == pytest.approx(1.48, abs=0.02)
