"""What every experiment of the paper costs on one device: ``python -m benchmarks.cost``.

Seconds of an update come from the benchmarks of docs/SPEED.md where they were made on this device;
for other nets a few updates are measured once and kept in results/bench; --measure does it again.
--hardware takes the logged runs of a device instead, --seconds what it is given. A net that was not
measured takes the seconds of the most similar one that was, times the ratio of their multiply-adds.
Full-size pictures are decoded during training, on the cores of the host; on a CPU the same cores do
both. Evaluation and start-up are not counted.
"""

import argparse
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from benchmarks import BENCH
from benchmarks.measured import Measured, load
from resnet_repro import paths
from resnet_repro.analysis import counted
from resnet_repro.analysis.load import load_runs
from resnet_repro.analysis.logged_run import Run
from resnet_repro.analysis.protocol import SCHEDULES
from resnet_repro.analysis.tables import write_table
from resnet_repro.exits import explained
from resnet_repro.options import ConfigError, closest
from resnet_repro.runs.provenance import cpu_description, gpu_name, usable_cores

PASSES = 3  # forward, and backward to the inputs and to the weights
BOTTLENECKS = ("imagenet_resnet50", "imagenet_resnet101", "imagenet_resnet152")  # Sec. 4.1
CORES, RATE = 128, 150.0  # of a GPU's host, pictures a second and core: round numbers


@dataclass(frozen=True)
class Workload:
    """One training run of the paper, by the name of its experiment in ``conf/experiment``.

    ``loads``: whether images are decoded while training, not kept on the device. ``multiply_adds``
    are of one image forward.
    """

    name: str
    data: str
    iterations: int
    batch: int
    multiply_adds: int
    loads: bool

    @property
    def images(self) -> int:
        """Images seen in training."""
        return self.iterations * self.batch

    @property
    def total_multiply_adds(self) -> int:
        """Multiply-adds of the whole training: three passes over every image."""
        return PASSES * self.multiply_adds * self.images


class Pace(NamedTuple):
    """Seconds of an iteration of the whole batch on one device, ``with_decoding`` of images or not.

    ``basis`` says where they come from: ``measured``, ``from imagenet_resnet50``.
    """

    seconds: float
    basis: str = "measured"
    with_decoding: bool = False


class Host(NamedTuple):
    """What decodes full-size pictures: cores, pictures a second and core, and where that is from.

    ``same_cores``: these cores are the device.
    """

    cores: int
    rate: float
    rate_from: str
    same_cores: bool


def paper_workloads() -> list[Workload]:
    """Every net the paper trains for classification: Fig. 4, Tables 2 and 3; Fig. 6, Table 6."""
    found = []
    for net in [*counted.nets("imagenet"), *counted.nets("cifar")]:
        full_size = net.family == "imagenet"
        prefix, data = ("imagenet", "ImageNet") if full_size else ("cifar10", "CIFAR-10")
        label, *option = net.net.split(" ")
        compared = full_size and net.depth == 34  # all shortcuts, in Table 3
        if compared or option in ([], ["A"]):
            name = "_".join([prefix, label.lower().replace("-", ""), *option])
            work = Workload(name, data, *SCHEDULES[net.family], net.multiply_adds, full_size)
            found.append(work)
    return found


def hours(work: Workload, pace: Pace, host: Host) -> float:
    """Hours of the whole training; decoding is added where the measured seconds lack it."""
    seconds = pace.seconds
    if work.loads and not pace.with_decoding:
        load = work.batch / (host.rate * host.cores)
        seconds = seconds + load if host.same_cores else max(seconds, load)
    return work.iterations * seconds / 3600


def scaled(works: Sequence[Workload], measured: Mapping[str, float]) -> dict[str, Pace]:
    """Paces by experiment from those measured; none on data on which nothing was measured.

    The most similar net is one on the same data, if possible with the same kind of block, whose
    multiply-adds are closest in ratio.
    """
    found = {name: Pace(seconds) for name, seconds in measured.items()}
    for work in works:
        alike = [other for other in works if other.name in measured and other.data == work.data]
        if alike and work.name not in measured:
            near = min(alike, key=lambda other: unlike(work, other))
            ratio = work.multiply_adds / near.multiply_adds
            found[work.name] = Pace(measured[near.name] * ratio, f"from {near.name}")
    return found


