"""What every experiment of the paper costs on one device.

Seconds of an update come from the benchmarks of docs/SPEED.md where they were made on this device;
for other nets a few updates are measured once and kept in results/bench; --measure does it again.
--hardware takes the logged runs of a device instead, --seconds what it is given.
"""

import argparse
import os
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path

from resnet_repro import measure_pace, paths
from resnet_repro.analysis.cost import (
    Host,
    Pace,
    benchmarked,
    loader_rate,
    paces_of_runs,
    paper_workloads,
    save_cost,
    scaled,
)
from resnet_repro.analysis.load import load_runs
from resnet_repro.exits import explained, notify


def main() -> None:
    """Write the table and print it."""
    args = _arguments()
    with explained():
        host, rate_from = Host(), "assumed"
        if found := loader_rate(args.bench):
            rate, rate_from = found
            host = replace(host, loader_rate=rate)
        paces, measured, host = _paces(args, host)
        overridden = {field.name: getattr(args, field.name) for field in fields(Host)}
        host = replace(host, **{key: v for key, v in overridden.items() if v is not None})
        if args.loader_rate is not None:
            rate_from = "as given"
        written = save_cost(paces, args.out, host, measured, rate_from)
    print(written[0].read_text(encoding="utf-8"))
    for path in written:
        print(os.path.relpath(path))


def _paces(args: argparse.Namespace, host: Host) -> tuple[Mapping[str, Pace], str, Host]:
    """Seconds of an update, where they come from, and the host that decodes."""
    works = paper_workloads()
    if args.seconds:
        given = dict(word.split("=", 1) for word in args.seconds)
        paces = {name: Pace(float(s), "given", with_decoding=True) for name, s in given.items()}
        return paces, "as given", host
    if args.hardware:
        return *paces_of_runs(load_runs(args.runs), works, args.hardware), host
    pace = None if args.measure else measure_pace.recall(args.bench)
    if pace is None:
        notify(f"measuring {len(measure_pace.NETS)} nets on this device, once")
        pace = measure_pace.measure_all(args.bench)
    if pace["hardware"]["gpu"] is None:  # a host is a device, its cores train and decode
        host = replace(host, cores_per_host=pace["hardware"]["cores"], same_cores=True)
    seconds = {row["experiment"]: row["seconds"] for row in pace["rows"]}
    source = f"measured on {pace['hardware']['label']}, {pace['precision']}, {pace['made'][:10]}"
    if pace["load_before"] > pace["hardware"]["cores"] / 2:
        source += f", while other programs ran (load {pace['load_before']:g})"
    if speed := {} if args.measure else benchmarked(args.bench, pace["hardware"]):
        measured_data = {work.data for work in works if work.name in speed}
        others = {work.name for work in works if work.data not in measured_data}
        seconds = {name: each for name, each in seconds.items() if name in others} | speed
        source += f"; {' and '.join(sorted(measured_data))} as in docs/SPEED.md"
    return scaled(works, seconds), source, host


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measure", action="store_true", help="measure this device again")
    parser.add_argument(
        "--seconds", nargs="*", default=[], metavar="EXPERIMENT=S", help="of one iteration"
    )
    parser.add_argument("--runs", type=paths.expand, default=paths.runs(), help="logged runs")
    parser.add_argument(
        "--hardware", default="", help="take logged runs of this device: '1x NVIDIA H200, tf32'"
    )
    parser.add_argument(
        "--bench", type=paths.expand, default=measure_pace.OUT, help="folder of measurements"
    )
    parser.add_argument("--out", type=paths.expand, default=Path("results/tables"), help="folder")
    for field in fields(Host):
        flag = "--" + field.name.replace("_", "-")
        if isinstance(field.default, bool):
            parser.add_argument(flag, action=argparse.BooleanOptionalAction)
        else:
            parser.add_argument(flag, type=type(field.default), help=f"[{field.default:g}]")
    return parser.parse_args()


if __name__ == "__main__":
    main()
