"""Record where a result comes from: code, versions, machine; torch only to name a GPU."""

import contextlib
import json
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from resnet_repro import __version__

HERE = Path(__file__).resolve().parent
PACKAGES = ("torch", "torchvision", "numpy")
REVISION = "revision.json"  # in a bundle: the state of the code it was made from


def git_state() -> dict[str, Any]:
    """Revision of the code that runs and whether it was changed since; nulls outside git."""
    # A copy of the code may lie within the repository of something else.
    tracked = _git("ls-files", "--error-unmatch", Path(__file__).name) is not None
    revision = _git("rev-parse", "HEAD") if tracked else None
    carried = HERE.parent / REVISION
    if revision is None and carried.exists():  # the code came in a bundle
        state: dict[str, Any] = json.loads(carried.read_text(encoding="utf-8"))
        return state
    changes = _git("status", "--porcelain", "--", ":/src", ":/conf") if tracked else None
    return {"revision": revision, "dirty": None if changes is None else bool(changes)}


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=HERE, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def versions() -> dict[str, str | None]:
    """Version of Python and of what the numbers depend on."""
    found: dict[str, str | None] = dict.fromkeys(PACKAGES)
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return {"python": platform.python_version(), "resnet_repro": __version__} | found


def usable_cores() -> int:
    """Cores this process may run on, container limits included."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cores = affinity or 1
    # A container's share of the machine (cgroup v2): "max 100000", no number, or "200000 100000".
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="utf-8").split()
        cores = min(cores, max(1, int(quota) // int(period)))
    return cores


def cpu_description() -> tuple[str, frozenset[str]]:
    """Name of the CPU and its feature flags, as Linux reports them."""
    name, flags = platform.processor() or platform.machine(), frozenset[str]()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                name = value.strip()
            elif key.strip() in ("flags", "Features"):
                flags = frozenset(value.split())
                break
    return name, flags


def has_gpu_driver() -> bool:
    """Whether there is a driver for a GPU, of NVIDIA, AMD or Windows."""
    return any(Path(f"/dev/{name}").exists() for name in ("nvidiactl", "kfd", "dxg"))


def gpu_name() -> str | None:
    """The GPU that a run would take; torch, which takes seconds to load, is asked only then."""
    if not has_gpu_driver():
        return None
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def multiplies_bf16() -> bool:
    """Whether the CPU multiplies bf16 natively; elsewhere fp32 is several times faster."""
    return bool({"amx_bf16", "avx512_bf16", "bf16"} & cpu_description()[1])


def hardware(gpu: str | None, gpus: int, threads: int) -> dict[str, Any]:
    """What a run computes on; ``label`` is what figures and tables print."""
    cpu, _ = cpu_description()
    plural = "s" if threads > 1 else ""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "label": f"{gpus}x {gpu}" if gpu else f"{threads} CPU core{plural}, {cpu}",
        "cpu": cpu,
        "cores": usable_cores(),
        "gpu": gpu,
        "memory_gib": round(memory / 2**30, 1),
    }
