"""What was promised of speed, and whether the measurements keep it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from benchmarks.measured import Measured, Row, percent, seconds, significant

REACHED, MISSED, OPEN = "reached", "**missed**", "open"


@dataclass(frozen=True)
class Place:
    """Hardware that a target speaks of."""

    name: str
    device: str  # cpu | cuda
    fits: Callable[[Measured], bool]


CPU = Place("two CPU cores", "cpu", lambda found: found.content.get("threads") == 2)
H200 = Place("one H200", "cuda", lambda found: "H200" in found.gpu)
ANY_CPU = Place("a CPU", "cpu", lambda _: True)
ANY_GPU = Place("a GPU", "cuda", lambda _: True)


@dataclass(frozen=True)
class Target:
    """A number to reach.

    Attributes:
        what: in words, its limit included.
        part: whose file holds the number.
        value: finds the numbers in a file: the worst counts; none where nothing was measured.
        goal: to reach.
        at_least: whether larger is better.
        said: how a number is written.
    """

    what: str
    part: str
    place: Place
    value: Callable[[Measured], Sequence[float]]
    goal: float
    said: Callable[[float], str]
    at_least: bool = False

    def judge(self, measured: Sequence[Measured]) -> tuple[str, str, str]:
        """Measured value, hardware and verdict; ``open`` where nothing fits."""
        for found in measured:
            if (found.part, found.device) == (self.part, self.place.device):
                values = self.value(found)
                if values and self.place.fits(found):
                    worst = (min if self.at_least else max)(values)
                    good = worst >= self.goal if self.at_least else worst <= self.goal
                    return self.said(worst), found.where, REACHED if good else MISSED
        return "-", f"not measured on {self.place.name} yet", OPEN


def times(value: float) -> str:
    """How many times: ``2.3 times``."""
    return f"{significant(value)} times"


def column(
    name: str, wanted: Callable[[Row], bool] = lambda _: True, within: str = "rows"
) -> Callable[[Measured], list[float]]:
    """The numbers of a column in the rows that are wanted."""

    def values(found: Measured) -> list[float]:
        rows: Sequence[Row] = found.content.get(within, [])
        return [float(row[name]) for row in rows if wanted(row) and row.get(name) is not None]

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


# The paper profile's run, evaluation and logging included, on one H200; seconds by depth.
RUN_SECONDS = {20: 45.0, 56: 120.0, 110: 240.0, 1202: 1500.0}


def targets() -> Iterator[Target]:
    """All of them, in the order of the page."""
    for depth, goal in RUN_SECONDS.items():
        nets = f"ResNet-{depth}" + ("" if depth == 1202 else f", plain-{depth}")
        what = f"{nets}: a run of 64,000 iterations in {seconds(goal)}"
        runs = column("run_seconds", lambda row, depth=depth: row["depth"] == depth)  # type: ignore[misc]
        yield Target(what, "schedule", H200, runs, goal, seconds)
    what = "runs at once: 3 times the images a second of one ResNet-20"
    yield Target(what, "growth", H200, gain_of_runs, 3.0, times, at_least=True)
    for net, place, goal in (("20", H200, 10.0), ("20", CPU, 2.0), ("56", CPU, 2.0)):
        what = f"ResNet-{net}: {goal:g} times the images a second of the usual loop"
        faster = column("times_faster", lambda row, net=net: row["net"] == f"ResNet-{net}")  # type: ignore[misc]
        yield Target(what, "training", place, faster, goal, times, at_least=True)
    for place in (ANY_GPU, ANY_CPU):
        for words, name in (
            ("logging, progress, checkpoints, probes", "share_of_harness"),
            ("the same and evaluation", "share_with_evaluation"),
        ):
            what = f"{words}: at most 3 % of the training time"
            yield Target(what, "harness", place, column(name, within="nets"), 0.03, percent)
    for place in (ANY_GPU, ANY_CPU):
        what = "parity: no check of the fast path fails"
        yield Target(what, "parity", place, failed, 0, lambda count: f"{count:g} fail")
    commands = column("seconds", lambda row: row["what"] in ("--help", "configuration error"))
    figures = column("seconds", lambda row: row["kind"] == "figure")
    what = "`--help` and a configuration error in 1.5 s"
    yield Target(what, "start", ANY_CPU, commands, 1.5, seconds)
    what = "any figure from 60 runs of the paper profile in 5 s"
    yield Target(what, "start", ANY_CPU, figures, 5.0, seconds)


def judged(measured: Sequence[Measured]) -> list[list[str]]:
    """Rows of a table: target, hardware, measured, verdict."""
    rows = []
    for target in targets():
        value, where, verdict = target.judge(measured)
        rows.append([target.what, where, value, verdict])
    return rows
