"""What the harness costs beside training: ``python -m benchmarks.harness``.

Every part of the harness is timed by itself and counted as often as the paper profile has it; its
share is that of the time of all bare steps (batch, forward, backward, update). On a GPU a part
often hides behind the device's work, so the shares are upper bounds. Beside that, the loop and the
bare step alternate on one net: the difference is the cost of everything that falls into a turn.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness_parts import (
    HARNESS,
    OPTIONAL,
    Part,
    parts_of,
    progress_of,
)
from benchmarks.harness_run import Training
from benchmarks.record import Scope, command
from benchmarks.turns import Spread, children_seconds, seconds_each, synchroniser, take_turns
from resnet_repro import paths
from resnet_repro.compose import compose_run
from resnet_repro.mirror import end, follower
from resnet_repro.runs.folder import RunFolder
from resnet_repro.runs.metrics import MetricsWriter
from resnet_repro.training.build import describe, load_data
from resnet_repro.training.loop import Loop
from resnet_repro.training.records import Log

SCOPES = {
    "cpu": Scope(rounds=5, iterations=20),
    "cuda": Scope(rounds=7, iterations=1_000),  # one evaluation and one checkpoint in every turn
}
WANDB_SECONDS = 60.0  # that its process may take to end
Row = dict[str, Any]


def measure(scope: Scope, words: Sequence[str]) -> dict[str, Any]:
    """Time every part of the harness on every experiment of ``scope``.

    Returns:
        ``rows``: the parts of each net's harness; ``nets``: their sums, and the loop against the
        bare step; ``notes``: what could not be measured.
    """
    rows: list[Row] = []
    nets: list[Row] = []
    notes: list[str] = []
    for name in scope.experiments:
        arrays = load_data(compose_run(f"experiment={name}", *words))
        found, net, missing = harness_of(Training.of(name, words, arrays), scope)
        rows, nets = rows + found, [*nets, net | {"experiment": name}]
        notes = list(dict.fromkeys([*notes, *missing]))
    return {"rows": rows, "nets": nets, "notes": notes}


def harness_of(training: Training, scope: Scope) -> tuple[list[Row], Row, list[str]]:
    """One net's parts with their shares, the loop against the bare step, and what is missing."""
    runs_dir = paths.runs(training.config.runs_dir)
    runs_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".bench_", dir=runs_dir) as path:  # on the runs' disk
        folder = RunFolder(Path(path))
        with closing(Log(training.state, folder)) as log:
            turns = sides(training, log, scope)
            step = Spread.of(turns["step"]).median
            total = step * training.config.recipe.max_iters
            rows = [row_of(training, part, total) for part in parts_of(training, folder, log)]
        mirror, missing = wandb_rows(training, folder, rows, total)
    over = Spread.of([a / b - 1 for a, b in zip(turns["loop"], turns["step"], strict=True)])
    harness = sum(row["share"] for row in rows if row["kind"] == HARNESS)
    return (
        rows + mirror,
        {
            "net": training.label,
            "batch_size": training.batch_size,
            "engine": training.stepper.engine,
            "step_seconds": step,
            "loop_over_step": round(over.median, 4),
            "loop_over_step_lowest": round(over.lowest, 4),
            "loop_over_step_highest": round(over.highest, 4),
            "turn_iterations": scope.iterations,
            "share_of_harness": round(harness, 5),
            "share_with_evaluation": round(sum(row["share"] for row in rows), 5),
        },
        missing,
    )


def sides(training: Training, log: Log, scope: Scope) -> dict[str, list[float]]:
    """Seconds of an iteration of the bare step and of the loop, round by round.

    Both do the updates of one net, the loop with all that is due in its iterations.
    """
    synchronise = synchroniser(training.setup.device)
    run = training.parts, training.state, training.stepper
    loop = Loop(*run, log, progress_of(training))

    def in_the_loop() -> None:
        with torch.cuda.stream(training.stream):
            for _ in range(scope.iterations):
                loop.advance(lambda: False)

    return take_turns(
        {
            "step": lambda: seconds_each(training.iterate, scope.iterations, synchronise),
            "loop": lambda: seconds_each(in_the_loop, 1, synchronise) / scope.iterations,
        },
        scope.rounds,
    )


def row_of(training: Training, part: Part, total: float) -> Row:
    """Time a part; its share of ``total``, the seconds of all steps of a run."""
    synchronise = synchroniser(training.setup.device)
    with torch.cuda.stream(training.stream):
        if part.repeats > 1:
            part.work()  # the first call may prepare things
        seconds = part.unit * seconds_each(part.work, part.repeats, synchronise)
    return _row(training, part.name, part.kind, part.times, seconds, total)


def wandb_rows(
    training: Training, folder: RunFolder, rows: Sequence[Row], total: float
) -> tuple[list[Row], list[str]]:
    """What a mirror in W&B costs a whole run, offline; or why that was not measured."""
    if find_spec("wandb") is None:
        return [], ["W&B: wandb is not installed"]
    records = sum(row["times"] for row in rows if row["part"] in ("logging", "evaluation"))
    folder.write_config(dict(training.config.as_mapping()))
    folder.write_meta(describe(training.parts, training.state))
    with MetricsWriter(folder.metrics_path) as log:
        for number in range(records - len(folder.metrics())):
            log.write("train", iter=number, epoch=0.256, loss=1.5, top1_err=55.0, lr=0.1, time=9.0)
    before, began = children_seconds(), time.perf_counter()
    process = follower(folder, "offline")
    opened = time.perf_counter() - began
    if code := end(process, WANDB_SECONDS):
        return [], [f"W&B: its process ended with exit code {code}"]
    listed = {"starting": opened, "processor time of its process": children_seconds() - before}
    return [
        _row(training, f"W&B offline: {name}", OPTIONAL, 1, seconds, total)
        for name, seconds in listed.items()
    ], []


def _row(training: Training, name: str, kind: str, times: int, seconds: float, total: float) -> Row:
    return {
        "net": training.label,
        "part": name,
        "kind": kind,
        "times": times,
        "seconds_each": round(seconds, 7),
        "share": round(times * seconds / total, 6),
    }


if __name__ == "__main__":
    command("harness", measure, SCOPES)
