"""Claims of Sec. 4.1 as functions of logged runs (C7 to C9 of docs/FIDELITY.md).

They are about orders between nets and are tested on ImageNet or on Tiny ImageNet, never on both
together; the sentence names which. Without ``data`` it is ImageNet if it has the nets a claim
cannot do without, else Tiny ImageNet. Validation errors are at 10-crop, as the paper's tables,
where every run of the comparison was tested so, else those of the single view, which every run
has; the sentence names the protocol too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np

from resnet_repro.analysis.captions import run_sentences
from resnet_repro.analysis.evaluations import SINGLE_VIEW, evaluations_beside, run_key, score_of
from resnet_repro.analysis.imagenet import DATA_SETS, TITLES, Nets, nets_by_data
from resnet_repro.analysis.judge import (
    TEST,
    ClaimResult,
    Measure,
    along_depth,
    by_profile,
    compare,
    conclude,
    decide,
    first_tested,
    interval,
    points,
    side,
    without_runs,
)
from resnet_repro.analysis.load import Run
from resnet_repro.analysis.stats import Difference, contrast
from resnet_repro.analysis.tables import write_claims

OPTIONS = ("A", "B", "C")


def plain_degrades_residual_does_not(runs: Sequence[Run], data: str | None = None) -> ClaimResult:
    """C7: plain-34's training error is above plain-18's throughout; of ResNets it is below.

    Throughout means in every stretch between two drops of the learning rate (in thirds, where
    the rate never drops): point by point a training curve is noise. Residual nets are compared
    under option A, as in Fig. 4.
    """
    id, title = "C7", "plain-34 trains worse than plain-18, ResNet-34 better than ResNet-18"
    plain, residual = ("plain-18", "plain-34"), ("ResNet-18 A", "ResNet-34 A")
    where, nets = _data_with(runs, data, lambda nets: nets.keys() >= set(plain))
    if where is None:
        return without_runs(id, title, "plain-18 and plain-34 on ImageNet or Tiny ImageNet")
    parts, words, groups = [], [], []
    numbers: dict[str, float] = {}
    complete = True
    for (shallow, deep), direction in ((plain, 1), (residual, -1)):
        missing = [label for label in (shallow, deep) if label not in nets]
        if missing:
            complete = False
            words.append(f"no runs of {' and '.join(missing)}")
            continue
        groups += [nets[shallow], nets[deep]]
        gaps = _training_gaps(nets[shallow], nets[deep])
        parts += [(gap, direction) for gap in gaps.values()]
        numbers |= {f"{deep} minus {shallow} to {last:,}": gap.value for last, gap in gaps.items()}
        words.append(_in_each_stretch(shallow, deep, gaps, direction))
    sentence = f"{TITLES[where]}: {'; '.join(words)}"
    verdict = decide(parts, complete=complete)
    return conclude(id, title, verdict, sentence, numbers, groups)


def shortcuts_beat_plain(
    runs: Sequence[Run], data: str | None = None, protocol: str = "10-crop"
) -> ClaimResult:
    """C8: ResNet-34 with A, B, C all far better than plain-34; B a little better than A, C than B.

    Far means by more than the options differ among themselves. The claim is inconclusive at best
    where an option has no runs.
    """
    id, title = "C8", "34 layers: options A, B, C far better than plain; then B, C a little better"
    where, nets = _data_with(
        runs, data, lambda nets: "plain-34" in nets and any(x[:-1] == "ResNet-34 " for x in nets)
    )
    if where is None:
        return without_runs(id, title, "plain-34 and a ResNet-34 on ImageNet or Tiny ImageNet")
    plain = nets["plain-34"]
    options = {x: nets[f"ResNet-34 {x}"] for x in OPTIONS if f"ResNet-34 {x}" in nets}
    error = validation_error([plain, *options.values()], protocol)
    gains = {x: compare(group, plain, error) for x, group in options.items()}
    parts = [(gain, 1) for gain in gains.values()]
    each = ", ".join(
        f"{x} {points(gain.value)}{_bounds(gain, alone=len(gains) == 1)}"
        for x, gain in gains.items()
    )
    words = [f"{error.name} of plain-34 minus that of ResNet-34 {each} (points)"]
    numbers = {f"plain-34 minus ResNet-34 {x}": gain.value for x, gain in gains.items()}
    for worse, better in pairwise(options):
        step = compare(options[better], options[worse], error)
        parts.append((step, 1))
        numbers[f"{worse} minus {better}"] = step.value
        relation = "below" if step.value > 0 else "above"
        words.append(f"{better} {relation} {worse} by {points(abs(step.value))} ({interval(step)})")
    if len(options) > 1:
        far = _far(plain, options, error)
        parts.append((far, 1))
        numbers["smallest gain minus largest difference of options"] = far.value
        words.append(
            "the smallest gain over plain is "
            f"{'above' if far.value > 0 else 'not above'} the largest difference between options, "
            f"by {points(abs(far.value))}{_bounds(far)}"
        )
    missing = [f"ResNet-34 {x}" for x in OPTIONS if x not in options]
    if missing:
        words.append(f"no runs of {' and '.join(missing)}")
    groups = [plain, *options.values()]
    sentence = f"{TITLES[where]}: {'; '.join(words)}"
    verdict = decide(parts, complete=not missing)
    return conclude(id, title, verdict, sentence, numbers, groups)


def deeper_is_better(
    runs: Sequence[Run], data: str | None = None, protocol: str = "10-crop"
) -> ClaimResult:
    """C9: validation error falls from ResNet-34 over 50 and 101 to 152 layers.

    ResNet-34 is that of option B, like the deeper ones, else C or A.
    """
    id, title = "C9", "more depth helps: 34, 50, 101, 152 layers"
    where, nets = _data_with(runs, data, lambda nets: len(_by_depth(nets)) > 1)
    if where is None:
        return without_runs(id, title, "two of ResNet-34, 50, 101 and 152")
    chosen = _by_depth(nets)
    error = validation_error(list(chosen.values()), protocol)
    found = along_depth(chosen, error, -1)
    depths = {group[0].depth for group in chosen.values()}
    missing = [f"ResNet-{depth}" for depth in (34, 50, 101, 152) if depth not in depths]
    sentence = f"{TITLES[where]}: {found.sentence}"
    if missing:
        sentence += f"; no runs of {', '.join(missing)}"
    steps = [(step, -1) for step in found.steps]
    verdict = decide([(found.ends, -1)], steps, complete=not missing)
    return conclude(id, title, verdict, sentence, found.numbers, list(chosen.values()))


IMAGENET_CLAIMS: tuple[Callable[[Sequence[Run], str | None], ClaimResult], ...] = (
    plain_degrades_residual_does_not,
    shortcuts_beat_plain,
    deeper_is_better,
)


def check_imagenet(runs: Sequence[Run]) -> list[ClaimResult]:
    """Test C7 to C9 on each data set that has runs, ImageNet first; once where none has."""
    there: list[str | None] = [data for data, nets in nets_by_data(runs).items() if nets]
    return [claim(runs, data) for data in there or [None] for claim in IMAGENET_CLAIMS]


def save_imagenet_claims(runs: Sequence[Run], out_dir: Path) -> list[Path]:
    """Write C7 to C9 with verdicts as ``claims_imagenet.md``, ``.tex`` and ``.csv``."""
    notes = [
        sentence
        for group in by_profile(runs)
        for nets in nets_by_data(group).values()
        for sentence in run_sentences([run for seeds in nets.values() for run in seeds])
    ]
    results = first_tested(check_imagenet, runs)
    return write_claims(results, "claims_imagenet", out_dir, notes)


def validation_error(groups: Sequence[Sequence[Run]], protocol: str) -> Measure:
    """Top-1 error under ``protocol`` if all the runs were tested so, else in the single view."""
    runs = [run for group in groups for run in group]
    evaluations = evaluations_beside(runs)
    found = {run_key(run.path): score_of(run, protocol, evaluations) for run in runs}
    scores = {key: score for key, score in found.items() if score is not None}
    if len(scores) < len(runs):
        return Measure(f"validation error ({SINGLE_VIEW})", TEST.of, public=True)
    return Measure(
        f"validation error ({protocol})",
        lambda run: scores[run_key(run.path)].top1,
        public=True,
    )


def _by_depth(nets: Nets) -> Nets:
    """The nets of C9, shallow first."""
    shallow = [nets[f"ResNet-34 {x}"] for x in ("B", "C", "A") if f"ResNet-34 {x}" in nets]
    groups = shallow[:1] + [nets[x] for x in ("ResNet-50", "ResNet-101", "ResNet-152") if x in nets]
    return {group[0].label: group for group in groups}


def _data_with(
    runs: Sequence[Run], data: str | None, enough: Callable[[Nets], bool]
) -> tuple[str | None, Nets]:
    """The data set to test on and its nets; None where no data set has enough of them."""
    found = nets_by_data(runs)
    names = DATA_SETS if data is None else (data,)
    return next(((name, found[name]) for name in names if enough(found[name])), (None, {}))


def _training_gaps(shallow: Sequence[Run], deep: Sequence[Run]) -> dict[int, Difference]:
    """Deep minus shallow training error by stretch of the schedule, keyed by its last iteration."""
    total = shallow[0].max_iters
    drops = list(shallow[0].config["recipe"]["milestones"]) or [total // 3, 2 * total // 3]
    return {
        last: compare(
            shallow,
            deep,
            Measure(
                f"training error to {last}",
                partial(_mean_training_error, after=after, last=last),
            ),
        )
        for after, last in pairwise([0, *drops, total])
    }


def _mean_training_error(run: Run, after: int, last: int) -> float:
    curve = run.curve("train")
    errors = curve[(curve.index > after) & (curve.index <= last)]
    if errors.empty:
        raise ValueError(f"{run.path}: no training error between iterations {after} and {last}")
    return float(errors.mean())


def _in_each_stretch(shallow: str, deep: str, gaps: dict[int, Difference], direction: int) -> str:
    """Say how far one training error lies from another in each stretch, and where it should."""
    sizes = ", ".join(f"{gap.value:+.2f}" for gap in gaps.values())
    least = min(gaps.values(), key=lambda gap: direction * gap.value - gap.reach)
    return (
        f"training error of {deep} minus {shallow}'s {sizes} points in the {len(gaps)} stretches "
        f"between drops of the rate, by the claim all {'above' if direction > 0 else 'below'} 0 "
        f"(least so: {interval(least)})"
    )


def _bounds(gap: Difference, *, alone: bool = False) -> str:
    """The interval in brackets; one that is unknown is named only ``alone``: the steps name it."""
    return f" ({interval(gap)})" if gap.known or alone else ""


def _far(plain: list[Run], options: dict[str, list[Run]], error: Measure) -> Difference:
    """The smallest gain over plain minus the largest difference between two options.

    A net that is in both counts with both factors, as its noise does.
    """
    sides = {x: side(group, error) for x, group in options.items()}
    means = {x: float(np.mean(found.values)) for x, found in sides.items()}
    worst, best = max(means, key=means.__getitem__), min(means, key=means.__getitem__)
    return contrast((1, side(plain, error)), (-2, sides[worst]), (1, sides[best]))
