"""Runs in one figure: one at a glance, two as a pair, several close up at drops of the rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from resnet_repro.analysis import style
from resnet_repro.analysis.captions import run_sentences
from resnet_repro.analysis.explore import differences, names
from resnet_repro.analysis.load import Run, load_run
from resnet_repro.items.fig7 import responses

COLUMNS: Mapping[str, str] = {"top1_err": "error (%)", "loss": "loss (nats)"}
DPI = 110  # for a screen
# Here a colour is a run, not a depth: nets of one depth are what one wants to tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#000000", "#CC79A7", "#E69F00", "#56B4E9", "#777777")


def overview(run: Run) -> Figure:
    """Test error (bold), training error (dashed) and loss of one run over the iterations.

    A third panel has the layer responses where they were logged. Dotted lines are the drops of
    the learning rate.
    """
    inside = responses(run)
    with style.style():
        figure = style.new_figure(2 if inside is None else 3, panel=(3.4, 2.7))
        errors, losses, *more = figure.subplots(1, 2 if inside is None else 3)
        _draw_one(errors, run, "top1_err")
        errors.set_ylabel("error (%)")
        errors.set_title(run.label)
        _draw_one(losses, run, "loss")
        losses.set_ylabel("loss (nats)")
        losses.set_title("cross-entropy")
        if inside is not None:
            colour = style.depth_colour(run.depth)
            more[0].plot(inside.index.to_numpy(), inside.to_numpy(), color=colour)
            more[0].set_title("layer responses (std)")
            more[0].set_xlabel("layer")
            more[0].set_ylim(bottom=0)
        handles, labels = errors.get_legend_handles_labels()
        style.underneath(figure, run_sentences([run]), handles, labels)
    return figure


def _draw_one(axes: Axes, run: Run, column: str) -> None:
    colour = style.depth_colour(run.depth)
    looks = (("test", "test", style.TEST), ("train", "training", style.TRAIN))
    for kind, word, look in looks:
        curve = run.curve(kind, column)
        axes.plot(curve.index.to_numpy(), curve.to_numpy(), color=colour, label=word, **look)
    for drop in run.config["recipe"]["milestones"]:
        axes.axvline(drop, color="#bbbbbb", linewidth=0.7, linestyle=":", zorder=1)
    axes.set_xlim(0, run.max_iters)
    axes.set_xlabel("iteration")


def save_picture(run_dir: Path, out_dir: Path) -> Path:
    """Draw the run in a folder, in whatever state it is, as ``overview.png``; return its path."""
    figure = overview(load_run(run_dir))
    out_dir.mkdir(parents=True, exist_ok=True)
    path = out_dir / "overview.png"
    with style.style():
        figure.savefig(path, dpi=DPI, metadata={"Software": None})
    return path


def zoom(runs: Sequence[Run], column: str = "loss", width: float = 1 / 10) -> Figure:
    """Curves of several runs, whole and close up around each drop of the learning rate.

    Args:
        runs: of one schedule.
        column: ``loss`` or ``top1_err``.
        width: of a close-up to either side, as a share of the schedule.

    Raises:
        ValueError: no runs, or their schedules differ.
    """
    schedules = {(run.max_iters, *run.config["recipe"]["milestones"]) for run in runs}
    if len(schedules) != 1:
        raise ValueError(f"runs of one schedule are needed, not of {len(schedules)}")
    end, *drops = schedules.pop()
    reach = end * width
    windows = [(0, end), *((drop - reach, drop + reach) for drop in drops)]
    with style.style():
        figure = style.new_figure(len(windows), panel=(3.4, 2.8))
        for axes, window in zip(
            figure.subplots(1, len(windows), squeeze=False)[0], windows, strict=True
        ):
            for number, (run, name) in enumerate(zip(runs, names(*runs), strict=True)):
                _draw(axes, run, column, COLOURS[number % len(COLOURS)], name)
            _frame(axes, column, drops)
            _look_through(axes, runs, column, window)
        figure.axes[0].set_title("whole run")
        for number, drop in enumerate(drops, 1):
            figure.axes[number].set_title(f"around drop {number}, iteration {drop:,}")
        handles, labels = figure.axes[0].get_legend_handles_labels()
        said = [*run_sentences(runs), "Bold: test; dashed: training."]
        style.underneath(figure, said, handles, labels, columns=4)
    return figure


def compare(first: Run, second: Run) -> Figure:
    """Two runs in one figure: error, loss, and by how much the second's test error is higher.

    The caption names the keys of the configuration in which they differ.
    """
    pair, called = (first, second), names(first, second)
    with style.style():
        figure = style.new_figure(3, panel=(3.4, 2.8))
        errors, losses, gap = figure.subplots(1, 3)
        for axes, column in ((errors, "top1_err"), (losses, "loss")):
            for run, name, colour in zip(pair, called, COLOURS, strict=False):
                _draw(axes, run, column, colour, name)
            _frame(axes, column, first.config["recipe"]["milestones"])
        errors.set_title("error")
        losses.set_title("cross-entropy")
        difference = (second.curve("test") - first.curve("test")).dropna()
        gap.plot(difference.index.to_numpy(), difference.to_numpy(), color="#333333", marker=".")
        gap.axhline(0, color="#888888", linewidth=0.7)
        gap.set_title(f"test error: {called[1]} minus {called[0]}", fontsize=8.5)
        gap.set_xlabel("iteration")
        gap.set_ylabel("points")
        handles, labels = errors.get_legend_handles_labels()
        style.underneath(figure, _said(first, second), handles, labels)
    return figure


def _said(first: Run, second: Run) -> list[str]:
    keys = differences(first, second)["key"]
    try:
        said = run_sentences([first, second])
    except ValueError:  # one net under two names: its runs must not be averaged, only shown
        said = list(dict.fromkeys([*run_sentences([first]), *run_sentences([second])]))
    return [
        *said,
        "Bold: test; dashed: training.",
        f"They differ in {', '.join(keys) or 'no key'}.",
    ]


def _draw(axes: Axes, run: Run, column: str, colour: str, name: str) -> None:
    for kind, look in (("test", style.TEST), ("train", style.TRAIN)):
        curve = run.curve(kind, column)
        label = name if kind == "test" else None
        axes.plot(curve.index.to_numpy(), curve.to_numpy(), color=colour, label=label, **look)


def _frame(axes: Axes, column: str, drops: Sequence[int]) -> None:
    """Label axes and mark the drops."""
    axes.set_xlabel("iteration")
    axes.set_ylabel(COLUMNS[column])
    for drop in drops:
        axes.axvline(drop, color="#bbbbbb", linewidth=0.7, linestyle=":", zorder=1)


def _look_through(
    axes: Axes, runs: Sequence[Run], column: str, window: tuple[float, float]
) -> None:
    """Show a window of the iterations, and upwards what the curves do in it."""
    axes.set_xlim(*window)
    curves = [run.curve(kind, column) for run in runs for kind in ("test", "train")]
    seen = pd.concat(
        [curve[(curve.index >= window[0]) & (curve.index <= window[1])] for curve in curves]
    )
    if len(seen):
        low, high = float(seen.min()), float(seen.max())
        margin = 0.05 * (high - low) or 1.0
        axes.set_ylim(low - margin, high + margin)
