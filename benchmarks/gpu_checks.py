"""What :mod:`benchmarks.gpu_check` computes: each check returns a remark, or raises.

``SkipTest`` says why a check cannot run here. ``python -m benchmarks.gpu_checks NAME FOLDER``
runs one and prints its result.
"""

import hashlib
import io
import json
import multiprocessing
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from typing import Any
from unittest import SkipTest

import numpy as np
import torch
import torch.distributed as dist

from benchmarks.gpu_check import PREFIX
from benchmarks.timing import Training
from resnet_repro.config import Config, TrainerConfig
from resnet_repro.evaluation.count import count_errors
from resnet_repro.progress import Progress, Watcher
from resnet_repro.training.build import assemble, load_images
from resnet_repro.training.checkpoint import load_newest
from resnet_repro.training.device import choose, free_after_run, set_fp32_precision, set_up
from resnet_repro.training.distributed import World
from resnet_repro.training.jobs import train_together
from resnet_repro.training.launch import Job, launch
from resnet_repro.training.state import settle_ddp_buckets, step

ITERATIONS, DROP = 24, 12  # of a trained run; a captured graph is replayed in most of them


def small(root: Path, name: str, groups: Mapping[str, Any] | None = None, **trainer: Any) -> Job:
    """Make a small, reproducible run on synthetic images.

    ``groups`` and ``trainer`` change its configuration.
    """
    cuda = torch.cuda.is_available()  # a CPU is always deterministic
    depth, batch = (20, 128) if cuda else (8, 16)
    values: dict[str, Any] = {
        "data": {"name": "synthetic"},
        "model": {"depth": depth, "shortcut": "A"},
        "recipe": {"batch_size": batch, "max_iters": ITERATIONS, "milestones": [DROP]},
        "evaluation": {"every_iters": DROP, "batch_size": 100, "clean_train_images": 200},
        "probes": {"signals": cuda, "response_images": 100 * cuda},
        "trainer": {"threads": 1, "log_every_iters": 4, "checkpoint_every_iters": 8},
    }
    values["trainer"] |= {"deterministic": cuda} | trainer
    for group, changes in (groups or {}).items():
        values[group] |= changes
    names = {"experiment": "gpu_check", "name": name, "profile": "smoke", "runs_dir": str(root)}
    return Job(Config.from_mapping(names | values), ("gpu_check",), {})


def trained(job: Job, updates: int = ITERATIONS) -> tuple[Training, torch.Tensor]:
    """Return a run after ``updates``, and their losses."""
    training = Training(job.config, warm=0)
    losses = training.losses(updates)
    if not bool(losses.isfinite().all()):
        raise AssertionError(f"losses are not finite: {losses.tolist()}")
    return training, losses


def bits(tensors: Any) -> str:
    """Return a digest of tensors by name."""
    digest = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def same(found: object, expected: object, what: str) -> None:
    """Raise where two results differ."""
    if found != expected:
        raise AssertionError(f"{what}: {found}, expected {expected}")


def run(job: Job, stop_asked: Callable[[], bool] = lambda: False) -> str:
    """Train a run as its command does."""
    return launch(job, Watcher(), stop_asked)


def weights(job: Job) -> str:
    """Digest of the weights in the newest checkpoint of a run."""
    saved = load_newest(job.folder.checkpoints)
    assert saved is not None, f"{job.folder.path}: no checkpoint"
    return bits(saved["model"])


def check_device(_: Path) -> str:
    """Compute something on the GPU."""
    setup = choose(TrainerConfig())  # refuses a GPU that torch cannot use
    if setup.device.type != "cuda":
        raise SkipTest("no CUDA")
    images = torch.randn(8, 3, 32, 32, device=setup.device)
    filters = torch.randn(16, 3, 3, 3, device=setup.device)
    assert bool(torch.nn.functional.conv2d(images, filters).isfinite().all())
    gib = torch.cuda.get_device_properties(setup.device).total_memory / 2**30
    return f"{setup.gpu}, {gib:.0f} GiB, torch {torch.__version__} for CUDA {torch.version.cuda}"


