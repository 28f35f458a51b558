"""What a claim returns, how nets are compared, and how comparisons become a verdict."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from resnet_repro.analysis import paper, stats
from resnet_repro.analysis.captions import data_of
from resnet_repro.analysis.load import grouped
from resnet_repro.analysis.logged_run import Run
from resnet_repro.analysis.paper import Noise
from resnet_repro.analysis.protocol import Nets, comparison_notes, why_not_comparable
from resnet_repro.analysis.stats import Difference, Side, contrast, how_many
from resnet_repro.config import PROFILES

# A claim about the paper is decided at the paper's protocol; other runs only show an order.
HOLDS, FAILS, INCONCLUSIVE, NO_RUNS = "holds", "fails", "inconclusive", "no runs"
SAME, OPPOSITE, OPEN = "same order as the paper", "opposite order", "open"
ELSEWHERE = {HOLDS: SAME, FAILS: OPPOSITE, INCONCLUSIVE: OPEN}
# Top-1 error of ResNet-50 over five runs, 23.60 +- 0.12 (Goyal et al. 2017, Table 1).
IMAGENET_SEED_NOISE = Noise(0.12, 4)
Part = tuple[Difference, int]  # a difference and the sign it has by the claim


@dataclass(frozen=True)
class ClaimResult:
    """A claim of ``docs/FIDELITY.md`` tested on logged runs.

    ``verdict``: ``holds``, ``fails`` or ``inconclusive`` at the paper's protocol; elsewhere
    ``same order as the paper``, ``opposite order`` or ``open``; or ``no runs``.
    """

    id: str
    title: str
    verdict: str
    sentence: str  # its basis in words, with ``where``; ``numbers``: the same by name
    numbers: Mapping[str, float] = field(default_factory=dict)
    where: str = ""  # data set, profile, iterations, number of seeds, level of the errors
    profile: str | None = None

    def line(self) -> str:
        """One line for the terminal."""
        return f"{self.id} {self.verdict}: {self.sentence}"


@dataclass
class Evidence:
    """What runs show about a claim: the nets compared, in words, in numbers, as differences.

    The claim holds where each of ``parts`` has its sign beyond the noise, and fails where one of
    them or of ``barred`` has the other. If runs are missing, it is inconclusive at best.
    ``about`` begins the sentence; ``verdict``: of a claim that is not about differences of means.
    """

    nets: Sequence[Sequence[Run]]
    about: str = ""
    clauses: list[str] = field(default_factory=list)
    numbers: dict[str, float] = field(default_factory=dict)
    parts: list[Part] = field(default_factory=list)
    barred: list[Part] = field(default_factory=list)
    complete: bool = True
    verdict: str = ""

    def add(self, name: str, difference: Difference, expected: int, *clauses: str) -> None:
        """Add a difference under its name, the sign it has by the claim, and clauses on it."""
        self.numbers[name] = difference.value
        self.parts.append((difference, expected))
        self.clauses += clauses

    @property
    def sentence(self) -> str:
        """All clauses as one sentence."""
        text = "; ".join(self.clauses)
        return f"{self.about}: {text}" if self.about else text

    def decide(self) -> str:
        """Return the verdict; to fail, one must differ beyond its share of the 5 % among all."""
        if self.verdict:
            return self.verdict
        every = [*self.parts, *self.barred]
        if any(difference.sign(len(every)) == -expected for difference, expected in every):
            return FAILS
        if self.complete and all(difference.sign() == sign for difference, sign in self.parts):
            return HOLDS
        return INCONCLUSIVE


@dataclass(frozen=True)
class Claim:
    """A claim of the paper; called with finished runs of one setting, it is tested on them.

    A setting is a profile and a data set. ``weigh`` returns what runs show about the claim, or
    None where they lack the nets it ``needs``; ``elsewhere`` names the verdict of runs of another
    protocol than the paper's.
    """

    id: str
    title: str
    needs: str
    weigh: Callable[..., Evidence | None]
    elsewhere: Mapping[str, str]

    def at(self, protocol: str) -> "Claim":
        """Return the same claim about errors under another protocol of evaluation."""
        return replace(self, weigh=partial(self.weigh, protocol=protocol))

    def __call__(self, runs: Sequence[Run]) -> ClaimResult:
        """Test it; the sentence names what runs mix, a ValueError refuses several settings."""
        settings = sorted({f"{run.profile} on {run.data}" for run in runs})
        if len(settings) > 1:
            text = ", ".join(settings)
            raise ValueError(f"runs of one profile and data set are needed, not {text}")
        found = self.weigh(runs)
        if found is None:
            sentence = f"not tested, no finished runs of {self.needs}"
            return ClaimResult(self.id, self.title, NO_RUNS, sentence)
        used = [run for net in found.nets for run in net]
        verdict = found.decide()
        where = _setting(found.nets)
        return ClaimResult(
            self.id,
            self.title,
            self.elsewhere[verdict] if why_not_comparable(used) else verdict,
            " ".join([f"{found.sentence}. {where}.", *comparison_notes(used)]),
            {key: round(value, 4) for key, value in found.numbers.items()},
            where,
            used[0].profile,
        )


def claim(
    id: str, title: str, needs: str, elsewhere: Mapping[str, str] = ELSEWHERE
) -> Callable[[Callable[..., Evidence | None]], Claim]:
    """Make a claim from the function that weighs it."""
    return lambda weigh: Claim(id, title, needs, weigh, elsewhere)


@dataclass(frozen=True)
class Measure:
    """A number per run that claims compare, in percent; whether public runs give its seed noise."""

    name: str
    of: Callable[[Run], float]
    public: bool = False

    def mean(self, runs: Sequence[Run]) -> float:
        """Its mean over runs."""
        return float(np.mean([self.of(run) for run in runs]))


TRAINING = Measure("training error", stats.final_training_error)
TEST = Measure("test error", stats.last_error, public=True)


def public_noise(runs: Sequence[Run]) -> Noise | None:
    """Seed noise of the test error of one such run by public figures; None where none applies.

    They are of nets trained by the paper's protocol: CIFAR nets of 20 to 110 layers that train,
    and residual nets on ImageNet. A shorter schedule has no figure, nor has a training error.
    """
    run = runs[0]
    if why_not_comparable(runs) or not has_margin(run):
        return None
    if run.family == "imagenet":
        return None if run.is_plain else IMAGENET_SEED_NOISE
    return paper.seed_noise()


def has_margin(run: Run) -> bool:
    """Whether a margin was fixed for such a net: ImageNet's, and CIFAR's below plain-110 and 1202.

    Elsewhere no run is judged against the paper's numbers.
    """
    return run.family == "imagenet" or 20 <= run.depth <= (56 if run.is_plain else 110)


def side(runs: Sequence[Run], measure: Measure) -> Side:
    """The runs of one net in a comparison."""
    return Side([measure.of(run) for run in runs], public_noise(runs) if measure.public else None)


def compare(lower: Sequence[Run], upper: Sequence[Run], measure: Measure) -> Difference:
    """Mean of ``upper`` minus mean of ``lower`` with its noise over seeds."""
    return contrast((1, side(upper, measure)), (-1, side(lower, measure)))


def points(value: float) -> str:
    """A number of points as text: one decimal from 10 on, two below."""
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def moved(difference: Difference, rise: str, fall: str, unit: str = " points") -> str:
    """Say that one side is above the other or below, by how much, with the interval."""
    way = rise if difference.value > 0 else fall
    return f"{way} by {points(abs(difference.value))}{unit} ({interval(difference)})"


def interval(difference: Difference) -> str:
    """The 95 % interval of the size of a difference in words, and where its noise comes from."""
    if not difference.known:
        return "no interval: one seed, and no published estimate of its noise"
    low, high = difference.low, difference.high
    if difference.value < 0:
        low, high = -high, -low
    return f"95 % interval {points(low)} to {points(high)} from the {difference.basis}"


def seeds_clause(nets: Sequence[Sequence[Run]]) -> str:
    """Return ``quick profile, 1 seed each`` or the number of seeds of each net."""
    counts = {len(net) for net in nets}
    each = f"{how_many(min(counts), 'seed')} each"
    if len(counts) > 1:
        each = ", ".join(f"{net[0].label} {how_many(len(net), 'seed')}" for net in nets)
    return f"{nets[0][0].profile} profile, {each}"


def _setting(nets: Sequence[Sequence[Run]]) -> str:
    """Describe the basis of a verdict: data set, seeds, iterations, level of the test errors."""
    runs = [run for net in nets for run in net]
    lengths = " or ".join(f"{length:,}" for length in sorted({run.max_iters for run in runs}))
    errors = [TEST.mean(net) for net in nets]
    level = " to ".join(dict.fromkeys(f"{error:.1f}" for error in (min(errors), max(errors))))
    held_out = "validation" if runs[0].family == "imagenet" else "test"
    return (
        f"{data_of(runs)}, {seeds_clause(nets)}, {lengths} iterations, {held_out} error {level} %"
    )


def along_depth(nets: Nets, direction: int, *measures: Measure) -> Evidence:
    """Compare measures along the nets, which by the claim all move in one direction.

    The claim is about the last net against the first; steps between neighbours may bar it.
    """
    labels, found = list(nets), Evidence(list(nets.values()))
    first, last = labels[0], labels[-1]
    pairs = list(itertools.pairwise(labels)) if len(labels) > 2 else []
    for measure in measures:
        ends = compare(nets[first], nets[last], measure)
        means = {label: measure.mean(net) for label, net in nets.items()}
        relation = moved(ends, f"above {first}'s", f"below {first}'s")
        clause = f"{measure.name} of {last} is {relation}"
        if pairs:
            clause += ": " + ", ".join(f"{label} {mean:.2f}" for label, mean in means.items())
        found.numbers |= {f"{measure.name} of {label}": mean for label, mean in means.items()}
        found.add(f"{measure.name} of {last} minus {first}", ends, direction, clause)
        for one, two in pairs:
            step = compare(nets[one], nets[two], measure)
            found.barred.append((step, direction))
            if step.sign(len(pairs) + 1) == -direction:
                found.clauses.append(f"from {one} to {two} it {moved(step, 'rises', 'falls', '')}")
    return found


def by_setting(runs: Sequence[Run]) -> list[list[list[Run]]]:
    """Group runs by profile, the paper's protocol first, and those of a profile by data set."""
    profiles = grouped(runs, lambda run: run.profile)
    return [
        list(grouped(profiles[name], lambda run: run.data).values())
        for name in PROFILES
        if name in profiles
    ]


def check(claims: Sequence[Claim], runs: Sequence[Run]) -> list[ClaimResult]:
    """Test claims on each data set by itself, at the first profile whose runs can test them.

    A claim that no runs can test has one result that says so.
    """
    settings, results = by_setting(runs), list[ClaimResult]()
    for claim in claims:
        by_profile = (
            [result for group in groups if (result := claim(group)).verdict != NO_RUNS]
            for groups in settings
        )
        results += next(filter(None, by_profile), [claim([])])
    return results
