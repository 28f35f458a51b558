"""Runs for a host that has only Python and torch: out as one archive, home as one archive."""

from __future__ import annotations

import dataclasses
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

from resnet_repro import paths
from resnet_repro.config import Config
from resnet_repro.runs.folder import find_runs
from resnet_repro.runs.provenance import REVISION, git_state
from resnet_repro.training.launch import Job

PACKAGE = Path(__file__).resolve().parent
JOBS = "jobs.json"


def write_bundle(jobs: Sequence[Job], out: Path) -> Path:
    """Write code, data prepared here and the composed configurations of ``jobs`` into one tar.

    Unpacked, ``PYTHONPATH=src RESNET_REPRO_DATA=data python -m resnet_repro.study run --bundle .``
    does the runs; neither Hydra nor a network is needed there.
    """
    listed = [
        {"config": job.config.as_mapping(), "words": job.words, "deviations": job.deviations}
        for job in jobs
    ]
    data_sets = tuple({job.config.data.name for job in jobs})
    with tarfile.open(out, "w") as tar:
        for path in sorted(PACKAGE.rglob("*.py")):
            tar.add(path, f"src/resnet_repro/{path.relative_to(PACKAGE)}")
        for path in sorted(paths.data().glob("*.npz")):
            if path.stem.replace("-", "_").startswith(data_sets):
                tar.add(path, f"data/{path.name}")
        # The other host has no git state.
        for name, content in {f"src/resnet_repro/{REVISION}": git_state(), JOBS: listed}.items():
            text = json.dumps(content, indent=1).encode()
            member = tarfile.TarInfo(name)
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text))
    return out


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
