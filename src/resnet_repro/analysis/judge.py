"""What a claim returns, how nets are compared, and how comparisons become a verdict."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from resnet_repro.analysis.captions import DATA_NAMES
from resnet_repro.analysis.load import PROFILE_ORDER, Run
from resnet_repro.analysis.paper import Noise, Paper
from resnet_repro.analysis.protocol import (
    by_net,
    comparison_notes,
    the_profile,
    why_not_comparable,
)
from resnet_repro.analysis.stats import (
    Difference,
    Side,
    contrast,
    final_training_error,
    last_error,
    seeds_phrase,
)

# A claim about the paper is decided at the paper's protocol; other runs only show an order.
HOLDS, FAILS, INCONCLUSIVE, NO_RUNS = "holds", "fails", "inconclusive", "no runs"
SAME, OPPOSITE, OPEN = "same order as the paper", "opposite order", "open"
ELSEWHERE = {HOLDS: SAME, FAILS: OPPOSITE, INCONCLUSIVE: OPEN}
# Top-1 error of ResNet-50 over five runs, 23.60 +- 0.12 (Goyal et al. 2017, Table 1).
IMAGENET_SEED_NOISE = Noise(0.12, 4)
Nets = Mapping[str, Sequence[Run]]


@dataclass(frozen=True)
class ClaimResult:
    """A claim tested on logged runs.

    Attributes:
        id: C1 to C10 of ``docs/FIDELITY.md``.
        verdict: ``holds``, ``fails`` or ``inconclusive`` at the paper's protocol; elsewhere
            ``same order as the paper``, ``opposite order`` or ``open``; or ``no runs``.
        sentence: what the verdict rests on in words, with numbers and ``where``.
        numbers: the same by name.
        where: data set, profile, iterations, number of seeds and level of the errors.
        profile: of the runs; None where there are none.
        seeds: seeds used, by net.
    """

    id: str
    title: str
    verdict: str
    sentence: str
    numbers: dict[str, float] = field(default_factory=dict)
    where: str = ""
    profile: str | None = None
    experiments: tuple[str, ...] = ()
    seeds: dict[str, list[int]] = field(default_factory=dict)

    def line(self) -> str:
        """One line for the terminal."""
        return f"{self.id} {self.verdict}: {self.sentence}"


@dataclass(frozen=True)
class Measure:
    """A number per run that claims compare, in percent; whether public runs tell its seed noise."""

    name: str
    of: Callable[[Run], float]
    public: bool = False


TRAINING = Measure("training error", final_training_error)
TEST = Measure("test error", last_error, public=True)
Part = tuple[Difference, int]  # a difference and the sign it has by the claim


def public_noise(runs: Sequence[Run]) -> Noise | None:
    """Seed noise of the test error of one such run by public figures; None where none applies.

    They are of nets trained by the paper's protocol: CIFAR nets of 20 to 110 layers that train,
    and residual nets on ImageNet. A shorter schedule has no figure, nor has a training error.
    """
    run = runs[0]
    if why_not_comparable(runs):
        return None
    if run.config["model"]["family"] == "imagenet":
        return None if run.is_plain else IMAGENET_SEED_NOISE
    trains = run.depth <= (56 if run.is_plain else 110)
    return Paper().seed_noise() if trains else None


def side(runs: Sequence[Run], measure: Measure) -> Side:
    """The runs of one net in a comparison."""
    return Side([measure.of(run) for run in runs], public_noise(runs) if measure.public else None)


def compare(lower: Sequence[Run], upper: Sequence[Run], measure: Measure) -> Difference:
    """Mean of ``upper`` minus mean of ``lower`` with its noise over seeds."""
    return contrast((1, side(upper, measure)), (-1, side(lower, measure)))


def decide(parts: Sequence[Part], barred: Sequence[Part] = (), *, complete: bool = True) -> str:
    """Verdict of a claim about several differences.

    It holds where each of ``parts`` has its sign beyond the noise, and fails where one of them or
    of ``barred`` has the other; there, the 5 % are shared among all. If the runs are not
    ``complete`` it is inconclusive at best.
    """
    every = [*parts, *barred]
    if any(difference.sign(len(every)) == -expected for difference, expected in every):
        return FAILS
    if complete and all(difference.sign() == expected for difference, expected in parts):
        return HOLDS
    return INCONCLUSIVE


def points(value: float) -> str:
    """A number of points as text: one decimal from 10 on, two below."""
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def interval(difference: Difference) -> str:
    """The 95 % interval of the size of a difference in words, and where its noise comes from."""
    if not difference.known:
        return "no interval: one seed, and no public figure of its noise"
    low, high = difference.low, difference.high
    if difference.value < 0:
        low, high = -high, -low
    return f"95 % interval {points(low)} to {points(high)} from the {difference.basis}"


def seeds_clause(groups: Sequence[Sequence[Run]]) -> str:
    """Return ``quick profile, 1 seed each`` or the number of seeds of each net."""
    counts = [len(group) for group in groups]
    profile = groups[0][0].profile
    if len(set(counts)) == 1:
        return f"{profile} profile, {seeds_phrase(counts[0])} each"
    each = ", ".join(f"{group[0].label} {seeds_phrase(len(group))}" for group in groups)
    return f"{profile} profile, {each}"


def setting(groups: Sequence[Sequence[Run]]) -> str:
    """Say on what a verdict rests: data set, seeds, iterations and level of the test errors."""
    runs = [run for group in groups for run in group]
    data = " and ".join(sorted({str(run.config["data"]["name"]) for run in runs}))
    lengths = sorted({run.max_iters for run in runs})
    errors = [sum(map(last_error, group)) / len(group) for group in groups]
    held_out = "validation" if runs[0].config["model"]["family"] == "imagenet" else "test"
    return (
        f"{DATA_NAMES.get(data, data)}, {seeds_clause(groups)}, "
        f"{' or '.join(f'{length:,}' for length in lengths)} iterations, "
        f"{held_out} error {min(errors):.1f} to {max(errors):.1f} %"
    )


@dataclass(frozen=True)
class Trend:
    """How a measure moves with depth: from the first net to the last, and from each to the next."""

    ends: Difference
    steps: list[Difference]
    sentence: str
    numbers: dict[str, float]


def along_depth(nets: Nets, measure: Measure, direction: int) -> Trend:
    """Compare a measure along the nets, which by the claim moves in one direction.

    The sentence names the steps that go the other way beyond the noise.
    """
    labels = list(nets)
    first, last = labels[0], labels[-1]
    ends = compare(nets[first], nets[last], measure)
    means = {x: sum(map(measure.of, group)) / len(group) for x, group in nets.items()}
    sentence = (
        f"{measure.name} of {last} is {'above' if ends.value > 0 else 'below'} {first}'s by "
        f"{points(abs(ends.value))} points ({interval(ends)})"
    )
    pairs = list(itertools.pairwise(labels)) if len(labels) > 2 else []
    steps = [compare(nets[one], nets[two], measure) for one, two in pairs]
    if steps:
        sentence += ": " + ", ".join(f"{x} {mean:.2f}" for x, mean in means.items())
    for (one, two), step in zip(pairs, steps, strict=True):
        if step.sign(len(steps) + 1) == -direction:
            sentence += (
                f"; from {one} to {two} it {'falls' if direction > 0 else 'rises'} by "
                f"{abs(step.value):.2f}, beyond the noise"
            )
    numbers = {f"{measure.name} of {x}": mean for x, mean in means.items()}
    numbers[f"{measure.name} of {last} minus {first}"] = ends.value
    return Trend(ends, steps, sentence, numbers)


def plain_nets(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Plain CIFAR nets of the paper by label, by depth."""
    return {k: g for k, g in by_net(_cifar(runs)).items() if k == f"plain-{g[0].depth}"}


