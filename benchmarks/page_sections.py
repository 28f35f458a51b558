"""The sections of ``docs/SPEED.md``, one for each part of the measurements."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.measured import (
    Measured,
    Row,
    amount,
    percent,
    seconds,
    significant,
    table,
)
from benchmarks.page_targets import H200, RUN_SECONDS

Lines = list[str]


def training(found: Measured) -> Lines:
    """Ours against the usual loop."""
    head = ["net", "images/s, usual loop", "its workers", "images/s", "times faster", "lowest"]
    head += ["highest", "times less processor time", "data's share", "busy cores"]
    rows = [
        [
            str(row["net"]),
            significant(row["usual_images_per_second"], 3),
            str(row["usual_workers"]),
            significant(row["images_per_second"], 3),
            significant(row["times_faster"], 3),
            significant(row["times_faster_lowest"], 3),
            significant(row["times_faster_highest"], 3),
            significant(row["times_less_work"], 3),
            percent(row["data_share"]),
            f"{row['busy_cores']:.2f} of {row['threads']} threads",
        ]
        for row in found.rows
    ]
    return table(head, rows)


def harness(found: Measured) -> Lines:
    """The parts of the harness by net."""
    nets: Sequence[Row] = found.content["nets"]
    parts = list(dict.fromkeys((row["part"], row["kind"], row["times"]) for row in found.rows))
    cells = {(row["net"], row["part"]): row for row in found.rows}
    head = ["part", "times in a run", *(f"{net['net']}: each, share" for net in nets)]
    rows = []
    for part, kind, count in parts:
        name = f"{part} (if asked for)" if kind == "optional" else str(part)
        row = [name, f"{count:,}"]
        for net in nets:
            cell = cells.get((net["net"], part))
            row.append(_cell(cell) if cell else "-")
        rows.append(row)
    for name, key in (
        ("**harness**", "share_of_harness"),
        ("**with evaluation**", "share_with_evaluation"),
    ):
        rows.append([name, "", *(percent(net[key]) for net in nets)])
    lines = table(head, rows)
    for net in nets:
        lines.append(
            f"- {net['net']}: an iteration of the loop, alternating with the bare step "
            f"({seconds(net['step_seconds'])}), took {100 * net['loop_over_step']:+.1f} % "
            f"({100 * net['loop_over_step_lowest']:+.1f} to "
            f"{100 * net['loop_over_step_highest']:+.1f} %; turns of "
            f"{net['turn_iterations']:,} iterations)."
        )
    return [*lines, ""]


def _cell(row: Row) -> str:
    return f"{seconds(row['seconds_each'])}, {percent(row['share'])}"


def start(found: Measured) -> Lines:
    """Commands and figures."""
    head = ["command", "median", "lowest", "highest", "processor time"]
    keys = ("seconds", "seconds_lowest", "seconds_highest", "processor_seconds")
    names = {"figure": "draw {}", "command": "{}"}
    rows = [
        [
            names.get(str(row["kind"]), "{}").format(row["what"]),
            *(seconds(row[key]) for key in keys),
        ]
        for row in found.rows
    ]
    return table(head, rows)


def limit(found: Measured) -> Lines:
    """Distance to the device's limits."""
    content = found.content
    lines = [
        f"Measured here: {amount(content['copy_bytes_per_second'], 'B/s')} copied (reads and "
        f"writes), {amount(content['operations_per_second'], 'FLOP/s')} in matrix products.",
        "",
    ]
    head = ["net", "batch", "must move", "must compute", "least time", "limited by", "takes"]
    rows = [
        [
            str(row["net"]),
            str(row["batch_size"]),
            amount(row["bytes"], "B"),
            amount(row["operations"], "FLOP"),
            seconds(max(row["least_seconds_moving"], row["least_seconds_computing"])),
            str(row["limited_by"]),
            seconds(row["seconds"]),
            percent(row["fraction"]),
        ]
        for row in found.rows
    ]
    lines += table([*head, "of the limit"], rows)
    return [*lines, *(f"- {where_lost(row)}" for row in found.rows), ""]


