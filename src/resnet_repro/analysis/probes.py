"""What was logged inside the nets: layer responses, gradient norms, the forward signal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from resnet_repro.analysis.load import Run
from resnet_repro.runs.folder import RunFolder

FIRST_UPDATE = 1  # its gradients are those at initialisation


def responses(run: Run) -> pd.Series[float] | None:
    """Standard deviation of each 3x3 conv's responses by 1-based layer; None if not logged."""
    return _by_layer(run, "responses", "std")


def signal(run: Run) -> pd.Series[float] | None:
    """Standard deviation of each conv's output before batch norm at initialisation, by layer.

    None if not logged.
    """
    return _by_layer(run, "signal", "output_std")


def gradients(run: Run) -> pd.DataFrame | None:
    """Norm of each conv's weight gradient by ``iter`` (rows) and layer (columns).

    None if not logged.
    """
    table = _read(run, "gradients")
    if table is None:
        return None
    return table.pivot_table(index="iter", columns="layer", values="grad_norm")


def starts_at_initialisation(gradient_table: pd.DataFrame | pd.Series[float]) -> bool:
    """Whether the first logged gradients are those of the untrained net."""
    return int(gradient_table.index[0]) <= FIRST_UPDATE


def end_ratios(runs: Sequence[Run]) -> pd.Series[float]:
    """Gradient norm of the first layer over that of the last, by iteration.

    The geometric mean over the runs that logged it, at iterations that all of them have.
    """
    ratios = []
    for run in runs:
        table = gradients(run)
        if table is not None:
            logs = logarithm(table.to_numpy())
            ratios.append(pd.Series(logs[:, 0] - logs[:, -1], index=table.index))
    mean = pd.concat(ratios, axis=1, join="inner").mean(axis=1)
    return pd.Series(np.exp(mean.to_numpy()), index=mean.index)


def logarithm(norms: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Logarithm of norms, of which one may be 0 where a layer is dead."""
    positive: np.ndarray[Any, Any] = np.maximum(norms, float(np.finfo(np.float32).tiny))
    logs: np.ndarray[Any, Any] = np.log(positive)
    return logs


def _by_layer(run: Run, name: str, column: str) -> pd.Series[float] | None:
    table = _read(run, name)
    if table is None:
        return None
    layers = pd.Index(table["layer"].to_numpy(int), name="layer")
    return pd.Series(table[column].to_numpy(float), index=layers, name=column).sort_index()


def _read(run: Run, name: str) -> pd.DataFrame | None:
    rows = RunFolder(run.path).table(name)
    if not rows:
        return None
    table = pd.DataFrame(rows).drop(columns="name")
    return pd.DataFrame({name: pd.to_numeric(table[name]) for name in table})
