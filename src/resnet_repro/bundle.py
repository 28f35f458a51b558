"""Runs for a host that has only Python and torch: out as one archive, home as one archive."""

from __future__ import annotations

import dataclasses
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from resnet_repro import paths
from resnet_repro.config import Config
from resnet_repro.runs.folder import find_runs
from resnet_repro.runs.provenance import REVISION, git_state
from resnet_repro.training.launch import Job

PACKAGE = Path(__file__).resolve().parent
JOBS = "jobs.json"


def write_bundle(jobs: Sequence[Job], out: Path) -> Path:
    """Write code, prepared data and the composed configurations of ``jobs`` into one tar.

    Unpacked, ``PYTHONPATH=src RESNET_REPRO_DATA=data python -m resnet_repro.study run --bundle .``
    does the runs; neither Hydra nor a network is needed there.
    """
    listed = [
        {"config": job.config.as_mapping(), "words": job.words, "deviations": job.deviations}
        for job in jobs
    ]
    with tarfile.open(out, "w") as tar:
        for path in sorted(PACKAGE.rglob("*.py")):
            tar.add(path, f"src/resnet_repro/{path.relative_to(PACKAGE)}")
        for prepared in _prepared(jobs):
            tar.add(prepared, f"data/{prepared.name}")
        _add(tar, f"src/resnet_repro/{REVISION}", git_state())  # there is no git over there
        _add(tar, JOBS, listed)
    return out


def _prepared(jobs: Sequence[Job]) -> list[Path]:
    """Files of the data sets that these jobs need, as far as they were prepared here."""
    names = {job.config.data.name for job in jobs}
    files = sorted(paths.data().glob("*.npz"))
    return [path for path in files if path.stem.replace("-", "_").startswith(tuple(names))]


def _add(tar: tarfile.TarFile, name: str, content: Any) -> None:
    text = json.dumps(content, indent=1).encode()
    member = tarfile.TarInfo(name)
    member.size = len(text)
    tar.addfile(member, io.BytesIO(text))


def load_jobs(bundle: Path, runs_dir: Path) -> list[Job]:
    """Read the runs of an unpacked bundle; their folders go below ``runs_dir``."""
    listed = json.loads((bundle / JOBS).read_text(encoding="utf-8"))
    return [
        Job(
            dataclasses.replace(Config.from_mapping(job["config"]), runs_dir=str(runs_dir)),
            tuple(job["words"]),
            job["deviations"],
        )
        for job in listed
    ]


def pack_runs(runs_dir: Path, out: Path) -> Path:
    """Write all run folders below ``runs_dir`` into one archive, without checkpoints and locks.

    Unpack it in the project's root with ``tar xf``.
    """
    with tarfile.open(out, "w:gz") as tar:
        for run in find_runs(runs_dir):
            for path in sorted(run.path.iterdir()):
                if path.is_file() and not path.name.startswith("."):
                    tar.add(path, f"results/runs/{path.relative_to(runs_dir)}")
    return out
