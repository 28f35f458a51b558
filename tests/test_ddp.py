"""Several workers on one run: same batches, same mathematics, same bits after a stop."""

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ranks import UNSEEN, do, fingerprint, never, newest, small_job, together, workers
from resnet_repro.data import synthetic
from resnet_repro.data.resident import ResidentImages
from resnet_repro.evaluation.count import ErrorCount, count_errors
from resnet_repro.options import ConfigError
from resnet_repro.progress import Watcher
from resnet_repro.runs.folder import RunFolderError
from resnet_repro.training import DivergedError, distributed
from resnet_repro.training import run as run_module
from resnet_repro.training.build import assemble
from resnet_repro.training.device import set_up
from resnet_repro.training.distributed import World, join, replicate, world_from_env
from resnet_repro.training.launch import Job
from resnet_repro.training.records import even_batch_size
from resnet_repro.training.state import TrainState, forward_backward, settle_ddp_buckets
from test_stepper import Launched

pytestmark = pytest.mark.usefixtures("few_images")

SHORT = ("recipe.max_iters=6", "recipe.milestones=[4]", "recipe.lr=0.01", *UNSEEN,
         "evaluation.every_iters=6")  # fmt: skip


@pytest.fixture
def images_of(tmp_path, monkeypatch):
    monkeypatch.setattr("resnet_repro.training.build.replicate", lambda model, _: model)
    config, arrays = small_job(tmp_path).config, synthetic.make((200, 70))
    return lambda *of: assemble(config, set_up(config.trainer), arrays, World(*of))[0].images


@pytest.mark.parametrize("size", [2, 3, 4, 7])
def test_batches_are_the_same_bits_for_every_number_of_workers(images_of, size):
    shares = [images_of(rank, size) for rank in range(size)]
    for iteration in (0, 1, 12):  # the last straddles two epochs
        images, labels = images_of(0, 1).batch(iteration)
        parts = [share.batch(iteration) for share in shares]
        assert torch.equal(torch.cat([part[0] for part in parts]), images)
        assert torch.equal(torch.cat([part[1] for part in parts]), labels)
        assert max(len(part[1]) for part in parts) - min(len(part[1]) for part in parts) <= 1
        assert [part[0].shape for part in parts] == [share.share_shape for share in shares]


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("largest", [7, 50, 1000])
def test_evaluation_counts_every_image_once(images_of, size, largest):
    images = images_of(0, 1).held_out["test"]

    def forward(batch: Tensor) -> Tensor:  # cheap, but not the same for all images
        return batch.mean(dim=(2, 3)) @ torch.linspace(-9, 9, 30).view(3, 10)

    expected = count_errors(forward, images.eval_batches(1000), len(images))
    heard: list[Tensor] = []

    def count(rank: int, sum_up: Any) -> ErrorCount:
        even = even_batch_size(len(images), largest, size)
        batches = images.eval_batches(even, first=rank, every=size)
        return count_errors(forward, batches, len(images), sum_up)

    for rank in range(size - 1):
        with pytest.raises(RuntimeError, match="counted"):  # its own alone are not all
            count(rank, lambda sums: heard.append(sums) or sums if size > 1 else sums)
    found = count(size - 1, lambda sums: sums + sum(heard))
    found = dataclasses.replace(found, loss_sum=pytest.approx(found.loss_sum, rel=1e-6))
    assert found == expected


def trained(tmp_path: Path, name: str, *arguments: str) -> tuple[list[float], dict[str, Tensor]]:
    job = small_job(tmp_path, f"name={name}", *SHORT, *arguments)
    assert workers(job) == "finished"
    saved = newest(job.folder)
    weights = {k: v for k, v in saved["model"].items() if v.ndim and "running" not in k}
    assert all(r["num_samples"] == 60 for r in job.folder.metrics() if r["kind"] == "test")
    assert job.folder.meta()["world_size"] == job.config.trainer.devices
    return [r["loss"] for r in job.folder.metrics() if r["kind"] == "train"], weights


def furthest(a: Any, b: Any) -> float:
    losses = max(abs(x - y) for x, y in zip(a[0], b[0], strict=True))
    weights = max(float((a[1][key] - b[1][key]).abs().max()) for key in a[1])
    return max(losses, weights)


def test_two_workers_are_one_with_batch_norm_in_two_groups(tmp_path):
    """The paper's CIFAR set-up: a batch on two devices, each with statistics of its own.

    Measured 3e-7 after 6 updates; batch-norm over the whole batch is 1e-2 away.
    """
    groups = trained(tmp_path, "groups", "model.bn_group=8")
    two = trained(tmp_path, "two", "trainer.devices=2")
    whole = trained(tmp_path, "whole")
    assert furthest(groups, two) < 5e-6
    assert furthest(whole, two) > 5e-3


@pytest.mark.parametrize(
    "devices", [3, pytest.param(2, marks=pytest.mark.slow), pytest.param(4, marks=pytest.mark.slow)]
)
def test_synchronised_batch_norm_makes_every_number_of_workers_one(tmp_path, devices):
    """Measured 3e-5 after 6 updates; three workers have 5, 5 and 6 of 16 images."""
    several = trained(tmp_path, "several", "trainer.sync_bn=true", f"trainer.devices={devices}")
    assert furthest(trained(tmp_path, "one"), several) < 3e-4


