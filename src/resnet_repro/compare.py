"""Compare runs: final error against the keys in which they differ, curves, and a table.

python -m resnet_repro.compare recipe.lr                    every sweep of a key that is logged
python -m resnet_repro.compare results/runs/quick/cifar10_resnet20*      these runs
python -m resnet_repro.compare recipe.lr model.depth --profile quick

Runs are averaged over seeds only where everything else that is computed is the same.
"""

import argparse
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

from resnet_repro import paths
from resnet_repro.analysis import stats, style
from resnet_repro.analysis.captions import clauses, data_of, devices_of
from resnet_repro.analysis.curves import draw_net, iter_unit
from resnet_repro.analysis.load import alike, changed_keys, grouped
from resnet_repro.analysis.logged_run import Run, load_run, warn
from resnet_repro.analysis.protocol import comparison_notes
from resnet_repro.analysis.tables import write_table
from resnet_repro.config import PROFILES
from resnet_repro.exits import explained
from resnet_repro.options import WHAT, ConfigError, closest, shown
from resnet_repro.runs.folder import RunFolderError
from resnet_repro.same_run import flatten, roles

FIGURES, TABLES = Path("results/figures"), Path("results/tables")
SWEEP = "compare_"  # begins the names of the files of a sweep
MARKERS = "osD^vP"
DASHES: tuple[Any, ...] = ("-", (0, (4, 1.6)), (0, (1, 1)), (0, (6, 1.5, 1, 1.5)))
LOGARITHMIC = 8  # values that span more than this factor get a logarithmic axis
LEGEND_CHARACTERS = 125  # of a row
NAMED_LINES = 3  # at their last point; more are distinguished by marker and legend


def find_sweeps(runs: Iterable[Run], key: str) -> list[Run]:
    """Return the finished runs that belong to a sweep of ``key``.

    Another run of the same experiment and profile must differ in this key alone.
    """
    finished = [run for run in runs if run.is_finished]

    def differs_alone(run: Run, other: Run) -> bool:
        same_net = (run.experiment, run.profile) == (other.experiment, other.profile)
        return same_net and [*changed_keys(run, other)] == [key]

    return [run for run in finished if any(differs_alone(run, other) for other in finished)]


def swept_keys(runs: Sequence[Run], first: Sequence[str] = ()) -> list[str]:
    """Return ``first``, then other computed keys in which runs differ, those of most values."""
    found = {key: None for run in runs[1:] for key in changed_keys(runs[0], run)}
    by_values = sorted(found, key=lambda key: -len({shown(_value(run, key)) for run in runs}))
    return list(dict.fromkeys([*first, *by_values]))


def _value(run: Run, key: str) -> Any:
    return flatten(run.config).get(key)


def sweep_table(runs: Sequence[Run], keys: Sequence[str]) -> pd.DataFrame:
    """One row per run: the value of each swept key, the seed, and the errors in percent."""
    measures: dict[str, Callable[[Run], float | None]] = {
        "test error": stats.last_error,
        "training error": stats.final_training_error,
        "clean training error": stats.clean_training_error,
    }
    rows = []
    for run in runs:
        values = [_value(run, key) for key in keys]
        values = [tuple(value) if isinstance(value, list) else value for value in values]
        errors = [measure(run) for measure in measures.values()]
        rows.append([*values, run.label, run.profile, run.seed, *errors, run.name])
    return pd.DataFrame(rows, columns=[*keys, "net", "profile", "seed", *measures, "run"])


def settings(runs: Sequence[Run]) -> list[list[Run]]:
    """Group runs that compute the same but for the seed, sorted by their values."""
    keys = swept_keys(runs)

    def order(run: Run) -> tuple[Any, ...]:
        values = [_value(run, key) for key in keys]
        sizes = [(0, v, "") if isinstance(v, int | float) else (1, 0, str(v)) for v in values]
        return (run.is_plain, run.label, run.profile, *sizes)

    return alike(sorted(runs, key=order))


def summary_table(runs: Sequence[Run], keys: Sequence[str]) -> pd.DataFrame:
    """One row per setting: mean over seeds, standard deviation, 95 % t interval; percent."""
    rows = []
    for group in settings(runs):
        test = stats.summarise([stats.last_error(run) for run in group])
        training = stats.summarise([stats.final_training_error(run) for run in group])
        row: dict[str, Any] = {key: shown(_value(group[0], key)) for key in keys}
        row |= {"net": group[0].label, "profile": group[0].profile, "seeds": test.n}
        row |= {"test error": test.mean, "sd": test.sd, "low": test.low, "high": test.high}
        row["training error"] = training.mean
        row["clean training error"] = stats.mean_of(stats.clean_training_error, group)
        rows.append(row | {"note": "" if group[0].is_variant else "as the experiment"})
    return pd.DataFrame(rows)


