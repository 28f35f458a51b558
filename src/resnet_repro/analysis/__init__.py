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

import functools
import importlib
from collections.abc import Callable, Sequence
from typing import Any

# The public names by module. They are imported at their first use: training needs none of them.
_PUBLIC = {
    "analysis.load": "load_runs",
    "analysis.notebook": "compare curve_table differences overview pick repository response_table "
    "run runs summary sweep zoom",
    "analysis.logged_run": "Run load_run",
}
# These take any runs, and leave out and name those that stand for no net.
_OF_NETS = {
    "items.claims_cifar": "check_all",
    "items.fig1": "fig1",
    "items.fig4": "fig4",
    "items.fig6": "fig6",
    "items.fig7": "fig7",
    "items.gradients": "gradient_figure",
    "items.table6": "table6",
}
_MODULES = {name: key for key, names in (_PUBLIC | _OF_NETS).items() for name in names.split()}
__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"resnet_repro.{_MODULES[name]}"), name)
    return _of_nets(value) if _MODULES[name] in _OF_NETS else value


def __dir__() -> list[str]:
    return __all__


def _of_nets(draw: Callable[..., Any]) -> Callable[..., Any]:
    """Make a figure or table of nets take any runs: those that it does not show are named.

    They stand for no net, or are of another profile than is shown.
    """
    from resnet_repro.analysis import load
    from resnet_repro.analysis.logged_run import Run, warn

    @functools.wraps(draw)
    def drawn(runs: Sequence[Run], *more: Any, **named: Any) -> Any:
        kept, lines = load.standing(runs)
        shown = load.without_variants(kept) or kept or list(runs)
        others = {run.experiment: run.label for run in kept if run not in shown}
        lines += [f"{name}: another experiment of {net}" for name, net in others.items()]
        profile = load.profile_to_show(shown)
        for other in sorted({run.profile for run in shown} - {profile}):
            lines.append(f"runs of the {other} profile; shown is the {profile} profile")
        for line in lines if kept else ():
            warn(line)
        return draw([run for run in shown if run.profile == profile], *more, **named)

    return drawn
