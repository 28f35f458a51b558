"""For notebooks: runs found from anywhere, what they logged as tables, and runs in one figure."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from resnet_repro import paths
from resnet_repro.analysis import load, style
from resnet_repro.analysis.captions import run_sentences
from resnet_repro.analysis.curves import mark_drops
from resnet_repro.analysis.logged_run import Run, load_run, warn
from resnet_repro.compare import find_sweeps, sweep_table, swept_keys
from resnet_repro.items.fig7 import responses
from resnet_repro.options import closest
from resnet_repro.runs.folder import RunFolderError
from resnet_repro.same_run import differences as config_differences
from resnet_repro.same_run import flatten, roles

# Here a colour is a run, not a depth: nets of one depth must be distinguishable.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#000000", "#CC79A7", "#E69F00", "#56B4E9", "#777777")
TITLES = {"top1_err": ("error", "error (%)"), "loss": ("cross-entropy", "loss (nats)")}


def repository() -> Path:
    """Return the folder of the project."""
    return paths.REPOSITORY


def runs(
    profile: str | None = None,
    experiments: Sequence[str] | None = None,
    *,
    data: str | None = None,
    where: Mapping[str, Any] | None = None,
    finished_only: bool = True,
) -> list[Run]:
    """The logged runs, variants too; stderr names what cannot be read.

    Figures and tables take from them what stands for a net and name the rest. A ValueError says
    which profiles, experiments or keys there are.

    Args:
        profile: ``paper``, ``short`` or ``quick``; all by default.
        experiments: names of experiments or of runs.
        data: name of a data set.
        where: values of keys: ``{"recipe.lr": 0.05}``.
        finished_only: leave out runs that are under way or stopped.
    """
    logged = load.Logged(paths.runs(), [profile] if profile else ())
    for line in logged.problems:
        warn(line)
    if profile is not None and not logged.folders:
        raise ValueError(_unknown("profile", profile, _folders()))
    known = {word for run in logged.runs for word in (run.experiment, run.name)}
    for name in experiments or ():
        if name not in known:
            raise ValueError(_unknown("experiment", name, known))
    for key in where or ():
        _check_key(key)
    return [
        run
        for run in logged.runs
        if run.status.get("state") not in load.GIVEN_UP
        and (run.is_finished or not finished_only)
        and (experiments is None or {run.experiment, run.name} & {*experiments})
        and data in (None, run.data)
        and all(flatten(run.config).get(key) == value for key, value in (where or {}).items())
    ]


_all_runs = runs


def run(profile: str, name: str, seed: int = 0) -> Run:
    """One run by its place, in whatever state; a RunFolderError says which are there."""
    path = (profile, name, f"seed{seed}")
    for level, what in enumerate(("profile", f"run in {profile}", f"seed of {profile}/{name}")):
        if path[level] not in (existing := _folders(*path[:level])):
            raise RunFolderError(_unknown(what, path[level], existing))
    return load_run(paths.runs().joinpath(*path))


def _folders(*above: str) -> set[str]:
    """Return the names of folders in the runs' folder or further down."""
    return {path.name for path in paths.runs().joinpath(*above).glob("*") if path.is_dir()}


def _unknown(what: str, word: str, existing: Collection[str]) -> str:
    hint = closest(word, sorted(existing)) if existing else "there is none"
    return f"no {what} is called {word}; {hint}"


def _check_key(key: str) -> None:
    if key not in roles():
        raise ValueError(f"{key}: {closest(key, list(roles()))}")


def sweep(key: str, runs: Sequence[Run] | None = None, profile: str | None = None) -> pd.DataFrame:
    """A tidy table of the runs (all by default) that differ in one key, ``recipe.lr`` for example.

    Columns: the key's value, net, profile, seed, errors in percent. A ValueError names the key
    nearest to one that there is not.
    """
    _check_key(key)
    found = find_sweeps(_all_runs(profile) if runs is None else runs, key)
    return sweep_table(found, swept_keys(found, [key]))


