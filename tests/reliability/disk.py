"""A disk that fills up while a run writes to it, and room made afterwards."""

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from ranks import do, small_job
from reliability.record import Outcome
from reliability.runs import Trial, Workshop, begin, ended
from resnet_repro.exits import CONFIG, DISK_FULL, exit_code
from resnet_repro.training.launch import Job

# A folder, a configuration, half a checkpoint, one, two, three (before the first is dropped).
KIBIBYTES = (4, 8, 12, 16, 20, 24, 32, 64, 200, 400, 700, 800, 1000, 1300, 1400, 1600, 1800, 1960)
LIMITS = (1, 3, 9, 50, 200, 400, 600)
ENOUGH = "16m"


def trials(shop: Workshop) -> Iterator[Trial]:
    """A small file system of each size where one may be mounted; files of limited size anywhere."""
    if may_mount(shop.scratch):
        for size in KIBIBYTES:
            yield Trial(f"{size} KiB", partial(filled, shop, size))
    for limit in LIMITS:
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
    """Mount a file system of limited size at ``where``; CalledProcessError: it is refused."""
    mount("-t", "tmpfs", "-o", f"size={kibibytes}k", "none", str(where))
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(where)], check=True)


def mount(*args: str) -> None:
    subprocess.run(["mount", *args], check=True, capture_output=True)


def run_on_small_disk(answer: Path, job: Job, limit: int) -> None:
    """Do ``job`` with files of ``limit`` bytes at most; note what it says where it fails."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        do(job)
    except Exception as error:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        answer.write_text(f"{type(error).__name__}: {error}")
        os._exit(exit_code(error) or 1)
    sys.exit(0)


def filled(shop: Workshop, size: int, folder: Path) -> Outcome:
    """Run on a file system of ``size`` KiB until it is full; make room; rerun it."""
    disk = folder / "disk"
    disk.mkdir()
    with mounted(disk, size):
        job, found = first_try(disk, folder / "answer", resource.RLIM_INFINITY)
        mount("-o", f"remount,size={ENOUGH}", str(disk))
        return then(shop, job, found)


def limited(shop: Workshop, limit: int, folder: Path) -> Outcome:
    """The same where no file may grow beyond ``limit`` KiB."""
    return then(shop, *first_try(folder / "runs", folder / "answer", limit * 1024))


def first_try(runs: Path, answer: Path, limit: int) -> tuple[Job, Outcome]:
    """Whether a run ended with a line that names a file, and left no temporary one."""
    job = small_job(runs)
    code = ended(begin(run_on_small_disk, answer, job, limit))
    output = answer.read_text() if answer.exists() else ""
    left = [path.name for path in job.folder.path.rglob("*.tmp")]
    # Where not even the folder can be made it is refused as unusable, with the same cause.
    named = "cannot be written (" in output or "can be made (" in output
    fine = code == 0 or (code in (DISK_FULL, CONFIG) and named and not left and "\n" not in output)
    output = output.replace(str(runs), "RUNS")
    return job, {"full": code != 0, "code": code, "said": output, "left": left, "ok": fine}


def then(shop: Workshop, job: Job, found: Outcome) -> Outcome:
    """Rerun with enough room and compare with the undisturbed run."""
    again = shop.variant("residual").after(job)
    (code,) = again.pop("codes")
    return again | found | {"again": code, "ok": again["ok"] and found["ok"]}
