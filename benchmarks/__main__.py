"""``make bench``: every measurement, one after the other, then the page and the plot made of them.

``python -m benchmarks training limit`` measures only these parts. Options and configuration
words go to every part: ``--rounds 2``, ``trainer.precision=fp32``. What was measured on another
kind of device stays: run it on a GPU too, and the page shows both.
"""

import subprocess
import sys
from collections.abc import Sequence

from benchmarks.page import save
from benchmarks.record import make_parser

PARTS = ("start", "training", "harness", "limit", "growth", "cost", "parity", "pictures")


def run_part(part: str, arguments: Sequence[str]) -> bool:
    """Measure a part in a process of its own; return whether it succeeded."""
    print(f"{part} ...", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", f"benchmarks.{part}", *arguments]
    return subprocess.run(command, check=False).returncode == 0


def main(argv: Sequence[str] | None = None) -> int:
    """Measure the parts and write the page; return 1 if a part failed, after all others."""
    parser = make_parser("", f"parts ({', '.join(PARTS)}; all by default), configuration", __doc__)
    argv = sys.argv[1:] if argv is None else argv
    args = parser.parse_intermixed_args(argv)
    parts = [word for word in args.words if "=" not in word]
    for part in parts:
        if part not in PARTS:
            parser.error(f"{part}: must be one of {', '.join(PARTS)}, or key=value")
    passed = [word for word in argv if word not in parts]
    failed = [part for part in parts or PARTS if not run_part(part, passed)]
    for path in save(args.out):
        print(path)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