def pick(runs: Sequence[Run], net: str, seed: int = 0) -> Run:
    """The run of a net as figures call it, ``ResNet-20``; a KeyError names those there are."""
    for found in runs:
        if (found.label, found.seed) == (net, seed):
            return found
    known = ", ".join(f"{run.label} seed {run.seed}" for run in runs)
    raise KeyError(f"no {net} seed {seed}; there is {known or 'nothing'}")


def summary(runs: Sequence[Run]) -> pd.DataFrame:
    """One row per run: errors in percent, where and how long it was trained."""

    def end(curve: pd.Series[float]) -> float:
        return math.nan if curve.empty else round(float(curve.iloc[-1]), 2)

    rows = [
        {
            "run": run.name,
            "net": run.label,
            "profile": run.profile,
            "seed": run.seed,
            "iterations": run.max_iters,
            "test error": end(run.curve("test")),
            "best on test": end(run.curve("test").cummin()),
            "clean training error": end(run.curve("train_clean")),
            "minutes": round(run.meta.get("wall_time_s", math.nan) / 60, 1),
            "hardware": run.hardware,
        }
        for run in runs
    ]
    return pd.DataFrame(rows)


def curve_table(runs: Sequence[Run]) -> pd.DataFrame:
    """Every logged number in long form, for figures of your own.

    Columns ``run``, ``net``, ``seed``, ``kind`` (train, test, ...), ``iter``, ``top1_err`` in
    percent, ``loss`` in nats, ``lr``.
    """
    columns = ["run", "net", "seed", "kind", "iter", "top1_err", "loss", "lr"]
    parts = []
    for found in runs:
        for kind in {kind: None for kind in found.metrics.get("kind", ()) if kind != "event"}:
            part = pd.DataFrame({name: found.curve(kind, name) for name in columns[-3:]})
            identity = {"run": found.name, "net": found.label, "seed": found.seed, "kind": kind}
            parts.append(part.rename_axis("iter").reset_index().assign(**identity))
    return pd.concat(parts or [pd.DataFrame(columns=columns)], ignore_index=True)[columns]


def response_table(runs: Sequence[Run]) -> pd.DataFrame:
    """Layer responses in long form: ``net``, ``seed``, ``layer`` from 1 on, ``std``.

    Runs that logged none are left out.
    """
    columns = ["net", "seed", "layer", "std"]
    parts = [
        found.reset_index().assign(net=run.label, seed=run.seed)
        for run in runs
        if (found := responses(run)) is not None
    ]
    return pd.concat(parts or [pd.DataFrame(columns=columns)], ignore_index=True)[columns]


def differences(first: Run, second: Run) -> pd.DataFrame:
    """Keys of the configuration in which two runs differ, with both values, but for their names."""
    changed = config_differences(first.config, second.config)
    rows = [[key, *pair] for key, pair in changed.items() if key not in ("experiment", "name")]
    return pd.DataFrame(rows, columns=["key", *names(first, second)])


def names(*runs: Run) -> list[str]:
    """Name each run uniquely: by its net, its own name, or one with the seed."""
    ways = [
        [run.label for run in runs],
        [run.name for run in runs],
        [f"{run.label} seed {run.seed}" for run in runs],
        [f"{run.name} seed {run.seed}" for run in runs],
    ]
    return [
        next((way[i] for way in ways if way.count(way[i]) == 1), str(run.path))
        for i, run in enumerate(runs)
    ]


@style.style()
def overview(run: Run) -> Figure:
    """Test error (bold), training error (dashed) and loss of one run over the iterations.

    A third panel has the layer responses where they were logged. Dotted lines are the drops of
    the learning rate.
    """
    by_layer = responses(run)
    figure, panels = style.subplots(1, 2 if by_layer is None else 3, panel=(3.4, 2.7))
    colour = style.depth_colour(run.depth)
    for axes, column in zip(panels, TITLES, strict=False):
        _draw(axes, run, column, colour, "test", "training")
        mark_drops(axes, [run])
        axes.set_xlim(0, run.max_iters)
        axes.set_title(TITLES[column][0])
    panels[0].set_title(run.label)
    if by_layer is not None:
        panels[2].plot(by_layer.index.to_numpy(), by_layer.to_numpy(), color=colour)
        panels[2].set_title("layer responses (std)")
        panels[2].set_xlabel("layer")
        panels[2].set_ylim(bottom=0)
    return style.underneath(figure, run_sentences([run]), panels[0])


