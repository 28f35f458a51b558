"""Time and memory per image against depth, batch size and runs at once, as ``growth.png``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from benchmarks.measured import Measured, Row
from resnet_repro.analysis import style

MARKS = {"cpu": "o", "cuda": "s"}
BY_DEPTH, BY_BATCH, BY_RUNS = "depth", "batch_size", "runs"
NAMES = {BY_DEPTH: "depth (layers)", BY_BATCH: "batch size (images)", BY_RUNS: "runs at once"}


@dataclass(frozen=True)
class Line:
    """Points that differ in one thing alone.

    Attributes:
        place: the hardware.
        fixed: the other two of depth, batch size and runs at once.
    """

    device: str
    place: str
    fixed: dict[str, int]
    points: tuple[Row, ...]

    def label(self, with_place: bool) -> str:
        """What it is, for a legend."""
        words = {BY_DEPTH: "ResNet-{}", BY_BATCH: "batch {}", BY_RUNS: "{} runs"}
        said = [
            words[name].format(value)
            for name, value in self.fixed.items()
            if (name, value) != (BY_RUNS, 1)
        ]
        return ", ".join([*said, *([self.place] if with_place else [])])

    def colour(self, batch_sizes: Sequence[int]) -> Any:
        """That of the depth, as in all figures; along the depth a shade for the batch size."""
        if BY_DEPTH in self.fixed:
            return style.depth_colour(self.fixed[BY_DEPTH])
        share = batch_sizes.index(self.fixed[BY_BATCH]) / max(1, len(batch_sizes) - 1)
        return colormaps["viridis"](0.85 * (1 - share))


def lines(measured: Sequence[Measured], axis: str) -> list[Line]:
    """What was measured along ``axis``, everything else being equal; at least two points each."""
    fixed = [name for name in (BY_DEPTH, BY_BATCH, BY_RUNS) if name != axis]
    found: dict[tuple[Any, ...], list[Row]] = {}
    for part in measured:
        for row in part.rows:
            if row["seconds_per_image"] is not None:
                key = (part.device, part.hardware, *(int(row[name]) for name in fixed))
                found.setdefault(key, []).append(row)
    return [
        Line(
            device,
            place,
            dict(zip(fixed, values, strict=True)),
            tuple(sorted(rows, key=lambda row: float(row[axis]))),
        )
        for (device, place, *values), rows in sorted(found.items())
        if len({row[axis] for row in rows}) > 1
    ]


def milliseconds(row: Row) -> float | None:
    """Time per image."""
    return 1e3 * float(row["seconds_per_image"])


def megabytes(row: Row) -> float | None:
    """Memory per image."""
    return None if row["bytes_per_image"] is None else float(row["bytes_per_image"]) / 1e6


def images_per_second(row: Row) -> float | None:
    """Throughput of all runs together."""
    return 1 / float(row["seconds_per_image"])


def save_growth(measured: Sequence[Measured], out_dir: Path) -> list[Path]:
    """Draw what there is; nothing where no growth was measured."""
    parts = [found for found in measured if found.part == "growth"]
    panels = {axis: found for axis in NAMES if (found := lines(parts, axis))}
    if not panels:
        return []
    with style.style():
        figure = style.new_figure(2, rows=len(panels))
        grid = figure.subplots(len(panels), 2, squeeze=False)
        places = {part.hardware for part in parts}
        for (axis, found), (left, right) in zip(panels.items(), grid, strict=True):
            first = images_per_second if axis == BY_RUNS else milliseconds
            sizes = sorted({line.fixed[BY_BATCH] for line in found if BY_BATCH in line.fixed})
            for line in found:
                look = {
                    "color": line.colour(sizes),
                    "marker": MARKS.get(line.device, "^"),
                    "label": line.label(with_place=len(places) > 1),
                }
                _draw(left, line, axis, first, look)
                _draw(right, line, axis, megabytes, look)
            name = "images per second, all runs" if axis == BY_RUNS else "time per image (ms)"
            _finish(left, found, axis, name)
            _finish(right, found, axis, "memory per image (MB)")
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
    line: Line,
    axis: str,
    value: Callable[[Row], float | None],
    look: Mapping[str, Any],
) -> None:
    points = [(float(row[axis]), y) for row in line.points if (y := value(row)) is not None]
    axes.plot(*zip(*points, strict=True), markersize=4.5, **look)
    if axis == BY_DEPTH and points:
        (x, y), (end, _) = points[0], points[-1]
        axes.plot([x, end], [y, y * end / x], color="#999999", linewidth=0.7, zorder=1)


def _finish(axes: Axes, found: Sequence[Line], axis: str, name: str) -> None:
    """Logarithmic axes with the numbers that were measured on the horizontal one."""
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel(NAMES[axis])
    axes.set_ylabel(name)
    ticks = sorted({float(row[axis]) for line in found for row in line.points})
    apart = [tick for i, tick in enumerate(ticks) if not i or tick >= 1.25 * ticks[i - 1]]
    axes.xaxis.set_major_locator(FixedLocator(apart))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
