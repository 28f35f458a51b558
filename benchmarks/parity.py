"""Check that fast ways to train do what the plain one does: ``python -m benchmarks.parity``.

How far losses are apart, and at what cost; whether replayed, resumed and concurrent runs have the
same bits, :mod:`benchmarks.gpu_checks` asks. Each row is a check: what was found, what is allowed,
whether it passed. Exit code 1 if one failed.

``batches``      those prepared ahead on the device against those of the order: how many differ
``first loss``   against eager fp32 with the same seed: distance, nats
``losses``       of the first hundred iterations likewise, their mean distance. The way ``rounding``
                 is eager fp32 itself with its first weights changed in the last bit, the larger of
                 two: at the paper's rate rounding alone carries two runs that far apart. Others may
                 be :data:`TIMES` as far
``rerun``        the same run twice in deterministic mode; ``costs`` is its time over that without
``compiling``    whether it pays: ``costs`` is the time of an iteration over that without

``--experiments cifar10_resnet56 --iterations 50 trainer.precision=fp32`` changes what is checked.
"""

import itertools
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from statistics import median

import numpy as np
import torch
from torch import Tensor

from benchmarks.gpu_checks import bits
from benchmarks.record import Row, Scope, command, device_of
from benchmarks.timing import WARM, Training, ratios, take_turns
from resnet_repro.compose import compose_run
from resnet_repro.data.order import raw
from resnet_repro.data.resident import ResidentImages
from resnet_repro.options import ConfigError
from resnet_repro.training.build import load_data
from resnet_repro.training.graph import EAGER_CALLS, BatchesAhead

SCOPES = {
    "cpu": Scope(experiments=("cifar10_resnet20",), rounds=3, iterations=100),
    "cuda": Scope(experiments=("cifar10_resnet20", "cifar10_resnet110"), rounds=5, iterations=100),
}
Way = tuple[str, str]
EAGER: Way = ("trainer.graph=never", "trainer.compile=never")
GRAPH: Way = ("trainer.graph=always", "trainer.compile=never")
COMPILED: Way = ("trainer.graph=auto", "trainer.compile=always")  # and captured, on a GPU
NAMES = {EAGER: "eager", GRAPH: "graph", COMPILED: "compiled"}
# Nats that the first loss of a net of 20 layers may be off. Each layer rounds its output, by 2^-9
# in bf16, by 2^-12 in TF32, and these errors add up, so the bound of a deeper net is larger in
# proportion to its depth. In bf16 on a CPU, at most, with four seeds: ResNet-20 0.0023, ResNet-56
# 0.0091, ResNet-110 0.0078, plain-56 0.0346.
FIRST = {"fp32": 1e-5, "tf32": 2e-3, "bf16": 1.5e-2}
TIMES = {"fp32": 2.0, "tf32": 2.0, "bf16": 2.5}  # the distance of rounding, over all losses
REPEATABLE = "trainer.deterministic=true"
BITS = 2 * EAGER_CALLS + 14  # iterations whose bits are compared: most of them replayed
TIMED = {"cpu": 3, "cuda": 200}  # iterations of a timed turn


class Subject:
    """A net that is trained in several ways, to be compared over ``iterations``."""

    def __init__(self, experiment: str, overrides: Sequence[str], iterations: int):
        self.experiment, self.iterations = experiment, iterations
        # The losses of all iterations are kept.
        self._overrides = (*overrides, f"trainer.log_every_iters={max(iterations, 100)}")
        self._arrays = load_data(compose_run(f"experiment={experiment}", *self._overrides))
        kind = device_of(overrides).device.type
        self.timed, on_cuda = TIMED[kind], kind == "cuda"
        self.ways = (EAGER, GRAPH, COMPILED) if on_cuda else (EAGER, COMPILED)
        self.repeatable = self.ways[1:] if on_cuda else self.ways
        self.precisions = ("fp32", "tf32", "bf16") if on_cuda else ("fp32", "bf16")

    def training(self, *overrides: str, warm: int = 0) -> Training:
        """The run after ``warm`` iterations, to be trained as ``overrides`` say, or ConfigError."""
        config = compose_run(f"experiment={self.experiment}", *self._overrides, *overrides)
        return Training(config, self._arrays, warm)

    def row(self, check: str, way: str, found: float, allowed: float = 0, **more: object) -> Row:
        """One line of the result; it passed if ``found`` is at most ``allowed``."""
        result: Row = {"experiment": self.experiment, "check": check, "way": way}
        result |= {"precision": None, "found": found, "allowed": allowed, "costs": None} | more
        return result | {"passed": bool(found <= allowed)}

    def if_possible(self, check: str, way: Way, rows: Iterator[Row]) -> Iterator[Row]:
        """The rows of a check; one that cannot be done here neither passes nor fails."""
        try:
            yield from rows
        except ConfigError as error:
            not_here = {"found": None, "passed": None, "why_not": str(error)}
            yield self.row(check, NAMES[way], 0) | not_here


def measure(scope: Scope, overrides: Sequence[str]) -> Row:
    """Do every check that this device allows on every experiment of ``scope``."""
    rows = []
    for experiment in scope.experiments:
        for row in checks(Subject(experiment, overrides, scope.iterations), scope.rounds):
            print(line(row), flush=True)
            rows.append(row)
    return {"rows": rows}


