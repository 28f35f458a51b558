"""Time what a user waits for: help, an error, a first iteration, a figure.

``python -m benchmarks.start`` starts each command in a process of its own, as a user does, and
takes the time on the clock from the call to its end; the figures are drawn from 60 made-up runs of
the paper profile. An idle Python takes turns with them.
"""

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks.record import Row, Scope, command
from benchmarks.timing import Turn, children_seconds, spread, take_turns
from resnet_repro.compose import compose_run
from resnet_repro.conf import load_item, names
from resnet_repro.paths import REPOSITORY
from resnet_repro.training.probes import gradient_iterations
from tests.fabricate import fabricate

SCOPE = Scope(experiments=("cifar10_resnet20",), rounds=3, iterations=1)
SCOPES = {"cpu": SCOPE, "cuda": SCOPE}
RUNS = 60
POLL_SECONDS = 0.005  # between two checks for the first record


class CommandError(RuntimeError):
    """A command failed."""


def measure(scope: Scope, overrides: Sequence[str]) -> Row:
    """Time the commands and, from 60 runs, every figure and table of CIFAR-10."""
    train = [sys.executable, "-m", "resnet_repro.train"]
    experiment = f"experiment={scope.experiments[0]}"
    with tempfile.TemporaryDirectory() as path:
        scratch = Path(path)
        items = cifar_items()
        trained = dict.fromkeys(name for listed in items.values() for name in listed)
        write_runs(scratch / "runs", list(trained), RUNS)
        commands: dict[str, Callable[[], Turn]] = {
            "python alone": partial(timed, [sys.executable, "-c", "pass"]),
            "--help": partial(timed, [*train, "--help"]),
            "configuration error": partial(timed, [*train, experiment, "recipe.lr=-1"], code=2),
            "first iteration": partial(first_iteration, [*train, experiment, *overrides], scratch),
        }
        options = ["--no-train", "--profile", "paper", "--out", str(scratch / "drawn")]
        options.append(f"runs_dir={scratch / 'runs'}")
        figures = {
            name: partial(timed, [sys.executable, f"experiments/{name}.py", *options])
            for name in items
        }
        rows = turns("command", commands, scope) + turns("figure", figures, scope)
    others = [name for name in names("item") if name not in items]
    notes = [f"not drawn, of other data: {', '.join(others)}"] if others else []
    return {"rows": rows, "notes": notes, "runs": RUNS}


def turns(kind: str, commands: Mapping[str, Callable[[], Turn]], scope: Scope) -> list[Row]:
    """Seconds of each command; a first call, which warms the disk's cache, does not count.

    Processor time, unlike that on the clock, is not lengthened by other programs.
    """
    for work in commands.values():
        work()
    return [
        {
            "what": name,
            "kind": kind,
            **spread("seconds", [turn.clock for turn in took], 3),
            "processor_seconds": round(median(turn.processor for turn in took), 3),
        }
        for name, took in take_turns(commands, scope.rounds).items()
    ]


def cifar_items() -> dict[str, list[str]]:
    """The figures and tables that show nets trained on CIFAR-10, and the experiments of these."""
    trained = {
        item: [name for name in load_item(item).experiments if name.startswith("cifar10_")]
        for item in names("item")
    }
    return {item: listed for item, listed in trained.items() if listed}


def timed(argv: Sequence[str], code: int = 0) -> Turn:
    """Time a command from its call to its end; CommandError: it had another exit code."""
    began, used = time.perf_counter(), children_seconds()
    done = subprocess.run(argv, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    took = Turn(time.perf_counter() - began, children_seconds() - used)
    if done.returncode != code:
        reason = done.stderr.strip().rpartition("\n")[2]
        raise CommandError(f"{' '.join(argv[1:])}: exit code {done.returncode}: {reason}")
    return took


def first_iteration(argv: Sequence[str], scratch: Path) -> Turn:
    """Time a training command to the record of its first iteration; then it is stopped.

    The processor time is that of the whole process. CommandError: it ended before.
    """
    with tempfile.TemporaryDirectory(dir=scratch) as runs:
        argv = [*argv, "profile=smoke", "trainer.log_every_iters=1", f"runs_dir={runs}"]
        began, used = time.perf_counter(), children_seconds()
        process = subprocess.Popen(
            argv, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        while not logged(Path(runs)):
            if process.poll() is not None:
                reason = process.communicate()[1].strip().rpartition("\n")[2]
                raise CommandError(f"{' '.join(argv[1:])}: no iteration: {reason}")
            time.sleep(POLL_SECONDS)
        clock = time.perf_counter() - began
        process.send_signal(signal.SIGTERM)
        process.communicate()
    return Turn(clock, children_seconds() - used)


def logged(runs: Path) -> bool:
    """Whether a record of a run below ``runs`` is complete."""
    return any(b"\n" in path.read_bytes() for path in runs.glob("*/*/seed*/metrics.jsonl"))


def write_runs(root: Path, experiments: Sequence[str], count: int) -> list[Path]:
    """Write ``count`` made-up runs below ``root``: every experiment with seed 0, then seed 1, ...

    They have as many records as real ones, and the tables of all probes.
    """
    configs = [compose_run(f"experiment={name}") for name in experiments]
    paths = []
    for number in range(count):
        seed, config = number // len(configs), configs[number % len(configs)]
        norms = [1.0] * (config.model.depth - 1)
        gradients = dict.fromkeys(sorted(gradient_iterations(config.recipe.max_iters)), norms)
        more: Row = {"changes": {"experiment": config.experiment}, "probes": True}
        more |= {"seed": seed, "gradients": gradients}
        paths.append(fabricate(root, config.model.label, **more))
    return paths


if __name__ == "__main__":
    command("start", measure, SCOPES)
