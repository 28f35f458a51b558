"""For notebooks: find runs from wherever one is, and have what they logged as tables."""

from __future__ import annotations

import difflib
import functools
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from resnet_repro import paths
from resnet_repro.analysis.load import GIVEN_UP, Logged, Run, load_run, standing, tell
from resnet_repro.analysis.sweeps import find_sweeps, sweep_table, swept_keys
from resnet_repro.items.fig7 import responses
from resnet_repro.options import closest
from resnet_repro.runs.folder import RunFolderError
from resnet_repro.same_run import differences as changed_keys
from resnet_repro.same_run import flatten, roles

LISTED = 8  # names in a message


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
    """The logged runs of a profile (``paper``, ``short``, ``quick``), variants too, or of all.

    Figures and tables take from them what stands for a net and name the rest. What cannot be read
    is named on stderr.

    Args:
        profile: all by default.
        experiments: names of experiments or of runs.
        data: name of a data set.
        where: values of keys: ``{"recipe.lr": 0.05}``.
        finished_only: leave out runs that are under way or stopped.

    Raises:
        ValueError: there is no such profile, key or experiment; one line says which there are.
    """
    logged = Logged.read(paths.runs(), None if profile is None else [profile])
    for line in logged.problems:
        tell(line)
    if profile is not None and not logged.folders:
        raise ValueError(_unknown("profile", profile, _there(0)))
    for name in experiments or ():
        if not any(name in (run.experiment, run.name) for run in logged.runs):
            known = {word for run in logged.runs for word in (run.experiment, run.name)}
            raise ValueError(_unknown("experiment", name, known))
    for key in where or ():
        if key not in roles():
            raise ValueError(f"{key}: {closest(key, list(roles()))}")
    return [
        run
        for run in logged.runs
        if run.status.get("state") not in GIVEN_UP
        and (run.is_finished or not finished_only)
        and (experiments is None or {run.experiment, run.name} & {*experiments})
        and data in (None, run.config["data"]["name"])
        and all(flatten(run.config).get(key) == value for key, value in (where or {}).items())
    ]


def run(profile: str, name: str, seed: int = 0) -> Run:
    """One run by its place, in whatever state.

    Raises:
        RunFolderError: it is not there, or cannot be read; one line says which are there.
    """
    path = paths.runs() / profile / name / f"seed{seed}"
    if not path.exists():
        for level, word in enumerate((profile, name, f"seed{seed}")):
            if word not in (there := _there(level, profile, name)):
                what = ("profile", f"run in {profile}", f"seed of {profile}/{name}")[level]
                raise RunFolderError(_unknown(what, word, there))
    return load_run(path)


def _there(level: int, *above: str) -> set[str]:
    """Return the names of folders at a level of the runs: profiles, runs of one, its seeds."""
    return {path.name for path in paths.runs().joinpath(*above[:level]).glob("*") if path.is_dir()}


def _unknown(what: str, word: str, there: Collection[str]) -> str:
    near = difflib.get_close_matches(word, sorted(there), n=1)
    known = ", ".join(sorted(there)[:LISTED]) + (", ..." if len(there) > LISTED else "")
    hint = f"did you mean {near[0]}?" if near else f"there is {known or 'nothing'}"
    return f"no {what} is called {word}; {hint}"


def sweep(key: str, runs: Sequence[Run] | None = None, profile: str | None = None) -> pd.DataFrame:
    """A tidy table of the runs that differ in one key: its value, seed, errors in percent.

    Args:
        key: dotted: ``recipe.lr``.
        runs: to choose from; all logged ones by default.
        profile: of those.

    Raises:
        ValueError: there is no such key; names the nearest.
    """
    if key not in roles():
        raise ValueError(f"{key}: {closest(key, list(roles()))}")
    found = find_sweeps(_all_runs(profile) if runs is None else runs, key)
    more = [other for other in swept_keys(found) if other != key] if found else []
    return sweep_table(found, [key, *more])


_all_runs = runs


