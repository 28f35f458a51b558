"""Measure what the harness costs besides training: ``python -m benchmarks.harness``.

Every part of the harness is timed by itself, as the training loop calls it, and counted as often as
the paper profile has it; its share is that of the time of all bare steps (batch, forward, backward,
update). On a GPU a part often hides behind the device's work, so the shares are upper bounds.
Besides, the loop and the bare step alternate on one net: the difference is the cost of
everything that falls into a turn.
"""

import io
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median

from benchmarks.record import Row, Scope, command
from benchmarks.timing import Training, children_seconds, ratios, spread, take_turns
from resnet_repro import paths
from resnet_repro.compose import compose_run
from resnet_repro.mirror import end, follower
from resnet_repro.progress import Progress, RunProgress
from resnet_repro.runs.folder import RunFolder
from resnet_repro.runs.metrics import MetricsWriter
from resnet_repro.training.build import describe
from resnet_repro.training.checkpoint import contents
from resnet_repro.training.loop import Loop, check_stop_and_finite
from resnet_repro.training.probes import (
    bn_output_gradient_norms,
    forward_signal,
    gradient_iterations,
    gradient_precision,
    keep_responses,
    write_gradients,
)
from resnet_repro.training.records import Log, log_training
from resnet_repro.training.state import current_lr

SCOPES = {
    "cpu": Scope(rounds=5, iterations=20),
    "cuda": Scope(rounds=7, iterations=1_000),  # one evaluation and one checkpoint in every turn
}
WANDB_SECONDS = 60.0  # that its process may take to end
# What a part is for: the harness itself, the protocol's own counting of errors, or optional.
HARNESS, EVALUATION, OPTIONAL = "harness", "evaluation", "optional"
Part = tuple[str, str, int, float]  # name, what it is for, how often a run has it, seconds of one


def measure(scope: Scope, overrides: Sequence[str]) -> Row:
    """Time every part of the harness on every experiment of ``scope``.

    ``rows`` are the parts of each net's harness; ``nets`` their sums, and the loop against the bare
    step; ``notes`` say what could not be measured.
    """
    found: Row = {"rows": [], "nets": [], "notes": []}
    for name in scope.experiments:
        training = Training(compose_run(f"experiment={name}", *overrides))
        rows, net, missing = harness_of(training, scope)
        found["rows"] += rows
        found["nets"].append(net)
        found["notes"] += [note for note in missing if note not in found["notes"]]
    return found


def harness_of(training: Training, scope: Scope) -> tuple[list[Row], Row, list[str]]:
    """One net's parts with their shares, the loop against the bare step, and what is missing."""
    config = training.config
    runs_dir = paths.runs(config.runs_dir)
    runs_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".bench_", dir=runs_dir) as path:  # on the runs' disk
        folder = RunFolder(Path(path))
        with closing(Log(training.state, folder)) as log:
            turns = sides(training, log, scope)
            parts = list(parts_of(training, folder, log))
        mirror, missing = wandb_parts(training, folder, parts)
    step = median(turns["step"])
    total = step * config.recipe.max_iters
    rows = [row(config.model.label, total, *part) for part in (*parts, *mirror)]
    over = [ratio - 1 for ratio in ratios(turns["loop"], turns["step"])]
    harness, evaluation = (
        sum(row["share"] for row in rows if row["kind"] == kind) for kind in (HARNESS, EVALUATION)
    )
    net = {
        **training.facts(),
        "step_seconds": step,
        **spread("loop_over_step", over, 4),
        "turn_iterations": scope.iterations,
        "share_of_harness": round(harness, 5),
        "share_with_evaluation": round(harness + evaluation, 5),
    }
    return rows, net, missing


def row(net: str, total: float, name: str, kind: str, times: int, seconds: float) -> Row:
    """One part; its share is of ``total``, the seconds of all steps of a run."""
    return {
        "net": net,
        "part": name,
        "kind": kind,
        "times": times,
        "seconds_each": round(seconds, 7),
        "share": round(times * seconds / total, 6),
    }


