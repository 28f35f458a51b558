"""``python -m reliability [--part NAME ...] [--count N]``: the reliability programme.

Trials on record are skipped: after an interruption, rerun to continue. Exit code 1 where a trial
failed; its scratch folder is then kept.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reliability import crashes, damage, defects, disk, kills, teams
from reliability.page import RECORDS
from reliability.record import Outcome, Record
from reliability.runs import Trial, Trials, Workshop
from resnet_repro.paths import expand


@dataclass(frozen=True)
class Part:
    """A series of trials, and how many (kills, turns, ...; 0: a list of its own) by default."""

    about: str
    trials: Trials
    count: int = 0


PARTS: dict[str, Part] = {
    "kills": Part("random SIGKILLs of training runs", kills.trials, 300),
    "crashes": Part("death at every named place of the code", crashes.trials),
    "syscalls": Part("death at system calls that change files", crashes.strace_trials),
    "checkpoints": Part("damaged and foreign checkpoints", damage.trials),
    "workers": Part("faults of runs on several workers", teams.trials),
    "stops": Part("signals that ask to stop", kills.stop_trials),
    "rivals": Part("two commands on one run folder", teams.rival_trials, 50),
    "disk": Part("full disks", disk.trials),
    "leaks": Part("what piles up over many kills and stops", kills.leak_trials, 50),
    "defects": Part("defects planted in the source", defects.trials),
}


def main(args: Sequence[str] | None = None) -> int:
    """Do the parts that are named, all by default; 0 where all trials came out as they should."""
    parser = argparse.ArgumentParser(prog="python -m reliability", description=__doc__)
    known = "; ".join(f"{name}: {part.about}" for name, part in PARTS.items())
    parser.add_argument("--part", action="append", choices=list(PARTS), help=known)
    parser.add_argument("--count", type=int, help="how many, where a part can be of any length")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop a part after")
    parser.add_argument("--out", type=expand, default=RECORDS, help="folder of the records")
    parser.add_argument("--scratch", type=expand, help="existing folder to work in")
    asked = parser.parse_args(args)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    failed = 0
    for name in asked.part or PARTS:
        count = PARTS[name].count if asked.count is None else asked.count
        record = Record.at(asked.out / f"{name}.json")
        with tempfile.TemporaryDirectory(prefix=f"reliability-{name}-", dir=asked.scratch) as path:
            do_part(PARTS[name], Workshop(Path(path), count, record), asked.seconds)
        failed += len(record.failed())
        print(f"{name}: {len(record.trials)} trials, {len(record.failed())} failed", flush=True)
    return int(failed > 0)


def do_part(part: Part, shop: Workshop, seconds: float = float("inf")) -> None:
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
        verdict = "ok" if outcome["ok"] else f"FAILED {outcome}"
        print(f"{record.part}: {trial.key}: {verdict}", flush=True)


def tried(trial: Trial, scratch: Path) -> Outcome:
    """Do a trial in a folder of its own; the folder of one that failed is kept beside."""
    folder = scratch / "trial"
    folder.mkdir()
    began = time.monotonic()
    try:
        outcome = trial.do(folder)
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
