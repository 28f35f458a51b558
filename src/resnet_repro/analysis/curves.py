"""Error curves, averaged over seeds, and the panels that show them above the paper's."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, MultipleLocator, NullFormatter

from resnet_repro.analysis import paper, style
from resnet_repro.analysis.captions import run_sentences
from resnet_repro.analysis.logged_run import Run
from resnet_repro.analysis.protocol import SCHEDULES, Nets, by_net, why_not_comparable
from resnet_repro.analysis.stats import how_many, last_error, logged, summarise

ENOUGH_POINTS = 40  # a training curve is thinned to one point an evaluation if that leaves so many
NBSP = "\N{NO-BREAK SPACE}"


# The error axis by family, percent: of Figs. 1 and 6; of Fig. 4, which ends at 63 % and 55e4.
ERRORS = {"cifar": (0.0, 20.0), "imagenet": (20.0, 65.0)}
LOOKS = {"test": (style.TEST, style.PAPER_TEST), "train": (style.TRAIN, style.PAPER_TRAIN)}


def comparable(runs: Sequence[Run]) -> bool:
    """Whether the paper's curves may be drawn under these runs."""
    return bool(runs) and not why_not_comparable(runs)


def draw_net(axes: Axes, runs: Sequence[Run], kind: str, look: dict[str, Any], unit: float) -> None:
    """Draw one error curve of a net: mean over seeds, band from the lowest to the highest seed.

    ``look`` may name it and choose its colour; by default that is the depth's.
    """
    label = f"{runs[0].label}, {how_many(len(runs), 'seed')}, {runs[0].profile} profile"
    colour = style.depth_colour(runs[0].depth)
    look = {"color": colour, "label": label, "zorder": 2.5, **look}
    curve = mean_curve(runs, kind)
    x = curve.index.to_numpy() / unit
    axes.plot(x, curve["mean"], **look)
    if len(runs) > 1:
        band: dict[str, Any] = {"color": look["color"], "alpha": 0.18, "linewidth": 0, "zorder": 2}
        axes.fill_between(x, curve["min"], curve["max"], **band)


def draw_paper(
    axes: Axes, number: int, run: Run, kind: str, look: dict[str, Any], panel: str | None = None
) -> None:
    """Draw the curve of the same net in the paper's figure of a number, pale, if it has one."""
    curve = with_gaps(paper.curve(number, run.label, kind, panel=panel, clipped=True))
    if len(curve):
        colour, label = style.pale(style.depth_colour(run.depth)), f"{run.label} in the paper"
        axes.plot(curve.index.to_numpy() / 1e4, curve, color=colour, label=label, **look)


def draw_nets(
    axes: Axes, nets: Nets, labels: Sequence[str], paper: tuple[int, str], shown: Sequence[Run]
) -> None:
    """Draw test (bold) and training error (dashed) of nets; name what is missing.

    The paper's curves are under them where all runs ``shown`` are comparable. ``paper``: number of
    its figure, panel.
    """
    number, panel = paper
    for net in nets.values():
        for kind, (our_look, paper_look) in LOOKS.items():
            draw_net(axes, net, kind, our_look, iter_unit(shown))
            if comparable(shown):
                draw_paper(axes, number, net[0], kind, paper_look, panel)
    name_missing(axes, nets, labels)
    for label, net in nets.items():
        final = summarise([last_error(run) for run in net]).mean
        if final > axes.get_ylim()[1]:
            note(axes, f"{label} ends at {final:.1f}{NBSP}%, above the axis")


def legend(
    depths: Collection[int], columns: int, test: str, paper_test: str = ""
) -> tuple[list[Line2D], list[str]]:
    """Colours of the depths in the first rows, styles of the lines in the next.

    ``test`` names the bold line, ``paper_test`` the paper's, empty where that is not drawn.
    """
    depths = sorted({*depths})
    if not depths:
        return [], []
    black, pale = "#000000", style.pale("#000000")
    looks: list[tuple[str, Any, dict[str, Any]]]
    looks = [(f"{depth} layers", style.depth_colour(depth), style.TEST) for depth in depths]
    looks += [("", black, {"linestyle": "none"})] * (-len(depths) % columns)
    looks += [(test, black, style.TEST), ("training error", black, style.TRAIN)]
    if paper_test:
        looks += [(f"the paper's {paper_test}", pale, style.PAPER_TEST)]
        looks += [("the paper's training error", pale, style.PAPER_TRAIN)]
    return [Line2D([], [], color=c, **look) for _, c, look in looks], [text for text, *_ in looks]


def name_missing(axes: Axes, nets: Nets, labels: Sequence[str]) -> None:
    """Name in a panel the nets of ``labels`` that have no runs."""
    missing = [label for label in labels if label not in nets]
    names = ", ".join(missing)
    if missing and not nets:
        explain_empty(axes, "\n".join(["no finished runs", *textwrap.wrap(names, 30)]))
    elif missing:
        note(axes, f"no finished runs: {names}")


def explain_empty(axes: Axes, text: str) -> None:
    """Write into an otherwise empty panel why it is empty."""
    white = {"facecolor": "white", "edgecolor": "none", "pad": 2.0}
    look: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 8, "color": "#666666"}
    axes.text(0.5, 0.5, text, transform=axes.transAxes, bbox=white, **look)