def residual_nets(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Residual CIFAR nets of the paper (option A) by label, by depth."""
    return {k: g for k, g in by_net(_cifar(runs)).items() if k == f"ResNet-{g[0].depth}"}


def _cifar(runs: Sequence[Run]) -> list[Run]:
    # ResNet-50 is a name of an ImageNet net too, and plain-18 is one only
    return [run for run in runs if run.config["model"]["family"] == "cifar"]


def conclude(
    id: str,
    title: str,
    verdict: str,
    sentence: str,
    numbers: dict[str, float],
    groups: Sequence[Sequence[Run]],
    elsewhere: Mapping[str, str] = ELSEWHERE,
) -> ClaimResult:
    """Make the result of a claim from the runs it rests on.

    Runs of another protocol than the paper's get the verdict's word in ``elsewhere``. What was
    mixed in the comparison is named.
    """
    runs = [run for group in groups for run in group]
    where = setting(groups)
    return ClaimResult(
        id,
        title,
        elsewhere[verdict] if why_not_comparable(runs) else verdict,
        " ".join([f"{sentence}. {where}.", *comparison_notes(runs)]),
        {key: round(value, 4) for key, value in numbers.items()},
        where,
        the_profile(runs),
        tuple(dict.fromkeys(run.experiment for run in runs)),
        {group[0].label: [run.seed for run in group] for group in groups},
    )


def without_runs(id: str, title: str, needed: str) -> ClaimResult:
    """Make the result of a claim that nothing logged can test."""
    return ClaimResult(id, title, NO_RUNS, f"not tested, no finished runs of {needed}")


def by_profile(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs of one profile each, the paper's protocol first."""
    groups = [[run for run in runs if run.profile == profile] for profile in PROFILE_ORDER]
    return [group for group in groups if group]


def first_tested(
    check: Callable[[Sequence[Run]], list[ClaimResult]], runs: Sequence[Run]
) -> list[ClaimResult]:
    """Results of ``check``, each claim from the first profile whose runs can test it."""
    found: dict[str, list[ClaimResult]] = {}
    for group in by_profile(runs) or [[]]:
        results = check(group)
        for id in dict.fromkeys(result.id for result in results):
            of_claim = [result for result in results if result.id == id]
            tested = [result for result in of_claim if result.verdict != NO_RUNS]
            if id not in found or (tested and found[id][0].verdict == NO_RUNS):
                found[id] = tested or of_claim[:1]
    return [result for results in found.values() for result in results]