def check_precision(_: Path) -> str:
    """Multiply in fp32 and in TF32; old and new switches must not contradict each other."""
    a, b = (torch.randn(512, 512, device="cuda", dtype=torch.float64) for _ in range(2))
    errors = {}
    for value in ("tf32", "ieee"):
        set_fp32_precision(value)
        switches = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
        same(switches, (value == "tf32",) * 2, "the old switches of TF32")
        errors[value] = float((a.float() @ b.float() - a @ b).norm() / (a @ b).norm())
    assert errors["ieee"] < 1e-5, f"fp32 is off by {errors['ieee']:.1e}"
    return f"relative error of a product: tf32 {errors['tf32']:.1e}, fp32 {errors['ieee']:.1e}"


def check_graph(root: Path) -> str:
    """Replay captured steps: in deterministic mode the bits of eager ones, else close to them."""
    for deterministic in (True, False):
        found = {}
        for graph in ("never", "always"):
            job = small(root, "graph", graph=graph, compile="never", deterministic=deterministic)
            training, losses = trained(job)
            found[graph] = bits(training.state.model.state_dict()), losses
        if deterministic:
            same(found["always"][0], found["never"][0], "weights of graphed and eager steps")
        distance = float((found["always"][1] - found["never"][1]).abs()[:3].max())
        assert distance < 0.05, f"losses of graphed and eager steps are {distance:.2g} apart"
    return f"same bits after {ITERATIONS} updates; not deterministic: losses {distance:.1g} apart"


def check_compile(root: Path) -> str:
    """Compile the blocks; the first losses must be those of the blocks as they are."""
    job = small(root, "compile", compile="never", deterministic=False)
    _, plain = trained(job, 3)
    began = time.monotonic()
    job = small(root, "compile", compile="always", deterministic=False)
    _, compiled = trained(job, 3)
    distance = float((compiled - plain).abs()[0])
    assert distance < 0.01, f"first losses are {distance:.2g} apart"
    return f"first losses {distance:.1g} apart; compiled in {time.monotonic() - began:.0f} s"


def check_evaluation(root: Path) -> str:
    """Count errors by the captured forward pass and by the net, also after its weights changed."""
    job = small(root, "evaluation", graph="always", compile="never", precision="bf16")
    training, _ = trained(job)
    net, forward = training.state.model.eval(), training.state.graphed_eval
    images = training.context.images.held_out["test"]
    assert forward is not None
    with torch.cuda.stream(training.stream), torch.no_grad():
        for _ in range(2):
            with training.setup.autocast():  # a graph must not keep what autocast casts
                captured, plain = (
                    count_errors(each, images.eval_batches(100), len(images))
                    for each in (forward, net)
                )
            counts = captured.wrong1, captured.wrong5
            same(counts, (plain.wrong1, plain.wrong5), "wrong images by the captured forward pass")
            for parameter in net.parameters():
                parameter.mul_(1.5)
    return f"{counts[0]} of {len(images)} wrong both ways"


def check_resume(root: Path) -> str:
    """Stop a run, resume it, and compare it with one that was never stopped."""
    uninterrupted, stopped, looks = small(root, "whole"), small(root, "stopped"), count(1)
    same(run(uninterrupted), "finished", "a run")
    same(run(stopped, lambda: next(looks) >= 10), "preempted", "a run that was asked to stop")
    same(run(stopped), "finished", "a resumed run")
    same(weights(stopped), weights(uninterrupted), "weights of the resumed run")
    return "stopped at iteration 10 and resumed: same bits"