def note(axes: Axes, text: str) -> None:
    """Write a remark in the upper right corner of a panel, below those already there."""
    above = [line for t in axes.texts if t.get_gid() == "note" for line in t.get_text().split("\n")]
    axes.annotate(
        "\n".join(textwrap.wrap(text, 24)),
        (0.985, 0.985),
        xycoords="axes fraction",
        xytext=(0, -8.5 * len(above)),
        textcoords="offset points",
        ha="right",
        va="top",
        fontsize=6.5,
        color="#444444",
        gid="note",
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.6},
    )


def logarithmic(axes: Axes) -> None:
    """Make the y axis logarithmic, with plain numbers where it spans less than two decades."""
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    if high < 100 * low:
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())


def iter_unit(runs: Sequence[Run]) -> float:
    """Iterations that count as 1 on the axis: 1e4 as in the paper, 1 for short schedules."""
    return 1e4 if max((run.max_iters for run in runs), default=1e4) >= 1e4 else 1.0


def set_limits(row: Sequence[Axes], runs: Sequence[Run], family: str = "cifar") -> None:
    """Axes as in the paper where the runs follow its schedule, else fitted to the runs."""
    low, high = error_limits(runs, family)
    last = max((run.max_iters for run in runs), default=SCHEDULES[family][0])
    unit = iter_unit(runs)
    for axes in row:
        axes.set_xlabel("iter. (1e4)" if unit > 1 else "iteration")
        axes.set_xlim(0, last / unit)
        axes.set_ylim(low, high)
        axes.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))
        axes.yaxis.set_major_locator(MultipleLocator(5 if high - low <= 30 else 10))
        if unit == 1:
            axes.xaxis.set_major_formatter("{x:,.0f}")
        mark_drops(axes, runs, unit)


def mark_drops(axes: Axes, runs: Sequence[Run], unit: float = 1.0) -> None:
    """Draw a dotted line where the learning rate of any of the runs drops."""
    for drop in sorted({drop for run in runs for drop in run.drops}):
        axes.axvline(drop / unit, color="#bbbbbb", linewidth=0.7, linestyle=":", zorder=1)


def error_limits(runs: Sequence[Run], family: str) -> tuple[float, float]:
    """Limits of the error axis, percent: the paper's, or tens around the runs' curves."""
    if comparable(runs) or not runs:
        return ERRORS[family]
    drawn = [mean_curve([run], kind)["mean"] for run in runs for kind in ("train", "test")]
    low = min(float(curve.min()) for curve in drawn)
    high = max(float(curve.max()) for curve in drawn)
    return max(0.0, 10 * ((low - 1) // 10)), min(100.0, 10 * (high // 10 + 1))


def sentences(runs: Sequence[Run]) -> list[str]:
    """Caption of a figure of error curves."""
    lines = run_sentences(runs)
    if not runs:
        return [*lines, "No finished runs."]
    width = " or ".join(f"{width:,}" for width in sorted({*map(bin_width, runs)}))
    lines += [f"Training error: mean over the augmented mini-batches of each {width} iterations."]
    if any(len(group) > 1 for group in by_net(runs).values()):
        lines.append("Line: mean over seeds; band: lowest to highest seed.")
    lines.append("Dotted verticals: the learning rate drops.")
    if comparable(runs):
        lines.append("Thin pale curves: the paper's, one run each.")
    else:
        family = runs[0].family
        (least, most), (low, high) = ERRORS[family], error_limits(runs, family)
        lines.append(
            f"The paper's curves are not drawn ({why_not_comparable(runs)}; theirs: "
            f"{SCHEDULES[family][0]:,} iterations, axis {least:g} to {most:g} %; "
            f"here {low:g} to {high:g} %)."
        )
    return lines


def mean_curve(runs: Sequence[Run], kind: str) -> pd.DataFrame:
    """Errors: ``mean``, ``min`` and ``max`` over seeds by ``iter``, where every seed has it.

    Training curves are thinned to :func:`bin_width`. A ValueError names a run without such records.
    """
    curves = []
    for run in runs:
        curve = logged(run, kind)
        curves.append(in_windows(run, bin_width(run))["mean"] if kind == "train" else curve)
    table = pd.concat(curves, axis=1, join="inner")
    return pd.DataFrame({way: table.agg(way, axis=1) for way in ("mean", "min", "max")})


def bin_width(run: Run) -> int:
    """Iterations behind one point of the drawn training curve.

    The interval between evaluations (the paper's figures have one point per 1,000 iterations)
    where that leaves enough points, else the interval between training records.
    """
    every = int(run.config["evaluation"]["every_iters"])
    if -(-run.max_iters // every) >= ENOUGH_POINTS:
        return every
    return int(run.config["trainer"]["log_every_iters"])


def in_windows(run: Run, width: int) -> pd.DataFrame:
    """Mean of the training errors of each ``width`` iterations, weighted by their images.

    ``mean`` and the number of ``images``, by the last iteration of the window.
    """
    values = run.curve("train")
    images = run.curve("train", "num_samples").reindex(values.index).fillna(1.0)
    window = np.minimum(np.ceil(values.index / width).astype(int) * width, run.max_iters)
    sums = pd.DataFrame({"mean": values * images, "images": images}).groupby(window).sum()
    return sums.assign(mean=sums["mean"] / sums["images"]).rename_axis("iter")


def with_gaps(curve: pd.Series[float]) -> pd.Series[float]:
    """Break a digitised curve where points are missing, so that no line bridges the unknown."""
    if len(curve) < 3:
        return curve
    iters = curve.index.to_numpy()
    step = np.median(np.diff(iters))
    holes = iters[:-1][np.diff(iters) > 1.5 * step] + step / 2
    return pd.concat([curve, pd.Series(np.nan, index=holes)]).sort_index()
