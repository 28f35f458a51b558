"""Claims C1 to C5 of docs/FIDELITY.md, about CIFAR-10, and the list of all that it can test.

Each takes finished runs of one profile. It is decided on runs of the paper's protocol; on others
it says which order they show.
"""

from collections.abc import Sequence

from resnet_repro.analysis import judge, stats
from resnet_repro.analysis.judge import TEST, ClaimResult, Evidence, claim, interval
from resnet_repro.analysis.logged_run import Run
from resnet_repro.analysis.protocol import cifar_nets, why_not_comparable
from resnet_repro.items.fig7 import responses_are_smaller
from resnet_repro.items.gradients import gradients_stay_healthy

PLAIN_110_ERROR = 60.0  # caption of Fig. 6
TRAINS_ERROR = 0.1  # training error that counts as "no difficulty" for 1202 layers, Sec. 4.2


@claim("C1", "plain nets: test error rises with depth", "two plain nets below 110 layers")
def plain_test_error_rises(runs: Sequence[Run]) -> Evidence | None:
    """The test error of plain nets rises with depth; that of plain-110 is above 60 %.

    Fails if a deeper neighbour is better beyond the noise, even if the deepest net is the worst.
    The 60 % is tested on the paper's schedule only, elsewhere plain-110 is just another depth.
    """
    nets = cifar_nets(runs, "plain")
    deepest = nets.get("plain-110", [])
    if deepest and why_not_comparable(deepest):
        deepest = []
    trend = {label: net for label, net in nets.items() if net is not deepest}
    if len(trend) < 2:
        return None
    found = judge.along_depth(trend, 1, TEST)
    if deepest:
        part = _against([stats.last_error(run) for run in deepest], PLAIN_110_ERROR)
        error = PLAIN_110_ERROR + part.value
        above = "above" if part.value > 0 else "not above"
        clause = f"plain-110's is {error:.1f} %, {above} 60 % ({interval(part)})"
        found.parts.append((part, 1))
        found.clauses.append(clause)
        found.numbers["test error of plain-110"] = error
        found.nets = [*nets.values()]
    return found


@claim("C2", "plain nets: training error rises with depth", "two plain nets")
def plain_training_error_rises(runs: Sequence[Run]) -> Evidence | None:
    """The training error of plain nets rises with depth, so it is not overfitting.

    The deepest net against the shallowest decides: in the paper's own curves plain-20 and
    plain-32 end level. A neighbour that goes the other way is named. Plain-110, which the paper
    does not draw, would decide alone by failing to train; it counts only where no two others are.
    """
    nets = cifar_nets(runs, "plain")
    drawn = {label: net for label, net in nets.items() if net[0].depth < 110}
    nets = drawn if len(drawn) >= 2 else nets
    if len(nets) < 2:
        return None
    found = judge.along_depth(nets, 1, judge.TRAINING)
    found.barred.clear()
    return found


@claim(
    "C3",
    "residual nets: training and test error fall with depth",
    "two residual nets up to 110 layers",
)
def residual_errors_fall(runs: Sequence[Run]) -> Evidence | None:
    """Training and test error of residual nets both fall with depth from 20 to 110."""
    nets = {k: net for k, net in cifar_nets(runs, "ResNet").items() if net[0].depth <= 110}
    return judge.along_depth(nets, -1, judge.TRAINING, TEST) if len(nets) > 1 else None


@claim(
    "C4",
    "residual nets beat plain nets, the more the deeper",
    "a plain and a residual net of one depth",
)
def residual_beats_plain(runs: Sequence[Run]) -> Evidence | None:
    """A residual net beats the plain net of its depth, and the gap grows with depth.

    The gap at the greatest common depth is compared with that at the smallest. With one common
    depth the growth is unknown, and the claim at best inconclusive.
    """
    plain, residual = (
        {net[0].depth: net for net in cifar_nets(runs, kind).values()}
        for kind in ("plain", "ResNet")
    )
    depths = sorted(plain.keys() & residual.keys())
    if not depths:
        return None
    nets = [kind[depth] for depth in depths for kind in (plain, residual)]
    found = Evidence(nets, complete=len(depths) > 1)
    gaps = {depth: judge.compare(residual[depth], plain[depth], TEST) for depth in depths}
    for depth, gap in gaps.items():
        found.add(f"gap at {depth}", gap, 1)
    each = (f"{gap.value:.2f} points at {d} layers ({interval(gap)})" for d, gap in gaps.items())
    found.clauses.append(f"test error of plain minus residual nets: {', '.join(each)}")
    if len(depths) == 1:
        found.clauses.append("one depth cannot show whether the gap grows")
        return found
    first, last = depths[0], depths[-1]
    terms = ((1, plain[last]), (-1, plain[first]), (-1, residual[last]), (1, residual[first]))
    growth = stats.contrast(*((sign, judge.side(net, TEST)) for sign, net in terms))
    clause = f"from {first} to {last} layers the gap {judge.moved(growth, 'grows', 'shrinks')}"
    found.add("growth", growth, 1, clause)
    return found


@claim("C5", "1202 layers train, but test worse than 110", "ResNet-110 and ResNet-1202")
def depth_1202_overfits(runs: Sequence[Run]) -> Evidence | None:
    """ResNet-1202 trains (training error below 0.1 %) but tests worse than ResNet-110.

    The training error is that of all training images without augmentation at the end. From two
    seeds on its interval is over the seeds; of one, that of the count is shown and decides nothing.
    """
    nets = cifar_nets(runs, "ResNet")
    if not {"ResNet-110", "ResNet-1202"} <= nets.keys():
        return None
    shallow, deep = nets["ResNet-110"], nets["ResNet-1202"]
    clean = [error for run in deep if (error := stats.clean_training_error(run)) is not None]
    found = Evidence([shallow, deep], complete=bool(clean))
    gap = judge.compare(shallow, deep, TEST)
    found.add("test gap", gap, 1)
    clause = "no clean training error of ResNet-1202 is logged"
    if clean:
        trains = _against(clean, TRAINS_ERROR)
        level = TRAINS_ERROR + trains.value
        low, high = (max(0.0, TRAINS_ERROR + x) for x in (trains.low, trains.high))
        basis = trains.basis
        if not trains.known:
            images = int(deep[0].curve("train_clean", "num_samples").iloc[-1])
            (low, high), basis = stats.count_interval(level, images), "count alone"
        clause = (
            f"clean training error of ResNet-1202 is {level:.3f} % (95 % interval {low:.3f} to "
            f"{high:.3f} from the {basis}), by the claim below {TRAINS_ERROR} %"
        )
        found.parts.append((trains, -1))
        found.numbers["clean training error of ResNet-1202"] = level
    relation = judge.moved(gap, "above ResNet-110's", "below ResNet-110's")
    found.clauses += [clause, f"its test error is {relation}"]
    return found


CIFAR_CLAIMS = (
    plain_test_error_rises,
    plain_training_error_rises,
    residual_errors_fall,
    residual_beats_plain,
    depth_1202_overfits,
    responses_are_smaller,
    gradients_stay_healthy,
)


def check_all(runs: Sequence[Run]) -> list[ClaimResult]:
    """Test every claim about CIFAR nets; on each data set where there are two."""
    return judge.check(CIFAR_CLAIMS, runs)


def _against(values: Sequence[float], level: float) -> stats.Difference:
    """Their mean minus a fixed level, with the noise over seeds."""
    return stats.contrast((1, stats.Side([value - level for value in values])))
