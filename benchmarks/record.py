"""Command line and file of every part of the measurements.

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
Row = dict[str, Any]


@dataclass(frozen=True)
class Scope:
    """How much is measured: experiments, repeats of each measurement, iterations of a repeat."""

    experiments: tuple[str, ...] = NETS
    rounds: int = 5
    iterations: int = 10


def command(
    part: str,
    measure: Callable[[Scope, Sequence[str]], Mapping[str, Any]],
    scopes: Mapping[str, Scope],
    words: Sequence[str] | None = None,
) -> Path:
    """Be the command line of a part: measure, write the file, print and return its path.

    ``scopes`` are those of ``cpu`` and ``cuda``; the command line may change them, and gives
    configuration words for every net.
    """
    asked = parser(part, "configuration of every net: trainer.precision=fp32").parse_args(words)
    with explained():
        setup = device_of(asked.words)
        scope = replace(scopes[setup.device.type], **changes(asked))
        load = round(os.getloadavg()[0], 2)
        found = measure(scope, asked.words)
        typed = ["python", "-m", f"benchmarks.{part}", *(words or sys.argv[1:])]
        kept = provenance(part, setup) | {
            "command": shlex.join(typed),
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


def parser(part: str, about_words: str, description: str | None = None) -> argparse.ArgumentParser:
    """Return the options that every part has."""
    made = argparse.ArgumentParser(
        prog=f"python -m benchmarks{'.' if part else ''}{part}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--experiments", type=_names, help="of conf/experiment: NAME,NAME")
    made.add_argument("--rounds", type=count, help="how often each measurement is repeated")
    made.add_argument("--iterations", type=count, help="of a repeat")
    made.add_argument("--out", type=given, default=OUT, help="folder of the file that is written")
    made.add_argument("words", nargs="*", help=about_words)
    return made


def changes(asked: argparse.Namespace) -> dict[str, Any]:
    """Return what the command line changes of a scope."""
    names = ("experiments", "rounds", "iterations")
    return {name: value for name in names if (value := getattr(asked, name))}


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def count(text: str) -> int:
    """Read a number that must be at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be at least 1")
    return value
