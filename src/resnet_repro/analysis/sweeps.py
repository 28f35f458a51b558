"""A sweep: the errors of runs against the keys in which they differ.

Runs are averaged over seeds only where everything else that is computed is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

from resnet_repro.analysis import style
from resnet_repro.analysis.captions import DATA_NAMES, machine_of
from resnet_repro.analysis.curves import iter_unit, mean_curve
from resnet_repro.analysis.load import Run, agree, changed_keys
from resnet_repro.analysis.protocol import comparison_notes
from resnet_repro.analysis.stats import (
    clean_training_error,
    final_training_error,
    last_error,
    summarise,
)
from resnet_repro.analysis.tables import write_table
from resnet_repro.options import shown
from resnet_repro.same_run import flatten

MARKERS = "osD^vP"
LOGARITHMIC = 8  # values that span more than this factor are spaced by their ratio
LEGEND_CHARACTERS = 125  # of a row
SWEEP = "compare_"  # begins the names of the files of a sweep
NAMED_LINES = 3  # beside their last point; more are told apart by marker and legend


def find_sweeps(runs: Sequence[Run], key: str) -> list[Run]:
    """Return the finished runs that belong to a sweep of ``key``.

    That is: of which another run of the same experiment and profile differs in this key alone.
    """
    finished = [run for run in runs if run.is_finished]
    return [
        run
        for run in finished
        if any(
            (other.experiment, other.profile) == (run.experiment, run.profile)
            and [*changed_keys(run, other)] == [key]
            for other in finished
        )
    ]


def swept_keys(runs: Sequence[Run]) -> list[str]:
    """Return the keys of what is computed in which runs differ, those of most values first."""
    found: dict[str, None] = {}
    for run in runs[1:]:
        found |= dict.fromkeys(changed_keys(runs[0], run))
    settings = [flatten(run.config) for run in runs]
    values = {key: len({str(each.get(key)) for each in settings}) for key in found}
    return sorted(found, key=lambda key: -values[key])


def sweep_table(runs: Sequence[Run], keys: Sequence[str] = ()) -> pd.DataFrame:
    """One row per run: the value of each swept key, the seed, and the errors in percent.

    Args:
        runs: finished.
        keys: to show; those in which the runs differ by default.
    """
    keys = list(keys or swept_keys(runs))
    rows = [
        {key: _hashable(flatten(run.config).get(key)) for key in keys}
        | {
            "net": run.label,
            "profile": run.profile,
            "seed": run.seed,
            "test error": last_error(run),
            "training error": final_training_error(run),
            "clean training error": clean_training_error(run),
            "run": run.name,
        }
        for run in runs
    ]
    columns = [*keys, "net", "profile", "seed", "test error", "training error"]
    return pd.DataFrame(rows, columns=[*columns, "clean training error", "run"])


def settings(runs: Sequence[Run]) -> list[list[Run]]:
    """Group runs that differ in nothing computed but the seed, sorted by their values."""
    groups: list[list[Run]] = []
    for run in runs:
        fitting = (
            group
            for group in groups
            if group[0].profile == run.profile and not changed_keys(group[0], run)
        )
        if (group := next(fitting, None)) is None:
            groups.append([run])
        else:
            group.append(run)
    keys = swept_keys(runs)
    return sorted((agree(group) for group in groups), key=lambda group: _order(group[0], keys))


def summary_table(runs: Sequence[Run], keys: Sequence[str]) -> pd.DataFrame:
    """One row per setting: mean over seeds, standard deviation, 95 % t interval; percent."""
    rows: list[dict[str, Any]] = []
    for group in settings(runs):
        test = summarise([last_error(run) for run in group])
        clean = [error for run in group if (error := clean_training_error(run)) is not None]
        own = "" if group[0].is_variant else "as the experiment"
        rows.append(
            {key: shown(flatten(group[0].config).get(key)) for key in keys}
            | {
                "net": group[0].label,
                "profile": group[0].profile,
                "seeds": test.n,
                "test error": test.mean,
                "sd": test.sd if test.n > 1 else None,
                "low": test.low if test.n > 1 else None,
                "high": test.high if test.n > 1 else None,
                "training error": summarise([final_training_error(r) for r in group]).mean,
                "clean training error": summarise(clean).mean if clean else None,
                "note": own,
            }
        )
    return pd.DataFrame(rows)


def sweep_figure(runs: Sequence[Run], keys: Sequence[str]) -> Figure:
    """Final test error against the first key (left) and the test curves (right).

    Small dots are seeds, large markers their mean, bars the 95 % t interval over seeds, which one
    seed does not have. Further keys, nets and profiles have lines of their own.
    """
    groups = settings(runs)
    key, others = keys[0], list(keys[1:])
    values = list(dict.fromkeys(_hashable(flatten(g[0].config).get(key)) for g in groups))
    lines: dict[str, list[list[Run]]] = {}
    for group in groups:
        lines.setdefault(_line_name(group[0], runs, others), []).append(group)
    with style.style():
        figure = style.new_figure(2, panel=(4.1, 3.2))
        left, right = figure.subplots(1, 2)
        places = _places(left, key, values)
        colours = _colours(values)
        for number, (name, line) in enumerate(lines.items()):
            marker, named = MARKERS[number % len(MARKERS)], len(lines) <= NAMED_LINES
            _draw_errors(left, line, key, places, marker, name, colours, named)
            _draw_curves(right, line, key, colours, number, name if len(lines) > 1 else "")
        low, high = left.get_ylim()
        left.set_ylim(max(low, 0), min(high, 100))  # of an error; a t interval may reach beyond
        left.set_ylabel("test error at the end (%)")
        right.set_ylabel("test error (%)")
        unit = iter_unit(runs)
        right.set_xlabel("iter. (1e4)" if unit > 1 else "iteration")
        handles, labels = right.get_legend_handles_labels()
        longest = max(map(len, labels), default=1)
        columns = max(1, min(4, LEGEND_CHARACTERS // (longest + 8)))
        style.underneath(figure, sentences(runs, keys), handles, labels, columns=columns)
    return figure


def sentences(runs: Sequence[Run], keys: Sequence[str]) -> list[str]:
    """Caption of a sweep: what is compared, on what, and what else differs."""
    data = sorted({str(run.config["data"]["name"]) for run in runs})
    schedules = sorted({f"{run.profile} profile, {run.max_iters:,} iterations" for run in runs})
    said = [
        f"{' and '.join(DATA_NAMES.get(name, name) for name in data)}; {'; '.join(schedules)}; "
        f"{' and '.join(sorted({machine_of(run) for run in runs}))}.",
        "Last test error. Small dots: seeds; large markers: their mean; bars: 95 % t interval "
        "over seeds, none for one seed. Filled: as the experiment is; hollow: a variant.",
    ]
    more = [key for key in swept_keys(runs) if key not in keys]
    if more:
        said.append(f"The runs differ also in {', '.join(more)}.")
    return said + comparison_notes(runs)


def sweep_name(keys: Sequence[str]) -> str:
    """Name the files of a sweep of these keys."""
    return SWEEP + "_".join(key.rpartition(".")[2] for key in keys)


def save_sweep(runs: Sequence[Run], keys: Sequence[str], figures: Path, tables: Path) -> list[Path]:
    """Draw a sweep as ``compare_<key>.png``, ``.svg`` and write its table (md, tex, csv)."""
    stem = sweep_name(keys)
    table = summary_table(runs, [*keys, *(k for k in swept_keys(runs) if k not in keys)])
    paths = style.save(sweep_figure(runs, keys), stem, figures)
    return paths + write_table(table, stem, tables, notes=sentences(runs, keys))


def _draw_errors(
    axes: Axes,
    line: Sequence[Sequence[Run]],
    key: str,
    places: dict[Any, float],
    marker: str,
    name: str,
    colours: dict[Any, str],
    named: bool,
) -> None:
    means = []
    for group in line:
        value = _hashable(flatten(group[0].config).get(key))
        x, colour = places[value], colours[value]
        errors = [last_error(run) for run in group]
        summary = summarise(errors)
        means.append((x, summary.mean))
        aside = axes.transData + ScaledTranslation(-0.09, 0, axes.figure.dpi_scale_trans)
        axes.plot([x] * len(errors), errors, ".", color=colour, markersize=4, transform=aside)
        bar = None if summary.n == 1 else [[summary.mean - summary.low]] * 2
        fill = "white" if group[0].is_variant else colour
        axes.errorbar(
            x, summary.mean, yerr=bar, fmt=marker, color=colour, markerfacecolor=fill,
            markersize=6.5, capsize=3, zorder=2.6,
        )  # fmt: skip
    xs, ys = zip(*sorted(means), strict=True)
    axes.plot(xs, ys, color="#999999", linewidth=0.8, zorder=2)
    if name and named:
        axes.annotate(name, (xs[-1], ys[-1]), xytext=(7, 0), textcoords="offset points",
                      fontsize=7, va="center", color="#444444")  # fmt: skip


def _draw_curves(
    axes: Axes,
    line: Sequence[Sequence[Run]],
    key: str,
    colours: dict[Any, str],
    number: int,
    name: str,
) -> None:
    dashes: Any = ["-", (0, (4, 1.6)), (0, (1, 1)), (0, (6, 1.5, 1, 1.5))][number % 4]
    for group in line:
        value = _hashable(flatten(group[0].config).get(key))
        curve, unit = mean_curve(group, "test"), iter_unit(group)
        label = f"{key.rpartition('.')[2]} {shown(_plain(value))}" + (f", {name}" if name else "")
        x = curve.index.to_numpy() / unit
        axes.plot(x, curve["mean"], color=colours[value], linestyle=dashes, lw=1.5, label=label)
        if len(group) > 1:
            axes.fill_between(
                x, curve["low"], curve["high"], color=colours[value], alpha=0.15, linewidth=0
            )


def _places(axes: Axes, key: str, values: Sequence[Any]) -> dict[Any, float]:
    """Return where each value stands on the axis: by size or ratio of numbers, else in a row."""
    axes.set_xlabel(key)
    numbers = all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in values
    )
    if not numbers:
        axes.set_xticks(range(len(values)), [shown(_plain(value)) for value in values])
        axes.set_xlim(-0.6, len(values) - 0.4)
        return {value: float(place) for place, value in enumerate(values)}
    if min(values) > 0 and max(values) > LOGARITHMIC * min(values):
        axes.set_xscale("log")
    axes.set_xticks(list(values), [f"{value:g}" for value in values])
    axes.minorticks_off()
    axes.margins(x=0.12)
    return {value: float(value) for value in values}


def _colours(values: Sequence[Any]) -> dict[Any, str]:
    """Return a colour of each value, dark to light in their order; the lightest is legible."""
    shades = mpl.colormaps["viridis"](np.linspace(0.0, 0.85, max(len(values), 2)))
    return {value: to_hex(shade) for value, shade in zip(values, shades, strict=False)}


def _line_name(run: Run, runs: Sequence[Run], others: Sequence[str]) -> str:
    """Name what tells a line from the others: net, profile, further keys."""
    parts = [f"{k.rpartition('.')[2]} {shown(flatten(run.config).get(k))}" for k in others]
    if len({other.label for other in runs}) > 1:
        parts.insert(0, run.label)
    if len({other.profile for other in runs}) > 1:
        parts.append(run.profile)
    return ", ".join(parts)


def _order(run: Run, keys: Sequence[str]) -> tuple[Any, ...]:
    values = [flatten(run.config).get(key) for key in keys]
    numbers = [
        (0, value, "") if isinstance(value, int | float) else (1, 0, str(value)) for value in values
    ]
    return (run.is_plain, run.label, run.profile, *numbers)


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