def unlike(one: Workload, other: Workload) -> tuple[bool, float]:
    """Whether two nets have different kinds of blocks, and the ratio of their multiply-adds."""
    other_block = (one.name in BOTTLENECKS) != (other.name in BOTTLENECKS)
    return other_block, abs(math.log(one.multiply_adds / other.multiply_adds))


def measured_here(bench: Path, part: str) -> Measured | None:
    """Find what this part of the benchmarks measured last on a device like this one, if it did."""
    here = {"gpu": gpu_name(), "cpu": cpu_description()[0], "cores": usable_cores()}.items()
    files = [found for found in load(bench) if found.part == part]
    alike = [found for found in files if here <= found.content["hardware"].items()]
    return max(alike, key=lambda found: found.content["made"], default=None)


def paces_of_runs(
    runs: Sequence[Run], works: Sequence[Workload], hardware: str = ""
) -> tuple[dict[str, Pace], str]:
    """Seconds of an iteration as logged on one device, by experiment, and which device it is.

    The mean over an experiment's runs; of several devices (or precisions) the one on which most
    experiments were run, of those whose label (``1x NVIDIA H200, tf32``) begins with ``hardware``.
    Runs whose batch is not the training's do not count, nor those that shared the device
    (``trainer.concurrent``). Empty, and ``no logged run``, without any.
    """
    batches = {work.name: work.batch for work in works}
    timed: dict[str, dict[str, list[float]]] = {}
    for run in runs:
        rate, batch = run.meta.get("images_per_second"), run.config["recipe"]["batch_size"]
        alone = run.config["trainer"].get("concurrent", 1) == 1  # else others had their turns
        fits = batches.get(run.experiment) == batch and run.device.startswith(hardware)
        if rate and alone and fits:
            timed.setdefault(run.device, {}).setdefault(run.experiment, []).append(batch / rate)
    if not timed:
        return {}, "no logged run"
    device, times = max(timed.items(), key=lambda found: (len(found[1]), found[0]))
    paces = {name: Pace(sum(s) / len(s), "logged", with_decoding=True) for name, s in times.items()}
    return paces, device


def loader_rate(bench: Path) -> tuple[float, str] | None:
    """Full-size pictures that a core reads, decodes and prepares a second, and where it did.

    As ``python -m benchmarks.pictures`` wrote it into the folder ``bench``, if possible on this
    processor; None without any.
    """
    here, found = cpu_description()[0], []
    for part in load(bench):
        for row in part.rows if part.part == "pictures" else ():
            if row["cores"] == 1 and "loader" in row["what"]:
                cpu, kind = part.content["hardware"]["cpu"], part.content["photographs"]["kind"]
                rate = float(row["images_per_second"])
                found.append((cpu != here, rate, f"{kind}, measured on {cpu}"))
    return min(found)[1:] if found else None


def cost_table(works: Sequence[Workload], paces: Mapping[str, Pace], host: Host) -> pd.DataFrame:
    """One row per training: its size, seconds of an update and hours on one device.

    Trainings without a pace get no hours.
    """
    rows = [
        {
            "experiment": work.name,
            "iterations": work.iterations,
            "images (1e6)": work.images / 1e6,
            "multiply-adds (1e15)": work.total_multiply_adds / 1e15,
            "s/iteration": f"{pace.seconds:.3g}" if pace else None,
            "seconds are": pace.basis if pace else None,
            "hours": hours(work, pace, host) if pace else None,
        }
        for work in works
        for pace in [paces.get(work.name)]
    ]
    return pd.DataFrame(rows)


