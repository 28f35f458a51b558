"""Command line and file of every part of the measurements.

A part is a module with a function ``measure(scope, overrides)``, which returns rows of plain
values, and with its scope on each kind of device. ``results/bench/<part>_<device>.json`` holds what
it found; ``docs/SPEED.md`` is made from these files (:mod:`benchmarks.page`).
"""

import argparse
import json
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks import BENCH
from resnet_repro.command import count
from resnet_repro.compose import compose_run
from resnet_repro.exits import explained
from resnet_repro.paths import expand
from resnet_repro.runs.atomic import write_text_atomic
from resnet_repro.runs.folder import now
from resnet_repro.runs.provenance import git_state, hardware, versions
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
    argv: Sequence[str] | None = None,
) -> Row:
    """Run the command line of a part: measure, write the file, print its path; return its content.

    ``scopes`` are those of ``cpu`` and ``cuda``; the command line may change them, and gives
    configuration overrides for every net.
    """
    parser = make_parser(part, "configuration of every net: trainer.precision=fp32")
    args = parser.parse_intermixed_args(argv)  # words may follow options
    with explained():
        setup = device_of(args.words)
        asked = {name: value for name in asdict(Scope()) if (value := getattr(args, name))}
        scope = replace(scopes[setup.device.type], **asked)
        called = ["python", "-m", f"benchmarks.{part}", *(argv or sys.argv[1:])]
        content = provenance(part, setup) | {"command": shlex.join(called), "scope": asdict(scope)}
        content |= measure(scope, args.words)
        print(os.path.relpath(write(args.out, content)))
    return content


def device_of(overrides: Sequence[str]) -> Setup:
    """Set torch up as a run with these overrides would; ConfigError: it cannot be done here."""
    return set_up(compose_run(f"experiment={NETS[0]}", *overrides).trainer)


def make_parser(part: str, about: str, description: str | None = None) -> argparse.ArgumentParser:
    """Return the options that every part has."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks{'.' if part else ''}{part}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--experiments",
        type=lambda text: tuple(text.split(",")),
        help="of conf/experiment: NAME,NAME",
    )
    parser.add_argument("--rounds", type=count, help="how often each measurement is repeated")
    parser.add_argument("--iterations", type=count, help="of a repeat")
    parser.add_argument("--out", type=expand, default=BENCH, help="folder of the file written")
    parser.add_argument("words", nargs="*", help=about)
    return parser


def provenance(part: str, setup: Setup) -> dict[str, Any]:
    """Return the header of a file of ``results/bench``: device, load, versions, revision, date."""
    return {
        "schema": 1,
        "part": part,
        "made": now(),
        "device": setup.device.type,
        "precision": setup.precision,
        "threads": setup.threads,
        "hardware": hardware(setup.gpu, 1, setup.threads),
        "load_before": round(os.getloadavg()[0], 2),
        "versions": versions() | {"pillow": metadata.version("pillow")},
        "git": git_state(),
    }


def write(out: Path, content: Mapping[str, Any]) -> Path:
    """Write ``<part>_<device>.json``; return its path."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{content['part']}_{content['device']}.json"
    write_text_atomic(path, json.dumps(content, indent=2, allow_nan=False) + "\n")
    return path
