"""Measure how far training is from the device's limits: ``python -m benchmarks.limit``.

For each net what an iteration must move and compute at least, what the device copies and multiplies
in a second, what an iteration takes, and which kernels take it, as torch's profiler sees them.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from benchmarks.record import Row, Scope, command, device_of
from benchmarks.timing import Training, seconds_each
from resnet_repro.compose import compose_run
from resnet_repro.models.count import count_params, list_layers
from resnet_repro.training.device import Setup

RESIDUAL = tuple(f"cifar10_resnet{depth}" for depth in (20, 32, 44, 56, 110, 1202))
SCOPES = {
    "cpu": Scope(experiments=RESIDUAL[:5], rounds=3, iterations=2),
    "cuda": Scope(experiments=RESIDUAL, rounds=5, iterations=20),
}
COPIED = {"cpu": 256 << 20, "cuda": 2 << 30}  # bytes, far more than any cache holds
SIDE = {"cpu": 2_048, "cuda": 8_192}  # of the matrices
ROUNDS, WARM = 7, 2

# The least that must be moved, counted in passes over a conv's output in the type of the
# activations. Kernels are fused where neighbours allow; nothing stays on the chip from one kernel
# to the next. Nets whose tensors partly stay in a device's cache can be faster than that.
# Convolutions: it is written, and read by the next one; its gradient is read for that of the input,
# which is written; its gradient and the input are read for the gradient of the weights.
CONV_PASSES = 6
# Batch-norm reads and writes it, reads the gradient and it again, and writes a gradient.
NORM_PASSES = 5
# Each parameter is read forward and backward and its gradient is written; the update reads
# parameter, gradient and momentum, and writes parameter and momentum.
PARAMETER_PASSES, PARAMETER_BYTES = 8, 4
PASSES = 3  # over the multiply-adds: forward, to the inputs, to the weights
ACTIVATION_BYTES = {"bf16": 2, "tf32": 4, "fp32": 4}

CONV, NORM, UPDATE = "convolutions", "batch-norm, ReLU, addition", "update"
OTHER, WAITING = "everything else", "waiting for the host"
# The first of these parts in a kernel's name tells what it is for.
KERNELS = (
    (OTHER, ("convert", "addmm")),  # of layouts, before anything named after convolutions
    (UPDATE, ("sgd",)),
    (CONV, ("conv", "fprop", "dgrad", "wgrad", "xmma", "cutlass", "winograd")),
    (NORM, ("batch_norm", "batchnorm", "bn_fw", "bn_bw", "threshold", "relu", "clamp")),
    (NORM, ("functor_add", "aten::add")),
    (NORM, ("cpp_fused", "triton")),  # what the compiler makes of a block between its convolutions
)


class Rates(NamedTuple):
    """Bytes a second, reads and writes counted; operations a second in the precision of training.

    A multiplication and an addition are two operations.
    """

    copy: float
    matrix: float


class Least(NamedTuple):
    """What an iteration must do at least: bytes by kind of kernel, operations of convolutions."""

    bytes: Mapping[str, int]
    operations: int

    def seconds(self, kind: str, rates: Rates) -> float:
        """The least time of one kind of kernel; zero for what is not needed."""
        computing = self.operations / rates.matrix if kind == CONV else 0.0
        return max(self.bytes.get(kind, 0) / rates.copy, computing)


def measure(scope: Scope, overrides: Sequence[str]) -> Row:
    """Measure the device, then every net of ``scope``."""
    rates = measure_rates(device_of(overrides))
    rows = [distance(name, rates, scope, overrides) for name in scope.experiments]
    found = {"copy_bytes_per_second": rates.copy, "operations_per_second": rates.matrix}
    return found | {"rows": rows}


def measure_rates(setup: Setup) -> Rates:
    """The best of several measurements: a limit, not a mean."""
    device = setup.device
    count, side = COPIED[device.type], SIDE[device.type]
    source = torch.ones(count // 4, device=device)
    target = torch.empty_like(source)
    dtype = torch.bfloat16 if setup.precision == "bf16" else torch.float32
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(left)

    def best(work: Callable[[], object]) -> float:
        seconds_each(work, WARM, device)
        return min(seconds_each(work, WARM, device) for _ in range(ROUNDS))

    copying = best(lambda: target.copy_(source))
    with torch.no_grad():
        multiplying = best(lambda: torch.mm(left, right, out=out))
    return Rates(copy=2 * 4 * source.numel() / copying, matrix=2 * side**3 / multiplying)


def distance(experiment: str, rates: Rates, scope: Scope, overrides: Sequence[str]) -> Row:
    """One net: the least it must do, what it takes, and where its time goes.

    ``fraction`` is the least time over the time taken. It can exceed one: what is in a cache
    need not be moved.
    """
    training = Training(compose_run(f"experiment={experiment}", *overrides))
    batch, _, _, side = training.context.images.share_shape
    need = least(training.state.model, batch, side, training.setup.precision)
    seconds = training.seconds(scope.iterations, scope.rounds)
    shares = time_spent(training.iterate, scope.iterations, training.setup.device)
    moved = sum(need.bytes.values())
    moving, computing = moved / rates.copy, need.operations / rates.matrix
    return {
        **training.facts(),
        "bytes": moved,
        "operations": need.operations,
        "seconds": seconds,
        "least_seconds_moving": moving,
        "least_seconds_computing": computing,
        "limited_by": "memory" if moving > computing else "matrix units",
        "fraction": round(max(moving, computing) / seconds, 4),
        "spent": [
            {
                "on": kind,
                "share": round(share, 4),
                "least_share": round(need.seconds(kind, rates) / seconds, 4),
            }
            for kind, share in sorted(shares.items(), key=lambda found: -found[1])
        ],
    }


def least(net: nn.Module, batch_size: int, image_size: int, precision: str) -> Least:
    """What an iteration of ``net``, also on the meta device, must do at least.

    ``image_size`` is the side in pixels, ``precision`` that of the convolutions.
    """
    layers = list_layers(net, image_size)
    convs = [layer for layer in layers if layer.kind == "conv"]
    outputs = sum(conv.out_channels * conv.out_height * conv.out_width for conv in convs)
    moved = outputs * batch_size * ACTIVATION_BYTES[precision]
    updated = PARAMETER_PASSES * PARAMETER_BYTES * count_params(net)
    operations = 2 * PASSES * batch_size * sum(layer.multiply_adds for layer in layers)
    passes = {CONV: CONV_PASSES * moved, NORM: NORM_PASSES * moved}
    return Least(passes | {UPDATE: updated}, operations)


def kind_of(kernel: str) -> str:
    """Return what a kernel of this name is for."""
    name = kernel.lower()
    return next((kind for kind, parts in KERNELS if any(part in name for part in parts)), OTHER)


def time_spent(
    iterate: Callable[[], object], iterations: int, device: torch.device
) -> dict[str, float]:
    """Shares of an iteration's time by kind of kernel; with the device's waiting they add up to 1.

    On a CPU, waiting is the time between operations.
    """
    on_cuda = device.type == "cuda"
    activity = ProfilerActivity.CUDA if on_cuda else ProfilerActivity.CPU
    with profile(activities=[activity]) as seen:
        seconds = seconds_each(iterate, iterations, device) * iterations
    spent: defaultdict[str, float] = defaultdict(float)
    for name, elapsed in _on_device(seen) if on_cuda else _on_host(seen):
        spent[kind_of(name)] += elapsed / seconds
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


if __name__ == "__main__":
    command("limit", measure, SCOPES)
