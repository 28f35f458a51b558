"""The costs of the paper's experiments as a table: measured on one device, modelled on several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from resnet_repro.analysis.cost import (
    BYTES_PER_PARAMETER,
    Machine,
    Workload,
    hours,
    paper_workloads,
    stops_helping,
    what_stops,
)
from resnet_repro.analysis.load import Run
from resnet_repro.analysis.tables import write_table


def seconds_of_runs(
    runs: Sequence[Run], works: Sequence[Workload], hardware: str = ""
) -> tuple[dict[str, float], str]:
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
    return {name: sum(each) / len(each) for name, each in times.items()}, device


def cost_table(
    works: Sequence[Workload],
    seconds: Mapping[str, float],
    machine: Machine | None = None,
    devices: Sequence[int] = (8, 64),
) -> pd.DataFrame:
    """One row per training: size, hours on one device as measured, on several as modelled.

    Args:
        works: the trainings.
        seconds: of an iteration of the whole batch on one device, by experiment; trainings
            without one get no hours.
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
        took = seconds.get(work.name)
        row["s/iteration"] = None if took is None else f"{took:.3g}"
        for n in (1, *devices):
            row[f"hours on {n}"] = None if took is None else hours(work, took, n, machine)
        best = None if took is None else stops_helping(work, took, machine).devices
        row["helps up to"] = None if best is None else f"{best} device{'s' if best > 1 else ''}"
        row["then"] = None if took is None else what_stops(work, took, machine)
        rows.append(row)
    return pd.DataFrame(rows)


def notes(machine: Machine, measured: str) -> list[str]:
    """Sentences to print under the table.

    Args:
        machine: of the model.
        measured: where the seconds come from, in words.
    """
    return [
        f"Hours on one device: iterations times measured seconds ({measured}); training alone.",
        "Multiply-adds: three passes (forward, backward to inputs and to weights) over all images.",
        "Several devices: the longest of the loader, the compute of a device's share of the "
        "batch, and a forward pass plus the ring exchange of fp32 gradients that outlasts the "
        "backward pass; a floor, without stragglers.",
        f"Assumed: {machine.devices_per_host} devices a host, "
        f"{machine.link_inside / 1e9:g} GB/s inside and {machine.link_between / 1e9:g} GB/s "
        f"between hosts, {machine.cores_per_host} cores a host decoding "
        f"{machine.loader_rate:g} images/s each, no gain below {machine.busy:.0e} multiply-adds "
        "a pass and device.",
        "Helps up to: so far each doubling of the devices makes an iteration at least a tenth "
        "faster; then: what holds the next one back (the loader, the link, or a share of the "
        "batch too small to keep a device busy).",
        "The paper ran ResNet-110 five times; a row is one run.",
    ]


def save_cost(
    seconds: Mapping[str, float],
    out_dir: Path,
    machine: Machine | None = None,
    measured: str = "nothing measured",
    devices: Sequence[int] = (8, 64),
) -> list[Path]:
    """Write the costs of all experiments of the paper as ``cost.md``, ``.tex`` and ``.csv``."""
    machine = machine or Machine()
    table = cost_table(paper_workloads(), seconds, machine, devices)
    return write_table(table, "cost", out_dir, notes=notes(machine, measured))
