"""What every measurement is written with: machine, versions, date, command. One file per part.

A part is a module with a function ``measure(scope, words)`` that returns rows of plain values, and
with how much it measures on each kind of device. ``results/bench/<part>_<device>.json`` holds what
it found; ``docs/SPEED.md`` is made from these files (:mod:`benchmarks.page`).
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from resnet_repro.compose import compose_run
from resnet_repro.exits import explained
from resnet_repro.measure_pace import OUT, provenance, write
from resnet_repro.paths import given
from resnet_repro.training.device import Setup, set_up

NETS = ("cifar10_resnet20", "cifar10_resnet56")


@dataclass(frozen=True)
class Scope:
    """How much is measured.

    Attributes:
        experiments: files of ``conf/experiment``.
        rounds: how often each measurement is repeated.
        iterations: of a repeat.
    """

    experiments: tuple[str, ...] = NETS
    rounds: int = 5
    iterations: int = 10


Measure = Callable[[Scope, Sequence[str]], Mapping[str, Any]]


def command(
    part: str, measure: Measure, scopes: Mapping[str, Scope], words: Sequence[str] | None = None
) -> Path:
    """Be the command line of a part: measure, write the file, name it.

    Args:
        part: name of the part and of its file.
        measure: takes the scope and configuration words for every net; returns what is to be kept.
        scopes: for ``cpu`` and ``cuda``; the command line may change them.
        words: of the command line.
    """
    asked = _arguments(part, words)
    with explained():
        setup = device_of(asked.words)
        scope = scopes[setup.device.type]
        given = {"rounds": asked.rounds, "iterations": asked.iterations}
        if asked.experiments:
            given["experiments"] = tuple(asked.experiments.split(","))
        scope = replace(scope, **{key: value for key, value in given.items() if value})
        load = round(os.getloadavg()[0], 2)
        found = measure(scope, asked.words)
        said = ["python", "-m", f"benchmarks.{part}", *(words or sys.argv[1:])]
        kept = provenance(part, setup) | {
            "command": shlex.join(said),
            "scope": asdict(scope),
            "load_before": load,
            **found,
        }
        path = write(asked.out, kept)
    print(os.path.relpath(path))
    return path


def device_of(words: Sequence[str]) -> Setup:
    """Set torch up as a run with these configuration words would.

    Raises:
        ConfigError: a word is wrong, or this machine cannot do what it asks.
    """
    return set_up(compose_run(f"experiment={NETS[0]}", *words).trainer)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that every part has."""
    parser.add_argument("--experiments", help="files of conf/experiment, with commas between them")
    parser.add_argument("--rounds", type=_count, help="how often each measurement is repeated")
    parser.add_argument("--iterations", type=_count, help="of a repeat")
    parser.add_argument("--out", type=given, default=OUT, help="folder of the file that is written")


def _arguments(part: str, words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{part}")
    add_options(parser)
    parser.add_argument(
        "words", nargs="*", help="configuration of every net: trainer.precision=fp32 ..."
    )
    return parser.parse_args(words)


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be at least 1")
    return value
