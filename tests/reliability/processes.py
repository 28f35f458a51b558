"""Starting runs in processes that can be hurt, and looking for processes that should be gone."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reliability.phases import Marks, Noting, slow_down
from reliability.subject import FEW_IMAGES
from resnet_repro.runs.atomic import CRASH_AT
from resnet_repro.runs.signals import stop_on_signals
from resnet_repro.training.launch import Job, launch

REPO = Path(__file__).resolve().parents[2]
SOURCE = REPO / "src"
LIMIT = 600.0  # seconds after which a process counts as hanging

# Forked from a server that has imported torch and never used it: no thread exists there, and a
# process is ready in milliseconds instead of seconds.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["torch._dynamo", "resnet_repro.training.run", __name__])


def quietly(job: Job, stop_asked: Callable[[], bool] = lambda: False) -> str:
    """Do ``job`` in this process, with nobody watching."""
    return launch(job, Noting(None), stop_asked)


def begin(work: Callable[..., Any], *args: Any) -> Any:
    """Call ``work(*args)`` in a process of its own; a ``multiprocessing`` process."""
    process = _CONTEXT.Process(target=_few_images, args=(work, *args))
    process.start()
    return process


def begin_as_is(work: Callable[..., Any], *args: Any) -> Any:
    """As :func:`begin`, with all the images: workers that it starts know of no others."""
    process = _CONTEXT.Process(target=work, args=args)
    process.start()
    return process


def _few_images(work: Callable[..., Any], *args: Any) -> None:
    from resnet_repro.data import synthetic

    synthetic.SIZES = FEW_IMAGES
    work(*args)


def do(job: Job, marks: Path | None = None, slow: float = 0.0, crash: str | None = None) -> None:
    """Do ``job`` as the command would; the process's exit code is 0 where it came to its end."""
    if crash is not None:
        os.environ[CRASH_AT] = crash
    slow_down(slow)
    watched(job, Noting(Marks(marks) if marks else None))


def watched(job: Job, watcher: Noting) -> None:
    """Do ``job`` until a signal; the process's exit code is 0 where it came to its end."""
    sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 - for as long as the process lives
    with stop_on_signals() as stop_asked:
        state = launch(job, watcher, stop_asked)
    sys.exit(0 if state in ("finished", "skipped") else 75)


def finish(job: Job) -> int:
    """Rerun ``job`` in a process of its own until it ends; return its exit code."""
    process = begin(do, job)
    process.join(LIMIT)
    return ended(process)


def ended(process: Any) -> int:
    """Exit code of a process of :func:`begin`; one that hangs is killed and counts as 124."""
    if process.exitcode is None:
        process.kill()
        process.join()
        return 124
    return int(process.exitcode)


def command(*words: str) -> list[str]:
    """The real command."""
    return [sys.executable, "-m", "resnet_repro.train", *words]


def environment(**more: str) -> dict[str, str]:
    """Variables of the real command: this source, one thread."""
    paths = [str(SOURCE), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"} | more


def say(*words: str, cwd: Path | None = None, **more: str) -> subprocess.CompletedProcess[str]:
    """Say the real command and wait."""
    return subprocess.run(
        command(*words), env=environment(**more), cwd=cwd, capture_output=True, text=True,
        timeout=LIMIT,
    )  # fmt: skip


def at_work(folder: Path) -> dict[int, str]:
    """Processes of this machine that name ``folder`` on their command line: id -> rank or words."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            values = (entry / "environ").read_bytes().split(b"\0")
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state != "Z" and any(str(folder) in word for word in words):
            rank = next((v[5:].decode() for v in values if v.startswith(b"RANK=")), "")
            what = "launcher" if "torch.distributed.run" in words else "command"
            found[int(entry.name)] = rank or what
    return found


def seconds_until_gone(folder: Path, limit: float = 60.0) -> tuple[float, int]:
    """Seconds until no process names ``folder`` any more, and how many are left after ``limit``."""
    began = time.monotonic()
    while (left := at_work(folder)) and time.monotonic() - began < limit:
        time.sleep(0.05)
    return round(time.monotonic() - began, 2), len(left)
