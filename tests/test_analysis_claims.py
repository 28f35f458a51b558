"""Every claim holds on runs made to hold it and fails on runs made to fail it."""

from functools import partial

import numpy as np
import pytest

from fabricate import ENDS, IMAGENET_ENDS, fabricate, imagenet_run, shift_errors
from resnet_repro.analysis import paper
from resnet_repro.analysis.judge import IMAGENET_SEED_NOISE, check, public_noise
from resnet_repro.analysis.load import load_runs
from resnet_repro.analysis.logged_run import load_run
from resnet_repro.analysis.protocol import cifar_nets
from resnet_repro.analysis.tables import claims_table, to_markdown
from resnet_repro.items.claims_cifar import CIFAR_CLAIMS, check_all
from resnet_repro.items.claims_imagenet import IMAGENET_CLAIMS
from test_analysis_tables import evaluated

C1, C2, C3, C4, C5, C6, C10 = CIFAR_CLAIMS
C7, C8, C9 = IMAGENET_CLAIMS
SPARSE = {"trainer.log_every_iters": 1_000, "evaluation.every_iters": 16_000}


def as_paper(*labels):
    """Test and training error at the end, as in the paper."""
    return {label: (ENDS["paper"] | IMAGENET_ENDS)[label] for label in labels}


PLAIN = as_paper("plain-20", "plain-32", "plain-44", "plain-56")
RESIDUAL = as_paper("ResNet-20", "ResNet-32", "ResNet-56", "ResNet-110")
AT_110 = as_paper("ResNet-110")
PAIR_20 = as_paper("plain-20", "ResNet-20")
PLAIN_20_56 = as_paper("plain-20", "plain-56")
PLAIN_18_34 = as_paper("plain-18", "plain-34")
FIG4 = PLAIN_18_34 | as_paper("ResNet-18 A", "ResNet-34 A")
WITHOUT_C = as_paper("plain-34", "ResNet-34 A", "ResNet-34 B")
OPTIONS = WITHOUT_C | {"ResNet-34 C": (27.2, 24.2)}
DEPTHS = as_paper("ResNet-34 B", "ResNet-50", "ResNet-101", "ResNet-152")


def all_below(root):
    """Every run, also those that are no net's because they log more rarely than its experiment."""
    return [load_run(path) for path in sorted(root.glob("*/*/seed*"))]


def made(root, ends, seeds=3, profile="paper", data="cifar10", changes=None):
    """Runs with given test and training errors; seeds spread by 0.1 around them."""
    for label, (test, train) in ends.items():
        for seed in range(seeds):
            shift = 0.1 * (seed - (seeds - 1) / 2)
            how = {"profile": profile, "seed": seed, "test": test + shift}
            if data == "cifar10":
                how["changes"] = (SPARSE if profile == "paper" else {}) | (changes or {})
                fabricate(root, label, train=max(train + shift / 4, 0.01), **how)
            else:
                imagenet_run(root, label, data=data, train=train + shift, jitter=0.1, **how)
    return all_below(root)


made_imagenet = partial(made, data="imagenet")


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
    result = C2(made(tmp_path / "paper", ends))
    assert (result.id, result.verdict, result.profile) == ("C2", verdict, "paper")
    assert result.sentence.startswith("training error of plain-56 is ")
    assert "from the noise of our seeds)" in result.sentence
    assert result.numbers["training error of plain-56 minus plain-20"] == pytest.approx(deep - 1.4)
    assert result.line().startswith(f"C2 {verdict}: ")
    short = C2(made(tmp_path / "short", ends, profile="short"))
    assert short.verdict == elsewhere
    where = "CIFAR-10, short profile, 3 seeds each, 3,200 iterations, test error 9.7 to 13.2 %"
    assert short.where == where
    assert f"{where}." in short.sentence
    changed = made(tmp_path / "changed", ends, changes={"recipe.batch_size": 64})
    assert C2(changed).verdict == elsewhere


SHRINKS = PAIR_20 | {"plain-56": (7.3, 1.0), "ResNet-56": (7.0, 0.1)}
LOSES = {"plain-20": (8.0, 1.4), "ResNet-20": (9.0, 0.7)}
NEIGHBOUR = PLAIN_20_56 | {"plain-32": (10.1, 0.9)}
ONLY_110_RISES = {"plain-20": (9.7, 1.4), "plain-56": (9.0, 0.4), "plain-110": (65.0, 66.0)}


