"""What a run computes on and in which precision: chosen once, recorded, the same for every net."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from resnet_repro.config_groups import TrainerConfig
from resnet_repro.options import ConfigError
from resnet_repro.runs.provenance import cpu_description, multiplies_bf16, usable_cores
from resnet_repro.training.memory import keep_freed_memory


@dataclass(frozen=True)
class Setup:
    """Device, precision and threads of a run; the choice never depends on the net."""

    device: torch.device
    precision: str
    threads: int
    gpu: str | None

    def autocast(self, *, cache: bool = True) -> AbstractContextManager[object]:
        """The context of a forward pass: convs in bf16 where that is the precision.

        ``cache``: a weight that is used twice within the context is cast once.
        """
        return torch.autocast(
            self.device.type,
            torch.bfloat16,
            enabled=self.precision == "bf16",
            cache_enabled=cache,
        )


def set_up(trainer: TrainerConfig, local_rank: int = 0, local_size: int = 1) -> Setup:
    """Choose device and precision, and set torch's global switches to match.

    Args:
        trainer: what is asked for.
        local_rank: which of this machine's workers this is.
        local_size: how many of them there are; they share the cores.

    Raises:
        ConfigError: what was asked for is not to be had on this machine.
    """
    setup = choose(trainer, local_rank, local_size)
    torch.set_num_threads(setup.threads)
    if setup.device.type == "cuda":
        matmul = "tf32" if setup.precision == "tf32" else "ieee"
        torch.backends.cuda.matmul.fp32_precision = matmul
        torch.backends.cudnn.conv.fp32_precision = matmul  # type: ignore[attr-defined]
        torch.backends.cudnn.benchmark = not trainer.deterministic
        # cuBLAS repeats itself only with a fixed workspace, set before its first use.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    else:
        keep_freed_memory()
    if trainer.deterministic != torch.are_deterministic_algorithms_enabled():
        # Even to switch it off imports the compiler, seconds on every start.
        torch.use_deterministic_algorithms(trainer.deterministic)
    return setup


def sees_cuda(trainer: TrainerConfig) -> bool:
    """Whether a run is to compute on CUDA, and could."""
    return trainer.device != "cpu" and torch.cuda.is_available()


def choose(trainer: TrainerConfig, local_rank: int = 0, local_size: int = 1) -> Setup:
    """As :func:`set_up`, touching nothing.

    Raises:
        ConfigError: what was asked for is not to be had on this machine.
    """
    cuda = sees_cuda(trainer)
    if trainer.device == "cuda" and not cuda:
        raise ConfigError(
            f"trainer.device=cuda: no CUDA device is visible (torch {torch.__version__}); "
            "use trainer.device=cpu or auto"
        )
    device = torch.device("cpu")
    if cuda:
        device = torch.device("cuda", local_rank) if local_size > 1 else torch.device("cuda")
        if local_size > torch.cuda.device_count():
            raise ConfigError(
                f"trainer.devices={trainer.devices}: {torch.cuda.device_count()} CUDA devices are "
                "visible here; ask for as many, or add trainer.device=cpu"
            )
    if trainer.graph == "always" and device.type != "cuda":
        raise ConfigError("trainer.graph=always: needs a CUDA device; use auto or never")
    cores = usable_cores()
    if trainer.threads > cores:
        raise ConfigError(f"trainer.threads={trainer.threads}: this process may use {cores} cores")
    threads = trainer.threads or max(1, cores // local_size)
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return Setup(device, _precision(trainer.precision, device), threads, gpu)


def loader_processes(trainer: TrainerConfig, local_size: int = 1) -> int:
    """Processes that decode pictures for one of ``local_size`` workers; 0: it does so itself."""
    if trainer.loader_workers >= 0:
        return trainer.loader_workers
    return max(1, usable_cores() // local_size)


def _precision(asked: str, device: torch.device) -> str:
    if device.type == "cuda":
        return "tf32" if asked == "auto" else asked
    if asked == "tf32":
        raise ConfigError("trainer.precision=tf32: needs a CUDA device; use fp32 or bf16")
    if asked == "auto":
        return "bf16" if multiplies_bf16(cpu_description()[1]) else "fp32"
    return asked