def where_lost(row: Row) -> str:
    """In words, where a net loses most against the limit, made from the numbers."""
    spent: Sequence[Row] = row["spent"]
    worst = max(spent, key=lambda kind: kind["share"] - kind["least_share"])
    said = f"{row['net']}: most is lost in {worst['on']}, {percent(worst['share'])} of the time"
    if worst["least_share"] > 0:
        said += f", {significant(worst['share'] / worst['least_share'])} times its least"
    else:
        said += ", none of which the limit counts"
    others = [
        f"{kind['on']} {percent(kind['share'])}"
        for kind in spent
        if kind["on"] != worst["on"] and kind["share"] >= 0.005
    ]
    return f"{said} ({'; '.join(others)})." if others else f"{said}."


def growth(found: Measured) -> Lines:
    """Time and memory per image; the plot shows them."""
    head = ["depth", "batch", "runs at once", "time per image", "memory per image"]
    rows = []
    for row in found.rows:
        if row.get("failed"):
            cells = [str(row["failed"]), "-"]
        else:
            taken = row["bytes_per_image"]
            cells = [seconds(row["seconds_per_image"])]
            cells.append("-" if taken is None else amount(taken, "B"))
        rows.append([str(row["depth"]), str(row["batch_size"]), str(row["runs"]), *cells])
    return table(head, rows)


def schedule(found: Measured) -> Lines:
    """Projected wall times of the paper's runs."""
    goals = H200.fits(found)
    head = ["net", "an update", "an evaluation", "start", "64,000 iterations"]
    rows = []
    for row in found.rows:
        cells = [str(row["net"]), seconds(row["step_seconds"]), seconds(row["evaluation_seconds"])]
        cells += [seconds(row["ready_seconds"]), seconds(row["run_seconds"])]
        if goals:
            goal = RUN_SECONDS.get(row["depth"])
            reached = "-" if goal is None else ("yes" if row["run_seconds"] <= goal else "**no**")
            cells += ["-" if goal is None else seconds(goal), reached]
        rows.append(cells)
    return table(head + (["target", "reached"] if goals else []), rows)


def parity(found: Measured) -> Lines:
    """Checks of the fast ways to train."""
    head = [
        "net",
        "check",
        "way",
        "precision",
        "found",
        "allowed",
        "time against the other",
        "verdict",
    ]
    words = {True: "passed", False: "**failed**", None: "cannot be done here"}
    rows = [
        [
            str(row["experiment"]),
            *(_plain(row[key]) for key in ("check", "way", "precision", "found", "allowed")),
            "-" if row["costs"] is None else f"{significant(row['costs'], 3)} times",
            words[row["passed"]],
        ]
        for row in found.rows
    ]
    return table(head, rows)


def pictures(found: Measured) -> Lines:
    """The full-size path: its parts alone and a whole run."""
    head = ["what", "net", "cores", "images/s"]
    rows = [
        [str(row["what"]), str(row["net"]), _plain(row["cores"]), _plain(row["images_per_second"])]
        for row in found.rows
    ]
    what: Row = found.content.get("photographs", {})
    lines = table(head, rows)
    for run in found.content.get("runs", []):
        first, last = (significant(run[f"loss_of_the_{end}"], 3) for end in ("first", "last"))
        lines.append(
            f"- {run['net']}: {run['iterations']:,} iterations of {run['batch_size']} on "
            f"{what.get('count')} {what.get('kind')}; loss {first} in the beginning, {last} in the "
            "end."
        )
    return [*lines, ""]


def _plain(value: object) -> str:
    if isinstance(value, float):
        return significant(value, 3) if abs(value) >= 1e-3 or value == 0 else f"{value:.2e}"
    return "-" if value is None else str(value)
