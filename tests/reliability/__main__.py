"""``python -m reliability [--part NAME ...] [--count N]``: the reliability programme.

Trials on record are skipped: after an interruption, rerun to continue. Exit code 1 where a trial
failed; its scratch folder is then kept.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from reliability.parts import PARTS, Part
from reliability.record import Outcome, Record
from reliability.workshop import NothingToCompareError, Trial, Workshop
from resnet_repro.paths import given

RESULTS = Path("results/reliability")


def main(words: Sequence[str] | None = None) -> int:
    """Do the parts that are asked for; 0 where all trials came out as they should."""
    asked = options().parse_args(words)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    failed = 0
    for name in asked.part or PARTS:
        part = PARTS[name]
        count = part.count if asked.count is None else asked.count
        record = Record.at(asked.out, name)
        with tempfile.TemporaryDirectory(prefix=f"reliability-{name}-", dir=asked.scratch) as path:
            do_part(part, Workshop(Path(path), count, record), asked.seconds)
        failed += len(record.failed())
        print(f"{name}: {len(record.trials)} trials, {len(record.failed())} failed", flush=True)
    return int(failed > 0)


def options() -> argparse.ArgumentParser:
    """The command's words."""
    parser = argparse.ArgumentParser(prog="python -m reliability", description=__doc__)
    known = "; ".join(f"{name}: {part.about}" for name, part in PARTS.items())
    parser.add_argument("--part", action="append", choices=list(PARTS), help=known)
    parser.add_argument("--count", type=int, help="how many, where a part can be of any length")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop a part after")
    parser.add_argument("--out", type=given, default=RESULTS, help="folder of the records")
    parser.add_argument("--scratch", type=given, help="folder to work in")
    return parser


def do_part(part: Part, shop: Workshop, seconds: float) -> None:
    """Do the trials that are not in the record yet, for ``seconds`` at most."""
    record = shop.record
    record.begin()
    began = time.monotonic()
    for trial in part.trials(shop):
        if record.tried(trial.key):
            continue
        if time.monotonic() - began > seconds:
            return
        outcome = tried(trial, shop.scratch)
        record.add(trial.key, outcome)
        said = "ok" if outcome["ok"] else f"FAILED {outcome}"
        print(f"{record.part}: {trial.key}: {said}", flush=True)


def tried(trial: Trial, scratch: Path) -> Outcome:
    """Do a trial in a folder of its own; the folder of one that failed is kept beside."""
    folder = scratch / "trial"
    folder.mkdir()
    began = time.monotonic()
    try:
        outcome = trial.do(folder)
    except NothingToCompareError:
        raise
    except Exception as error:
        outcome = {"ok": False, "error": f"{type(error).__name__}: {error}"}
    outcome["seconds"] = round(time.monotonic() - began, 2)
    if outcome["ok"]:
        shutil.rmtree(folder)
    else:
        kept = Path(tempfile.mkdtemp(prefix=f"{scratch.name}-failed-", dir=scratch.parent))
        folder.rename(kept / "trial")
        print(f"kept: {kept}", file=sys.stderr, flush=True)
    return outcome


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