@pytest.mark.parametrize(
    ("claim", "ends", "seeds", "verdict", "text"),
    [
        (C1, PLAIN | {"plain-110": (65.0, 66.0)}, 3, "holds", "plain-110's is 65.0 %, above 60 %"),
        (C1, PLAIN | {"plain-110": (20.0, 15.0)}, 3, "fails", "110's is 20.0 %, not above 60 %"),
        (C1, PLAIN | {"plain-32": (12.5, 2.0)}, 3, "fails", "plain-32 to plain-44 it falls by 1.0"),
        (C1, dict.fromkeys(PLAIN, (10.0, 1.0)), 3, "inconclusive", ""),
        (C2, NEIGHBOUR, 3, "holds", "plain-20 to plain-32 it falls by 0.50 (95 % interval 0.4"),
        (C2, ONLY_110_RISES, 3, "fails", ""),
        (C3, RESIDUAL, 3, "holds", ""),
        (C3, RESIDUAL | {"ResNet-110": (9.5, 0.05)}, 3, "fails", "110 is above ResNet-20's by 0.7"),
        (C4, PLAIN | RESIDUAL, 3, "holds", "the gap grows by 5.28 points"),
        (C4, PAIR_20, 3, "inconclusive", "one depth cannot show"),
        (C4, SHRINKS, 3, "fails", "the gap shrinks by 0.65 points"),
        (C4, LOSES, 3, "fails", "-1.00 points at 20 layers"),
        (C5, AT_110 | {"ResNet-1202": (7.9, 0.04)}, 3, "holds", "is 0.036 % (95 % interval 0.0"),
        (C5, AT_110 | {"ResNet-1202": (7.9, 0.5)}, 3, "fails", "is 0.450 % (95 % interval 0.3"),
        (
            C5,
            AT_110 | {"ResNet-1202": (5.9, 0.04)},
            3,
            "fails",
            "below ResNet-110's by 0.70 points",
        ),
        (C5, AT_110 | {"ResNet-1202": (7.9, 0.11)}, 3, "inconclusive", "is 0.099 % (95 %"),
        (
            C5,
            AT_110 | {"ResNet-1202": (7.9, 0.04)},
            1,
            "inconclusive",
            "0.057 from the count alone)",
        ),
        (C7, FIG4 | {"plain-34": (30.0, 29.0)}, 3, "fails", ""),
        (C7, FIG4 | {"ResNet-34 A": (33.0, 34.0)}, 3, "fails", ""),
        (C7, FIG4 | {"plain-34": (31.4, 31.42)}, 3, "inconclusive", ""),
        (C7, PLAIN_18_34, 3, "inconclusive", "no runs of ResNet-18 A and ResNet-34 A"),
        (C8, OPTIONS | {"ResNet-34 B": (29.0, 26.0)}, 3, "fails", "B above A by 0.80"),
        (C8, OPTIONS | {"ResNet-34 A": (33.5, 30.0)}, 3, "fails", "A -1.00"),
        (C8, OPTIONS | {"ResNet-34 C": (22.0, 20.0)}, 3, "fails", "not above the largest differen"),
        (C8, OPTIONS | {"ResNet-34 C": (27.62, 24.5)}, 3, "inconclusive", "C above B by 0.02"),
        (C8, OPTIONS, 1, "inconclusive", ""),
        (C8, WITHOUT_C, 3, "inconclusive", "no runs of ResNet-34 C"),
        (C8, {"plain-34": (32.5, 32.6)}, 1, "no runs", ""),
        (C9, DEPTHS | {"ResNet-34 A": (28.2, 25.0)}, 3, "holds", "is below ResNet-34 B's by 4.6"),
        (C9, DEPTHS | {"ResNet-101": (25.5, 19.0)}, 3, "fails", "to ResNet-101 it rises by 0.80"),
        (C9, {"ResNet-50": (24.0, 20.0)}, 1, "no runs", ""),
    ],
)
def test_claims_both_ways(tmp_path, claim, ends, seeds, verdict, text):
    data = "imagenet" if claim in IMAGENET_CLAIMS else "cifar10"
    result = claim(made(tmp_path, ends, seeds, data=data))
    assert result.verdict == verdict
    assert text in result.sentence
    if ends is SHRINKS:
        assert result.sentence.count("95 % interval") == 3  # two gaps and their growth


@pytest.mark.parametrize("profile", ["short", "smoke"])
def test_c1_asks_sixty_percent_of_the_paper_schedule_only(tmp_path, profile):
    ends = {"plain-20": (30.0, 30.0), "plain-110": (55.0, 55.0)}
    (result,) = check([C1], made(tmp_path, ends, profile=profile))
    assert result.verdict == "same order as the paper"
    assert "60 %" not in result.sentence


