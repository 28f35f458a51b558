"""For notebooks: find runs from wherever one is, and have what they logged as tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from resnet_repro import paths
from resnet_repro.analysis.load import Run, load_run, load_runs, without_variants
from resnet_repro.analysis.probes import responses
from resnet_repro.same_run import differences as changed_keys


def repository() -> Path:
    """Return the folder of the project."""
    return paths.REPOSITORY


def runs(
    profile: str | None = None,
    experiments: Sequence[str] | None = None,
    *,
    data: str | None = None,
    finished_only: bool = True,
) -> list[Run]:
    """The logged runs of a profile (``paper``, ``short``, ``quick``) and a data set, or of all.

    Without ``experiments`` variants of a net are left out, for figures average over a net's runs.
    Runs under a name of their own are found by :func:`run` alone.
    """
    found = load_runs(
        paths.runs(), profile=profile, experiments=experiments, finished_only=finished_only
    )
    found = [run for run in found if data in (None, run.config["data"]["name"])]
    return found if experiments else without_variants(found)


def run(profile: str, name: str, seed: int = 0) -> Run:
    """One run by its place, in whatever state.

    Raises:
        RunFolderError: it is not there.
    """
    return load_run(paths.runs() / profile / name / f"seed{seed}")


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
