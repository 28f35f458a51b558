"""What each experiment of the paper costs, on one device as measured and on several as modelled.

On one device a net that was not measured takes the seconds of the most similar one that was, times
the ratio of their multiply-adds.

The model of N devices, per iteration of a batch of B images:

``compute``
    measured seconds on one device times the share of the batch a device gets, B/N of B. Below
    ``busy`` multiply-adds a pass an iteration takes no less time: small work leaves a device idle.
``exchange``
    a ring all-reduce moves 2 (N-1)/N times the gradients' bytes (4 per parameter) over the
    slowest link: that inside a host up to ``devices_per_host`` devices, then that between hosts.
    The exchange runs beside the backward pass, which is two thirds of ``compute``.
``load``
    B images at ``loader_rate`` images a second per core, on the cores of all hosts taken. It
    runs beside all the rest, but on a CPU, where the same cores train. Data kept on the device cost
    nothing.

An iteration takes the longest of ``load``, ``compute`` and a forward pass plus ``exchange``. This
is a floor: stragglers, evaluation and start-up are left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from resnet_repro.analysis.counted import Counted, CountedNet

BYTES_PER_PARAMETER = 4  # gradients are exchanged in fp32
PASSES = 3  # forward, and backward to the inputs and to the weights
FORWARD = 1 / 3  # of the time of an iteration
WORTH_IT = 1.1  # twice the devices must be at least so much faster
SCHEDULES = {"imagenet": (600_000, 256), "cifar": (64_000, 128)}  # iterations, images of a batch
DATA = {"imagenet": "ImageNet", "cifar": "CIFAR-10"}
CIFAR_OF_THE_PAPER = ("plain-{}", "ResNet-{}")  # option A in all cases


@dataclass(frozen=True)
class Workload:
    """One training run.

    Attributes:
        name: its experiment, as in ``conf/experiment``.
        loads: whether images are decoded while training, not kept on the device.
        params: learned parameters; ``multiply_adds`` of one image forward.
    """

    name: str
    net: str
    data: str
    iterations: int
    batch: int
    params: int
    multiply_adds: int
    loads: bool

    @property
    def bottleneck(self) -> bool:
        """Whether its blocks are bottlenecks (Sec. 4.1)."""
        return self.loads and self.net in ("ResNet-50", "ResNet-101", "ResNet-152")

    @property
    def images(self) -> int:
        """Images seen in training."""
        return self.iterations * self.batch

    @property
    def total_multiply_adds(self) -> int:
        """Multiply-adds of the whole training: three passes over every image."""
        return PASSES * self.multiply_adds * self.images


@dataclass(frozen=True)
class Pace:
    """Seconds of an iteration of the whole batch on one device.

    Attributes:
        basis: where they come from, in words: ``measured``, ``from imagenet_resnet50``.
        whole: whether decoding the images is in them.
    """

    seconds: float
    basis: str = "measured"
    whole: bool = False


@dataclass(frozen=True)
class Machine:
    """What the model assumes of devices and hosts; rates in bytes and images a second.

    The defaults are round numbers for a server of 8 current GPUs, not measurements.
    ``same_cores``: the cores that decode are the device.
    """

    devices_per_host: int = 8
    link_inside: float = 200e9
    link_between: float = 25e9
    cores_per_host: int = 128
    loader_rate: float = 150.0  # of full-size JPEG pictures, per core
    busy: float = 2e10  # multiply-adds of a forward pass over a device's share of the batch
    same_cores: bool = False


@dataclass(frozen=True)
class Iteration:
    """Seconds of the parts of one iteration on ``devices``."""

    devices: int
    compute: float
    exchange: float
    load: float
    batch_bound: bool  # a smaller share of the batch would not be faster

    @property
    def seconds(self) -> float:
        """Of the iteration."""
        return max(self.load, self.compute, FORWARD * self.compute + self.exchange)

    @property
    def limit(self) -> str:
        """What it takes its time for: ``compute``, ``batch``, ``link`` or ``loader``."""
        if self.load >= self.seconds:
            return "loader"
        if self.exchange > (1 - FORWARD) * self.compute:
            return "link"
        return "batch" if self.batch_bound else "compute"


def paper_workloads(counted: Counted | None = None) -> list[Workload]:
    """Every net the paper trains for classification: Fig. 4, Tables 2 and 3; Fig. 6, Table 6."""
    counted = counted or Counted()
    found = []
    for net in [*counted.nets("imagenet"), *counted.nets("cifar")]:
        if net.family == "imagenet":
            trained = "(" not in net.net and net.net not in ("ResNet-18 B", "ResNet-18 C")
        else:
            trained = net.net in {name.format(net.depth) for name in CIFAR_OF_THE_PAPER}
        if trained:
            found.append(_workload(net))
    return found


def _workload(net: CountedNet) -> Workload:
    iterations, batch = SCHEDULES[net.family]
    prefix = "imagenet" if net.family == "imagenet" else "cifar10"
    label, _, option = net.net.partition(" ")
    name = f"{prefix}_{label.lower().replace('-', '')}" + (f"_{option}" if option else "")
    return Workload(
        name,
        net.net,
        DATA[net.family],
        iterations,
        batch,
        net.params,
        net.multiply_adds,
        loads=net.family == "imagenet",
    )


def iteration(work: Workload, seconds: float, devices: int, machine: Machine) -> Iteration:
    """One iteration on so many devices, from its measured ``seconds`` on one.

    Raises:
        ValueError: fewer devices than one, or more than images in a batch.
    """
    if not 1 <= devices <= work.batch:
        raise ValueError(f"{devices} devices for a batch of {work.batch} images")
    share = work.batch / devices
    smallest = min(machine.busy / work.multiply_adds, work.batch)
    hosts = math.ceil(devices / machine.devices_per_host)
    link = machine.link_inside if hosts == 1 else machine.link_between
    moved = 2 * (devices - 1) / devices * BYTES_PER_PARAMETER * work.params
    compute = seconds * max(share, smallest) / work.batch
    load = 0.0
    if work.loads:
        load = work.batch / (machine.loader_rate * machine.cores_per_host * hosts)
    if machine.same_cores:
        compute, load = compute + load, 0.0
    return Iteration(devices, compute, moved / link, load, batch_bound=share <= smallest)


def hours(work: Workload, pace: Pace, devices: int, machine: Machine) -> float:
    """Hours of the whole training on so many devices; one device as measured, if that is whole."""
    each = pace.seconds
    if devices > 1 or not pace.whole:
        each = iteration(work, pace.seconds, devices, machine).seconds
    return work.iterations * each / 3600


def scaled(works: Sequence[Workload], measured: Mapping[str, float]) -> dict[str, Pace]:
    """Paces of all trainings from those of a few, by experiment.

    The most similar net is one on the same data, if possible with the same kind of block, whose
    multiply-adds are the fewest times more or less. Trainings on data on which nothing was measured
    have none.
    """
    known = [work for work in works if work.name in measured]
    found = {}
    for work in works:
        if work.name in measured:
            found[work.name] = Pace(measured[work.name])
            continue
        alike = [other for other in known if other.data == work.data]
        if alike:
            near = min(alike, key=partial(_unlike, work))
            ratio = work.multiply_adds / near.multiply_adds
            found[work.name] = Pace(measured[near.name] * ratio, f"from {near.name}")
    return found


def _unlike(one: Workload, other: Workload) -> tuple[bool, float]:
    size = abs(math.log(one.multiply_adds / other.multiply_adds))
    return one.bottleneck != other.bottleneck, size


def stops_helping(work: Workload, seconds: float, machine: Machine) -> Iteration:
    """An iteration on the last of 1, 2, 4, ... devices before a doubling is not worth it.

    A doubling is worth it that makes an iteration at least a tenth faster.
    """
    devices = 1
    now = iteration(work, seconds, devices, machine)
    while 2 * devices <= work.batch:
        twice = iteration(work, seconds, 2 * devices, machine)
        if now.seconds < WORTH_IT * twice.seconds:
            return now
        devices, now = 2 * devices, twice
    return now


def what_stops(work: Workload, seconds: float, machine: Machine) -> str:
    """Name what makes twice the devices not worth it."""
    best = stops_helping(work, seconds, machine).devices
    if 2 * best > work.batch:
        return "one image a device"
    return iteration(work, seconds, 2 * best, machine).limit
