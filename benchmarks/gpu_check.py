"""What works on this GPU, in under four minutes: ``python -m benchmarks.gpu_check``.

Needs Python, torch and numpy, and no network. Each check runs in a process of its own with a time
limit, so one that fails, crashes or hangs costs no other. Where a check fails, something slower
does the same work: its settings are written to ``results/gpu_check.json``, and the study uses them
(:func:`resnet_repro.study.checked`). Without a GPU, checks that need one are skipped.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from resnet_repro.paths import GPU_CHECK, REPOSITORY, python_path
from resnet_repro.runs.atomic import write_text_atomic
from resnet_repro.runs.folder import now
from resnet_repro.runs.provenance import git_state, versions

TOGETHER = 3  # checks at the same time
DEADLINE = 230.0  # seconds for all of them
PREFIX = "gpu_check: "  # of the line in which a check answers


@dataclass(frozen=True)
class GpuCheck:
    """A function of :mod:`benchmarks.gpu_checks`, its limit, and what its failure turns off."""

    name: str
    limit: float  # seconds
    instead: str
    settings: dict[str, Any] = field(default_factory=dict)  # of ``trainer``
    cuda: bool = True


EAGER, PLAIN, ONE = {"graph": "never"}, {"compile": "never"}, {"concurrent": 1}
CHECKS = (
    GpuCheck("device", 40, "no run can use the GPU until this is fixed", cuda=False),
    GpuCheck("precision", 40, "fp32", {"precision": "fp32"}),
    GpuCheck("graph", 90, "eager steps", EAGER),
    GpuCheck("compile", 120, "blocks are not compiled", PLAIN),
    GpuCheck("evaluation", 60, "eager steps and evaluation", EAGER),
    GpuCheck(
        "resume", 90, "eager steps; keep runs within their time limit", EAGER | PLAIN, cuda=False
    ),
    GpuCheck("together", 90, "one run at a time", ONE, cuda=False),
    GpuCheck("memory", 90, "one run at a time", ONE),
    GpuCheck("ranks", 90, "trainer.devices=1", cuda=False),
    GpuCheck("nccl", 90, "trainer.devices=1"),
    GpuCheck(
        "pictures", 90, "the worker decodes pictures itself", {"loader_workers": 0}, cuda=False
    ),
)


def start(check: GpuCheck, root: Path) -> list[str]:
    """Return the command that runs one check."""
    return [sys.executable, "-m", "benchmarks.gpu_checks", check.name, str(root)]


def run_check(check: GpuCheck, seconds: float) -> dict[str, Any]:
    """Run a check in a process of its own; kill it and its children after ``seconds``."""
    began, limit = time.monotonic(), max(0.0, min(check.limit, seconds))
    with tempfile.TemporaryDirectory(prefix="gpu_check") as root:
        process = subprocess.Popen(
            start(check, Path(root)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=os.environ | {"PYTHONPATH": python_path()}, cwd=REPOSITORY,
            start_new_session=True,
        )  # fmt: skip
        try:
            out, err = process.communicate(timeout=max(limit, 0.1))
        except subprocess.TimeoutExpired:
            out, err = "", f"still running after {limit:.0f} s"
        finally:
            if process.poll() is None or process.returncode:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    answers = [line.removeprefix(PREFIX) for line in out.splitlines() if line.startswith(PREFIX)]
    if answers:
        answer: dict[str, Any] = json.loads(answers[-1])
    else:
        lines = [line for line in err.splitlines() if line.strip()]
        remark = lines[-1] if lines else f"exit code {process.returncode}"
        answer = {"state": "failed", "remark": remark}
    return row(check, time.monotonic() - began, **answer)


def row(check: GpuCheck, seconds: float, state: str, remark: str) -> dict[str, Any]:
    """Return the result of a check, and what replaces it where it failed."""
    failed = state == "failed"
    return {
        "check": check.name,
        "state": state,
        "remark": remark,
        "seconds": round(seconds, 1),
        "instead": check.instead if failed else "",
        "settings": check.settings if failed else {},
    }


def run_all(checks: Sequence[GpuCheck]) -> list[dict[str, Any]]:
    """Run the first check, then the others, a few at a time; CUDA checks only where CUDA works."""
    deadline = time.monotonic() + DEADLINE
    device = run_check(checks[0], DEADLINE)
    reason = {"skipped": device["remark"], "failed": "the GPU cannot be used"}.get(device["state"])

    def one(check: GpuCheck) -> dict[str, Any]:
        if check.cuda and reason:
            return row(check, 0.0, "skipped", reason)
        return run_check(check, deadline - time.monotonic())

    with ThreadPoolExecutor(TOGETHER) as pool:
        return [device, *pool.map(one, checks[1:])]


def report(rows: Sequence[dict[str, Any]], out: Path) -> None:
    """Print the table and write the file that the study reads."""
    for row in rows:
        head = f"{row['check']:11}{row['state']:9}{row['seconds']:6.1f} s  "
        print(head + row["remark"] + (f"\n{'':28}instead: {row['instead']}" * bool(row["instead"])))
    settings = {key: value for row in rows for key, value in row["settings"].items()}
    listed = " ".join(f"trainer.{key}={value}" for key, value in settings.items())
    print(f"settings for the study: {listed or 'none, everything works'}")
    meta = {"made": now(), "git": git_state(), "versions": versions(), "device": rows[0]["remark"]}
    out.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(meta | {"checks": list(rows), "settings": settings}, indent=2)
    write_text_atomic(out, text + "\n")


def main() -> int:
    """Run all checks, print the table, write the file; 1 if the GPU cannot be used."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    began = time.monotonic()
    rows = run_all(CHECKS)
    report(rows, GPU_CHECK)
    print(f"{time.monotonic() - began:.0f} s; written to {GPU_CHECK}")
    return int(rows[0]["state"] == "failed")


if __name__ == "__main__":
    sys.exit(main())