def check_together(root: Path) -> str:
    """Train two runs at the same time, and one of them alone."""
    unseen = Progress((1, 1), io.StringIO())
    pair = [small(root, name) for name in ("first", "second")]
    for outcome in train_together(pair, 2, unseen, lambda: False):
        if outcome.error is not None:
            raise outcome.error
    alone = small(root, "alone")
    run(alone)
    for job in pair:
        same(weights(job), weights(alone), "weights of a run beside another")
    return "two runs at once: same bits as one alone"


def check_memory(root: Path) -> str:
    """Train a run; its memory must be free afterwards."""
    held = []
    for name in ("first", "second", "third"):
        run(small(root, name))
        free_after_run()
        held.append(torch.cuda.memory_reserved() / 2**20)
    grown = held[-1] - held[0]
    assert grown < 16, f"{grown:.0f} MiB more after three runs than after one: {held}"
    return f"{held[-1]:.0f} MiB held after three runs"


def check_ranks(root: Path, backend: str = "gloo") -> str:
    """Train on two workers; both must have the same weights, which are nearly those of one."""
    ranks = [(root, backend, rank) for rank in range(2)]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        first, second = pool.starmap(run_rank, ranks, chunksize=1)
    same(second, first, "weights of the second rank")
    _, losses = trained(small(root, "ranks"), 1)
    return f"same bits on both ranks; first loss of one worker {float(losses[0]):.4f}"


def check_nccl(root: Path) -> str:
    """Train on two GPUs, whose gradients go over NCCL."""
    if torch.cuda.device_count() < 2:
        raise SkipTest("one GPU")
    return check_ranks(root, "nccl")


def run_rank(root: Path, backend: str, rank: int) -> str:
    """Train a few updates as one of two workers; return the digest of the weights."""
    config = small(root, "ranks").config
    setup = set_up(config.trainer, rank if backend == "nccl" else 0)  # gloo: both on the first GPU
    if setup.gpu:
        torch.cuda.set_device(setup.device)
    kind = "cpu:gloo,cuda:nccl" if backend == "nccl" else "gloo"
    dist.init_process_group(kind, init_method=f"file://{root}/meet", rank=rank, world_size=2)
    context, state = assemble(config, setup, load_images(config), World(rank, 2, rank, 2))
    settle_ddp_buckets(state, setup, context.images.share_shape)
    for iteration in range(6):
        step(state, setup, *context.images.batch(iteration), 0.01)
    digest = bits(dict(state.model.named_parameters()))
    dist.destroy_process_group()
    return digest


def check_pictures(root: Path) -> str:
    """Decode a folder of photographs in other processes, and train on them."""
    try:
        from PIL import Image
    except ImportError as error:
        raise SkipTest("no Pillow") from error
    for part, images in {"train": 6, "val": 2}.items():
        for label in range(4):
            folder = root / "pictures" / part / f"class{label}"
            folder.mkdir(parents=True)
            for number in range(images):
                pixels = np.random.default_rng(number).integers(256, size=(240, 260, 3))
                image = Image.fromarray(pixels.astype(np.uint8))
                image.save(folder / f"{number}.jpg")
    groups = {
        "data": {"name": "folder", "root": str(root / "pictures")},
        "model": {"family": "imagenet", "depth": 18},
        "recipe": {"batch_size": 8, "max_iters": 3, "milestones": [2]},
        "evaluation": {"batch_size": 4},
    }
    same(run(small(root, "pictures", groups, loader_workers=2)), "finished", "a run on photographs")
    return "three updates and two evaluations of ResNet-18 at 224x224"


def answer(name: str, root: Path) -> None:
    """Run one check in this process and print its result."""
    try:
        result = {"state": "passed", "remark": globals()[f"check_{name}"](root)}
    except SkipTest as reason:
        result = {"state": "skipped", "remark": str(reason)}
    except BaseException as error:
        traceback.print_exc()
        result = {"state": "failed", "remark": f"{type(error).__name__}: {error}".split("\n")[0]}
    print(PREFIX + json.dumps(result), flush=True)


if __name__ == "__main__":
    answer(sys.argv[1], Path(sys.argv[2]))