def save_picture(run_dir: Path, out_dir: Path) -> Path:
    """Draw the run in a folder, in whatever state it is, as ``overview.png``; return its path."""
    return style.save(overview(load_run(run_dir)), "overview", out_dir)[0]


@style.style()
def zoom(runs: Sequence[Run], column: str = "loss", width: float = 1 / 10) -> Figure:
    """Curves of several runs, whole and close up around each drop of the learning rate.

    ``column``: ``loss`` or ``top1_err``; ``width``: of a close-up to either side, as a share of the
    schedule. A ValueError refuses runs of several schedules.
    """
    schedules = {(run.max_iters, *run.drops) for run in runs}
    if len(schedules) != 1:
        raise ValueError(f"runs of one schedule are needed, not of {len(schedules)}")
    end, *drops = schedules.pop()
    windows = {"whole run": (0, end)} | {
        f"around drop {number}, iteration {drop:,}": (drop - end * width, drop + end * width)
        for number, drop in enumerate(drops, 1)
    }
    figure, (row,) = style.subplots(1, len(windows), panel=(3.4, 2.8), squeeze=False)
    for axes, (title, window) in zip(row, windows.items(), strict=True):
        for run, name, colour in zip(runs, names(*runs), cycle(COLOURS), strict=False):
            _draw(axes, run, column, colour, name)
        mark_drops(axes, runs)
        _show_window(axes, runs, column, window)
        axes.set_title(title)
    sentences = [*run_sentences(runs), "Bold: test; dashed: training."]
    return style.underneath(figure, sentences, row[0], columns=4)


@style.style()
def compare(first: Run, second: Run) -> Figure:
    """Two runs in one figure: error, loss, and by how much the second's test error is higher.

    The caption names the keys of the configuration in which they differ.
    """
    labels = names(first, second)
    figure, (*panels, gap) = style.subplots(1, 3, panel=(3.4, 2.8))
    for axes, column in zip(panels, TITLES, strict=True):
        for run, name, colour in zip((first, second), labels, COLOURS, strict=False):
            _draw(axes, run, column, colour, name)
        mark_drops(axes, [first])
        axes.set_title(TITLES[column][0])
    difference = (second.curve("test") - first.curve("test")).dropna()
    gap.plot(difference.index.to_numpy(), difference.to_numpy(), color="#333333", marker=".")
    gap.axhline(0, color="#888888", linewidth=0.7)
    gap.set_title(f"test error: {labels[1]} minus {labels[0]}", fontsize=8.5)
    gap.set_xlabel("iteration")
    gap.set_ylabel("points")
    keys = ", ".join(differences(first, second)["key"]) or "no key"
    sentences = ["Bold: test; dashed: training.", f"They differ in {keys}."]
    return style.underneath(figure, [*run_sentences([first, second]), *sentences], panels[0])


def _draw(
    axes: Axes, run: Run, column: str, colour: str, test: str, training: str | None = None
) -> None:
    """Draw the test (bold) and the training curve (dashed) of a run, with names for a legend."""
    for kind, label, look in (("test", test, style.TEST), ("train", training, style.TRAIN)):
        curve = run.curve(kind, column)
        axes.plot(curve.index.to_numpy(), curve.to_numpy(), color=colour, label=label, **look)
    axes.set_xlabel("iteration")
    axes.set_ylabel(TITLES[column][1])


def _show_window(axes: Axes, runs: Sequence[Run], column: str, window: tuple[float, float]) -> None:
    """Limit a panel to a window of the iterations and to the curves in it."""
    axes.set_xlim(*window)
    curves = [run.curve(kind, column) for run in runs for kind in ("test", "train")]
    seen = pd.concat([curve.loc[slice(*window)] for curve in curves])
    if len(seen):
        low, high = float(seen.min()), float(seen.max())
        margin = 0.05 * (high - low) or 1.0
        axes.set_ylim(low - margin, high + margin)