@pytest.mark.parametrize("claim", [C2, C3])
def test_one_seed_cannot_tell_a_training_error(tmp_path, claim):
    """Nobody has published the noise of one: not even the paper's own nets can be told apart."""
    result = claim(made(tmp_path / "one", PLAIN | RESIDUAL, seeds=1))
    assert result.verdict == "inconclusive"
    assert "no interval: one seed, and no published estimate of its noise" in result.sentence
    assert claim(made(tmp_path / "two", PLAIN | RESIDUAL, seeds=2)).verdict == "holds"


def test_one_seed_tells_a_test_error_at_the_papers_protocol_alone(tmp_path):
    result = C1(made(tmp_path / "paper", PLAIN_20_56, seeds=1))
    assert result.verdict == "holds"
    assert "from the noise of public runs)" in result.sentence
    short = made(tmp_path / "short", PLAIN_20_56, seeds=1, profile="short")
    assert C1(short).verdict == "open"
    close = made(tmp_path / "close", PLAIN_20_56 | {"plain-56": (10.0, 5.6)}, seeds=1)
    assert C1(close).verdict == "inconclusive"


def test_public_noise_applies_to_what_was_measured(tmp_path):
    """To nets by the paper's protocol that train: CIFAR's to 110 layers, ImageNet's residual."""
    nets = ("plain-56", "plain-110", "ResNet-8", "ResNet-110", "ResNet-1202")
    runs = {run.label: run for run in made(tmp_path, dict.fromkeys(nets, (9.0, 1.0)), seeds=1)}
    known = paper.seed_noise()
    assert [public_noise([runs[net]]) for net in nets] == [known, None, None, known, None]
    ends = as_paper("plain-34", "ResNet-34 A")
    plain, residual = made_imagenet(tmp_path / "imagenet", ends, seeds=1)
    assert (public_noise([residual]), public_noise([plain])) == (IMAGENET_SEED_NOISE, None)
    short = made(tmp_path / "short", {"plain-20": (20.0, 20.0)}, seeds=1, profile="short")
    tiny = made_imagenet(tmp_path / "tiny", {"ResNet-34 A": (50, 46)}, 1, data="tiny_imagenet")
    assert public_noise(short) is public_noise(tiny) is None


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
    result = C6(all_below(tmp_path))
    assert result.verdict == verdict
    if verdict == "holds":
        assert "ResNet-56 below plain-56 by 0.39 (95 % interval" in result.sentence


def norms(*ratios):
    """Gradients of a net of 56 layers: first over last at initialisation and at later updates."""
    return {1000 * k + 1: list(np.geomspace(r, 1.0, 55)) for k, r in enumerate(ratios)}


@pytest.mark.parametrize(
    ("seeds", "verdict", "text"),
    [
        ([norms(1.0, 2.5), norms(0.5, 0.4)], "holds", "seed 0 1 to 2.5: vanishing no, exploding n"),
        ([norms(1.0, 0.05), norms(1.0, 1.0)], "fails", "seed 0 0.05 to 1: vanishing yes, explo"),
        ([norms(1.0), norms(536.0, 1.0)], "fails", "seed 1 1 to 536: vanishing no, exploding yes"),
        ([norms(1.0), norms(536.0, 0.01)], "fails", "vanishing yes, exploding yes"),
        ([norms(0.2), norms(5.0)], "inconclusive", "exploding unclear"),
        ([norms(1e-3), norms(1e3)], "fails", "vanishing yes, exploding no"),  # no mean of seeds
    ],
)
def test_c10_answers_for_each_seed(tmp_path, seeds, verdict, text):
    for seed, found in enumerate(seeds):
        weights = dict.fromkeys(found, norms(50.0)[1])  # decide nothing beside the others
        fabricate(tmp_path, "plain-56", seed=seed, gradients=weights, bn_gradients=found)
    residual = norms(1.0, 1e-3)  # decides nothing
    fabricate(tmp_path, "ResNet-56", gradients=residual, bn_gradients=residual)
    result = C10(load_runs(tmp_path))
    assert result.verdict == verdict
    assert text in result.sentence
    lowest = min(x[0] for x in seeds[0].values())
    assert result.numbers["plain-56 seed 0 lowest"] == pytest.approx(lowest)
    assert "ResNet-56 seed 0 0.001 to 1: vanishing yes, exploding no" in result.sentence