def of_nets(draw: Callable[..., Any]) -> Callable[..., Any]:
    """Let a figure or table of nets take any runs: what stands for no net is left out and named."""

    @functools.wraps(draw)
    def drawn(runs: Sequence[Run], *more: Any, **named: Any) -> Any:
        kept, lines = standing(runs)
        for line in lines if kept else ():
            tell(line)
        return draw(kept or runs, *more, **named)

    return drawn


def pick(runs: Sequence[Run], net: str, seed: int = 0) -> Run:
    """The run of a net as figures call it: ``pick(runs, "ResNet-20")``.

    Raises:
        KeyError: there is none; names those that are there.
    """
    for found in runs:
        if (found.label, found.seed) == (net, seed):
            return found
    there = ", ".join(f"{run.label} seed {run.seed}" for run in runs)
    raise KeyError(f"no {net} seed {seed}; there is {there or 'nothing'}")


def summary(runs: Sequence[Run]) -> pd.DataFrame:
    """One row per run: errors in percent, where and how long it was trained."""
    rows = [
        {
            "run": run.name,
            "net": run.label,
            "profile": run.profile,
            "seed": run.seed,
            "iterations": run.max_iters,
            "test error": _end(run.curve("test")),
            "best on test": _end(run.curve("test").cummin()),
            "clean training error": _end(run.curve("train_clean")),
            "minutes": round(run.meta.get("wall_time_s", math.nan) / 60, 1),
            "hardware": run.meta.get("hardware", {}).get("label"),
        }
        for run in runs
    ]
    return pd.DataFrame(rows)


def _end(curve: pd.Series[float]) -> float:
    """The last value, to two decimals; NaN of a run that did not come so far."""
    return math.nan if curve.empty else round(float(curve.iloc[-1]), 2)


def curve_table(runs: Sequence[Run]) -> pd.DataFrame:
    """Every logged number in long form, for figures of your own.

    Returns:
        Columns ``run``, ``net``, ``seed``, ``kind`` (train, test, ...), ``iter``, ``top1_err`` in
        percent, ``loss`` in nats, ``lr``.
    """
    parts = []
    for found in runs:
        logged: list[str] = list(found.metrics["kind"]) if len(found.metrics) else []
        for kind in (kind for kind in dict.fromkeys(logged) if kind != "event"):
            curves = {name: found.curve(kind, name) for name in ("top1_err", "loss", "lr")}
            part = pd.DataFrame(curves).rename_axis("iter").reset_index()
            who = part.assign(run=found.name, net=found.label, seed=found.seed, kind=kind)
            parts.append(who)
    columns = ["run", "net", "seed", "kind", "iter", "top1_err", "loss", "lr"]
    whole = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)
    return whole[columns]


def response_table(runs: Sequence[Run]) -> pd.DataFrame:
    """Layer responses in long form: ``net``, ``seed``, ``layer`` from 1 on, ``std``.

    Runs that logged none are left out.
    """
    parts = [
        found.rename_axis("layer").reset_index().assign(net=run.label, seed=run.seed)
        for run in runs
        if (found := responses(run)) is not None
    ]
    columns = ["net", "seed", "layer", "std"]
    whole = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)
    return whole[columns]


def differences(first: Run, second: Run) -> pd.DataFrame:
    """Keys of the configuration in which two runs differ, with both values, but for their names."""
    changed = changed_keys(first.config, second.config)
    rows = [[key, *pair] for key, pair in changed.items() if key not in ("experiment", "name")]
    return pd.DataFrame(rows, columns=["key", *names(first, second)])


def names(*runs: Run) -> list[str]:
    """A name of each run that no other of them has: its net's, its own, or one with the seed."""
    ways: list[Callable[[Run], str]] = [
        lambda run: run.label,
        lambda run: run.name,
        lambda run: f"{run.label} seed {run.seed}",
        lambda run: f"{run.name} seed {run.seed}",
    ]
    called = [[way(run) for run in runs] for way in ways]
    return [
        next((said[i] for said in called if said.count(said[i]) == 1), str(run.path))
        for i, run in enumerate(runs)
    ]
