"""Claims of Sec. 4.1: C7 to C9 of docs/FIDELITY.md.

They are about orders between nets and are tested on ImageNet or on Tiny ImageNet; the sentence
names which, and the protocol of the errors.
"""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise

from resnet_repro.analysis import judge
from resnet_repro.analysis.captions import TITLES
from resnet_repro.analysis.evaluations import SINGLE_VIEW, evaluations_beside, score_of
from resnet_repro.analysis.judge import Evidence, Measure, claim, compare, interval
from resnet_repro.analysis.logged_run import Run
from resnet_repro.analysis.protocol import DATA_SETS, Nets, by_net
from resnet_repro.analysis.stats import Difference, contrast

PLAIN, RESIDUAL = ("plain-18", "plain-34"), ("ResNet-18 A", "ResNet-34 A")
OPTIONS = {option: f"ResNet-34 {option}" for option in "ABC"}
DEPTHS = (34, 50, 101, 152)


@claim(
    "C7",
    "plain-34 trains worse than plain-18, ResNet-34 better than ResNet-18",
    "plain-18 and plain-34 on ImageNet or Tiny ImageNet",
)
def plain_degrades_residual_does_not(runs: Sequence[Run]) -> Evidence | None:
    """Plain-34's training error is above plain-18's throughout; of ResNets it is below.

    Throughout means in every stretch between two drops of the learning rate (in thirds, where
    the rate never drops): point by point a training curve is noise. Residual nets are compared
    under option A, as in Fig. 4.
    """
    nets = _nets(runs)
    if not nets.keys() >= {*PLAIN}:
        return None
    complete = nets.keys() >= {*RESIDUAL}
    used = [nets[label] for label in (*PLAIN, *(RESIDUAL if complete else ()))]
    found = Evidence(used, TITLES[runs[0].data], complete=complete)
    for (shallow, deep), direction in ((PLAIN, 1), (RESIDUAL, -1)):
        if missing := [label for label in (shallow, deep) if label not in nets]:
            found.clauses.append(f"no runs of {' and '.join(missing)}")
            continue
        gaps = _training_gaps(nets[shallow], nets[deep])
        for last, gap in gaps.items():
            found.add(f"{deep} minus {shallow} to {last:,}", gap, direction)
        found.clauses.append(_in_each_stretch(shallow, deep, [*gaps.values()], direction))
    return found


