"""Death at named places of the code, and at every system call that changes a file."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from ranks import crash
from reliability.record import Outcome
from reliability.runs import KILLED, Trial, Workshop, begin, do, ended
from resnet_repro.training.launch import Job

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
    return each + [f"{name}:{LATER}" for name in each if name not in once]


def trials(shop: Workshop) -> Iterator[Trial]:
    for number, point in enumerate(points()):
        yield Trial(point, partial(crashed, shop, point, number))


def crashed(shop: Workshop, point: str, number: int, folder: Path) -> Outcome:
    reference, job, name = shop.begun(number, folder)
    if point == "mid-load":  # needs something to load
        crash(job, "after-prune:2")
    code = crash(job, point)
    found = reference.after(job, code, variant=name)
    return found | {"ok": found["ok"] and code == KILLED}


def strace_trials(shop: Workshop) -> Iterator[Trial]:
    """One trial for each of the first calls of each kind; none where strace is not installed."""
    if shutil.which("strace") is None:
        print("syscalls: skipped, strace is not installed (apt-get install strace)")
        return
    for call, most in CALLS.items():
        for turn in range(1, most + 1):
            yield Trial(f"{call} {turn}", partial(struck, shop, call, turn))


def struck(shop: Workshop, call: str, turn: int, folder: Path) -> Outcome:
    """Kill a run at its ``turn``-th ``call``, then rerun it."""
    reference, job, name = shop.begun(turn, folder)
    gate = folder / "gate"
    process = begin(_after, gate, job)
    inject = f"inject={call}:signal=SIGKILL:when={turn}"
    tracer = subprocess.Popen(
        ["strace", "-f", "-qq", "-o", str(folder / "trace"), "-e", f"trace={call}",
         "-e", inject, "-p", str(process.pid)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    status = Path(f"/proc/{process.pid}/status")
    while "TracerPid:\t0\n" in status.read_text() and tracer.poll() is None:
        time.sleep(0.005)
    gate.touch()
    code = ended(process)
    tracer.wait()
    return reference.after(job, code, variant=name, hit=code == -9)


def _after(gate: Path, job: Job) -> None:
    while not gate.exists():
        time.sleep(0.005)
    do(job)
