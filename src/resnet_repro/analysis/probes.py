"""What was logged inside the nets: layer responses, gradient norms, the forward signal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from resnet_repro.analysis.load import Run
from resnet_repro.same_run import filled

ByIteration = Callable[[Run], "pd.DataFrame | None"]
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
    return _by_iteration(run, "grad_norm")


def bn_output_gradients(run: Run) -> pd.DataFrame | None:
    """Norm of the loss gradient at the output of each conv's batch norm, by ``iter`` and layer.

    None if not logged, as in runs older than the column.
    """
    return _by_iteration(run, "bn_output_grad_norm")


def gradient_precision(run: Run) -> pd.DataFrame | None:
    """The first gradients in the run's precision compared with float64, by layer.

    Columns as in ``gradient_precision.csv``. None if not logged.
    """
    table = run.table("gradient_precision")
    return None if table is None else table.set_index("layer").sort_index()


def weights(run: Run) -> pd.DataFrame | None:
    """Norm of each conv's weights when that gradient was made, by ``iter`` and layer.

    What is logged is the norm after the update. The first update can be far longer than the
    weights, so its step is taken off again: the gradient of a conv that a batch norm follows is at
    a right angle to its weights. None if not logged.
    """
    norms, steps = _by_iteration(run, "weight_norm"), gradients(run)
    if norms is None or steps is None or not starts_at_initialisation(norms):
        return norms
    recipe = filled(run.config)["recipe"]
    rate = recipe["lr" if recipe["warmup"] == "none" else "warmup_lr"]
    squares = norms.iloc[0] ** 2 - (rate * steps.iloc[0]) ** 2
    norms.iloc[0] = np.sqrt(squares.where(squares > 0, norms.iloc[0] ** 2))
    return norms


def scaled_gradients(run: Run) -> pd.DataFrame | None:
    """Norm of each conv's gradient, were its weights as long as at first, by ``iter`` and layer.

    A conv that a batch norm follows makes the same net with weights a times as large, and has 1/a
    of the gradient. This takes that a out again; at initialisation it is the norm itself. None if
    not logged.
    """
    norms, sizes = gradients(run), weights(run)
    return None if norms is None or sizes is None else norms * sizes / sizes.iloc[0]


def starts_at_initialisation(gradient_table: pd.DataFrame | pd.Series[float]) -> bool:
    """Whether the first logged gradients are those of the untrained net."""
    return int(gradient_table.index[0]) <= FIRST_UPDATE


def end_ratios(run: Run, read: ByIteration = gradients) -> pd.Series[float] | None:
    """What ``read`` gives of the first layer over that of the last, by iteration; None if nothing.

    0 where the first layer is dead, a very large number where the last is.
    """
    table = read(run)
    if table is None:
        return None
    logs = logarithm(table.to_numpy())
    return pd.Series(np.exp(logs[:, 0] - logs[:, -1]), index=table.index)


def logarithm(norms: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Logarithm of norms, of which one may be 0 where a layer is dead."""
    positive: np.ndarray[Any, Any] = np.maximum(norms, float(np.finfo(np.float32).tiny))
    logs: np.ndarray[Any, Any] = np.log(positive)
    return logs


def _by_iteration(run: Run, column: str) -> pd.DataFrame | None:
    table = run.table("gradients")
    if table is None or column not in table:
        return None
    return table.pivot_table(index="iter", columns="layer", values=column)


def _by_layer(run: Run, name: str, column: str) -> pd.Series[float] | None:
    table = run.table(name)
    if table is None:
        return None
    layers = pd.Index(table["layer"].to_numpy(int), name="layer")
    return pd.Series(table[column].to_numpy(float), index=layers, name=column).sort_index()
