"""Small runs on made-up images: in this process, or in some of their own without real commands.

Workers are forked from a server that has imported torch and computed nothing, and find each other
without torch's launcher: seconds less for each test.
"""

import hashlib
import multiprocessing
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from resnet_repro.compose import make_job
from resnet_repro.data import synthetic
from resnet_repro.progress import Watcher
from resnet_repro.runs.atomic import CRASH_AT
from resnet_repro.runs.folder import RunFolder
from resnet_repro.training import estimate
from resnet_repro.training.checkpoint import load_newest
from resnet_repro.training.distributed import ENVIRONMENT, SOLO, World, leave, world_from_env
from resnet_repro.training.launch import Job, launch, prepare
from resnet_repro.training.run import TrainingRun

_CONTEXT = multiprocessing.get_context("forkserver")
# DistributedDataParallel imports torch._dynamo: seconds in each process.
_CONTEXT.set_forkserver_preload(
    ["torch._dynamo", "resnet_repro.training.run", "resnet_repro.compose", __name__]
)

FEW_IMAGES = (400, 60)  # training and test images, in these processes and with ``few_images``
WORDS = (  # a small run, of whatever experiment
    "data=synthetic", "profile=smoke", "model.depth=8", "recipe.batch_size=16",
    "evaluation.clean_train_images=50", "probes.response_images=40", "trainer.threads=1",
    "trainer.precision=fp32",
)  # fmt: skip
SMALL = ("experiment=cifar10_resnet20", *WORDS)
UNSEEN = ("probes.signals=false", "probes.response_images=0")
BRIEF = ("recipe.max_iters=4", "recipe.milestones=[2]", *UNSEEN)


def show_few(patch: pytest.MonkeyPatch) -> None:
    """Let ``patch`` make runs of this process have few images, and estimates time as few."""
    patch.setattr(synthetic, "SIZES", FEW_IMAGES)
    patch.setattr(estimate, "PIXELS", 16 * 32 * 32)


class StopAt:
    def __init__(self, look: int):
        self.looks_left = look

    def __call__(self) -> bool:
        self.looks_left -= 1
        return self.looks_left == 0


def never() -> bool:
    return False


def small_job(root: Path, *arguments: str) -> Job:
    return make_job(*SMALL, f"runs_dir={root}", *arguments)


def do(job: Job, stop: Callable[[], bool] = never) -> str:
    return launch(job, Watcher(), stop)


def finished(job: Job) -> dict[str, Any]:
    """Do a run, or the rest of it; what it computed."""
    assert do(job) == "finished"
    return fingerprint(job.folder)


def newest(folder: RunFolder) -> dict[str, Any]:
    saved = load_newest(folder.checkpoints)
    assert saved is not None
    return saved


def fingerprint(folder: RunFolder) -> dict[str, Any]:
    """Everything a run computed, without the times it took."""
    saved = newest(folder)
    tensors = hashlib.sha256()
    for name, value in sorted(saved["model"].items()):
        tensors.update(name.encode() + value.numpy().tobytes())
    for _, state in sorted(saved["optimizer"]["state"].items()):
        tensors.update(state["momentum_buffer"].numpy().tobytes())
    metrics = [{k: v for k, v in record.items() if k != "time"} for record in folder.metrics()]
    tables = ("gradients", "signal", "gradient_precision", "responses")
    return {
        "weights, statistics and momentum": tensors.hexdigest(),
        "window": saved["window"].tolist(),
        "iteration": saved["iteration"],
        "warmup_exit": saved["warmup_exit"],
        "metrics": metrics,
    } | {name: folder.table(name) for name in tables}


def together(count: int, function: Callable[..., Any], *args: Any, timeout: float = 120) -> Any:
    """Call ``function(*args)`` in ``count`` processes that find each other; their answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with _CONTEXT.Pool(count, maxtasksperchild=1) as pool:
        calls = [
            pool.apply_async(_call, (rank, count, port, function, args)) for rank in range(count)
        ]
        return [call.get(timeout) for call in calls]


def _call(rank: int, count: int, port: int, function: Callable[..., Any], args: Any) -> Any:
    values = (rank, count, rank, count)
    os.environ |= {name: str(value) for name, value in zip(ENVIRONMENT, values, strict=True)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    synthetic.SIZES = FEW_IMAGES
    answer = function(*args)
    leave()
    return answer


def workers(
    job: Job,
    stop_after: int | None = None,
    spoil: Callable[[World], None] | None = None,
    images: tuple[int, int] = FEW_IMAGES,
) -> str:
    """Do ``job`` on its devices; the last rank alone is asked to stop after so many iterations.

    ``spoil`` is called in each worker before it begins.
    """
    job.folder.path.mkdir(parents=True, exist_ok=True)
    prepare(job)
    (state,) = {*together(job.config.trainer.devices, _share, job, stop_after, spoil, images)}
    return str(state)


def _share(
    job: Job, stop_after: int | None, spoil: Callable[[World], None] | None, images: tuple[int, int]
) -> str:
    synthetic.SIZES = images
    world = world_from_env() if job.config.trainer.devices > 1 else SOLO
    if spoil is not None:
        spoil(world)
    asked = stop_after is not None and world.rank == world.size - 1
    stop = StopAt(stop_after or 0) if asked else never
    return TrainingRun(job.folder, Watcher(), stop, world).finish()


def begin_as_is(work: Callable[..., Any], *args: Any) -> Any:
    """Call ``work(*args)`` in a process of its own, with all the images."""
    process = _CONTEXT.Process(target=work, args=args)
    process.start()
    return process


def crash(job: Job, where: str) -> int | None:
    """Do ``job`` in a process that dies at a named point; its exit code."""
    process = begin_as_is(_crash, job, where)
    process.join(120)
    code: int | None = process.exitcode
    return code


def _crash(job: Job, where: str) -> None:
    synthetic.SIZES = FEW_IMAGES
    os.environ[CRASH_AT] = where
    do(job)
