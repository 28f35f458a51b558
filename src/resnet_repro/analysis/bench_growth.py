"""Time and memory per image against depth, batch size and runs at once, as ``growth.png``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from resnet_repro.analysis import style
from resnet_repro.analysis.measured import Measured, Row

COLOURS = {"cpu": "#0072B2", "cuda": "#D55E00"}
MARKS = "os^Dv"
BY_DEPTH, BY_BATCH, BY_RUNS = "depth", "batch_size", "runs"
NAMES = {BY_DEPTH: "depth (layers)", BY_BATCH: "batch size (images)", BY_RUNS: "runs at once"}


@dataclass(frozen=True)
class Line:
    """Points that differ in one thing alone."""

    device: str
    label: str
    points: tuple[Row, ...]


def lines(measured: Sequence[Measured], axis: str) -> list[Line]:
    """What was measured along ``axis``, everything else being equal; at least two points each."""
    fixed = [name for name in (BY_DEPTH, BY_BATCH, BY_RUNS) if name != axis]
    found: dict[tuple[object, ...], list[Row]] = {}
    for part in measured:
        for row in part.rows:
            if row["seconds_per_image"] is not None:
                key = (part.device, part.hardware, *(row[name] for name in fixed))
                found.setdefault(key, []).append(row)
    return [
        Line(str(key[0]), _label(key, fixed), tuple(sorted(rows, key=lambda row: float(row[axis]))))
        for key, rows in found.items()
        if len({row[axis] for row in rows}) > 1
    ]


def _label(key: tuple[object, ...], fixed: Sequence[str]) -> str:
    words = {BY_DEPTH: "ResNet-{}", BY_BATCH: "batch {}", BY_RUNS: "{} runs"}
    said = [
        words[name].format(value)
        for name, value in zip(fixed, key[2:], strict=True)
        if (name, value) != (BY_RUNS, 1)
    ]
    return ", ".join([str(key[1]), *said])


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
        drawn: dict[str, Line2D] = {}
        for (axis, found), (left, right) in zip(panels.items(), grid, strict=True):
            for line in found:
                mark = MARKS[len(drawn) % len(MARKS)]
                first = images_per_second if axis == BY_RUNS else milliseconds
                drawn[line.label] = _draw(left, line, axis, first, mark)
                _draw(right, line, axis, megabytes, mark)
            name = "images per second, all runs" if axis == BY_RUNS else "time per image (ms)"
            _finish(left, found, axis, name)
            _finish(right, found, axis, "memory per image (MB)")
        sentences = [
            "Forward, backward and update of one image; memory beyond weights and data.",
            *(f"{p.where}, {p.content['made'][:10]}." for p in parts),
            "Grey: proportional." if BY_DEPTH in panels else "",
        ]
        style.underneath(figure, sentences, list(drawn.values()), list(drawn))
    return style.save(figure, "growth", out_dir)


def _draw(
    axes: Axes, line: Line, axis: str, value: Callable[[Row], float | None], mark: str
) -> Line2D:
    points = [(float(row[axis]), y) for row in line.points if (y := value(row)) is not None]
    colour = COLOURS.get(line.device, "#777777")
    (drawn,) = axes.plot(*zip(*points, strict=True), color=colour, marker=mark, markersize=4.5)
    if axis == BY_DEPTH and points:
        (x, y), (end, _) = points[0], points[-1]
        axes.plot([x, end], [y, y * end / x], color="#999999", linewidth=0.7, zorder=1)
    return drawn


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
