"""Choose device and precision of a run, the same for every net; manage its memory."""

import ctypes
import gc
import os
import re
import subprocess
import traceback
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch

from resnet_repro.config import TrainerConfig
from resnet_repro.options import ConfigError
from resnet_repro.runs.provenance import multiplies_bf16, usable_cores

DEV = Path("/dev")
NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")
LARGEST_KEPT = 256 << 20  # bytes; larger blocks, such as a data set, are returned when freed


@dataclass(frozen=True)
class Setup:
    """Device, precision and threads of a run; the choice never depends on the net."""

    device: torch.device
    precision: str
    threads: int
    gpu: str | None

    def autocast(self, *, cache: bool = True) -> AbstractContextManager[object]:
        """Context of a forward pass, its convs in bf16 or not; ``cache``: cast each weight once."""
        bf16 = self.precision == "bf16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=bf16, cache_enabled=cache)

    def rate(self, lr: float) -> float:
        """The learning rate as this device applies it: on CUDA a float32 value."""
        # A graph keeps the rate as float32, and the SGD kernel of CUDA multiplies in double: an
        # eager step with the double 0.1 would round to other weights. The CPU's rounds by itself.
        return float(torch.tensor(lr, dtype=torch.float32)) if self.device.type == "cuda" else lr


def set_up(trainer: TrainerConfig, local_rank: int = 0, local_size: int = 1) -> Setup:
    """Choose as :func:`choose` does, and set torch's global switches."""
    setup = choose(trainer, local_rank, local_size)
    torch.set_num_threads(setup.threads)
    if setup.device.type == "cuda":
        set_fp32_precision("tf32" if setup.precision == "tf32" else "ieee")
        torch.backends.cudnn.benchmark = not trainer.deterministic
        # cuBLAS is reproducible only with a fixed workspace, set before its first use.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    else:
        keep_freed_memory()
    if trainer.deterministic != torch.are_deterministic_algorithms_enabled():
        # Even switching it off imports the compiler: seconds on every start.
        torch.use_deterministic_algorithms(trainer.deterministic)
    return setup


def choose(trainer: TrainerConfig, local_rank: int = 0, local_size: int = 1) -> Setup:
    """Choose device, precision and threads of one of ``local_size`` workers, or ConfigError."""
    cuda = sees_cuda(trainer)
    if trainer.device == "cuda" and not cuda:
        none = f"no CUDA device is visible (torch {torch.__version__}); "
        reason = unusable_gpu() or none + "use trainer.device=cpu or auto"
        raise ConfigError(f"trainer.device=cuda: {reason}")
    # With an index: NCCL demands one.
    device = torch.device("cuda", local_rank) if cuda else torch.device("cpu")
    if cuda and local_size > torch.cuda.device_count():
        raise ConfigError(
            f"trainer.devices={trainer.devices}: {torch.cuda.device_count()} CUDA devices are "
            "visible here; ask for as many, or add trainer.device=cpu"
        )
    if trainer.graph == "always" and not cuda:
        raise ConfigError("trainer.graph=always: needs a CUDA device; use auto or never")
    cores = usable_cores()
    if trainer.threads > cores:
        raise ConfigError(f"trainer.threads={trainer.threads}: this process may use {cores} cores")
    threads = trainer.threads or max(1, cores // local_size)
    gpu = torch.cuda.get_device_name(device) if cuda else None
    precision = trainer.precision
    if precision == "tf32" and not cuda:
        raise ConfigError("trainer.precision=tf32: needs a CUDA device; use fp32 or bf16")
    if precision == "auto":
        precision = "tf32" if cuda else "bf16" if multiplies_bf16() else "fp32"
    return Setup(device, precision, threads, gpu)


def here(precision: str, trainer: TrainerConfig) -> str:
    """Return the precision for testing what was trained in ``precision``: fp32 if lacking here."""
    lacking = {"tf32"} if multiplies_bf16() else {"tf32", "bf16"}
    return "fp32" if precision in lacking and not sees_cuda(trainer) else precision


def set_fp32_precision(value: str) -> None:
    """Set how CUDA multiplies fp32 numbers: ``ieee``, or ``tf32`` with 10 bits of mantissa."""
    # Old and new switches alike: a library that reads an old one would raise on a mix of both.
    torch.set_float32_matmul_precision("high" if value == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = value == "tf32"
    torch.backends.cuda.matmul.fp32_precision = value
    torch.backends.cudnn.conv.fp32_precision = value  # type: ignore[attr-defined]
    torch.backends.cudnn.rnn.fp32_precision = value  # type: ignore[attr-defined]


def sees_cuda(trainer: TrainerConfig) -> bool:
    """Whether a run computes on CUDA; ConfigError: ``auto`` with a GPU that torch cannot use."""
    if trainer.device == "cpu":
        return False
    if torch.cuda.is_available():
        return True
    if trainer.device == "auto" and (gpu := unusable_gpu()):
        raise ConfigError(f"trainer.device=auto: {gpu}")
    return False


def unusable_gpu() -> str | None:
    """Describe a visible NVIDIA GPU where torch cannot use CUDA; ``None`` if there is none."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1"):  # hidden on purpose
        return None
    has_files = any(DEV.glob("nvidia[0-9]*"))
    driver = _driver(has_files)
    if not (driver or has_files):
        return None
    cuda = torch.version.cuda
    built = f"built for CUDA {cuda}" if cuda else "built without CUDA"
    return (
        f"an NVIDIA GPU is here (driver {driver or 'unknown'}), but torch {torch.__version__}, "
        f"{built}, cannot use it: install a torch that the driver supports, or a newer driver; "
        "or train on the CPU with trainer.device=cpu"
    )


def _driver(has_files: bool) -> str | None:
    """Version of a loaded NVIDIA driver that has a GPU."""
    if has_files and NVIDIA_DRIVER.exists():
        text = NVIDIA_DRIVER.read_text(errors="replace")
        if found := re.search(r"Module\s.*?(\d+\.[\d.]+)", text):
            return found[1]
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):  # also where there is no such program
        return None
    return done.stdout.split("\n")[0].strip() or None


def loader_processes(trainer: TrainerConfig, local_size: int = 1) -> int:
    """Processes that decode pictures for one of ``local_size`` workers; 0: the worker decodes."""
    if trainer.loader_workers >= 0:
        return trainer.loader_workers
    return max(1, usable_cores() // local_size)


def keep_freed_memory() -> None:
    """Make glibc, where there is one, keep freed memory."""
    # Mapping and zeroing the pages of the activations again for each step takes a fifth of a step
    # of ResNet-20 on two cores, half of an evaluation in batches of 1,000.
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(-3, LARGEST_KEPT)  # malloc.h's M_MMAP_THRESHOLD
        libc.mallopt(-1, -1)  # M_TRIM_THRESHOLD: never


def return_freed_memory() -> None:
    """Return freed memory to the system, where glibc can."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)


def free_after_run(error: BaseException | None = None) -> None:
    """Free a run's memory, host and GPU; the traceback of ``error``, which ended it, holds some."""
    if error is not None:
        traceback.clear_frames(error.__traceback__)
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
