"""On what an iteration spends its time, kernel by kernel, as torch's profiler sees it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.turns import seconds_each, synchroniser

CONV, NORM, UPDATE = "convolutions", "batch-norm, ReLU, addition", "update"
OTHER, WAITING = "everything else", "waiting for the host"
# The first of these words that a kernel's name holds says what it is for.
WORDS = (
    ("convert", OTHER),  # of layouts, before anything named after convolutions
    ("addmm", OTHER),
    ("sgd", UPDATE),
    ("conv", CONV),
    ("fprop", CONV),
    ("dgrad", CONV),
    ("wgrad", CONV),
    ("xmma", CONV),
    ("cutlass", CONV),
    ("winograd", CONV),
    ("batch_norm", NORM),
    ("batchnorm", NORM),
    ("bn_fw", NORM),
    ("bn_bw", NORM),
    ("threshold", NORM),
    ("relu", NORM),
    ("clamp", NORM),
    ("functor_add", NORM),
    ("aten::add", NORM),
    ("cpp_fused", NORM),  # what the compiler makes of a block between its convolutions
    ("triton", NORM),
)


def kind_of(kernel: str) -> str:
    """What a kernel of this name is for."""
    name = kernel.lower()
    return next((kind for word, kind in WORDS if word in name), OTHER)


def time_spent(
    iterate: Callable[[], object], iterations: int, device: torch.device
) -> dict[str, float]:
    """Shares of an iteration's time by kind of kernel; with the device's waiting they add up to 1.

    Args:
        iterate: does one iteration.
        iterations: how many are looked at.
        device: on which. On a CPU, waiting is the time between operations.
    """
    on_cuda = device.type == "cuda"
    activities = [ProfilerActivity.CUDA] if on_cuda else [ProfilerActivity.CPU]
    synchronise = synchroniser(device)
    with profile(activities=activities) as seen:
        seconds = seconds_each(iterate, iterations, synchronise) * iterations
    spent: defaultdict[str, float] = defaultdict(float)
    for name, took in _on_device(seen) if on_cuda else _on_host(seen):
        spent[kind_of(name)] += took / seconds
    total = sum(spent.values())
    shares = {kind: share / max(1.0, total) for kind, share in spent.items()}
    return shares | {WAITING: max(0.0, 1.0 - total)}


def _on_device(seen: profile) -> Iterator[tuple[str, float]]:
    """Name and seconds of every kernel that ran on a GPU."""
    for event in seen.events() or ():  # type: ignore[no-untyped-call]
        if event.device_type == torch.profiler.DeviceType.CUDA and not event.is_user_annotation:
            yield event.name, event.time_range.elapsed_us() / 1e6


def _on_host(seen: profile) -> Iterator[tuple[str, float]]:
    """Name and seconds of every operation, without those of the operations it calls."""
    for row in seen.key_averages():
        yield row.key, row.self_cpu_time_total / 1e6
