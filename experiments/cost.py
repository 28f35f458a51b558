"""What every experiment of the paper costs: on this device as measured, on several as modelled.

A few iterations of a handful of nets are measured once and kept in results/bench; --measure does it
again. --hardware takes the logged runs of a device instead, --seconds what it is told.
"""

import argparse
import os
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path

from resnet_repro import measure_pace
from resnet_repro.analysis.cost import Machine, Pace, paper_workloads, scaled
from resnet_repro.analysis.cost_table import DEVICES, loader_rate, paces_of_runs, save_cost
from resnet_repro.analysis.load import load_runs
from resnet_repro.exits import explained, notify


def main() -> None:
    """Write the table and print it."""
    asked = _arguments()
    with explained():
        machine, rate_from = Machine(), "assumed"
        found = loader_rate(asked.bench)
        if found is not None:
            rate, rate_from = found
            machine = replace(machine, loader_rate=rate)
        paces, measured, machine = _paces(asked, machine)
        given = {field.name: getattr(asked, field.name) for field in fields(Machine)}
        machine = replace(machine, **{key: v for key, v in given.items() if v is not None})
        if asked.loader_rate is not None:
            rate_from = "as given"
        paths = save_cost(paces, asked.out, machine, (measured, rate_from), asked.devices)
    print(paths[0].read_text(encoding="utf-8"))
    for path in paths:
        print(os.path.relpath(path))


def _paces(asked: argparse.Namespace, machine: Machine) -> tuple[Mapping[str, Pace], str, Machine]:
    """Seconds of an iteration, where they come from, and what the model assumes of the device."""
    works = paper_workloads()
    if asked.seconds:
        given = dict(word.split("=", 1) for word in asked.seconds)
        paces = {name: Pace(float(each), "given", whole=True) for name, each in given.items()}
        return paces, "as given", machine
    if asked.hardware:
        return *paces_of_runs(load_runs(asked.runs), works, asked.hardware), machine
    kept = None if asked.measure else measure_pace.recall(asked.bench)
    if kept is None:
        notify(f"measuring {len(measure_pace.NETS)} nets on this device, once")
        kept = measure_pace.measure_all(asked.bench)
    if kept["hardware"]["gpu"] is None:  # a host is a device, its cores train and decode
        cores = kept["hardware"]["cores"]
        machine = replace(
            machine, devices_per_host=1, cores_per_host=cores, busy=0.0, same_cores=True
        )
    seconds = {row["experiment"]: row["seconds"] for row in kept["rows"]}
    said = f"measured on {kept['hardware']['label']}, {kept['precision']}, {kept['made'][:10]}"
    if kept["load_before"] > kept["hardware"]["cores"] / 2:
        said += f", while other programs ran (load {kept['load_before']:g})"
    return scaled(works, seconds), said, machine


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measure", action="store_true", help="measure this device again")
    parser.add_argument(
        "--seconds", nargs="*", default=[], metavar="EXPERIMENT=S", help="of one iteration"
    )
    parser.add_argument("--runs", type=Path, default=Path("results/runs"), help="logged runs")
    parser.add_argument(
        "--hardware", default="", help="take logged runs of this device: '1x NVIDIA H200, tf32'"
    )
    parser.add_argument(
        "--devices", type=int, nargs="*", default=list(DEVICES), help="to give hours for"
    )
    parser.add_argument(
        "--bench", type=Path, default=measure_pace.OUT, help="folder of measurements"
    )
    parser.add_argument("--out", type=Path, default=Path("results/tables"), help="folder")
    for field in fields(Machine):
        flag = "--" + field.name.replace("_", "-")
        if isinstance(field.default, bool):
            parser.add_argument(flag, action=argparse.BooleanOptionalAction)
        else:
            parser.add_argument(flag, type=type(field.default), help=f"[{field.default:g}]")
    return parser.parse_args()


if __name__ == "__main__":
    main()