def test_c10_survives_a_dead_layer(tmp_path):
    dead = {1: [0.0] + [1.0] * 18}
    fabricate(tmp_path, "plain-20", profile="quick", gradients=dead, bn_gradients=dead)
    result = C10(load_runs(tmp_path))
    assert result.verdict == "not as the paper says"


def test_c10_of_older_runs_shows_both_measures_and_no_verdict(tmp_path):
    for seed, ratio in enumerate((536.0, 0.01)):
        fabricate(tmp_path, "plain-56", seed=seed, gradients=norms(ratio, 1.0))
    result = C10(load_runs(tmp_path))
    assert result.verdict == "inconclusive"
    assert result.sentence.startswith("no verdict where only gradients of weights were logged")
    assert "plain-56 seed 0 1 to 536 (1 to 536)" in result.sentence
    assert result.numbers == {}
    newer = norms(1.0, 2.0)
    fabricate(tmp_path, "plain-56", seed=2, gradients=newer, bn_gradients=newer)
    result = C10(load_runs(tmp_path))
    assert result.verdict == "holds"  # of the seed that logged it
    assert "plain-56 seed 0 1 to 536 (1 to 536)" in result.sentence


def test_without_runs_of_its_nets_every_claim_says_so(tmp_path):
    made_imagenet(tmp_path, PLAIN_18_34, seeds=1)
    fabricate(tmp_path, "plain-20")
    runs = load_runs(tmp_path)
    assert list(cifar_nets(runs, "plain")) == ["plain-20"]
    results = check_all(runs)
    assert [result.id for result in results] == ["C1", "C2", "C3", "C4", "C5", "C6", "C10"]
    assert {result.verdict for result in results} == {"no runs"}
    assert results == check_all([])


def test_what_is_mixed_is_named_but_profiles_never_are_mixed(tmp_path):
    fabricate(tmp_path / "one", "plain-20", profile="quick", precision="fp32")
    fabricate(tmp_path / "one", "plain-56", profile="quick", precision="bf16")
    result = C2(load_runs(tmp_path / "one"))
    assert "Mixed precision: bf16 (plain-56 seed 0); fp32 (plain-20 seed 0)." in result.sentence
    fabricate(tmp_path / "two", "plain-20", profile="quick")
    fabricate(tmp_path / "two", "plain-56", profile="paper")
    for claim in (C2, C3):  # also without any of its nets
        with pytest.raises(ValueError, match="paper on cifar10, quick on cifar10"):
            claim(load_runs(tmp_path / "two"))


def test_c7_holds_on_the_papers_errors(tmp_path):
    result = C7(made_imagenet(tmp_path, FIG4))
    assert (result.id, result.verdict, result.profile) == ("C7", "holds", "paper")
    assert result.sentence.startswith("ImageNet: training error of plain-34 minus plain-18's +")
    assert "; training error of ResNet-34 A minus ResNet-18 A's -" in result.sentence
    assert "by the claim all above 0" in result.sentence
    assert "by the claim all below 0" in result.sentence
    assert "in the 4 stretches between drops of the rate" in result.sentence
    assert set(result.numbers) == {
        f"{deep} minus {shallow} to {last}"
        for shallow, deep in (("plain-18", "plain-34"), ("ResNet-18 A", "ResNet-34 A"))
        for last in ("150,137", "300,274", "450,410", "600,000")
    }
    assert result.numbers["plain-34 minus plain-18 to 600,000"] == pytest.approx(1.2, abs=0.15)


def test_c7_is_about_the_whole_training_not_its_end(tmp_path):
    made_imagenet(tmp_path, as_paper("plain-18", "ResNet-18 A", "ResNet-34 A"))
    for seed in range(3):  # ends above plain-18, but was far below until the first drop
        path = imagenet_run(tmp_path, "plain-34", seed=seed, jitter=0.1)
        shift_errors(path, lambda r: -9 * (r["kind"] == "train" and r["iter"] <= 150_137))
    result = C7(load_runs(tmp_path))
    assert result.verdict == "fails"
    assert result.numbers["plain-34 minus plain-18 to 150,137"] < -5
    assert result.numbers["plain-34 minus plain-18 to 600,000"] > 0


