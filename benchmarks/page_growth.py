"""Time and memory per image against depth, batch size and runs at once, as ``growth.png``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from benchmarks.measured import Measured
from resnet_repro.analysis import style

MARKS = {"cpu": "o", "cuda": "s"}
BY_DEPTH, BY_BATCH, BY_RUNS = "depth", "batch_size", "runs"
NAMES = {BY_DEPTH: "depth (layers)", BY_BATCH: "batch size (images)", BY_RUNS: "runs at once"}
TEXTS = {BY_DEPTH: "ResNet-{}", BY_BATCH: "batch {}", BY_RUNS: "{} runs"}
TIME, RATE, MEMORY = "time per image (ms)", "images per second, all runs", "memory per image (MB)"


class Line(NamedTuple):
    """Points that differ in one thing alone; ``fixed`` are the others of depth, batch and runs."""

    device: str
    hardware: str
    fixed: dict[str, int]
    points: pd.DataFrame

    def label(self, with_hardware: bool) -> str:
        """Label the line for a legend."""
        fixed = [item for item in self.fixed.items() if item != (BY_RUNS, 1)]
        texts = [TEXTS[name].format(value) for name, value in fixed]
        return ", ".join([*texts, *([self.hardware] if with_hardware else [])])

    def colour(self, batch_sizes: Sequence[int]) -> Any:
        """That of the depth, as in all figures; along the depth a shade for the batch size."""
        if BY_DEPTH in self.fixed:
            return style.depth_colour(self.fixed[BY_DEPTH])
        share = batch_sizes.index(self.fixed[BY_BATCH]) / max(1, len(batch_sizes) - 1)
        return colormaps["viridis"](0.85 * (1 - share))


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


def lines(table: pd.DataFrame, axis: str) -> list[Line]:
    """Group the points along ``axis``, all else being equal; at least two points each."""
    fixed = [name for name in NAMES if name != axis]
    found = []
    for _, same in table.groupby(["device", "hardware", *fixed]):
        if same[axis].nunique() > 1:
            first = same.iloc[0]
            held = {name: int(first[name]) for name in fixed}
            found.append(Line(first["device"], first["hardware"], held, same.sort_values(axis)))
    return found


def save_growth(measured: Sequence[Measured], out_dir: Path) -> list[Path]:
    """Draw growth where it was measured."""
    parts = [found for found in measured if found.part == "growth"]
    table = points(parts)
    panels = {axis: found for axis in NAMES if len(table) and (found := lines(table, axis))}
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


def _draw(axes: Axes, found: Sequence[Line], axis: str, value: str, several: bool) -> None:
    """Draw lines on logarithmic axes; the horizontal one has the numbers that were measured."""
    sizes = sorted({line.fixed[BY_BATCH] for line in found if BY_BATCH in line.fixed})
    for line in found:
        known = line.points.dropna(subset=value)
        x, y = known[axis].astype(float), known[value]
        look: dict[str, Any] = {"color": line.colour(sizes), "marker": MARKS.get(line.device, "^")}
        axes.plot(x, y, markersize=4.5, label=line.label(several), **look)
        if axis == BY_DEPTH and len(known):
            ends = x.iloc[[0, -1]]
            proportional = y.iloc[0] / x.iloc[0] * ends
            axes.plot(ends, proportional, color="#999999", linewidth=0.7, zorder=1)
    axes.set(xscale="log", yscale="log", xlabel=NAMES[axis], ylabel=value)
    ticks = sorted({float(x) for line in found for x in line.points[axis]})
    spaced = [tick for i, tick in enumerate(ticks) if not i or tick >= 1.25 * ticks[i - 1]]
    axes.xaxis.set_major_locator(FixedLocator(spaced))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
