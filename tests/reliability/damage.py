"""Checkpoints that are not what was written: none may be loaded as if it were."""

import hashlib
import os
import random
import shutil
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from ranks import crash, small_job
from reliability.record import Outcome
from reliability.runs import Trial, Workshop, finish, generations
from resnet_repro.training.launch import Job

PAGE = 4096
FORMER = 4  # iteration of the checkpoint before the newest
WHOLE_RUNS = 3  # of the files of a kind, so many are also met by a whole run

# Kinds of damage that the previous checkpoint makes good: how many files of each.
KINDS = {
    "truncated": 64,
    "one bit flipped": 500,
    "a page zeroed": 100,
    "empty": 1,
    "text": 1,
    "a directory": 1,
    "a link to itself": 1,
    "a pipe": 1,  # whose reader would wait forever
    "without its digest": 1,
    "with another's digest": 1,
}


def damage(kind: str, path: Path, rng: random.Random) -> None:
    """Damage a checkpoint in one of :data:`KINDS`."""
    data, digest = bytearray(path.read_bytes()), digest_of(path)
    if kind == "truncated":
        del data[rng.randrange(len(data)) :]
    elif kind == "one bit flipped":
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif kind == "a page zeroed":
        start = rng.choice([p for p in range(0, len(data), PAGE) if any(data[p : p + PAGE])])
        data[start : start + PAGE] = bytes(len(data[start : start + PAGE]))
    elif kind == "empty":
        data.clear()
    elif kind == "text":
        data[:] = b"<html>404 not found</html>"
    elif kind == "without its digest":
        digest.unlink()
    elif kind == "with another's digest":
        digest.write_text("0" * 64 + "\n", encoding="utf-8")
    path.unlink()
    if kind == "a directory":
        path.mkdir()
    elif kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a link to itself":
        path.symlink_to(path)
    else:
        path.write_bytes(data)


def digest_of(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def resealed(**changes: Any) -> Callable[[Path], None]:
    """Change what a checkpoint says and give it a good digest: only its content is wrong."""

    def change(path: Path) -> None:
        import torch

        content = torch.load(path, weights_only=True)
        for key, value in changes.items():
            content[key] = value(content[key]) if callable(value) else value
        torch.save(content, path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        digest_of(path).write_text(digest + "\n", encoding="utf-8")

    return change


# Whole files that are another run's: refused, naming the file or its folder.
REFUSED: dict[str, Callable[[Path], None]] = {
    "of an older schema": resealed(schema=1),
    "of a newer schema": resealed(schema=99),
    "of another net": resealed(model=lambda weights: dict(list(weights.items())[:-1])),
    "of another configuration": resealed(config=lambda c: c | {"seed": 5}),
    "of other data": resealed(data=lambda d: dict.fromkeys(d, "0")),
    "in another precision": resealed(precision="bf16"),
    "of two workers": resealed(world_size=2),
}


def trials(shop: Workshop) -> Iterator[Trial]:
    for kind, files in KINDS.items():
        yield Trial(kind, partial(damaged, shop, kind, min(files, shop.count or files)))
    for kind, change in REFUSED.items():
        yield Trial(kind, partial(refused, shop, change))
    yield Trial("all generations damaged", partial(all_damaged, shop))


def begun(shop: Workshop, folder: Path) -> Job:
    """A run that died after its second checkpoint; made once, then copied."""
    made = small_job(shop.scratch / "begun")
    if not made.folder.path.exists():
        crash(made, "after-prune:2")
    job = small_job(folder)
    shutil.copytree(made.folder.path, job.folder.path)
    job.folder.write_config(job.config.as_mapping())
    return job


def damaged(shop: Workshop, kind: str, files: int, folder: Path) -> Outcome:
    """Damage the newest checkpoint ``files`` times: the one before is used, with a warning."""
    from resnet_repro.training.checkpoint import load_newest

    counts = dict.fromkeys(("silent", "set_aside", "warned", "whole_runs", "identical_runs"), 0)
    rng, source = random.Random(kind), begun(shop, folder / "source").folder.path
    for number in range(files):
        job = small_job(folder / "copy")
        run = job.folder
        shutil.copytree(source, run.path)
        newest = generations(run)[-1]
        damage(kind, newest, rng)
        if number < WHOLE_RUNS:
            counts["whole_runs"] += 1
            same = finish(job) == 0 and shop.variant("residual").verdict(run)["identical"]
            counts["identical_runs"] += same
            counts["silent"] += not same
        else:
            with warnings.catch_warnings(record=True) as output:
                warnings.simplefilter("always")
                saved = load_newest(run.checkpoints)
            counts["warned"] += bool(output) and newest.name in str(output[0].message)
            counts["silent"] += saved is None or saved["iteration"] != FORMER
        counts["set_aside"] += os.path.lexists(f"{newest}.corrupt")
        shutil.rmtree(folder / "copy")
    warned = counts["warned"] == files - counts["whole_runs"]
    fine = not counts["silent"] and warned and counts["set_aside"] == files
    return {"ok": fine, "files": files} | counts


def refused(shop: Workshop, change: Callable[[Path], None], folder: Path) -> Outcome:
    """Make the newest checkpoint another run's: the run must stop and name its place."""
    job = begun(shop, folder)
    change(generations(job.folder)[-1])
    return stopped(job)


def all_damaged(shop: Workshop, folder: Path) -> Outcome:
    """Damage both generations: the run must stop, not restart, now and when rerun."""
    job = begun(shop, folder)
    for file in generations(job.folder):
        file.write_bytes(b"")
    first, again = stopped(job), stopped(job)
    return first | {"ok": first["ok"] and again["ok"]}


def stopped(job: Job) -> Outcome:
    """Rerun: it must stop with exit code 4's error, its status saying where and why."""
    code = finish(job)
    status = job.folder.status()
    reason = str(status.get("reason"))
    fine = code != 0 and status["state"] == "failed" and reason.startswith("CheckpointError")
    named = str(job.folder.path) in reason
    return {"ok": fine and named, "files": 1, "silent": int(code == 0), "refused": int(fine)}
