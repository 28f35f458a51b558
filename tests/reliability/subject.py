"""The disturbed runs: small, real, and compared with an undisturbed one."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resnet_repro.compose import make_job
from resnet_repro.runs.folder import RunFolder
from resnet_repro.training.launch import Job

FEW_IMAGES = (400, 60)  # training and test images, where a run need not be the real command's
SMALL = (
    "experiment=cifar10_resnet20",
    "data=synthetic",
    "profile=smoke",
    "model.depth=8",
    "recipe.batch_size=16",
    "evaluation.clean_train_images=100",
    "probes.response_images=20",
    "trainer.threads=1",
    "trainer.precision=fp32",
)
# 12 iterations with checkpoints at 4, 8 and 12 (profile smoke); what differs between them is what
# a resume could forget.
VARIANTS: dict[str, tuple[str, ...]] = {
    "residual": (),
    "plain": ("model.shortcut=none", "recipe.nesterov=true", "trainer.checkpoint_every_iters=3"),
    "gated": ("model.shortcut=gate", "recipe.warmup=iters400", "seed=3"),
    "grouped": ("model.bn_group=8", "trainer.checkpoint_every_iters=1", "seed=1"),
}
# For the real command, whose start takes seconds: long enough to be hit elsewhere too.
LONG = (
    "recipe.max_iters=160",
    "recipe.milestones=[80,120]",
    "trainer.log_every_iters=8",
    "trainer.checkpoint_every_iters=8",
    "evaluation.every_iters=32",
)


def words(root: Path, *more: str) -> tuple[str, ...]:
    """Command-line words of a small run below ``root``."""
    return (*SMALL, f"runs_dir={root}", *more)


def small_job(root: Path, *more: str) -> Job:
    """Compose a small run below ``root``."""
    return make_job(*words(root, *more))


def fingerprint(folder: RunFolder) -> dict[str, str]:
    """Digest of everything a run computed, without the times it took.

    Raises:
        CheckpointError: there is no whole checkpoint.
    """
    from resnet_repro.training.checkpoint import load_newest

    saved = load_newest(folder.checkpoints)
    if saved is None:
        return {}
    weights, statistics = hashlib.sha256(), hashlib.sha256()
    for name, value in sorted(saved["model"].items()):
        into = statistics if "running" in name or "num_batches" in name else weights
        into.update(name.encode() + value.numpy().tobytes())
    momentum = hashlib.sha256()
    for _, state in sorted(saved["optimizer"]["state"].items()):
        momentum.update(state["momentum_buffer"].numpy().tobytes())
    records = [{k: v for k, v in r.items() if k != "time"} for r in folder.metrics()]
    tables = [folder.table(name) for name in ("gradients", "signal", "responses")]
    counters = [saved[name] for name in ("iteration", "warmup_exit", "metrics_bytes", "world_size")]
    del counters[2]  # its records hold times, of more or fewer digits
    return {
        "weights": weights.hexdigest(),
        "batch-norm statistics": statistics.hexdigest(),
        "momentum": momentum.hexdigest(),
        "window": hashlib.sha256(saved["window"].numpy().tobytes()).hexdigest(),
        "counters": _digest(counters),
        "metrics": _digest(records),
        "tables": _digest(tables),
    }


def _digest(values: Any) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


@dataclass(frozen=True)
class Reference:
    """A run that nothing disturbed, and how long it took in seconds."""

    digests: dict[str, str]
    seconds: float

    def verdict(self, folder: RunFolder) -> dict[str, Any]:
        """Compare a run that was disturbed and ended with this one."""
        found = fingerprint(folder)
        differs = sorted(k for k in self.digests if self.digests[k] != found.get(k))
        left = left_overs(folder)
        kept = len(list(folder.checkpoints.glob("iter_*.pt")))
        fine = folder.is_finished and not differs and not left and kept <= 2
        told: dict[str, Any] = {"ok": fine, "identical": folder.is_finished and not differs}
        if not fine:
            state = folder.status().get("state")
            told |= {"state": state, "differs": differs, "left": left, "generations": kept}
        return told


def left_overs(folder: RunFolder) -> list[str]:
    """Temporary files, and digests without their checkpoint, that nobody removed."""
    lonely = [p for p in folder.checkpoints.glob("*.sha256") if not p.with_suffix("").exists()]
    return sorted(path.name for path in (*folder.path.rglob("*.tmp"), *lonely))
