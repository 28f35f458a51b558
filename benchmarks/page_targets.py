"""Targets of speed, and whether the measurements reach them."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from benchmarks.measured import Measured, Row, percent, seconds, times

REACHED, MISSED, OPEN = "reached", "**missed**", "open"
# The paper profile's run, evaluation and logging included, on one H200; seconds by depth.
RUN_SECONDS = {20: 45.0, 56: 120.0, 110: 240.0, 1202: 1500.0}
GPU, CPU, H200, TWO_CORES = "a GPU", "a CPU", "one H200", "two CPU cores"  # of which targets speak
PLACES: dict[str, Callable[[Measured], bool]] = {
    GPU: lambda found: found.device == "cuda",
    CPU: lambda found: found.device == "cpu",
    H200: lambda found: "H200" in str(found.content["hardware"]["gpu"]),
    TWO_CORES: lambda found: found.device == "cpu" and found.content["threads"] == 2,
}
Values = Callable[[Measured], Sequence[float]]


class Target(NamedTuple):
    """A number to reach."""

    what: str  # in words, its limit included
    part: str  # whose file holds the number
    place: str  # hardware it speaks of
    values: Values  # finds the numbers in a file: the worst counts; none: nothing was measured
    goal: float
    text: Callable[[float], str]  # how a number is written
    at_least: bool = False  # larger is better

    def judge(self, measured: Sequence[Measured]) -> list[str]:
        """Target, hardware, measured value and verdict; ``open`` where nothing fits."""
        for found in measured:
            fits = found.part == self.part and PLACES[self.place](found)
            if fits and (values := self.values(found)):
                worst = min(values) if self.at_least else max(values)
                good = worst >= self.goal if self.at_least else worst <= self.goal
                return [self.what, found.where, self.text(worst), REACHED if good else MISSED]
        return [self.what, f"not measured on {self.place} yet", "-", OPEN]


def column(name: str, key: str = "", among: Sequence[object] = (), within: str = "rows") -> Values:
    """The numbers of a column, in rows whose ``key`` is ``among`` these."""

    def values(found: Measured) -> list[float]:
        rows: Sequence[Row] = found.content.get(within, [])
        chosen = [row for row in rows if not key or row[key] in among]
        return [float(row[name]) for row in chosen if row.get(name) is not None]

    return values


def gain_of_runs(found: Measured) -> list[float]:
    """Throughput of the best number of runs at once over that of one, on the same net."""
    rates: dict[tuple[str, int], dict[int, float]] = {}
    for row in found.rows:
        if row.get("seconds_per_image"):
            net = (str(row["experiment"]), int(row["batch_size"]))
            rates.setdefault(net, {})[int(row["runs"])] = 1 / float(row["seconds_per_image"])
    return [max(r.values()) / r[1] for r in rates.values() if 1 in r and len(r) > 1]


def failed(found: Measured) -> list[float]:
    """How many checks failed."""
    return [sum(row["passed"] is False for row in found.rows)] if found.rows else []


def targets() -> Iterator[Target]:
    """All of them, in the order of the page."""
    for depth, goal in RUN_SECONDS.items():
        nets = f"ResNet-{depth}" + ("" if depth == 1202 else f", plain-{depth}")
        what = f"{nets}: a run of 64,000 iterations in {seconds(goal)}"
        runs = column("run_seconds", "depth", [depth])
        yield Target(what, "cost", H200, runs, goal, seconds)
    what = "runs at once: 3 times the images a second of one ResNet-20"
    yield Target(what, "growth", H200, gain_of_runs, 3.0, times, at_least=True)
    for net, place, goal in (("20", H200, 10.0), ("20", TWO_CORES, 2.0), ("56", TWO_CORES, 2.0)):
        what = f"ResNet-{net}: {goal:g} times the images a second of the usual loop"
        faster = column("times_faster", "net", [f"ResNet-{net}"])
        yield Target(what, "training", place, faster, goal, times, at_least=True)
    for place in (GPU, CPU):
        for label, name in (
            ("logging, progress, checkpoints, probes", "share_of_harness"),
            ("the same and evaluation", "share_with_evaluation"),
        ):
            what = f"{label}: at most 3 % of the training time"
            yield Target(what, "harness", place, column(name, within="nets"), 0.03, percent)
    for place in (GPU, CPU):
        what = "parity: no check of the fast path fails"
        yield Target(what, "parity", place, failed, 0, lambda count: f"{count:g} fail")
    what = "`--help` and a configuration error in 1.5 s"
    commands = column("seconds", "what", ["--help", "configuration error"])
    yield Target(what, "start", CPU, commands, 1.5, seconds)
    what = "any figure from 60 runs of the paper profile in 5 s"
    yield Target(what, "start", CPU, column("seconds", "kind", ["figure"]), 5.0, seconds)