@pytest.mark.parametrize("devices", [3, pytest.param(4, marks=pytest.mark.slow)])
def test_stopped_and_resumed_gives_the_same_bits(tmp_path, devices):
    """Twice in one epoch, when the last rank alone wants to; from three on the buckets matter.

    Two, under torch's launcher: test_ddp_processes.py.
    """
    words = f"trainer.devices={devices}"
    whole, parts = (small_job(tmp_path / name, words) for name in ("whole", "parts"))
    assert workers(whole) == "finished"
    assert workers(parts, 5) == "preempted"
    assert parts.folder.status()["iter"] == 5
    assert workers(parts, 2) == "preempted"
    assert parts.folder.status()["iter"] == 7
    assert workers(parts) == "finished"
    assert fingerprint(parts.folder) == fingerprint(whole.folder)
    assert not list(parts.folder.path.rglob("*.tmp"))


def test_another_number_of_workers_only_where_it_is_allowed(tmp_path):
    two = small_job(tmp_path, *SHORT, "trainer.devices=2")
    assert workers(two, 3) == "preempted"
    with pytest.raises(RunFolderError, match=r"trainer.devices was 2, now 1"):
        do(small_job(tmp_path, *SHORT))
    allowed = small_job(tmp_path, *SHORT, "trainer.allow_new_world_size=true")
    assert do(allowed) == "finished"
    records = allowed.folder.metrics()
    (changed,) = [r for r in records if r["kind"] == "event"]
    assert (changed["event"], changed["value"], changed["iter"]) == ("world_size", 1, 3)
    assert [r["iter"] for r in records if r["kind"] == "train"] == [2, 4, 6]
    assert do(allowed) == "skipped"


def test_a_started_number_of_workers_that_is_not_the_asked_one_is_refused(tmp_path):
    job = small_job(tmp_path, *SHORT, "trainer.devices=3")
    job.folder.write_config(job.config.as_mapping())
    with pytest.raises(ConfigError, match=r"trainer.devices=3: but 2 workers were started"):
        run_module.TrainingRun(job.folder, Watcher(), never, World(1, 2))


def test_a_worker_that_a_launcher_half_placed_says_what_is_missing(monkeypatch):
    for name in distributed.ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(ConfigError, match="WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE not set"):
        world_from_env()


def _poison(world: World) -> None:
    batch = ResidentImages.batch

    def poisoned(self: ResidentImages, iteration: int, **how: bool) -> tuple[Tensor, Tensor]:
        images, labels = batch(self, iteration, **how)
        return images * (float("nan") if world.rank == 1 and iteration == 3 else 1), labels

    ResidentImages.batch = poisoned


def test_divergence_on_one_worker_stops_all_with_its_name(tmp_path):
    job = small_job(tmp_path, *SHORT, "trainer.devices=2")
    with pytest.raises(DivergedError, match="the loss is not finite at iteration 4"):
        workers(job, spoil=_poison)
    status = job.folder.status()
    assert (status["state"], status["iter"]) == ("diverged", 0)  # 4 would be a checkpoint


def _meet(job: Job) -> Any:
    """What each worker holds after it has joined: gradients of the whole batch, rank 0's BN."""
    config = job.config
    setup = set_up(config.trainer)
    world = join(world_from_env(), setup.device, 60)
    parts, state = assemble(config, setup, synthetic.make((200, 70)), world)
    before = [buffer.clone() for buffer in state.model.buffers()]
    generator = torch.get_rng_state()
    settle_ddp_buckets(state, setup, parts.images.share_shape)
    assert all(p.grad is None for p in state.model.parameters())
    assert all(map(torch.equal, before, state.model.buffers()))
    assert torch.equal(generator, torch.get_rng_state())
    forward_backward(state, setup, *parts.images.batch(0))
    gradient = torch.cat([p.grad.flatten() for p in state.model.parameters() if p.grad is not None])
    own = statistics(state)
    world.share_statistics(state.model)
    return gradient.numpy(), own.numpy(), statistics(state).numpy(), world.any(world.rank == 1)


def statistics(state: TrainState) -> Tensor:
    return torch.cat([b.flatten() for b in state.model.buffers() if b.is_floating_point()])


def test_what_workers_share_and_what_they_do_not(tmp_path):
    first, second = together(2, _meet, small_job(tmp_path, "trainer.devices=2"))
    assert (first[0] == second[0]).all()  # the gradient
    assert not (first[1] == second[1]).all()  # statistics, each its own
    assert (first[2] == first[1]).all()  # until an evaluation: then all have rank 0's
    assert (second[2] == first[1]).all()
    assert first[3] == second[3] == (True,)


def test_a_warning_that_means_nothing_here_is_not_shown(monkeypatch):
    """Of 1x1 filters, whose strides in dimensions of size 1 may be any."""
    net = torch.nn.Linear(2, 2)
    assert replicate(net, World()) is net  # a single worker is not wrapped
    monkeypatch.setattr(torch.nn.parallel, "DistributedDataParallel", lambda net, **_: net)
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        replicate(net, World(0, 2))
        warnings.warn("Grad strides do not match bucket view strides. This may", stacklevel=1)
        warnings.warn("another", stacklevel=1)
    assert [str(warning.message) for warning in shown] == ["another"]


def test_batch_norm_over_all_workers_waits_for_no_copy_from_the_host(monkeypatch):
    """On a GPU there would be one in each layer of each step."""
    monkeypatch.setattr(distributed.dist, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed.dist, "all_reduce", lambda _: None)
    norm, plain = distributed.SyncBatchNorm2d(3), torch.nn.BatchNorm2d(3)
    images, copies = torch.randn(4, 3, 5, 5), torch.ops.aten.lift_fresh.default
    with Launched() as noted:
        found = norm(images)
    assert copies not in dict(noted.calls)
    torch.testing.assert_close(found, plain(images))
    with Launched() as noted:
        images.new_tensor([1])
    assert copies in dict(noted.calls)
