"""Figures, tables and claims as functions of run folders and the paper's numbers.

Imports numpy, pandas, matplotlib, scipy and the reader of :mod:`resnet_repro.runs`; never torch.

What a notebook or a script of your own needs is here::

    import resnet_repro.analysis as ra

    runs = ra.runs("short", data="cifar10")   # logged runs, from any folder
    ra.runs(where={"recipe.lr": 0.05})        # those with a value of a key, variants too
    ra.summary(runs)                          # one row per run
    ra.fig6(runs)                             # a matplotlib figure
    ra.zoom(runs, "loss")                     # the drops of the learning rate, close up
    ra.compare(runs[0], runs[1])              # two runs in one figure
    ra.sweep("recipe.lr")                     # errors by the value of a key, one row per run
    ra.curve_table(runs)                      # every logged number, for figures of your own
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# Name here -> where it is made. Imported when it is asked for: training needs none of them.
_MADE_IN = {
    "Run": "analysis.load",
    "check_all": "items.claims_cifar",
    "compare": "analysis.side_by_side",
    "curve_table": "analysis.explore",
    "differences": "analysis.explore",
    "fig1": "items.figs1_6",
    "fig4": "items.fig4",
    "fig6": "items.figs1_6",
    "fig7": "items.fig7",
    "gradient_figure": "items.gradients",
    "load_run": "analysis.load",
    "load_runs": "analysis.load",
    "overview": "analysis.side_by_side",
    "pick": "analysis.explore",
    "repository": "analysis.explore",
    "response_table": "analysis.explore",
    "run": "analysis.explore",
    "runs": "analysis.explore",
    "summary": "analysis.explore",
    "sweep": "analysis.explore",
    "table6": "items.table6",
    "zoom": "analysis.side_by_side",
}
__all__ = sorted(_MADE_IN)
# Take any runs, and leave out and name what stands for no net.
_OF_NETS = ("check_all", "fig1", "fig4", "fig6", "fig7", "gradient_figure", "table6")

if TYPE_CHECKING:
    from resnet_repro.analysis.explore import curve_table as curve_table
    from resnet_repro.analysis.explore import differences as differences
    from resnet_repro.analysis.explore import pick as pick
    from resnet_repro.analysis.explore import repository as repository
    from resnet_repro.analysis.explore import response_table as response_table
    from resnet_repro.analysis.explore import run as run
    from resnet_repro.analysis.explore import runs as runs
    from resnet_repro.analysis.explore import summary as summary
    from resnet_repro.analysis.explore import sweep as sweep
    from resnet_repro.analysis.load import Run as Run
    from resnet_repro.analysis.load import load_run as load_run
    from resnet_repro.analysis.load import load_runs as load_runs
    from resnet_repro.analysis.side_by_side import compare as compare
    from resnet_repro.analysis.side_by_side import overview as overview
    from resnet_repro.analysis.side_by_side import zoom as zoom
    from resnet_repro.items.claims_cifar import check_all as check_all
    from resnet_repro.items.fig4 import fig4 as fig4
    from resnet_repro.items.fig7 import fig7 as fig7
    from resnet_repro.items.figs1_6 import fig1 as fig1
    from resnet_repro.items.figs1_6 import fig6 as fig6
    from resnet_repro.items.gradients import gradient_figure as gradient_figure
    from resnet_repro.items.table6 import table6 as table6


def __getattr__(name: str) -> Any:
    if name not in _MADE_IN:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    made = getattr(importlib.import_module(f"resnet_repro.{_MADE_IN[name]}"), name)
    if name not in _OF_NETS:
        return made
    from resnet_repro.analysis.explore import of_nets

    return of_nets(made)


def __dir__() -> list[str]:
    return __all__