@style.style()
def sweep_figure(runs: Sequence[Run], keys: Sequence[str], caption: Sequence[str] = ()) -> Figure:
    """Final test error against the first key (left) and the test curves (right).

    Dots are seeds, markers their mean, bars the 95 % t interval. Further keys in which runs of one
    net differ, nets and profiles have lines of their own.
    """
    nets = grouped(runs, lambda run: (run.experiment, run.profile)).values()
    key, *others = dict.fromkeys([*keys, *(key for net in nets for key in swept_keys(net))])
    groups, unit = settings(runs), iter_unit(runs)
    values = {shown(value): value for value in (_value(group[0], key) for group in groups)}
    lines = grouped(groups, lambda group: _line_name(group[0], runs, others))
    shades = mpl.colormaps["viridis"](np.linspace(0.0, 0.85, max(len(values), 2)))  # legible
    colours = dict(zip(values, map(to_hex, shades), strict=False))
    figure, (left, right) = style.subplots(1, 2, panel=(4.1, 3.2))
    positions = _positions(left, key, values)
    for (name, line), marker, dashes in zip(lines.items(), cycle(MARKERS), cycle(DASHES)):
        means = []
        for group in line:
            value = shown(_value(group[0], key))
            means.append(_draw_errors(left, group, positions[value], marker, colours[value]))
            label = f"{key.rpartition('.')[2]} {_text(values[value])}"
            label += f", {name}" if len(lines) > 1 else ""
            look = {"color": colours[value], "linestyle": dashes, "linewidth": 1.5}
            draw_net(right, group, "test", look | {"label": label}, unit)
        means.sort()
        left.plot(*zip(*means, strict=True), color="#999999", linewidth=0.8, zorder=2)
        if name and len(lines) <= NAMED_LINES:
            aside: dict[str, Any] = {"xytext": (7, 0), "textcoords": "offset points"}
            left.annotate(name, means[-1], fontsize=7, va="center", color="#444444", **aside)
    low, high = left.get_ylim()
    left.set_ylim(max(low, 0), min(high, 100))  # percent; a t interval may reach beyond
    left.set_ylabel("test error at the end (%)")
    right.set_ylabel("test error (%)")
    right.set_xlabel("iter. (1e4)" if unit > 1 else "iteration")
    labels = right.get_legend_handles_labels()[1]
    widest = max(1, LEGEND_CHARACTERS // (max(map(len, labels)) + 8))
    rows = -(-len(labels) // widest)
    return style.underneath(figure, caption, right, columns=-(-len(labels) // rows))


def _draw_errors(
    axes: Axes, group: Sequence[Run], x: float, marker: str, colour: str
) -> tuple[float, float]:
    """Draw the last error of each seed, their mean and its interval; return the mean's position."""
    errors = [stats.last_error(run) for run in group]
    summary = stats.summarise(errors)
    aside = axes.transData + ScaledTranslation(-0.09, 0, axes.figure.dpi_scale_trans)
    axes.plot([x] * len(errors), errors, ".", color=colour, markersize=4, transform=aside)
    bar = None if summary.n == 1 else summary.mean - summary.low
    look: dict[str, Any] = {"color": colour, "markersize": 6.5, "capsize": 3, "zorder": 2.6}
    look["markerfacecolor"] = "white" if group[0].is_variant else colour
    axes.errorbar(x, summary.mean, yerr=bar, fmt=marker, **look)
    return x, summary.mean


def _positions(axes: Axes, key: str, values: Mapping[str, Any]) -> dict[str, float]:
    """Return each value's position on the axis: numbers by size or ratio, others in a row."""
    axes.set_xlabel(key)
    numbers = list(filter(_is_number, values.values()))
    if len(numbers) < len(values):
        axes.set_xticks(range(len(values)), [*values])
        axes.set_xlim(-0.6, len(values) - 0.4)
        return {value: float(position) for position, value in enumerate(values)}
    if min(numbers) > 0 and max(numbers) > LOGARITHMIC * min(numbers):
        axes.set_xscale("log")
    axes.set_xticks(numbers, [*map(_text, numbers)])
    axes.minorticks_off()
    axes.margins(x=0.12)
    return dict(zip(values, map(float, numbers), strict=True))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(value: Any) -> str:
    """Format a value for a figure: 1, not 1.0."""
    return f"{value:g}" if _is_number(value) else shown(value)


def _line_name(run: Run, runs: Sequence[Run], others: Sequence[str]) -> str:
    """Name a line by what distinguishes it: net, further keys, profile."""
    parts = [f"{key.rpartition('.')[2]} {_text(_value(run, key))}" for key in others]
    if len({other.label for other in runs}) > 1:
        parts.insert(0, run.label)
    if len({other.profile for other in runs}) > 1:
        parts.append(run.profile)
    return ", ".join(parts)


def sentences(
    runs: Sequence[Run], keys: Sequence[str], unfinished: Sequence[Run] = ()
) -> list[str]:
    """Caption of a sweep: what is compared, on what, what else differs, and what is not in it."""
    schedules = sorted({f"{run.profile} profile, {run.max_iters:,} iterations" for run in runs})
    lines = [
        clauses(data_of(runs), *schedules, devices_of(runs)),
        "Last test error. Small dots: seeds; large markers: their mean; bars: 95 % t interval "
        "over seeds, none for one seed. Filled: as the experiment is; hollow: a variant.",
    ]
    if more := swept_keys(runs, keys)[len(keys) :]:
        lines.append(f"The runs differ also in {', '.join(more)}.")
    if unfinished:
        places = ", ".join(f"{run.place} ({run.status.get('state')})" for run in unfinished)
        lines.append(f"Not finished, in no number: {places}.")
    return lines + comparison_notes(runs)


def sweep_name(keys: Sequence[str]) -> str:
    """Name the files of a sweep of these keys."""
    return SWEEP + "_".join(key.rpartition(".")[2] for key in keys)


def save_sweep(
    runs: Sequence[Run],
    keys: Sequence[str],
    figures: Path,
    tables: Path,
    unfinished: Sequence[Run] = (),
) -> list[Path]:
    """Draw a sweep as ``compare_<key>.png``, ``.svg`` and write its table (md, tex, csv)."""
    stem = sweep_name(keys)
    table = summary_table(runs, swept_keys(runs, keys))
    notes = sentences(runs, keys, unfinished)
    written = style.save(sweep_figure(runs, keys, notes), stem, figures)
    return written + write_table(table, stem, tables, notes=notes)


def main() -> None:
    """Draw the comparison, write its table, and print it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("words", nargs="+", metavar="KEY|FOLDER", help="keys, folders of runs")
    parser.add_argument("--profile", choices=PROFILES, help="only runs of this profile")
    parser.add_argument("--figures", type=paths.expand, default=FIGURES, help="of the figure")
    parser.add_argument("--tables", type=paths.expand, default=TABLES, help="of the tables")
    args = parser.parse_args()
    with explained():
        folders = [word for word in args.words if "/" in word or paths.expand(word).exists()]
        keys = [word for word in args.words if word not in folders]
        known = [name for name, role in roles().items() if role == WHAT]
        for key in keys:
            if key not in known:
                raise ConfigError(f"{key}: no folder and no key to compare; {closest(key, known)}")
        places = [paths.expand(folder) for folder in folders] or [paths.runs()]
        for place in places:
            if not place.is_dir():
                raise ConfigError(f"{place}: no such folder")
        logged = [run for run in _read(places) if args.profile in (None, run.profile)]
        runs = [run for run in logged if run.is_finished]
        unfinished = [run for run in logged if not run.is_finished]
        if not folders:
            swept = {run.path for key in keys for run in find_sweeps(runs, key)}
            runs = [run for run in runs if run.path in swept]
            unfinished = [
                lost
                for lost in unfinished
                if any({*changed_keys(run, lost)} <= {*keys} for run in runs)
            ]
        keys = keys or swept_keys(runs)
        if len(runs) < 2 or not keys:
            raise ConfigError(_nothing(runs, keys))
        written = save_sweep(runs, keys, args.figures, args.tables, unfinished)
        print(next(path for path in written if path.suffix == ".md").read_text(encoding="utf-8"))
        print("\n".join(map(os.path.relpath, written)))


def _read(roots: Sequence[Path]) -> list[Run]:
    """Return the runs in or below some folders; stderr names what cannot be read."""
    depths = ("", "seed*/", "*/seed*/", "*/*/seed*/")
    found = (path for root in roots for at in depths for path in root.glob(f"{at}config.yaml"))
    runs = []
    for folder in sorted({path.parent.absolute() for path in found}):
        try:
            runs.append(load_run(folder))
        except RunFolderError as error:
            warn(str(error))
    return runs


def _nothing(runs: Sequence[Run], keys: Sequence[str]) -> str:
    if keys:
        return (
            f"no finished runs of one experiment differ in {' or '.join(keys)} alone; "
            f"python -m resnet_repro.train -m experiment=cifar10_resnet20 {keys[0]}=A,B seed=0,1,2"
        )
    return f"{len(runs)} finished runs, which differ in nothing but the seed"


if __name__ == "__main__":
    main()
