"""Training speed against the loop everyone writes: ``python -m benchmarks.training``.

Both train the same net on the same images on the same device, alternately, so that a busy machine
disturbs both alike, the usual loop in a process of its own. It gets the number of workers with
which it is fastest; they share the cores with it, as they do everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.baseline_loop import usual_loop_apart
from benchmarks.harness_run import Training
from benchmarks.record import Scope, command
from benchmarks.turns import (
    Spread,
    Turn,
    seconds_each,
    synchroniser,
    take_turns,
    times_faster,
    turn,
)
from resnet_repro.compose import compose_run
from resnet_repro.training.build import load_data

SCOPES = {
    "cpu": Scope(rounds=5, iterations=6),
    "cuda": Scope(rounds=7, iterations=200),
}
WARM = 2  # after the other's turn


def measure(scope: Scope, words: Sequence[str]) -> dict[str, Any]:
    """Compare the two loops on every experiment of ``scope``."""
    return {"rows": [compare(name, scope, words) for name in scope.experiments]}


def compare(experiment: str, scope: Scope, words: Sequence[str]) -> dict[str, Any]:
    """Images a second of the usual loop and of ours on one net.

    ``times_less_work`` compares processor time, that of the workers included: other programs, which
    lengthen the time on the clock, hardly change it. ``busy_cores`` is ours over the time on the
    clock: never more than ``threads``, less where others held the cores.
    """
    arrays = load_data(compose_run(f"experiment={experiment}", *words))
    ours = Training.of(experiment, words, arrays)
    synchronise = synchroniser(ours.setup.device)

    def our_turn() -> Turn:
        seconds_each(ours.iterate, WARM, synchronise)
        return turn(ours.iterate, scope.iterations, synchronise)

    with usual_loop_apart(experiment, words) as usual:
        workers = usual.best_workers(scope.iterations)
        turns = {"usual": lambda: usual.segment(workers, scope.iterations), "ours": our_turn}
        found = take_turns(turns, scope.rounds)
    clock = {name: [each.clock for each in taken] for name, taken in found.items()}
    work = {name: [each.processor for each in taken] for name, taken in found.items()}
    faster = times_faster(clock["usual"], clock["ours"])
    seconds = Spread.of(clock["ours"]).median
    busy = Spread.of([a / b for a, b in zip(work["ours"], clock["ours"], strict=True)])
    return {
        "net": ours.label,
        "experiment": experiment,
        "data": ours.config.data.name,
        "batch_size": ours.batch_size,
        "engine": ours.stepper.engine,
        "usual_workers": workers,
        "usual_images_per_second": round(ours.batch_size / Spread.of(clock["usual"]).median, 1),
        "images_per_second": round(ours.batch_size / seconds, 1),
        "times_faster": round(faster.median, 3),
        "times_faster_lowest": round(faster.lowest, 3),
        "times_faster_highest": round(faster.highest, 3),
        "times_less_work": round(times_faster(work["usual"], work["ours"]).median, 3),
        "data_share": round(seconds_of_a_batch(ours, scope.iterations) / seconds, 4),
        "threads": ours.setup.threads,
        "busy_cores": round(busy.median, 2),
    }


def seconds_of_a_batch(ours: Training, iterations: int) -> float:
    """Seconds of choosing, cropping and flipping the images of an iteration, alone."""
    start = ours.state.iteration
    numbers = iter(range(start, start + iterations + 1))
    synchronise = synchroniser(ours.setup.device)

    def make() -> None:
        ours.parts.images.batch(next(numbers))

    make()
    return seconds_each(make, iterations, synchronise)


if __name__ == "__main__":
    command("training", measure, SCOPES)
