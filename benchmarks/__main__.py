"""``make bench``: every measurement, one after the other, then the page and the plot made of them.

``python -m benchmarks training limit`` measures only these parts. Options and configuration
words go to every part: ``--rounds 2``, ``trainer.precision=fp32``. What was measured on another
kind of device stays: run it on a GPU too, and the page shows both.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.page import save
from benchmarks.record import changes, parser
from resnet_repro.paths import given

PARTS = ("start", "training", "harness", "limit", "growth", "schedule", "parity", "pictures")


def run_part(part: str, words: Sequence[str]) -> bool:
    """Measure a part in a process of its own; return whether it succeeded."""
    print(f"{part} ...", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", f"benchmarks.{part}", *words]
    return subprocess.run(command, check=False).returncode == 0


def main(words: Sequence[str] | None = None) -> int:
    """Measure the parts and write the page; return 1 if a part failed, after all others."""
    options = parser("", f"parts ({', '.join(PARTS)}; all by default), configuration", __doc__)
    options.add_argument("--docs", type=given, default=Path("docs"), help="folder of the page")
    asked = options.parse_args(words)
    parts = [word for word in asked.words if "=" not in word]
    for part in parts:
        if part not in PARTS:
            options.error(f"{part}: must be one of {', '.join(PARTS)}, or key=value")
    passed = ["--out", str(asked.out), *(word for word in asked.words if "=" in word)]
    for name, value in changes(asked).items():
        passed += [f"--{name}", ",".join(value) if name == "experiments" else str(value)]
    failed = [part for part in parts or PARTS if not run_part(part, passed)]
    for path in save(asked.out, asked.docs):
        print(path)
    if failed:
        print(f"not measured: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
