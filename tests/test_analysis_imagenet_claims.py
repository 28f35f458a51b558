"""C7 to C9 hold on runs made to hold them and fail on runs made to fail them."""

from pathlib import Path

import pytest

from fabricate import fabricate
from fabricate_imagenet import imagenet_run
from resnet_repro.analysis.judge import IMAGENET_SEED_NOISE, public_noise
from resnet_repro.analysis.load import Run, load_runs
from resnet_repro.analysis.protocol import cifar_nets
from resnet_repro.analysis.tables import to_markdown
from resnet_repro.items.claims_cifar import check_all
from resnet_repro.items.claims_imagenet import IMAGENET_CLAIMS, check_imagenet, imagenet_claims
from test_analysis_imagenet_tables import evaluated

Ends = dict[str, tuple[float, float]]
PAPER: Ends = {
    "plain-18": (31.4, 31.4),
    "plain-34": (32.5, 32.6),
    "ResNet-18 A": (31.1, 29.9),
    "ResNet-34 A": (28.2, 25.0),
}
PLAIN = {label: PAPER[label] for label in ("plain-18", "plain-34")}
OPTIONS: Ends = {
    "plain-34": (32.5, 32.6),
    "ResNet-34 A": (28.2, 25.0),
    "ResNet-34 B": (27.6, 24.5),
    "ResNet-34 C": (27.2, 24.2),
}
WITHOUT_C = {label: ends for label, ends in OPTIONS.items() if label != "ResNet-34 C"}
DEPTHS: Ends = {
    "ResNet-34 B": (27.6, 24.5),
    "ResNet-50": (24.7, 20.0),
    "ResNet-101": (23.6, 17.0),
    "ResNet-152": (23.0, 16.0),
}
C7, C8, C9 = IMAGENET_CLAIMS


def made(
    root: Path, ends: Ends, seeds: int = 3, data: str = "imagenet", profile: str = "paper"
) -> list[Run]:
    """Runs with given validation and training errors; seeds spread by 0.1 around them."""
    for label, (test, train) in ends.items():
        for seed in range(seeds):
            shift = 0.1 * (seed - (seeds - 1) / 2)
            errors = {"test": test + shift, "train": train + shift}
            imagenet_run(root, label, data=data, profile=profile, seed=seed, jitter=0.1, **errors)
    return load_runs(root)


@pytest.mark.parametrize(
    ("claim", "ends", "seeds", "verdict", "said"),
    [
        (C7, PAPER | {"plain-34": (30.0, 29.0)}, 3, "fails", ""),
        (C7, PAPER | {"ResNet-34 A": (33.0, 34.0)}, 3, "fails", ""),
        (C7, PAPER | {"plain-34": (31.4, 31.42)}, 3, "inconclusive", ""),
        (C7, PLAIN, 3, "inconclusive", "no runs of ResNet-18 A and ResNet-34 A"),
        (C8, OPTIONS | {"ResNet-34 B": (29.0, 26.0)}, 3, "fails", "B above A by 0.80"),
        (C8, OPTIONS | {"ResNet-34 A": (33.5, 30.0)}, 3, "fails", "A -1.00"),
        (C8, OPTIONS | {"ResNet-34 C": (22.0, 20.0)}, 3, "fails", "not above the largest differen"),
        (C8, OPTIONS | {"ResNet-34 C": (27.62, 24.5)}, 3, "inconclusive", "C above B by 0.02"),
        (C8, OPTIONS, 1, "inconclusive", ""),
        (C8, WITHOUT_C, 3, "inconclusive", "no runs of ResNet-34 C"),
        (C8, {"plain-34": (32.5, 32.6)}, 1, "no runs", ""),
        (
            C9,
            DEPTHS | {"ResNet-34 A": (28.2, 25.0)},
            3,
            "holds",
            "ResNet-152 is below ResNet-34 B's by 4.6",
        ),
        (C9, DEPTHS | {"ResNet-101": (25.5, 19.0)}, 3, "fails", "to ResNet-101 it rises by 0.80"),
        (C9, {"ResNet-50": (24.0, 20.0)}, 1, "no runs", ""),
    ],
)
def test_claims_both_ways(tmp_path, claim, ends, seeds, verdict, said):
    result = claim(made(tmp_path, ends, seeds))
    assert result.verdict == verdict
    assert said in result.sentence


def test_c7_holds_on_the_papers_errors(tmp_path):
    result = C7(made(tmp_path, PAPER))
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
    made(tmp_path, {k: v for k, v in PAPER.items() if k != "plain-34"})
    for seed in range(3):  # ends above plain-18, but was far below until the first drop
        imagenet_run(tmp_path, "plain-34", seed=seed, train_curve={150_137: -9.0}, jitter=0.1)
    result = C7(load_runs(tmp_path))
    assert result.verdict == "fails"
    assert result.numbers["plain-34 minus plain-18 to 150,137"] < -5
    assert result.numbers["plain-34 minus plain-18 to 600,000"] > 0


def test_c7_names_tiny_imagenet_and_never_mixes(tmp_path):
    tiny: Ends = {"plain-18": (55, 54), "plain-34": (60, 60)}
    tiny |= {"ResNet-18 A": (54, 52), "ResNet-34 A": (50, 46)}
    made(tmp_path, {"plain-18": (31.4, 31.4)})  # alone: cannot test the claim
    runs = made(tmp_path, tiny, data="tiny_imagenet")
    result = C7(runs)
    assert result.sentence.startswith("Tiny ImageNet, 64x64, 200 classes: training error of")
    assert result.verdict == "same order as the paper"
    assert "4 stretches" in result.sentence
    assert all(name.startswith("tiny_") for name in result.experiments)
    assert C7(runs, data="imagenet").verdict == "no runs"