def _training_gaps(shallow: Sequence[Run], deep: Sequence[Run]) -> dict[int, Difference]:
    """Deep minus shallow training error by stretch of the schedule, keyed by its last iteration."""
    total = shallow[0].max_iters
    drops = shallow[0].drops or [total // 3, 2 * total // 3]
    return {
        last: compare(shallow, deep, Measure("", partial(_training_error, after=after, last=last)))
        for after, last in pairwise([0, *drops, total])
    }


def _training_error(run: Run, after: int, last: int) -> float:
    curve = run.curve("train")
    errors = curve[(curve.index > after) & (curve.index <= last)]
    if errors.empty:
        raise ValueError(f"{run.path}: no training error between iterations {after} and {last}")
    return float(errors.mean())


def _in_each_stretch(shallow: str, deep: str, gaps: Sequence[Difference], direction: int) -> str:
    """Describe how far one training error is from another in each stretch, and should be."""
    least = min(gaps, key=lambda gap: direction * gap.value - gap.reach)
    return (
        f"training error of {deep} minus {shallow}'s "
        f"{', '.join(f'{gap.value:+.2f}' for gap in gaps)} points in the {len(gaps)} stretches "
        f"between drops of the rate, by the claim all {'above' if direction > 0 else 'below'} 0 "
        f"(the weakest: {interval(least)})"
    )


@claim(
    "C8",
    "34 layers: options A, B, C far better than plain; then B, C a little better",
    "plain-34 and a ResNet-34 on ImageNet or Tiny ImageNet",
)
def shortcuts_beat_plain(runs: Sequence[Run], protocol: str = "10-crop") -> Evidence | None:
    """ResNet-34 with A, B, C all far better than plain-34; B a little better than A, C than B.

    Far means by more than the options differ among themselves. The claim is inconclusive at best
    where an option has no runs.
    """
    nets = _nets(runs)
    if "plain-34" not in nets or not nets.keys() & {*OPTIONS.values()}:
        return None
    plain = nets["plain-34"]
    options = {option: nets[label] for option, label in OPTIONS.items() if label in nets}
    used = [plain, *options.values()]
    error = _validation_error(used, protocol)
    missing = [label for label in OPTIONS.values() if label not in nets]
    found = Evidence(used, TITLES[runs[0].data], complete=not missing)
    each = []
    for option, net in options.items():
        gain = compare(net, plain, error)
        found.add(f"plain-34 minus {OPTIONS[option]}", gain, 1)
        each.append(f"{option} {judge.points(gain.value)}{_bounds(gain, alone=len(options) == 1)}")
    of_each = ", ".join(each)
    found.clauses.append(f"{error.name} of plain-34 minus that of ResNet-34 {of_each} (points)")
    for worse, better in pairwise(options):
        step = compare(options[better], options[worse], error)
        relation = judge.moved(step, f"below {worse}", f"above {worse}", "")
        found.add(f"{worse} minus {better}", step, 1, f"{better} {relation}")
    if len(options) > 1:
        margin = _margin(plain, options, error)
        found.add(
            "smallest gain minus largest difference of options",
            margin,
            1,
            f"the smallest gain over plain is {'above' if margin.value > 0 else 'not above'} the "
            "largest difference between options, by "
            f"{judge.points(abs(margin.value))}{_bounds(margin)}",
        )
    found.clauses += [f"no runs of {' and '.join(missing)}"] if missing else []
    return found


def _margin(plain: Sequence[Run], options: Nets, error: Measure) -> Difference:
    """The smallest gain over plain minus the largest difference between two options.

    A net that is in both counts with both factors, as its noise does.
    """
    means = {option: error.mean(net) for option, net in options.items()}
    worst, best = max(means, key=means.__getitem__), min(means, key=means.__getitem__)
    terms = ((1, plain), (-2, options[worst]), (1, options[best]))
    return contrast(*((factor, judge.side(net, error)) for factor, net in terms))


def _bounds(gap: Difference, *, alone: bool = False) -> str:
    """The interval in brackets; one that is unknown is named only ``alone``: the steps name it."""
    return f" ({interval(gap)})" if gap.known or alone else ""


@claim("C9", "more depth helps: 34, 50, 101, 152 layers", "two of ResNet-34, 50, 101 and 152")
def deeper_is_better(runs: Sequence[Run], protocol: str = "10-crop") -> Evidence | None:
    """Validation error falls from ResNet-34 over 50 and 101 to 152 layers.

    ResNet-34 is that of option B, like the deeper ones, else C or A.
    """
    chosen = _by_depth(_nets(runs))
    if len(chosen) < 2:
        return None
    error = _validation_error(list(chosen.values()), protocol)
    found = judge.along_depth(chosen, -1, error)
    depths = {net[0].depth for net in chosen.values()}
    missing = [f"ResNet-{depth}" for depth in DEPTHS if depth not in depths]
    found.about, found.complete = TITLES[runs[0].data], not missing
    found.clauses += [f"no runs of {', '.join(missing)}"] if missing else []
    return found


def _by_depth(nets: Nets) -> Nets:
    """The nets of C9, shallow first."""
    shallow = [OPTIONS[option] for option in "BCA" if OPTIONS[option] in nets][:1]
    deeper = [label for depth in DEPTHS[1:] if (label := f"ResNet-{depth}") in nets]
    return {label: nets[label] for label in shallow + deeper}


def _nets(runs: Sequence[Run]) -> Nets:
    """The ImageNet nets by label, where they were trained on what the claims are tested on."""
    return by_net(run for run in runs if run.family == "imagenet" and run.data in DATA_SETS)


def _validation_error(nets: Sequence[Sequence[Run]], protocol: str) -> Measure:
    """Top-1 error under ``protocol`` if all the runs were tested so, else in the single view."""
    runs = [run for net in nets for run in net]
    evaluations = evaluations_beside(runs)
    found = {run.path: score_of(run, protocol, evaluations) for run in runs}
    scores = {path: score.top1 for path, score in found.items() if score is not None}
    if len(scores) < len(runs):
        return Measure(f"validation error ({SINGLE_VIEW})", judge.TEST.of, public=True)
    return Measure(f"validation error ({protocol})", lambda run: scores[run.path], public=True)


IMAGENET_CLAIMS = (plain_degrades_residual_does_not, shortcuts_beat_plain, deeper_is_better)
