"""Checkpoints that are not what was written: none may be loaded as if it were."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from reliability.processes import begin, do, finish
from reliability.record import Outcome
from reliability.subject import VARIANTS, small_job
from reliability.workshop import Trial, Workshop

Damage = Callable[[Path, random.Random], None]
PAGE = 4096
FORMER = 4  # iteration of the checkpoint before the newest
WHOLE_RUNS = 3  # of the files of a kind, so many are also met by a whole run


def cut(path: Path, rng: random.Random) -> None:
    """Truncate."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(rng.randrange(size))


def flip(path: Path, rng: random.Random) -> None:
    """Flip one bit."""
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def zero(path: Path, rng: random.Random) -> None:
    """Zero a page that is not zero."""
    data = bytearray(path.read_bytes())
    pages = [p for p in range(0, len(data), PAGE) if any(data[p : p + PAGE])]
    start = rng.choice(pages)
    data[start : start + PAGE] = bytes(len(data[start : start + PAGE]))
    path.write_bytes(data)


def empty(path: Path, _: random.Random) -> None:
    """Leave nothing in it."""
    path.write_bytes(b"")


def text(path: Path, _: random.Random) -> None:
    """Put a web page there."""
    path.write_text("<html>404 not found</html>", encoding="utf-8")


def directory(path: Path, _: random.Random) -> None:
    """Put a folder there."""
    path.unlink()
    path.mkdir()


def loop(path: Path, _: random.Random) -> None:
    """Put a link to itself there."""
    path.unlink()
    path.symlink_to(path)


def fifo(path: Path, _: random.Random) -> None:
    """Put a pipe there, whose reader would wait forever."""
    path.unlink()
    os.mkfifo(path)


def gone_digest(path: Path, _: random.Random) -> None:
    """Take the digest away."""
    path.with_name(path.name + ".sha256").unlink()


def wrong_digest(path: Path, _: random.Random) -> None:
    """Let the digest be another file's."""
    path.with_name(path.name + ".sha256").write_text("0" * 64 + "\n", encoding="utf-8")


# Kinds of damage that the previous checkpoint makes good: how many files of each.
KINDS: dict[str, tuple[Damage, int]] = {
    "truncated": (cut, 64),
    "one bit flipped": (flip, 500),
    "a page zeroed": (zero, 100),
    "empty": (empty, 1),
    "text": (text, 1),
    "a directory": (directory, 1),
    "a link to itself": (loop, 1),
    "a pipe": (fifo, 1),
    "without its digest": (gone_digest, 1),
    "with another's digest": (wrong_digest, 1),
}


def resealed(**changes: Any) -> Callable[[Path], None]:
    """Change what a checkpoint says and give it a good digest: only its content is wrong."""

    def change(path: Path) -> None:
        import torch

        content = torch.load(path, weights_only=True)
        for key, value in changes.items():
            content[key] = value(content[key]) if callable(value) else value
        torch.save(content, path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        path.with_name(path.name + ".sha256").write_text(digest + "\n", encoding="utf-8")

    return change


def _without_last(weights: dict[str, Any]) -> dict[str, Any]:
    return dict(list(weights.items())[:-1])


# Whole files that are another run's: refused, naming the file or its folder.
REFUSED: dict[str, Callable[[Path], None]] = {
    "of an older schema": resealed(schema=1),
    "of a newer schema": resealed(schema=99),
    "of another net": resealed(model=_without_last),
    "of another configuration": resealed(config=lambda c: c | {"seed": 5}),
    "of other data": resealed(data=lambda d: dict.fromkeys(d, "0")),
    "in another precision": resealed(precision="bf16"),
    "of two workers": resealed(world_size=2),
}


def trials(shop: Workshop) -> Iterator[Trial]:
    """One trial for each kind of damage; ``shop.count`` limits the files of a kind."""
    for kind, (damage, files) in KINDS.items():
        yield Trial(kind, partial(damaged, shop, kind, damage, min(files, shop.count or files)))
    for kind, change in REFUSED.items():
        yield Trial(kind, partial(refused, shop, change))
    yield Trial("all generations damaged", partial(all_damaged, shop))


def begun(shop: Workshop, folder: Path) -> Path:
    """A run folder that died after its second checkpoint; made once, then copied."""
    made = shop.scratch / "begun"
    if not made.exists():
        job = small_job(made, *VARIANTS["residual"])
        process = begin(do, job, None, 0.0, "after-prune:2")
        process.join()
    job = small_job(folder, *VARIANTS["residual"])
    shutil.copytree(small_job(made, *VARIANTS["residual"]).folder.path, job.folder.path)
    job.folder.write_config(job.config.as_mapping())
    return job.folder.path


def damaged(shop: Workshop, kind: str, damage: Damage, files: int, folder: Path) -> Outcome:
    """Damage the newest checkpoint in ``files`` ways; the one before it must be used, and told."""
    from resnet_repro.training.checkpoint import load_newest

    told = dict.fromkeys(("silent", "set_aside", "warned", "whole_runs", "identical_runs"), 0)
    rng, source = random.Random(kind), begun(shop, folder / "source")
    for number in range(files):
        run = small_job(folder / "copy", *VARIANTS["residual"]).folder
        shutil.copytree(source, run.path)
        newest = sorted(run.checkpoints.glob("iter_*.pt"))[-1]
        damage(newest, rng)
        if number < WHOLE_RUNS:
            job = small_job(folder / "copy", *VARIANTS["residual"])
            told["whole_runs"] += 1
            if finish(job) == 0 and shop.variant("residual").verdict(run)["identical"]:
                told["identical_runs"] += 1
        else:
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                saved = load_newest(run.checkpoints)
            told["warned"] += bool(said) and newest.name in str(said[0].message)
            told["silent"] += saved is None or saved["iteration"] != FORMER
        told["set_aside"] += os.path.lexists(f"{newest}.corrupt")
        shutil.rmtree(folder / "copy")
    told["silent"] += told["whole_runs"] - told["identical_runs"]
    warned = told["warned"] == files - told["whole_runs"]
    fine = not told["silent"] and warned and told["set_aside"] == files
    return {"ok": fine, "files": files} | told


def refused(shop: Workshop, change: Callable[[Path], None], folder: Path) -> Outcome:
    """Make the newest checkpoint another run's: the run must stop and name its place."""
    path = begun(shop, folder)
    change(sorted((path / "checkpoints").glob("iter_*.pt"))[-1])
    return stopped(folder, path)


def all_damaged(shop: Workshop, folder: Path) -> Outcome:
    """Damage both generations: the run must stop, not restart, now and when rerun."""
    path = begun(shop, folder)
    for file in (path / "checkpoints").glob("iter_*.pt"):
        empty(file, random.Random())
    first = stopped(folder, path)
    again = stopped(folder, path)
    return first | {"ok": first["ok"] and again["ok"]}


def stopped(folder: Path, path: Path) -> Outcome:
    """Rerun: it must stop with exit code 4's error, its status saying where and why."""
    job = small_job(folder, *VARIANTS["residual"])
    code = finish(job)
    status = job.folder.status()
    reason = str(status.get("reason"))
    fine = code != 0 and status["state"] == "failed" and reason.startswith("CheckpointError")
    named = str(path) in reason
    return {"ok": fine and named, "files": 1, "silent": int(code == 0), "refused": int(fine)}