def save_cost(paces: Mapping[str, Pace], out_dir: Path, host: Host, measured: str) -> list[Path]:
    """Write the costs of all experiments of the paper as ``cost.md``, ``.tex`` and ``.csv``.

    ``measured`` says on what the seconds were measured.
    """
    decoding = "taking the same cores" if host.same_cores else "beside the device"
    notes = [
        f"Seconds on one device: {measured}; training alone, without evaluation. Not measured but "
        "scaled by multiply-adds where they are from another net.",
        "Multiply-adds: three passes (forward, backward to inputs and to weights) over all images.",
        f"A core decodes {host.rate:g} full-size pictures a second ({host.rate_from}), "
        f"{host.cores} cores, {decoding}.",
        "The paper ran ResNet-110 five times; a row is one run.",
    ]
    return write_table(cost_table(paper_workloads(), paces, host), "cost", out_dir, notes=notes)


def main(argv: Sequence[str] | None = None) -> None:
    """Write the table and print it."""
    args = _arguments(argv)
    with explained():
        paces, measured, cores = _paces(args)
        rate, rate_from = loader_rate(args.bench) or (RATE, "assumed")
        if args.loader_rate is not None:
            rate, rate_from = args.loader_rate, "as given"
        host = Host(args.cores_per_host or cores or CORES, rate, rate_from, cores is not None)
        written = save_cost(paces, args.out, host, measured)
    print(written[0].read_text(encoding="utf-8"))
    for path in written:
        print(os.path.relpath(path))


def _paces(args: argparse.Namespace) -> tuple[Mapping[str, Pace], str, int | None]:
    """Seconds of an update, where they come from, and of a CPU its cores, which also decode."""
    works = paper_workloads()
    if args.seconds:
        return _given(args.seconds, [work.name for work in works]), "as given", None
    if args.hardware:
        return *paces_of_runs(load_runs(args.runs), works, args.hardware), None
    saved = None if args.measure else measured_here(args.bench, "cost")
    if saved is None:
        from benchmarks.schedule import measure_few  # needs torch

        saved = measure_few(args.bench)
    hardware, load_before = saved.content["hardware"], saved.content["load_before"]
    seconds = {row["experiment"]: row["seconds"] for row in saved.rows}
    source = f"measured on {saved.where}, {saved.content['made'][:10]}"
    if load_before > hardware["cores"] / 2:
        source += f", while other programs ran (load {load_before:g})"
    if speed := None if args.measure else measured_here(args.bench, "schedule"):
        faster = {row["experiment"]: row["step_seconds"] for row in speed.rows}
        measured_data = {work.data for work in works if work.name in faster}
        others = {work.name for work in works if work.data not in measured_data}
        seconds = {name: each for name, each in seconds.items() if name in others} | faster
        source += f"; {' and '.join(sorted(measured_data))} as in docs/SPEED.md"
    return scaled(works, seconds), source, None if hardware["gpu"] else hardware["cores"]


def _given(words: Sequence[str], names: Sequence[str]) -> dict[str, Pace]:
    """Seconds as the command line gives them; ConfigError: a word is not ``EXPERIMENT=S``."""
    paces = {}
    for word in words:
        name, _, seconds = word.partition("=")
        if name not in names:
            raise ConfigError(f"--seconds {word}: no training of the paper; {closest(name, names)}")
        try:
            paces[name] = Pace(float(seconds), "given", with_decoding=True)
        except ValueError:
            raise ConfigError(f"--seconds {word}: must be {name}=SECONDS") from None
    return paces


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measure", action="store_true", help="measure this device again")
    parser.add_argument(
        "--seconds", nargs="*", default=[], metavar="EXPERIMENT=S", help="of one iteration"
    )
    parser.add_argument("--runs", type=paths.expand, default=paths.runs(), help="logged runs")
    parser.add_argument(
        "--hardware", default="", help="take logged runs of this device: '1x NVIDIA H200, tf32'"
    )
    parser.add_argument("--bench", type=paths.expand, default=BENCH, help="folder of measurements")
    parser.add_argument("--out", type=paths.expand, default=Path("results/tables"), help="folder")
    parser.add_argument("--cores-per-host", type=int, help=f"that decode [{CORES}; a CPU's own]")
    parser.add_argument("--loader-rate", type=float, help=f"pictures a second and core [{RATE:g}]")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
