"""Logged and digitised curves made ready to draw: averaged over seeds, thinned, broken at gaps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from resnet_repro.analysis.load import Run

ENOUGH_POINTS = 40  # a training curve is thinned to one point an evaluation if that leaves so many


def mean_curve(runs: Sequence[Run], kind: str, column: str = "top1_err") -> pd.DataFrame:
    """Curve of a net over its seeds.

    Returns:
        Columns ``mean``, ``low`` and ``high`` (over seeds) by ``iter``, at the iterations that
        every seed has. Training curves are thinned to :func:`bin_width`.

    Raises:
        ValueError: a run has no such records.
    """
    curves = []
    for run in runs:
        curve = thinned(run, column) if kind == "train" else run.curve(kind, column)
        if curve.empty:
            raise ValueError(f"{run.path}: no {kind} {column} was logged")
        curves.append(curve)
    table = pd.concat(curves, axis=1, join="inner")
    return pd.DataFrame(
        {"mean": table.mean(axis=1), "low": table.min(axis=1), "high": table.max(axis=1)}
    )


def bin_width(run: Run) -> int:
    """Iterations behind one point of the drawn training curve.

    The interval between evaluations (the paper's figures have one point per 1,000 iterations)
    where that leaves enough points, else the interval between training records.
    """
    every = int(run.config["evaluation"]["every_iters"])
    if -(-run.max_iters // every) >= ENOUGH_POINTS:
        return every
    return int(run.config["trainer"]["log_every_iters"])


def thinned(run: Run, column: str = "top1_err") -> pd.Series[float]:
    """Training curve as means over windows of :func:`bin_width`, each at its last iteration."""
    values = run.curve("train", column)
    if values.empty:
        return values
    weights = run.curve("train", "num_samples").reindex(values.index).fillna(1.0)
    width = bin_width(run)
    window = np.ceil(values.index.to_numpy() / width).astype(int) * width
    window = np.minimum(window, run.max_iters)
    sums = (values * weights).groupby(window).sum() / weights.groupby(window).sum()
    sums.index.name = "iter"
    return sums.rename(column)


def with_gaps(curve: pd.Series[float]) -> pd.Series[float]:
    """Break a digitised curve where points are missing, so that no line bridges the unknown."""
    if len(curve) < 3:
        return curve
    iters = curve.index.to_numpy()
    step = np.median(np.diff(iters))
    holes = iters[:-1][np.diff(iters) > 1.5 * step] + step / 2
    return pd.concat([curve, pd.Series(np.nan, index=holes)]).sort_index()
