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

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from statistics import median

import numpy as np
import torch

from benchmarks.record import Row, Scope, command, device_of
from benchmarks.timing import Training, ratios, synchronise, take_turns
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
        self.on_cuda = device_of(overrides).device.type == "cuda"
        self.ways = (EAGER, GRAPH, COMPILED) if self.on_cuda else (EAGER, COMPILED)
        self.precisions = ("fp32", "tf32", "bf16") if self.on_cuda else ("fp32", "bf16")

    def training(self, *overrides: str) -> Training:
        """The run at its start, to be trained as ``overrides`` say.

        Raises:
            ConfigError: this machine cannot do that.
        """
        return Training.of(self.experiment, [*self._overrides, *overrides], self._arrays, 0)

    def row(self, check: str, way: str, found: float, allowed: float = 0, **more: object) -> Row:
        """One line of the result; it passed if ``found`` is at most ``allowed``."""
        result: Row = {"experiment": self.experiment, "check": check, "way": way}
        result |= {"precision": None, "found": found, "allowed": allowed, "costs": None} | more
        return result | {"passed": bool(found <= allowed)}

    def not_here(self, check: str, way: Way, error: ConfigError) -> Row:
        """The line of a check that cannot be done here; it neither passed nor failed."""
        row = self.row(check, NAMES[way], 0)
        return row | {"found": None, "passed": None, "why_not": str(error)}


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
    yield from rerun(subject, rounds)
    yield from compiling(subject, rounds)


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
    reference = first_losses(subject.training(*plain), subject.iterations)
    roundings = []
    for number in (0, 1):
        nudged = subject.training(*plain)
        nudge(nudged, number)
        found = first_losses(nudged, subject.iterations)
        roundings.append(float((found - reference).abs().mean()))
    distance = max(roundings)
    yield subject.row("losses", "rounding", distance, distance, precision="fp32")
    for precision in subject.precisions:
        for way in subject.ways:
            if (precision, way) == ("fp32", EAGER):
                continue
            try:
                training = subject.training(*way, f"trainer.precision={precision}")
            except ConfigError as error:
                yield subject.not_here("losses", way, error)
                continue
            distances = (first_losses(training, subject.iterations) - reference).abs()
            facts: Row = {"precision": precision}
            first = first_bound(precision, training.config.model.depth)
            yield subject.row("first loss", NAMES[way], float(distances[0]), first, **facts)
            allowed = TIMES[precision] * distance
            yield subject.row("losses", NAMES[way], float(distances.mean()), allowed, **facts)


def first_bound(precision: str, depth: int) -> float:
    """Nats that the first loss of a net may be off in this precision."""
    return FIRST[precision] * max(depth, 20) / 20


def first_losses(training: Training, count: int) -> torch.Tensor:
    """Losses of the next ``count`` iterations, on the host."""
    for _ in range(count):
        training.iterate()
    synchronise(training.setup.device)
    return training.state.window.last(training.state.iteration, count)[:, 0]


def nudge(training: Training, seed: int) -> None:
    """Change each weight by about one unit in its last place, up or down as ``seed`` says."""
    for number, weights in enumerate(training.state.model.parameters()):
        draws = raw(seed, number, 0, weights.numel()) >> np.uint64(63)
        signs = torch.from_numpy(draws.astype(np.float32) * 2 - 1).view(weights.shape)
        weights.data.mul_((1 + 2**-23 * signs).to(weights.device))


def fingerprint(training: Training) -> str:
    """SHA-256 of weights, statistics, momentum and remembered losses."""
    synchronise(training.setup.device)
    digest = hashlib.sha256()
    state = training.state
    momentum = [buffers["momentum_buffer"] for buffers in state.optimizer.state.values()]
    for tensor in (*state.model.state_dict().values(), *momentum, state.window.sums):
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def rerun(subject: Subject, rounds: int) -> Iterator[Row]:
    """Bits of a second run in deterministic mode, and what that mode costs."""
    for way in subject.ways[1:] if subject.on_cuda else subject.ways:
        try:
            repeated = [subject.training(*way, REPEATABLE) for _ in range(2)]
        except ConfigError as error:
            yield subject.not_here("rerun", way, error)
            continue
        for training in repeated:
            first_losses(training, BITS)
        differ = int(fingerprint(repeated[0]) != fingerprint(repeated[1]))
        seconds = [seconds_of(repeated[0]) for _ in range(rounds)]
        free = subject.training(*way)
        costs = median(ratios(seconds, [seconds_of(free) for _ in seconds]))
        yield subject.row("rerun", NAMES[way], differ, costs=round(costs, 3))


def compiling(subject: Subject, rounds: int) -> Iterator[Row]:
    """What compiled blocks cost or save, in every precision."""
    for precision in subject.precisions:
        word = f"trainer.precision={precision}"
        try:
            compiled = subject.training(*COMPILED, word)
        except ConfigError as error:
            yield subject.not_here("compiling", COMPILED, error)
            continue
        as_is = subject.training(*subject.ways[-2], word)
        sides = {"compiled": partial(seconds_of, compiled), "as is": partial(seconds_of, as_is)}
        found = take_turns(sides, rounds)
        costs = round(median(ratios(found["compiled"], found["as is"])), 3)
        yield subject.row("compiling", "compiled", 0, precision=precision, costs=costs)


def seconds_of(training: Training) -> float:
    """Seconds of an iteration, over many; the first ones of a run are not timed."""
    for _ in range(max(0, EAGER_CALLS + 1 - training.state.iteration)):
        training.iterate()
    return training.seconds(TIMED[training.setup.device.type])


def main() -> int:
    """Check, write ``results/bench/parity_<device>.json``; return 1 if a check failed."""
    rows = json.loads(command("parity", measure, SCOPES).read_text(encoding="utf-8"))["rows"]
    return int(any(row["passed"] is False for row in rows))


if __name__ == "__main__":
    sys.exit(main())
