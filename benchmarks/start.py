"""How long one waits: for help, an error, a first iteration, a figure.

``python -m benchmarks.start`` starts each command anew, as a person does, and takes the
time on the clock from the call to its end; the figures are drawn from 60 made-up runs of the paper
profile. An idle Python is started in turns with them.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.fake_runs import write_runs
from benchmarks.record import Scope, command
from benchmarks.turns import Spread, children_seconds, take_turns
from resnet_repro.conf import names
from resnet_repro.paths import REPOSITORY

SCOPES = {
    "cpu": Scope(experiments=("cifar10_resnet20",), rounds=3, iterations=1),
    "cuda": Scope(experiments=("cifar10_resnet20",), rounds=3, iterations=1),
}
RUNS = 60
REPO = REPOSITORY
LOOK_SECONDS = 0.005  # between two looks for the first record


class CommandError(RuntimeError):
    """A command did not do what it was started for."""


def measure(scope: Scope, words: Sequence[str]) -> dict[str, Any]:
    """Time the commands and, from 60 runs, every figure and table of CIFAR-10."""
    train = [sys.executable, "-m", "resnet_repro.train"]
    experiment = f"experiment={scope.experiments[0]}"
    with tempfile.TemporaryDirectory() as path:
        scratch = Path(path)
        write_runs(scratch / "runs", RUNS)
        commands: dict[str, Callable[[], float]] = {
            "python alone": partial(timed, [sys.executable, "-c", "pass"]),
            "--help": partial(timed, [*train, "--help"]),
            "configuration error": partial(timed, [*train, experiment, "recipe.lr=-1"], code=2),
            "first iteration": partial(first_iteration, [*train, experiment, *words], scratch),
        }
        for work in commands.values():
            work()
        figures, notes = drawn(scratch)
        rows = turns("command", commands, scope) + turns("figure", figures, scope)
    return {"rows": rows, "notes": notes, "runs": RUNS}


def turns(
    kind: str, commands: Mapping[str, Callable[[], float]], scope: Scope
) -> list[dict[str, Any]]:
    """Seconds of each command, each of which was called before: the disk's cache is warm."""
    used: dict[str, list[float]] = {name: [] for name in commands}

    def counted(name: str) -> float:
        before = children_seconds()
        seconds = commands[name]()
        used[name].append(children_seconds() - before)
        return seconds

    found = take_turns({name: partial(counted, name) for name in commands}, scope.rounds)
    return [row(name, kind, took, used[name]) for name, took in found.items()]


def drawn(scratch: Path) -> tuple[dict[str, Callable[[], float]], list[str]]:
    """The figures and tables that can be drawn from the runs in ``scratch``, and what cannot."""
    found: dict[str, Callable[[], float]] = {}
    missing: list[str] = []
    for name in names("item"):
        words = [sys.executable, str(REPO / "experiments" / f"{name}.py"), "--no-train"]
        words += ["--profile", "paper", "--out", str(scratch / "drawn")]
        draw = partial(timed, [*words, f"runs_dir={scratch / 'runs'}"])
        try:
            draw()
        except CommandError as error:
            if "no finished run to draw from" not in str(error):
                raise
            missing.append(name)
        else:
            found[name] = draw
    return found, [f"not drawn, of other data: {', '.join(missing)}"] if missing else []


def timed(words: Sequence[str], code: int = 0) -> float:
    """Seconds of a command from its call to its end.

    Raises:
        CommandError: it ended with another exit code.
    """
    began = time.perf_counter()
    done = subprocess.run(words, cwd=REPO, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - began
    if done.returncode != code:
        said = " ".join(words[1:])
        raise CommandError(f"{said}: exit code {done.returncode}: {last(done.stderr)}")
    return seconds


def first_iteration(words: Sequence[str], scratch: Path) -> float:
    """Seconds from a training command to the record of its first iteration; then it is stopped.

    Raises:
        CommandError: it ended before.
    """
    with tempfile.TemporaryDirectory(dir=scratch) as runs:
        asked = ["profile=smoke", "trainer.log_every_iters=1", f"runs_dir={runs}"]
        began = time.perf_counter()
        process = subprocess.Popen(
            [*words, *asked], cwd=REPO, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        while not logged(Path(runs)):
            if process.poll() is not None:
                _, said = process.communicate()
                raise CommandError(f"{' '.join(words[1:])}: no iteration: {last(said)}")
            time.sleep(LOOK_SECONDS)
        seconds = time.perf_counter() - began
        process.send_signal(signal.SIGTERM)
        process.communicate()
    return seconds


def last(said: str) -> str:
    """The last line of what a command said: that of the error."""
    return said.strip().rpartition("\n")[2]


def logged(runs: Path) -> bool:
    """Whether a record of a run below ``runs`` is whole."""
    return any(b"\n" in path.read_bytes() for path in runs.glob("*/*/seed*/metrics.jsonl"))


def row(what: str, kind: str, took: Sequence[float], used: Sequence[float]) -> dict[str, Any]:
    """Seconds of a command on the clock, and its processor time, which others do not lengthen."""
    spread = Spread.of(took)
    return {
        "what": what,
        "kind": kind,
        "seconds": round(spread.median, 3),
        "seconds_lowest": round(spread.lowest, 3),
        "seconds_highest": round(spread.highest, 3),
        "processor_seconds": round(Spread.of(used).median, 3),
    }


if __name__ == "__main__":
    command("start", measure, SCOPES)
