"""What a claim returns, and how two nets are compared under the noise of their runs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from resnet_repro.analysis.load import Run
from resnet_repro.analysis.paper import Paper
from resnet_repro.analysis.protocol import by_net, comparison_notes, the_profile
from resnet_repro.analysis.stats import (
    ENOUGH_SEEDS,
    PUBLIC_RUNS,
    Difference,
    binomial_sd,
    final_training_error,
    final_training_images,
    last_error,
    seeds_phrase,
    summarise,
    welch,
)

HOLDS, FAILS, INCONCLUSIVE, NO_RUNS = "holds", "fails", "inconclusive", "no runs"
# Top-1 error of ResNet-50 over five runs, 23.60 +- 0.12 (Goyal et al. 2017, Table 1).
IMAGENET_SEED_SD, IMAGENET_SEED_SD_AT = 0.12, 23.6
Nets = Mapping[str, Sequence[Run]]


@dataclass(frozen=True)
class ClaimResult:
    """A claim held against logged runs.

    Attributes:
        id: C1 to C10 of ``docs/FIDELITY.md``.
        verdict: ``holds``, ``fails``, ``inconclusive`` or ``no runs``.
        numbers: what the verdict rests on, by name.
        sentence: the same in words, with the numbers, profile and seeds in it.
        profile: of the runs; None where there are none.
        seeds: seeds used, by net.
    """

    id: str
    title: str
    verdict: str
    sentence: str
    numbers: dict[str, float] = field(default_factory=dict)
    profile: str | None = None
    experiments: tuple[str, ...] = ()
    seeds: dict[str, list[int]] = field(default_factory=dict)

    def line(self) -> str:
        """One line for the terminal."""
        return f"{self.id} {self.verdict}: {self.sentence}"


@dataclass(frozen=True)
class Measure:
    """A number per run that claims compare: an error in percent and the images behind it."""

    name: str
    of: Callable[[Run], float]
    images: Callable[[Run], int]


TRAINING = Measure("training error", final_training_error, final_training_images)
TEST = Measure("test error", last_error, lambda run: int(run.curve("test", "num_samples").iloc[-1]))


def compare(lower: Sequence[Run], upper: Sequence[Run], measure: Measure) -> Difference:
    """Mean of ``upper`` minus mean of ``lower`` with its noise.

    With three or more seeds on both sides the noise is that of the seeds (Welch). Below that it
    is the noise of one run: the public seed standard deviation and the counting noise.
    """
    sides = [(runs, summarise([measure.of(run) for run in runs])) for runs in (lower, upper)]
    value = sides[1][1].mean - sides[0][1].mean
    if all(summary.n >= ENOUGH_SEEDS for _, summary in sides):
        se, df = welch([(summary.sd**2 / summary.n, summary.n - 1) for _, summary in sides])
        return Difference(value, se, df, "noise over seeds")
    parts: list[tuple[float, float]] = []
    for runs, summary in sides:
        data = str(runs[0].config["data"]["name"])
        seed_sd = one_run_sd(runs[0].label, summary.mean, data=data)
        images = sum(measure.images(run) for run in runs)
        parts += [
            (seed_sd**2 / summary.n, PUBLIC_RUNS - 1),
            (binomial_sd(summary.mean, images) ** 2, math.inf),
        ]
    se, df = welch(parts)
    return Difference(value, se, df, "noise of one run")


def one_run_sd(
    label: str, error: float, paper: Paper | None = None, *, data: str = "cifar10"
) -> float:
    """Expect this standard deviation over seeds, percent, where too few seeds were run.

    The public value of the net at the end of the paper's schedule, or the typical one. An error
    far above those varies more: there, the same share of the error (about 2.5 %) is taken. On
    ImageNet, with five times the test images, the public value is smaller; for Tiny ImageNet
    there is none, and the cautious CIFAR rule stands.
    """
    if data == "imagenet":
        return IMAGENET_SEED_SD * max(1.0, error / IMAGENET_SEED_SD_AT)
    paper = paper or Paper()
    public = paper.public(label).seed_sd
    return max(
        public if public is not None else paper.typical_seed_sd(),
        paper.typical_relative_seed_sd() * error,
    )


def sign(difference: Difference) -> int:
    """1 or -1 where the 95 % interval lies on one side of 0, else 0."""
    return int(difference.low > 0) - int(difference.high < 0)


def verdict_of(difference: Difference, expected: int = 1) -> str:
    """Verdict of the claim that the difference has the expected sign."""
    return {expected: HOLDS, -expected: FAILS, 0: INCONCLUSIVE}[sign(difference)]


def all_of(*verdicts: str) -> str:
    """Verdict of a claim of several parts: the worst of theirs."""
    for word in (FAILS, INCONCLUSIVE):
        if word in verdicts:
            return word
    return HOLDS


def minus(one: Difference, two: Difference) -> Difference:
    """Difference of two differences, with the noise of both."""
    se, df = welch([(one.se**2, one.df), (two.se**2, two.df)])
    basis = one.basis if one.basis == two.basis else "noise of one run and over seeds"
    return Difference(one.value - two.value, se, df, basis)


def points(value: float) -> str:
    """A number of points as text: one decimal from 10 on, two below."""
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def interval(difference: Difference) -> str:
    """The 95 % interval of the size of a difference in words, and where its noise comes from."""
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


def along_depth(
    nets: Nets, measure: Measure, direction: int, *, ends_decide: bool = False
) -> tuple[str, str, dict[str, float]]:
    """Verdict, sentence and numbers of: the measure moves with depth in one direction.

    The deepest net must differ from the shallowest beyond the noise; unless ``ends_decide``, no
    pair of neighbours may move the other way beyond the noise.
    """
    labels = list(nets)
    first, last = labels[0], labels[-1]
    ends = compare(nets[first], nets[last], measure)
    verdict = verdict_of(ends, direction)
    numbers = {
        f"{measure.name} of {label}": summarise([measure.of(run) for run in group]).mean
        for label, group in nets.items()
    }
    numbers[f"{measure.name} of {last} minus {first}"] = ends.value
    sentence = (
        f"{measure.name} of {last} is {'above' if ends.value > 0 else 'below'} {first}'s by "
        f"{points(abs(ends.value))} points ({seeds_clause(list(nets.values()))}; {interval(ends)})"
    )
    if len(labels) > 2:
        sentence += ": " + ", ".join(
            f"{label} {numbers[f'{measure.name} of {label}']:.2f}" for label in labels
        )
        for one, two in itertools.pairwise(labels):
            step = compare(nets[one], nets[two], measure)
            if sign(step) == -direction:
                verdict = verdict if ends_decide else FAILS
                sentence += (
                    f"; from {one} to {two} it {'falls' if direction > 0 else 'rises'} by "
                    f"{abs(step.value):.2f}, beyond the noise"
                )
    return verdict, sentence, numbers


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
) -> ClaimResult:
    """Make the result of a claim from the runs it rests on; what was mixed is said."""
    runs = [run for group in groups for run in group]
    return ClaimResult(
        id,
        title,
        verdict,
        " ".join([sentence + ".", *comparison_notes(runs)]),
        {key: round(value, 4) for key, value in numbers.items()},
        the_profile(runs),
        tuple(dict.fromkeys(run.experiment for run in runs)),
        {group[0].label: [run.seed for run in group] for group in groups},
    )


def without_runs(id: str, title: str, needed: str) -> ClaimResult:
    """Make the result of a claim that nothing logged can test."""
    return ClaimResult(id, title, NO_RUNS, f"not tested, no finished runs of {needed}")
