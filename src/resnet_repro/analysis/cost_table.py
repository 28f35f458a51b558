"""The costs of the paper's experiments as a table: measured on one device, modelled on several."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from resnet_repro.analysis.cost import (
    BYTES_PER_PARAMETER,
    Machine,
    Pace,
    Workload,
    hours,
    paper_workloads,
    stops_helping,
    what_stops,
)
from resnet_repro.analysis.load import Run
from resnet_repro.analysis.tables import write_table
from resnet_repro.runs.provenance import cpu_description

DEVICES = (2, 4, 8, 16)


def paces_of_runs(
    runs: Sequence[Run], works: Sequence[Workload], hardware: str = ""
) -> tuple[dict[str, Pace], str]:
    """Seconds of an iteration as logged on one device, by experiment, and which device it is.

    The mean over an experiment's runs; of several devices (or precisions) the one on which most
    experiments were run. Runs whose batch is not the training's are passed over.

    Args:
        runs: any.
        works: the trainings to find seconds for.
        hardware: take only devices whose label (``1x NVIDIA H200, tf32``) begins so.

    Returns:
        Empty, and ``no logged run``, where there is none.
    """
    batches = {work.name: work.batch for work in works}
    timed: dict[str, dict[str, list[float]]] = {}
    for run in runs:
        rate, batch = run.meta.get("images_per_second"), run.config["recipe"]["batch_size"]
        device = f"{run.meta.get('hardware', {}).get('label')}, {run.meta.get('precision')}"
        if rate and batches.get(run.experiment) == batch and device.startswith(hardware):
            timed.setdefault(device, {}).setdefault(run.experiment, []).append(batch / rate)
    if not timed:
        return {}, "no logged run"
    device, times = max(timed.items(), key=lambda found: (len(found[1]), found[0]))
    paces = {name: Pace(sum(s) / len(s), "logged", whole=True) for name, s in times.items()}
    return paces, device


def loader_rate(bench: Path) -> tuple[float, str] | None:
    """Full-size pictures that a core reads, decodes and prepares a second, and where it did.

    Read from what ``python -m benchmarks.pictures`` wrote into the folder ``bench``, of
    this machine's processor if there is one; None where nothing of the kind is there.
    """
    found = []
    for path in sorted(bench.glob("pictures_*.json")):
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            rates = [
                float(row["images_per_second"])
                for row in kept["rows"]
                if row["cores"] == 1 and "loader" in row["what"]
            ]
            cpu, kind = str(kept["hardware"]["cpu"]), kept["photographs"]["kind"]
            found.append((cpu != cpu_description()[0], rates[0], f"{kind}, measured on {cpu}"))
        except (OSError, ValueError, KeyError, TypeError, IndexError):
            continue
    return min(found)[1:] if found else None


def cost_table(
    works: Sequence[Workload],
    paces: Mapping[str, Pace],
    machine: Machine | None = None,
    devices: Sequence[int] = DEVICES,
) -> pd.DataFrame:
    """One row per training: size, hours on one device as measured, on several as modelled.

    Args:
        works: the trainings.
        paces: by experiment; trainings without one get no hours.
        machine: of the model.
        devices: numbers of devices to give hours for.
    """
    machine = machine or Machine()
    rows = []
    for work in works:
        row: dict[str, object] = {
            "experiment": work.name,
            "iterations": work.iterations,
            "images (1e6)": work.images / 1e6,
            "multiply-adds (1e15)": work.total_multiply_adds / 1e15,
            "gradients (MB)": BYTES_PER_PARAMETER * work.params / 1e6,
        }
        pace = paces.get(work.name)
        row["s/iteration"] = None if pace is None else f"{pace.seconds:.3g}"
        row["seconds are"] = None if pace is None else pace.basis
        for n in (1, *devices):
            row[f"hours on {n}"] = None if pace is None else hours(work, pace, n, machine)
        best = None if pace is None else stops_helping(work, pace.seconds, machine).devices
        row["helps up to"] = None if best is None else f"{best} device{'s' if best > 1 else ''}"
        row["then"] = None if pace is None else what_stops(work, pace.seconds, machine)
        rows.append(row)
    return pd.DataFrame(rows)


def notes(machine: Machine, measured: str, rate_from: str = "assumed") -> list[str]:
    """Sentences to print under the table.

    Args:
        machine: of the model.
        measured: on what the seconds were measured, in words.
        rate_from: where the loader's rate comes from.
    """
    decoding = "taking the same cores" if machine.same_cores else "beside the device"
    host = f"{machine.devices_per_host} device{'s' if machine.devices_per_host > 1 else ''} a host"
    idle = f", no gain below {machine.busy:.0e} multiply-adds a pass and device"
    return [
        f"Seconds on one device: {measured}; training alone, without evaluation. Not measured but "
        "scaled by multiply-adds where they are from another net.",
        "Multiply-adds: three passes (forward, backward to inputs and to weights) over all images.",
        "Several devices: the longest of the loader, the compute of a device's share of the "
        "batch, and a forward pass plus the ring exchange of fp32 gradients that outlasts the "
        "backward pass; a floor, without stragglers.",
        f"A core decodes {machine.loader_rate:g} full-size pictures a second ({rate_from}), "
        f"{machine.cores_per_host} cores a host, {decoding}.",
        f"Assumed: {host}, {machine.link_inside / 1e9:g} GB/s inside and "
        f"{machine.link_between / 1e9:g} GB/s between hosts{idle if machine.busy else ''}.",
        "Helps up to: so far each doubling of the devices makes an iteration at least a tenth "
        "faster; then: what holds the next one back (the loader, the link, or a share of the "
        "batch too small to keep a device busy).",
        "The paper ran ResNet-110 five times; a row is one run.",
    ]


def save_cost(
    paces: Mapping[str, Pace],
    out_dir: Path,
    machine: Machine | None = None,
    said: tuple[str, str] = ("nothing measured", "assumed"),
    devices: Sequence[int] = DEVICES,
) -> list[Path]:
    """Write the costs of all experiments of the paper as ``cost.md``, ``.tex`` and ``.csv``.

    ``said``: on what the seconds were measured, and where the loader's rate comes from.
    """
    machine = machine or Machine()
    table = cost_table(paper_workloads(), paces, machine, devices)
    return write_table(table, "cost", out_dir, notes=notes(machine, *said))
