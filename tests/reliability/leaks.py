"""Fifty times killed or stopped and resumed: nothing may pile up."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from reliability.processes import at_work, begin, do, ended, finish, quietly
from reliability.record import Outcome
from reliability.subject import left_overs, small_job
from reliability.workshop import Trial, Workshop
from resnet_repro.training.launch import Job

MAX_SLOPE = 0.1  # MiB of memory a cycle: a net of this size and its momentum are 0.6
WARM = 10  # cycles until caches are filled


def trials(shop: Workshop) -> Iterator[Trial]:
    """The same run killed again and again, and stopped again and again within one process."""
    yield Trial(f"{shop.count} kills of one run", partial(killed, shop))
    yield Trial(f"{shop.count} stops in one process", partial(stopped, shop))


def length(count: int) -> tuple[str, ...]:
    """A run that is not at its end after ``count`` cycles of one iteration."""
    more = ("trainer.checkpoint_every_iters=1", "probes.signals=false", "recipe.milestones=[]")
    return (*more, f"recipe.max_iters={count + 2}", f"evaluation.every_iters={count + 2}")


def killed(shop: Workshop, folder: Path) -> Outcome:
    """Kill one run in the middle of a save, each time an iteration later."""
    job = small_job(folder, *length(shop.count))
    reference = shop.undisturbed(*length(shop.count))
    most = {"temporary": 0, "generations": 0, "files": 0}
    for _ in range(shop.count):
        process = begin(do, job, None, 0.0, "mid-write.pt:2")
        process.join()
        if ended(process) != 137:
            return {"ok": False, "code": ended(process)}
        found = {
            "temporary": len(left_overs(job.folder)),
            "generations": len(list(job.folder.checkpoints.glob("iter_*.pt"))),
            "files": len(list(job.folder.path.rglob("*"))),
        }
        most = {key: max(most[key], found[key]) for key in most}
    code = finish(job)
    orphans = len(at_work(folder))
    verdict = reference.verdict(job.folder)
    # A save that was cut short leaves its digest and its temporary file, until the next start.
    fine = most["temporary"] <= 2 and most["generations"] <= 2 and not orphans
    told = {"cycles": shop.count, "codes": [code], "orphans": orphans}
    return verdict | told | most | {"ok": verdict["ok"] and fine}


def stopped(shop: Workshop, folder: Path) -> Outcome:
    """Stop and resume one run in one process: open files and memory must not grow."""
    job = small_job(folder, *length(shop.count))
    reference = shop.undisturbed(*length(shop.count))
    process = begin(cycles, job, shop.count, folder / "seen")
    process.join()
    code = ended(process)
    seen = json.loads((folder / "seen").read_text())
    memory = slope(seen["memory"][WARM:])
    opened = seen["files"][-1] - seen["files"][min(WARM, len(seen["files"]) - 1)]
    verdict = reference.verdict(job.folder)
    told = {"cycles": shop.count, "codes": [code], "more_open_files": opened}
    told["memory_slope_mib"] = round(memory, 4)
    return verdict | told | {"ok": verdict["ok"] and opened <= 0 and memory < MAX_SLOPE}


def cycles(job: Job, count: int, answer: Path) -> None:
    """Do ``job`` an iteration at a time and then to its end; note open files and memory in MiB."""
    page = os.sysconf("SC_PAGE_SIZE") / 2**20
    seen: dict[str, list[float]] = {"files": [], "memory": []}
    for _ in range(count):
        quietly(job, lambda: True)
        seen["files"].append(len(list(Path("/proc/self/fd").iterdir())))
        seen["memory"].append(int(Path("/proc/self/statm").read_text().split()[1]) * page)
    quietly(job)
    answer.write_text(json.dumps(seen))


def slope(values: Sequence[float]) -> float:
    """Least-squares slope of ``values`` over their index; 0 for fewer than two."""
    if len(values) < 2:
        return 0.0
    middle, mean = (len(values) - 1) / 2, sum(values) / len(values)
    above = sum((i - middle) * (v - mean) for i, v in enumerate(values))
    return above / sum((i - middle) ** 2 for i in range(len(values)))
