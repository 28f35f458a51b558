"""Time and memory per image against depth, batch size and runs at once, as ``growth.png``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from benchmarks.measured import Measured, Row
from resnet_repro.analysis import style

MARKS = {"cpu": "o", "cuda": "s"}
BY_DEPTH, BY_BATCH, BY_RUNS = "depth", "batch_size", "runs"
NAMES = {BY_DEPTH: "depth (layers)", BY_BATCH: "batch size (images)", BY_RUNS: "runs at once"}
TEXTS = {BY_DEPTH: "ResNet-{}", BY_BATCH: "batch {}", BY_RUNS: "{} runs"}


class Line(NamedTuple):
    """Points that differ in one thing alone; ``fixed`` are the others of depth, batch and runs."""

    device: str
    hardware: str
    fixed: dict[str, int]
    points: list[Row]

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


def lines(measured: Sequence[Measured], axis: str) -> list[Line]:
    """Group what was measured along ``axis``, all else being equal; at least two points each."""
    fixed = [name for name in NAMES if name != axis]
    found: dict[tuple[Any, ...], list[Row]] = {}
    for part in measured:
        for row in part.rows:
            if row["seconds_per_image"] is not None:
                key = (part.device, part.hardware, *(int(row[name]) for name in fixed))
                found.setdefault(key, []).append(row)
    return [
        Line(
            device,
            hardware,
            dict(zip(fixed, values, strict=True)),
            sorted(rows, key=lambda row: row[axis]),
        )
        for (device, hardware, *values), rows in sorted(found.items())
        if len({row[axis] for row in rows}) > 1
    ]


def milliseconds(row: Row) -> float:
    """Time per image."""
    return 1e3 * float(row["seconds_per_image"])


def images_per_second(row: Row) -> float:
    """Throughput of all runs together."""
    return 1 / float(row["seconds_per_image"])


def megabytes(row: Row) -> float | None:
    """Memory per image."""
    return None if row["bytes_per_image"] is None else float(row["bytes_per_image"]) / 1e6


def save_growth(measured: Sequence[Measured], out_dir: Path) -> list[Path]:
    """Draw growth where it was measured."""
    parts = [found for found in measured if found.part == "growth"]
    panels = {axis: found for axis in NAMES if (found := lines(parts, axis))}
    if not panels:
        return []
    several = len({part.hardware for part in parts}) > 1
    with style.style():
        figure, grid = style.subplots(len(panels), 2, squeeze=False)
        for (axis, found), (left, right) in zip(panels.items(), grid, strict=True):
            _draw(
                left, found, axis, images_per_second if axis == BY_RUNS else milliseconds, several
            )
            _draw(right, found, axis, megabytes, several)
            rate = "images per second, all runs"
            left.set_ylabel(rate if axis == BY_RUNS else "time per image (ms)")
            right.set_ylabel("memory per image (MB)")
            left.legend(fontsize="small")
        sentences = [
            "Forward, backward and update of one image; memory beyond weights and data.",
            *(f"{p.where}, {p.content['made'][:10]}." for p in parts),
            "Grey: proportional." if BY_DEPTH in panels else "",
        ]
        style.underneath(figure, sentences)
    return style.save(figure, "growth", out_dir)


def _draw(
    axes: Axes,
    found: Sequence[Line],
    axis: str,
    value: Callable[[Row], float | None],
    several: bool,
) -> None:
    """Draw lines on logarithmic axes; the horizontal one has the numbers that were measured."""
    sizes = sorted({line.fixed[BY_BATCH] for line in found if BY_BATCH in line.fixed})
    for line in found:
        points = [(float(row[axis]), y) for row in line.points if (y := value(row)) is not None]
        look: dict[str, Any] = {"color": line.colour(sizes), "marker": MARKS.get(line.device, "^")}
        axes.plot(*zip(*points, strict=True), markersize=4.5, label=line.label(several), **look)
        if axis == BY_DEPTH and points:
            (x, y), (end, _) = points[0], points[-1]
            axes.plot([x, end], [y, y * end / x], color="#999999", linewidth=0.7, zorder=1)
    axes.set(xscale="log", yscale="log", xlabel=NAMES[axis])
    ticks = sorted({float(row[axis]) for line in found for row in line.points})
    spaced = [tick for i, tick in enumerate(ticks) if not i or tick >= 1.25 * ticks[i - 1]]
    axes.xaxis.set_major_locator(FixedLocator(spaced))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
