"""A disk that fills up while a run writes to it, and room made afterwards."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from reliability.processes import begin, ended, finish, quietly
from reliability.record import Outcome
from reliability.subject import VARIANTS, small_job
from reliability.workshop import Trial, Workshop
from resnet_repro.exits import DISK_FULL, exit_code
from resnet_repro.training.launch import Job

# A folder, a configuration, half a checkpoint, one, two, three (before the first is dropped).
KIBIBYTES = (4, 8, 12, 16, 20, 24, 32, 64, 200, 400, 700, 800, 1000, 1300, 1400, 1600, 1800, 1960)
ENOUGH = "16m"
FILES = ("checkpoints/iter_*.pt", "metrics.jsonl", "status.json", "gradients.csv")


def trials(shop: Workshop) -> Iterator[Trial]:
    """A small file system of each size where one may be mounted; files of limited size anywhere."""
    for size in KIBIBYTES:
        if may_mount(shop.scratch):
            yield Trial(f"{size} KiB", partial(filled, shop, size))
    for limit in (1, 3, 9, 50, 200, 400, 600):
        yield Trial(f"files of {limit} KiB at most", partial(limited, shop, limit))


def may_mount(scratch: Path) -> bool:
    """Whether this process may mount a file system of limited size."""
    probe = scratch / "probe"
    probe.mkdir(exist_ok=True)
    try:
        with mounted(probe, 100):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


@contextmanager
def mounted(where: Path, kibibytes: int) -> Iterator[None]:
    """Mount a file system of limited size at ``where``."""
    mount("-t", "tmpfs", "-o", f"size={kibibytes}k", "none", str(where))
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(where)], check=True)


def mount(*words: str) -> None:
    """Call ``mount``.

    Raises:
        CalledProcessError: it is refused.
    """
    subprocess.run(["mount", *words], check=True, capture_output=True)


def told(answer: Path, job: Job, limit: int | None = None) -> None:
    """Do ``job`` with files of ``limit`` bytes at most; note what it says where it fails."""
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        quietly(job)
    except Exception as error:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        answer.write_text(f"{type(error).__name__}: {error}")
        os._exit(exit_code(error) or 1)
    sys.exit(0)


def filled(shop: Workshop, size: int, folder: Path) -> Outcome:
    """Run on a file system of ``size`` KiB until it is full; make room; rerun it."""
    disk = folder / "disk"
    disk.mkdir()
    with mounted(disk, size):
        job = small_job(disk, *VARIANTS["residual"])
        process = begin(told, folder / "answer", job)
        process.join()
        found = judged(job, ended(process), folder / "answer")
        mount("-o", f"remount,size={ENOUGH}", str(disk))
        return ended_well(shop, job, found)


def limited(shop: Workshop, limit: int, folder: Path) -> Outcome:
    """The same where no file may grow beyond ``limit`` KiB."""
    job = small_job(folder / "runs", *VARIANTS["residual"])
    process = begin(told, folder / "answer", job, limit * 1024)
    process.join()
    return ended_well(shop, job, judged(job, ended(process), folder / "answer"))


def judged(job: Job, code: int, answer: Path) -> Outcome:
    """Whether the run ended with a line that names a file, and left no temporary one."""
    said = answer.read_text() if answer.exists() else ""
    left = [path.name for path in job.folder.path.rglob("*.tmp")]
    # Where not even the folder can be made it is refused as unusable, with the same cause.
    named = "cannot be written (" in said or "can be made (" in said
    fine = code == 0 or (code in (DISK_FULL, 2) and named and not left and "\n" not in said)
    return {"full": code != 0, "code": code, "said": said, "left": left, "fine": fine}


def ended_well(shop: Workshop, job: Job, found: Outcome) -> Outcome:
    """Rerun with enough room and compare with the undisturbed run."""
    code = finish(job)
    verdict = shop.variant("residual").verdict(job.folder)
    found["said"] = found["said"].replace(str(job.config.runs_dir), "RUNS")
    return verdict | found | {"again": code, "ok": verdict["ok"] and found.pop("fine")}
