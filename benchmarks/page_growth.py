"""Time and memory per image against depth, batch size and runs at once, as ``growth.png``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter

from benchmarks.measured import Measured
from resnet_repro.analysis import style

MARKS = {"cpu": "o", "cuda": "s"}
BY_DEPTH, BY_BATCH, BY_RUNS = "depth", "batch_size", "runs"
NAMES = {BY_DEPTH: "depth (layers)", BY_BATCH: "batch size (images)", BY_RUNS: "runs at once"}
TEXTS = {BY_DEPTH: "ResNet-{}", BY_BATCH: "batch {}", BY_RUNS: "{} runs"}
TIME, RATE, MEMORY = "time per image (ms)", "images per second, all runs", "memory per image (MB)"


def points(measured: Sequence[Measured]) -> pd.DataFrame:
    """All points that could be measured, with what the panels show of them."""
    rows = [
        {**row, "device": part.device, "hardware": part.hardware}
        for part in measured
        for row in part.rows
        if row["seconds_per_image"] is not None
    ]
    table = pd.DataFrame(rows)
    if rows:
        table[TIME], table[RATE] = 1e3 * table["seconds_per_image"], 1 / table["seconds_per_image"]
        table[MEMORY] = table["bytes_per_image"].astype(float) / 1e6
    return table


def lines(table: pd.DataFrame, axis: str) -> list[pd.DataFrame]:
    """Group the points along ``axis``, all else being equal; at least two points each."""
    fixed = [name for name in NAMES if name != axis]
    groups = table.groupby(["device", "hardware", *fixed]) if len(table) else ()
    return [line.sort_values(axis) for _, line in groups if line[axis].nunique() > 1]


def label(line: pd.DataFrame, axis: str, with_hardware: bool) -> str:
    """What the points of a line have in common, for a legend."""
    first = line.iloc[0]
    fixed = [name for name in NAMES if name != axis and (name, first[name]) != (BY_RUNS, 1)]
    texts = [TEXTS[name].format(first[name]) for name in fixed]
    return ", ".join([*texts, *([first["hardware"]] if with_hardware else [])])


def save_growth(measured: Sequence[Measured], out_dir: Path) -> list[Path]:
    """Draw growth where it was measured."""
    parts = [found for found in measured if found.part == "growth"]
    table = points(parts)
    panels = {axis: found for axis in NAMES if (found := lines(table, axis))}
    if not panels:
        return []
    several = len({part.hardware for part in parts}) > 1
    with style.style():
        figure, grid = style.subplots(len(panels), 2, squeeze=False)
        for (axis, found), (left, right) in zip(panels.items(), grid, strict=True):
            _draw(left, found, axis, RATE if axis == BY_RUNS else TIME, several)
            _draw(right, found, axis, MEMORY, several)
            left.legend(fontsize="small")
        sentences = [
            "Forward, backward and update of one image; memory beyond weights and data.",
            *(f"{p.where}, {p.content['made'][:10]}." for p in parts),
            "Grey: proportional." if BY_DEPTH in panels else "",
        ]
        style.underneath(figure, sentences)
    return style.save(figure, "growth", out_dir)


def _draw(axes: Axes, found: Sequence[pd.DataFrame], axis: str, value: str, several: bool) -> None:
    """Draw lines on logarithmic axes; the horizontal one has the numbers that were measured.

    Colour is that of the depth, as in all figures; along the depth a shade for the batch size.
    """
    sizes = sorted({int(line[BY_BATCH].iloc[0]) for line in found})
    for line in found:
        depth, size, device = line.iloc[0][[BY_DEPTH, BY_BATCH, "device"]]
        shade = 0.85 * (1 - sizes.index(size) / max(1, len(sizes) - 1))
        colour = colormaps["viridis"](shade) if axis == BY_DEPTH else style.depth_colour(depth)
        look: dict[str, Any] = {"color": colour, "marker": MARKS.get(device, "^")}
        known = line.dropna(subset=value)
        x, y = known[axis].astype(float), known[value]
        axes.plot(x, y, markersize=4.5, label=label(line, axis, several), **look)
        if axis == BY_DEPTH and len(known):
            ends = x.iloc[[0, -1]]
            proportional = y.iloc[0] / x.iloc[0] * ends
            axes.plot(ends, proportional, color="#999999", linewidth=0.7, zorder=1)
    axes.set(xscale="log", yscale="log", xlabel=NAMES[axis], ylabel=value)
    ticks = sorted({float(x) for line in found for x in line[axis]})
    spaced = [tick for i, tick in enumerate(ticks) if not i or tick >= 1.25 * ticks[i - 1]]
    axes.set_xticks(spaced, [f"{tick:g}" for tick in spaced])
    axes.set_xticks([], minor=True)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
