"""``make bench``: every measurement, one after the other, then the page and the plot made of them.

``python -m benchmarks training limit`` measures only these parts. Options and configuration
words go to every part: ``--rounds 2``, ``trainer.precision=fp32``. What was measured on another
kind of device stays: run it on a GPU too, and the page shows both.
"""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.page import save
from benchmarks.record import changes, make_parser
from resnet_repro.paths import expand

PARTS = ("start", "training", "harness", "limit", "growth", "schedule", "parity", "pictures")


def run_part(part: str, arguments: Sequence[str]) -> bool:
    """Measure a part in a process of its own; return whether it succeeded."""
    print(f"{part} ...", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", f"benchmarks.{part}", *arguments]
    return subprocess.run(command, check=False).returncode == 0


def main(argv: Sequence[str] | None = None) -> int:
    """Measure the parts and write the page; return 1 if a part failed, after all others."""
    parser = make_parser("", f"parts ({', '.join(PARTS)}; all by default), configuration", __doc__)
    parser.add_argument("--docs", type=expand, default=Path("docs"), help="folder of the page")
    args = parser.parse_args(argv)
    parts = [word for word in args.words if "=" not in word]
    for part in parts:
        if part not in PARTS:
            parser.error(f"{part}: must be one of {', '.join(PARTS)}, or key=value")
    passed = ["--out", str(args.out), *(word for word in args.words if "=" in word)]
    for name, value in changes(args).items():
        passed += [f"--{name}", ",".join(value) if name == "experiments" else str(value)]
    failed = [part for part in parts or PARTS if not run_part(part, passed)]
    for path in save(args.out, args.docs):
        print(path)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