def sides(training: Training, log: Log, scope: Scope) -> dict[str, list[float]]:
    """Seconds of an iteration of the bare step and of the loop, round by round.

    Both do the updates of one net, the loop with all that is due in its iterations.
    """
    run = training.context, training.state, training.step
    advance = partial(Loop(*run, log, progress_of(training)).advance, lambda: False)
    both = {
        "step": lambda: training.seconds(scope.iterations),
        "loop": lambda: training.seconds_each(advance, scope.iterations),
    }
    return take_turns(both, scope.rounds)


def progress_of(training: Training) -> RunProgress:
    """The line of progress of a run, as at a terminal."""
    config, shown = training.config, Progress(stream=io.StringIO())
    shown.is_terminal = True
    return shown.begin(config.model.label, config.recipe.max_iters)


def parts_of(training: Training, folder: RunFolder, log: Log) -> Iterator[Part]:
    """Time the parts of a run's harness; an iteration has been done, its gradients are there."""
    context, state, config = training.context, training.state, training.config
    total, lr = config.recipe.max_iters, current_lr(state, config.recipe)
    logs = math.ceil(total / config.trainer.log_every_iters)
    saves = math.ceil(total / config.trainer.checkpoint_every_iters)
    evaluations = math.ceil(total / config.evaluation.every_iters)
    probes = len(gradient_iterations(total))
    progress = progress_of(training)
    look = partial(check_stop_and_finite, context, state, lambda: False, reads=False)

    def measure_gradients() -> None:
        write_gradients(folder, state, bn_output_gradient_norms(context, state))

    def each(work: Callable[[], object], repeats: int = 20) -> float:
        if repeats > 1:
            training.seconds_each(work, 1)  # the first call may prepare things
        return training.seconds_each(work, repeats)

    yield "check for a stop and divergence", HARNESS, total, each(look)
    yield "progress", HARNESS, total, each(lambda: progress.update(state.iteration, 50.0, lr))
    yield "logging", HARNESS, logs, each(lambda: log_training(context, state, log, lr))
    yield "checkpoints", HARNESS, saves, each(lambda: log.save(contents(context, state)), 5)
    yield "probes: gradients", HARNESS, probes, each(measure_gradients)
    yield "probes: signal, responses", HARNESS, 1, each(lambda: look_inside(training, folder), 1)
    evaluation = each(training.evaluate, 3)
    yield "evaluation", EVALUATION, evaluations, evaluation
    clean = config.evaluation.clean_train_images or context.images.order.num_images
    tests = len(context.images.held_out["test"])
    yield "clean training error", EVALUATION, 1, evaluation * clean / tests


def look_inside(training: Training, folder: RunFolder) -> None:
    """The probes of a run's begin and end: forward signal, gradients and layer responses."""
    images, labels = training.context.images.batch(0)
    model = training.state.model
    forward_signal(model, training.setup, images)
    gradient_precision(model, training.setup, images, labels)
    keep_responses(folder, training.context, training.state)


def wandb_parts(
    training: Training, folder: RunFolder, parts: Sequence[Part]
) -> tuple[list[Part], list[str]]:
    """What a mirror in W&B costs a run, offline; or why that was not measured."""
    if find_spec("wandb") is None:
        return [], ["W&B: wandb is not installed"]
    records = sum(times for name, _, times, _ in parts if name in ("logging", "evaluation"))
    folder.write_config(dict(training.config.as_mapping()))
    folder.write_meta(describe(training.context, training.state, {}, {}))
    with MetricsWriter(folder.metrics_path, folder.metrics_path.stat().st_size) as log:
        for number in range(records - len(folder.metrics())):
            log.write("train", iter=number, epoch=0.256, loss=1.5, top1_err=55.0, lr=0.1, time=9.0)
    before, began = children_seconds(), time.perf_counter()
    process = follower(folder, "offline")
    opened = time.perf_counter() - began
    if code := end(process, WANDB_SECONDS):
        return [], [f"W&B: its process ended with exit code {code}"]
    listed = {"starting": opened, "processor time of its process": children_seconds() - before}
    return [(f"W&B offline: {name}", OPTIONAL, 1, each) for name, each in listed.items()], []


if __name__ == "__main__":
    command("harness", measure, SCOPES)