def test_c7_names_tiny_imagenet_and_never_mixes(tmp_path):
    tiny = {"plain-18": (55, 54), "plain-34": (60, 60)}
    tiny |= {"ResNet-18 A": (54, 52), "ResNet-34 A": (50, 46)}
    made_imagenet(tmp_path, as_paper("plain-18"))  # alone: cannot test the claim
    runs = made_imagenet(tmp_path, tiny, data="tiny_imagenet")
    with pytest.raises(ValueError, match="not paper on imagenet, paper on tiny_imagenet"):
        C7(runs)
    (result,) = check([C7], runs)
    assert result.sentence.startswith("Tiny ImageNet, 64x64, 200 classes: training error of")
    assert result.verdict == "same order as the paper"


TEN_CROP = {"plain-34": 30.0, "ResNet-34 A": 25.0, "ResNet-34 B": 24.5, "ResNet-34 C": 24.2}


def test_c8_holds_on_the_papers_order_at_10_crop_where_every_run_was_tested_so(tmp_path):
    first, *others = runs = made_imagenet(tmp_path / "runs", OPTIONS)
    result = C8(runs)
    assert result.verdict == "holds"
    assert result.numbers["A minus B"] == pytest.approx(0.6)
    assert result.numbers["B minus C"] == pytest.approx(0.4)
    far = "smallest gain minus largest difference of options"
    assert result.numbers[far] == pytest.approx(4.3 - 1.0)
    assert result.sentence.count("95 % interval") == 6  # three gains, two steps, far

    def at_10_crop(run):
        top1 = TEN_CROP[run.label] + 0.1 * (run.seed - 1)
        evaluated(run.path, protocol="10-crop", top1=top1)

    for run in others:
        at_10_crop(run)
    assert C8(runs) == result  # all but one: never mixed
    at_10_crop(first)
    for now, protocol, gain in ((result, "1-crop", 4.3), (C8(runs), "10-crop", 5.0)):
        assert now.numbers["plain-34 minus ResNet-34 A"] == pytest.approx(gain)
        said = f"error ({protocol}) of plain-34 minus that of ResNet-34 A {gain:.2f}"
        assert f"validation {said}" in now.sentence
    assert "1-crop" not in C8(runs).sentence
    assert "(1-crop) of plain-34" in C8.at("multi-scale")(runs).sentence


def test_c9_of_some_depths_on_a_short_schedule(tmp_path):
    part = {"ResNet-34 A": (50.0, 46.0), "ResNet-50": (47.0, 40.0)}
    result = C9(made_imagenet(tmp_path, part, data="tiny_imagenet", profile="short"))
    assert result.verdict == "open"
    assert "no runs of ResNet-101, ResNet-152" in result.sentence
    assert "short profile" in result.sentence


def test_c9_is_under_the_protocol_of_its_table(tmp_path):
    ends = {34: (24.5, 21.8), 50: (22.9, 20.7), 101: (21.8, 19.9), 152: (21.4, 19.4)}
    for run in made_imagenet(tmp_path / "runs", DEPTHS, seeds=1):
        for protocol, top1 in zip(("10-crop", "multi-scale"), ends[run.depth], strict=True):
            evaluated(run.path, protocol=protocol, top1=top1)
    runs = load_runs(tmp_path / "runs")
    for protocol, gain in (("10-crop", "3.10"), ("multi-scale", "2.40")):
        claim = C9.at(protocol)(runs)
        text = f"validation error ({protocol}) of ResNet-152 is below ResNet-34 B's by {gain}"
        assert text in claim.sentence
    imagenet_run(tmp_path / "runs", "ResNet-152", jitter=0.2)  # trained again
    assert "(1-crop) of ResNet-152" in C9(load_runs(tmp_path / "runs")).sentence


def test_each_data_set_is_judged_by_itself(tmp_path):
    made_imagenet(tmp_path / "runs", FIG4, seeds=1)
    runs = made_imagenet(tmp_path / "runs", DEPTHS, seeds=1, data="tiny_imagenet")
    results = check(IMAGENET_CLAIMS, runs)
    data = {result.id: result.where.split(", ")[0] for result in results}
    assert data == {"C7": "ImageNet", "C8": "ImageNet", "C9": "Tiny ImageNet"}
    both = made_imagenet(tmp_path / "runs", PLAIN_18_34, seeds=1, data="tiny_imagenet")
    results = check(IMAGENET_CLAIMS, both)
    assert [result.id for result in results] == ["C7", "C7", "C8", "C8", "C9"]
    assert [result.verdict for result in check(IMAGENET_CLAIMS, [])] == ["no runs"] * 3
    frame, notes = claims_table(IMAGENET_CLAIMS, runs)
    assert any(note.startswith("Tiny ImageNet, paper profile") for note in notes)
    assert "| C9 " in to_markdown(frame)
