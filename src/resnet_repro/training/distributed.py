"""Several workers on one run: their shares, and what they exchange."""

import functools
import inspect
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from resnet_repro.options import ConfigError

T = TypeVar("T")
PATIENCE = timedelta(hours=2)  # for what rank 0 does first, alone: fetching the data
ENVIRONMENT = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


@dataclass(frozen=True)
class World:
    """The workers of a run and this one's rank; all call the methods that exchange.

    Sums are taken in the order of the ranks: every worker has the same bits, also after a resume.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    patient: dist.ProcessGroup | None = None  # a group with a long timeout

    def share(self, count: int) -> range:
        """Return this worker's share of ``count`` things; shares differ by one at most."""
        return range(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def sum(self, values: Tensor) -> Tensor:
        """Sum of the workers' ``values``, of one shape on all."""
        if self.size == 1:
            return values
        parts = [torch.empty_like(values) for _ in range(self.size)]
        dist.all_gather(parts, values)
        return functools.reduce(torch.add, parts)

    def gather(self, items: list[T]) -> list[T]:
        """Return the workers' ``items``, in the order of the ranks."""
        if self.size == 1:
            return list(items)
        parts: list[list[T]] = [[] for _ in range(self.size)]
        dist.all_gather_object(parts, items)
        return [item for part in parts for item in part]

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """Whether any worker raised each flag; does not wait for a GPU."""
        if self.size == 1:
            return flags
        raised = torch.tensor(flags, dtype=torch.int32)
        dist.all_reduce(raised, dist.ReduceOp.MAX)
        return tuple(bool(flag) for flag in raised.tolist())

    def rank0_first(self, work: Callable[[], T]) -> T:
        """Do ``work`` on rank 0, then on the others: rank 0 may download, the others read."""
        if self.rank == 0:
            result = work()
        if self.size > 1:
            dist.barrier(self.patient)
        return result if self.rank == 0 else work()

    def share_statistics(self, model: nn.Module) -> None:
        """Copy rank 0's batch-norm statistics to every worker."""
        if self.size > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, src=0)


SOLO = World()


def world_from_env() -> World:
    """Read this process's ranks from its environment; ConfigError: they are not there."""
    if missing := [name for name in ENVIRONMENT if name not in os.environ]:
        raise ConfigError(
            f"{', '.join(missing)} not set: a worker is started by torchrun; for several workers "
            "on one machine use: python -m resnet_repro.train ... trainer.devices=N"
        )
    rank, size, local_rank, local_size = (int(os.environ[name]) for name in ENVIRONMENT)
    return World(rank, size, local_rank, local_size)


def join(world: World, device: torch.device, timeout_seconds: float) -> World:
    """Join the other workers, if any; without an answer in this time the run fails."""
    if world.size == 1:
        return world
    backend = "gloo"
    if device.type == "cuda":  # gradients over NCCL, everything else over gloo
        torch.cuda.set_device(device)
        backend = "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, timeout=timedelta(seconds=timeout_seconds))
    patient = dist.new_group(backend="gloo", timeout=PATIENCE)
    assert isinstance(patient, dist.ProcessGroup)
    return replace(world, patient=patient)


def leave() -> None:
    """Leave the other workers after all have finished."""
    if dist.is_initialized():
        dist.destroy_process_group()


def replicate(model: nn.Module, world: World) -> nn.Module:
    """Return the net to train: it averages gradients over the workers, not BN statistics."""
    if world.size == 1:
        return model
    # Of a 1x1 filter's gradient some strides mean nothing, and cuDNN and torch write others there.
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
    kind: Any = nn.parallel.DistributedDataParallel
    new, old = "forward_sync_buffers", "broadcast_buffers"  # deprecated from torch 2.15 on
    name = new if new in inspect.signature(kind).parameters else old
    replica: nn.Module = kind(model, **{name: False})
    return replica


class _SumOverWorkers(torch.autograd.Function):
    """Sum over the workers in both directions; torch deprecates its own."""

    @staticmethod
    def forward(_: object, values: Tensor) -> Tensor:
        total = values.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    backward = forward  # type: ignore[assignment]


class SyncBatchNorm2d(nn.BatchNorm2d):
    """BN over the global batch: mean and variance of the images of all workers.

    ``nn.SyncBatchNorm`` works on GPUs alone, and is no ``nn.BatchNorm2d``, which probes look for.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (N, C, H, W); in training all workers must call it together."""
        if not self.training or not dist.is_initialized():
            return super().forward(input)
        values = input if input.dtype == torch.float64 else input.float()
        count = values.new_full((1,), values.numel() // values.shape[1])  # no copy from the host
        own: Any = self  # its statistics are tracked
        add_up: Callable[[Tensor], Tensor] = _SumOverWorkers.apply
        sums = add_up(torch.cat([values.sum(dim=(0, 2, 3)), count]))
        mean, seen = sums[:-1] / sums[-1], sums[-1].detach()
        centred = values - mean[:, None, None]
        var = add_up(centred.square().sum(dim=(0, 2, 3))) / seen
        with torch.no_grad():
            own.num_batches_tracked.add_(1)
            own.running_mean.lerp_(mean, self.momentum)
            own.running_var.lerp_(var * (seen / (seen - 1)), self.momentum)
        scale = self.weight * torch.rsqrt(var + self.eps)
        out = centred * scale[:, None, None] + self.bias[:, None, None]
        return out.to(input.dtype)


def synchronise_norms(model: nn.Module) -> None:
    """Replace each BN of ``model`` by one over the global batch, weights and statistics kept."""
    for name, norm in list(model.named_modules()):
        if isinstance(norm, nn.BatchNorm2d):
            new = SyncBatchNorm2d(norm.num_features, norm.eps, norm.momentum)
            new.load_state_dict(norm.state_dict())
            model.set_submodule(name, new)