def test_c8_holds_on_the_papers_order(tmp_path):
    result = C8(made(tmp_path, OPTIONS))
    assert result.verdict == "holds"
    assert result.numbers["plain-34 minus ResNet-34 A"] == pytest.approx(4.3)
    assert result.numbers["A minus B"] == pytest.approx(0.6)
    assert result.numbers["B minus C"] == pytest.approx(0.4)
    far = "smallest gain minus largest difference of options"
    assert result.numbers[far] == pytest.approx(4.3 - 1.0)
    assert "validation error (1-crop) of plain-34 minus that of ResNet-34 A 4.30" in result.sentence
    assert result.sentence.count("95 % interval") == 6  # three gains, two steps, far


def test_c9_of_some_depths_on_a_short_schedule(tmp_path):
    part = {"ResNet-34 A": (50.0, 46.0), "ResNet-50": (47.0, 40.0)}
    result = C9(made(tmp_path, part, data="tiny_imagenet", profile="short"))
    assert result.verdict == "open"
    assert "no runs of ResNet-101, ResNet-152" in result.sentence
    assert "short profile" in result.sentence


TEN_CROP = {"plain-34": 30.0, "ResNet-34 A": 25.0, "ResNet-34 B": 24.5, "ResNet-34 C": 24.2}


def test_c8_is_at_10_crop_where_every_run_was_tested_so(tmp_path):
    runs = made(tmp_path / "runs", OPTIONS)
    for run in runs[1:]:
        top1 = TEN_CROP[run.label] + 0.1 * (run.seed - 1)
        evaluated(tmp_path / "evaluations", run.path, protocol="10-crop", top1=top1)
    result = C8(runs)  # all but one: never mixed
    assert result.numbers["plain-34 minus ResNet-34 A"] == pytest.approx(4.3)
    assert "validation error (1-crop) of plain-34" in result.sentence
    first = runs[0]
    top1 = TEN_CROP[first.label] + 0.1 * (first.seed - 1)
    evaluated(tmp_path / "evaluations", first.path, protocol="10-crop", top1=top1)
    result = C8(runs)
    assert result.numbers["plain-34 minus ResNet-34 A"] == pytest.approx(5.0)
    assert (
        "validation error (10-crop) of plain-34 minus that of ResNet-34 A 5.00" in result.sentence
    )
    assert "1-crop" not in result.sentence
    assert "(1-crop) of plain-34" in C8(runs, protocol="multi-scale").sentence


def test_c9_is_under_the_protocol_of_its_table(tmp_path):
    ends = {34: (24.5, 21.8), 50: (22.9, 20.7), 101: (21.8, 19.9), 152: (21.4, 19.4)}
    for run in made(tmp_path / "runs", DEPTHS, seeds=1):
        for protocol, top1 in zip(("10-crop", "multi-scale"), ends[run.depth], strict=True):
            evaluated(tmp_path / "evaluations", run.path, protocol=protocol, top1=top1)
    runs = load_runs(tmp_path / "runs")
    for protocol, gain in (("10-crop", "3.10"), ("multi-scale", "2.40")):
        claim = C9(runs, protocol=protocol)
        said = f"validation error ({protocol}) of ResNet-152 is below ResNet-34 B's by {gain}"
        assert said in claim.sentence
    imagenet_run(tmp_path / "runs", "ResNet-152", jitter=0.2)  # trained again
    assert "(1-crop) of ResNet-152" in C9(load_runs(tmp_path / "runs")).sentence


def test_each_data_set_is_judged_by_itself(tmp_path):
    made(tmp_path / "runs", PAPER, seeds=1)
    runs = made(tmp_path / "runs", DEPTHS, seeds=1, data="tiny_imagenet")
    results = check_imagenet(runs)
    assert [result.id for result in results] == ["C7", "C8", "C9"] * 2
    assert [result.verdict == "no runs" for result in results] == [
        *(False, False, True),
        *(True, True, False),
    ]
    assert [result.id for result in check_imagenet([])] == ["C7", "C8", "C9"]
    frame, notes = imagenet_claims(runs)
    assert any(note.startswith("Tiny ImageNet, paper profile") for note in notes)
    assert "| C9 " in to_markdown(frame)


def test_claims_about_cifar_pass_imagenet_nets_over(tmp_path):
    made(tmp_path, {"plain-18": (31.4, 31.4), "plain-34": (32.5, 32.6)}, seeds=1)
    fabricate(tmp_path, "plain-20")
    runs = load_runs(tmp_path)
    assert list(cifar_nets(runs, "plain")) == ["plain-20"]
    assert {result.verdict for result in check_all(runs)} == {"no runs"}


def test_public_noise_is_of_residual_nets_by_the_papers_protocol(tmp_path):
    ends = {label: PAPER[label] for label in ("plain-34", "ResNet-34 A")}
    plain, residual = made(tmp_path / "paper", ends, seeds=1)
    assert (public_noise([residual]), public_noise([plain])) == (IMAGENET_SEED_NOISE, None)
    tiny = made(tmp_path / "tiny", {"ResNet-34 A": (50, 46)}, seeds=1, data="tiny_imagenet")
    assert public_noise(tiny) is None
