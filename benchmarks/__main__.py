"""``make bench``: every measurement, one after the other, then the page and the plot made of them.

``python -m benchmarks training limit`` measures only these parts. Options and configuration
words go to every part: ``--rounds 2``, ``trainer.precision=fp32``. What was measured on another
kind of device stays: say it on a GPU, and the page has both.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from benchmarks.page import save
from benchmarks.record import add_options
from resnet_repro.paths import given

PARTS = ("start", "training", "harness", "limit", "growth", "schedule", "parity", "pictures")


def there() -> list[str]:
    """The parts this installation has."""
    return [part for part in PARTS if find_spec(f"benchmarks.{part}")]


def run_part(part: str, words: Sequence[str]) -> bool:
    """Measure a part in a process of its own; whether it came to its end."""
    print(f"{part} ...", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", f"benchmarks.{part}", *words]
    return subprocess.run(command, check=False).returncode == 0


def main(words: Sequence[str] | None = None) -> int:
    """Measure what is asked for; 1 if a part failed, after all others were done."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_options(parser)
    parser.add_argument("--docs", type=given, default=Path("docs"), help="folder of the page")
    parser.add_argument(
        "words", nargs="*", help=f"parts ({', '.join(there())}; all by default) and configuration"
    )
    asked = parser.parse_args(words)
    parts = [word for word in asked.words if "=" not in word]
    for part in parts:
        if part not in there():
            parser.error(f"{part}: must be one of {', '.join(there())}, or key=value")
    passed = ["--out", str(asked.out), *(word for word in asked.words if "=" in word)]
    for name in ("experiments", "rounds", "iterations"):
        if value := getattr(asked, name):
            passed += [f"--{name}", str(value)]
    failed = [part for part in parts or there() if not run_part(part, passed)]
    for path in save(asked.out, asked.docs):
        print(path)
    if failed:
        print(f"not measured: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
