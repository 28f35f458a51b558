"""Figures, tables and claims as functions of run folders and the paper's numbers.

Imports numpy, pandas, matplotlib, scipy and the reader of :mod:`resnet_repro.runs`; never torch.

What a notebook or a script of your own needs is here::

    import resnet_repro.analysis as ra

    runs = ra.runs("short", data="cifar10")   # logged runs, from wherever this is said
    ra.summary(runs)                          # one row per run
    ra.fig6(runs)                             # a matplotlib figure
    ra.zoom(runs, "loss")                     # the drops of the learning rate, close up
    ra.compare(runs[0], runs[1])              # two runs in one figure
    ra.curve_table(runs)                      # every logged number, for figures of your own
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# Name here -> where it is made. Imported when it is asked for: training needs none of them.
_MADE_IN = {
    "Run": "analysis.load",
    "check_all": "analysis.claims",
    "compare": "analysis.side_by_side",
    "curve_table": "analysis.explore",
    "differences": "analysis.explore",
    "fig1": "items.fig1",
    "fig4": "items.fig4",
    "fig6": "items.fig6",
    "fig7": "analysis.responses",
    "gradient_figure": "analysis.gradients",
    "load_run": "analysis.load",
    "load_runs": "analysis.load",
    "overview": "analysis.glance",
    "pick": "analysis.explore",
    "repository": "analysis.explore",
    "response_table": "analysis.explore",
    "run": "analysis.explore",
    "runs": "analysis.explore",
    "summary": "analysis.explore",
    "table6": "analysis.tables",
    "zoom": "analysis.side_by_side",
}
__all__ = sorted(_MADE_IN)

if TYPE_CHECKING:
    from resnet_repro.analysis.claims import check_all as check_all
    from resnet_repro.analysis.explore import curve_table as curve_table
    from resnet_repro.analysis.explore import differences as differences
    from resnet_repro.analysis.explore import pick as pick
    from resnet_repro.analysis.explore import repository as repository
    from resnet_repro.analysis.explore import response_table as response_table
    from resnet_repro.analysis.explore import run as run
    from resnet_repro.analysis.explore import runs as runs
    from resnet_repro.analysis.explore import summary as summary
    from resnet_repro.analysis.glance import overview as overview
    from resnet_repro.analysis.gradients import gradient_figure as gradient_figure
    from resnet_repro.analysis.load import Run as Run
    from resnet_repro.analysis.load import load_run as load_run
    from resnet_repro.analysis.load import load_runs as load_runs
    from resnet_repro.analysis.responses import fig7 as fig7
    from resnet_repro.analysis.side_by_side import compare as compare
    from resnet_repro.analysis.side_by_side import zoom as zoom
    from resnet_repro.analysis.tables import table6 as table6
    from resnet_repro.items.fig1 import fig1 as fig1
    from resnet_repro.items.fig4 import fig4 as fig4
    from resnet_repro.items.fig6 import fig6 as fig6


def __getattr__(name: str) -> Any:
    if name not in _MADE_IN:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"resnet_repro.{_MADE_IN[name]}"), name)


def __dir__() -> list[str]:
    return __all__
