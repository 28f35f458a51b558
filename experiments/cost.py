"""What every experiment of the paper costs: on one device as measured, on several as modelled.

Measured are the logged runs of one kind of hardware, or what ``--seconds`` says.
"""

import argparse
import os
from dataclasses import fields
from pathlib import Path

from resnet_repro.analysis.cost import Machine, paper_workloads
from resnet_repro.analysis.cost_table import save_cost, seconds_of_runs
from resnet_repro.analysis.load import load_runs


def main() -> None:
    """Write the table and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--seconds", nargs="*", default=[], metavar="EXPERIMENT=S", help="of one iteration"
    )
    parser.add_argument("--runs", type=Path, default=Path("results/runs"), help="logged runs")
    parser.add_argument(
        "--hardware", default="", help="take logged runs of this device: '1x NVIDIA H200, tf32'"
    )
    parser.add_argument("--devices", type=int, nargs="*", default=[8, 64], help="to give hours for")
    parser.add_argument("--out", type=Path, default=Path("results/tables"), help="folder")
    for field in fields(Machine):
        flag = "--" + field.name.replace("_", "-")
        parser.add_argument(flag, type=type(field.default), default=field.default)
    asked = parser.parse_args()
    machine = Machine(**{field.name: getattr(asked, field.name) for field in fields(Machine)})
    given = dict(word.split("=", 1) for word in asked.seconds)
    seconds = {name: float(value) for name, value in given.items()}
    measured = "as given"
    if not seconds:
        runs = load_runs(asked.runs)
        seconds, measured = seconds_of_runs(runs, paper_workloads(), asked.hardware)
    paths = save_cost(seconds, asked.out, machine, measured, asked.devices)
    print(paths[0].read_text(encoding="utf-8"))
    for path in paths:
        print(os.path.relpath(path))


if __name__ == "__main__":
    main()
