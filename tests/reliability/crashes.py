"""Death at named places of the code, and at every system call that changes a file."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from reliability.processes import begin, do, ended, finish
from reliability.record import Outcome
from reliability.subject import VARIANTS, small_job
from reliability.workshop import Trial, Workshop

WRITE = ("before-tmp", "after-write", "after-fsync", "after-replace")  # a file, by its ending
OTHERS = (
    "mid-write.pt", "after-digest.pt", "before-prune", "after-prune", "mid-line", "mid-load",
)  # fmt: skip
LATER = 3  # the third save is the first that lets an older one go
WRITTEN = (".pt", ".sha256", ".json", ".csv", ".yaml")
CALLS = {"rename": 12, "fsync": 20, "unlink": 6, "ftruncate": 1, "openat": 24}  # the first so many


def points() -> list[str]:
    """Every place that ``crash_point`` names, the first and a later time."""
    each = [f"{name}{ending}" for name in WRITE for ending in WRITTEN] + [*OTHERS]
    once = [name for name in each if name.endswith(".yaml") or name == "mid-load"]
    again = [f"{name}:{LATER}" for name in each if name not in once]
    return list(dict.fromkeys(each + again))


def trials(shop: Workshop) -> Iterator[Trial]:
    """One trial for each place."""
    for number, point in enumerate(points()):
        name = sorted(VARIANTS)[number % len(VARIANTS)]
        yield Trial(point, partial(crashed, shop, point, name))


def crashed(shop: Workshop, point: str, variant: str, folder: Path) -> Outcome:
    """Let a run die at ``point``, then rerun it."""
    reference, job = shop.variant(variant), small_job(folder, *VARIANTS[variant])
    if point == "mid-load":  # needs something to load
        process = begin(do, job, None, 0.0, "after-prune:2")
        process.join()
    process = begin(do, job, None, 0.0, point)
    process.join()
    codes = [ended(process), finish(job)]
    verdict = reference.verdict(job.folder)
    return verdict | {"variant": variant, "codes": codes, "ok": verdict["ok"] and codes[0] == 137}


def strace_trials(shop: Workshop) -> Iterator[Trial]:
    """One trial for each of the first calls of each kind; none where strace is not installed."""
    if shutil.which("strace") is None:
        print("syscalls: skipped, strace is not installed (apt-get install strace)")
        return
    for call, most in CALLS.items():
        for turn in range(1, most + 1):
            number = turn % len(VARIANTS)
            variant = sorted(VARIANTS)[number]
            yield Trial(f"{call} {turn}", partial(struck, shop, call, turn, variant))


def struck(shop: Workshop, call: str, turn: int, variant: str, folder: Path) -> Outcome:
    """Kill a run at its ``turn``-th ``call``, then rerun it."""
    reference, job = shop.variant(variant), small_job(folder, *VARIANTS[variant])
    gate = folder / "gate"
    process = begin(_after, gate, job)
    inject = f"inject={call}:signal=SIGKILL:when={turn}"
    tracer = subprocess.Popen(
        ["strace", "-f", "-qq", "-o", str(folder / "trace"), "-e", f"trace={call}",
         "-e", inject, "-p", str(process.pid)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while not _is_traced(process.pid) and tracer.poll() is None:
        time.sleep(0.005)
    gate.touch()
    process.join()
    tracer.wait()
    codes = [ended(process), finish(job)]
    verdict = reference.verdict(job.folder)
    hit = codes[0] == -9
    return verdict | {"variant": variant, "codes": codes, "hit": hit}


def _is_traced(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    return "TracerPid:\t0\n" not in status


def _after(gate: Path, *args: object) -> None:
    while not gate.exists():
        time.sleep(0.005)
    do(*args)  # type: ignore[arg-type]