def line(row: Row) -> str:
    """A check as one line of the terminal."""
    mark = {True: "ok", False: "FAILED", None: "not here"}[row["passed"]]
    facts = [row[key] for key in ("experiment", "check", "way", "precision")]
    found = "" if row["found"] is None else f"{row['found']:.3g} of {row['allowed']:.3g}"
    costs = "" if row["costs"] is None else f"costs {row['costs']:.3f}"
    return f"{mark:9} " + " ".join([*(f"{fact or '':18}" for fact in facts), found, costs])


def checks(subject: Subject, rounds: int) -> Iterator[Row]:
    """All checks of one net."""
    yield batches(subject)
    yield from losses(subject)
    for way in subject.repeatable:
        yield from subject.if_possible("rerun", way, rerun(subject, way, rounds))
    for precision in subject.precisions:
        rows = compiling(subject, precision, rounds)
        yield from subject.if_possible("compiling", COMPILED, rows)


def batches(subject: Subject) -> Row:
    """How many of the batches prepared ahead are not those of the order."""
    context = subject.training(*EAGER).context
    assert isinstance(context.images, ResidentImages)
    ahead, differing = BatchesAhead(context.images), 0
    for iteration in range(subject.iterations):
        ahead.prepare(iteration)
        found = ahead.at(torch.tensor([iteration % ahead.count], device=context.setup.device))
        expected = context.images.batch(iteration)
        differing += not all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    return subject.row("batches", "ahead", differing)


def losses(subject: Subject) -> Iterator[Row]:
    """Distance of the losses from those of eager fp32."""
    plain = (*EAGER, "trainer.precision=fp32")
    reference = subject.training(*plain).losses(subject.iterations)
    roundings = []
    for number in (0, 1):
        nudged = subject.training(*plain)
        nudge(nudged, number)
        found = nudged.losses(subject.iterations)
        roundings.append(float((found - reference).abs().mean()))
    distance = max(roundings)
    yield subject.row("losses", "rounding", distance, distance, precision="fp32")
    for precision, way in itertools.product(subject.precisions, subject.ways):
        if (precision, way) != ("fp32", EAGER):
            rows = distances(subject, precision, way, reference, distance)
            yield from subject.if_possible("losses", way, rows)


def distances(
    subject: Subject, precision: str, way: Way, reference: Tensor, rounding: float
) -> Iterator[Row]:
    """Distance of the losses of one way from the ``reference``: of the first, and their mean."""
    training = subject.training(*way, f"trainer.precision={precision}")
    found = (training.losses(subject.iterations) - reference).abs()
    first = FIRST[precision] * max(training.config.model.depth, 20) / 20
    row = partial(subject.row, precision=precision)
    yield row("first loss", NAMES[way], float(found[0]), first)
    yield row("losses", NAMES[way], float(found.mean()), TIMES[precision] * rounding)


def nudge(training: Training, seed: int) -> None:
    """Change each weight by about one unit in its last place, up or down as ``seed`` says."""
    for number, weights in enumerate(training.state.model.parameters()):
        draws = raw(seed, number, 0, weights.numel()) >> np.uint64(63)
        signs = torch.from_numpy(draws.astype(np.float32) * 2 - 1).view(weights.shape)
        weights.data.mul_((1 + 2**-23 * signs).to(weights.device))


def fingerprint(training: Training) -> str:
    """Digest of weights, statistics, momentum and remembered losses."""
    state = training.state
    optimizer = enumerate(state.optimizer.state.values())
    momentum = {f"momentum {number}": each["momentum_buffer"] for number, each in optimizer}
    return bits({**state.model.state_dict(), **momentum, "losses": state.window.sums})


def rerun(subject: Subject, way: Way, rounds: int) -> Iterator[Row]:
    """Bits of a second run in deterministic mode, and what that mode costs."""
    repeated = [subject.training(*way, REPEATABLE) for _ in range(2)]
    for training in repeated:
        training.losses(BITS)
    differ = int(fingerprint(repeated[0]) != fingerprint(repeated[1]))
    seconds = [repeated[0].seconds(subject.timed) for _ in range(rounds)]
    free = subject.training(*way, warm=WARM)
    costs = median(ratios(seconds, [free.seconds(subject.timed) for _ in seconds]))
    yield subject.row("rerun", NAMES[way], differ, costs=round(costs, 3))


def compiling(subject: Subject, precision: str, rounds: int) -> Iterator[Row]:
    """What compiled blocks cost or save."""
    sides = {}
    for name, way in (("compiled", COMPILED), ("as is", subject.ways[-2])):
        training = subject.training(*way, f"trainer.precision={precision}", warm=WARM)
        sides[name] = partial(training.seconds, subject.timed)
    found = take_turns(sides, rounds)
    costs = round(median(ratios(found["compiled"], found["as is"])), 3)
    yield subject.row("compiling", "compiled", 0, precision=precision, costs=costs)


def main() -> int:
    """Check, write ``results/bench/parity_<device>.json``; return 1 if a check failed."""
    rows = command("parity", measure, SCOPES)["rows"]
    return int(any(row["passed"] is False for row in rows))


if __name__ == "__main__":
    sys.exit(main())
