"""What one changed choice is worth: each variant against its baseline, with the noise of both."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from resnet_repro.analysis import style
from resnet_repro.analysis.captions import clauses, data_of, devices_of
from resnet_repro.analysis.judge import TEST, TRAINING, compare, seeds_clause
from resnet_repro.analysis.load import changed_keys, grouped
from resnet_repro.analysis.logged_run import Run
from resnet_repro.analysis.protocol import by_net, comparison_notes
from resnet_repro.analysis.stats import Difference, how_many, last_error, summarise
from resnet_repro.analysis.tables import Table

_NAMES: Mapping[str, str] = {
    "data.train_split=45k": "45,000 training images",
    "data.mean=channel": "mean colour",
    "data.pad=zero": "black border",
    "model.shortcut=B": "option B",
    "model.shortcut=C": "option C",
    "model.shortcut=gate": "gated shortcuts (Highway)",
    "model.zero_pad=both": "zero channels on both sides",
    "model.bn_group=64": "batch-norm over 2 x 64",
    "model.bn_momentum=0.001": "batch-norm momentum 0.001",
    "model.layers_per_block=1": "one-layer blocks",
    "model.layers_per_block=3": "three-layer blocks",
    "recipe.decay_bn=False": "no decay on batch-norm",
    "recipe.nesterov=True": "Nesterov momentum",
    "recipe.warmup=iters400": "warm-up of 400 updates",
}


@dataclass(frozen=True)
class Variant:
    """One changed choice: the runs with it, the runs without, and what they differ by (points)."""

    change: str
    runs: list[Run]
    baseline: list[Run]
    test: Difference
    training: Difference


def variants(runs: Sequence[Run]) -> list[Variant]:
    """Pair each experiment with its baseline, the experiment its name begins with.

    Experiments without a logged baseline are left out; so are runs that compute something else
    than the other seeds of their experiment.
    """
    groups, found = by_net(runs, by="experiment"), []
    for name, group in groups.items():
        if baseline := groups.get(name.rpartition("_")[0]):
            test, training = (compare(baseline, group, what) for what in (TEST, TRAINING))
            found.append(Variant(_change(baseline[0], group[0]), group, baseline, test, training))
    return sorted(found, key=lambda v: (v.baseline[0].is_plain, v.baseline[0].depth, v.test.value))


def _change(baseline: Run, variant: Run) -> str:
    """Name what the variant changed, in words where known."""
    settings = [f"{key}={value}" for key, (_, value) in changed_keys(baseline, variant).items()]
    return ", ".join(_NAMES.get(setting, setting) for setting in settings) or variant.experiment


def deviations_table(runs: Sequence[Run]) -> Table:
    """One row per baseline and per variant: test error and what the change is worth, points."""
    rows, found = list[dict[str, Any]](), variants(runs)
    for alike in grouped(found, lambda variant: variant.baseline[0].experiment).values():
        rows.append(_row("as the paper", alike[0].baseline))
        for variant in alike:
            rows.append(_row(variant.change, variant.runs))
            for what, worth in (("test", variant.test), ("training", variant.training)):
                rows[-1] |= {f"{what} diff": worth.value}
                rows[-1] |= {f"{what} low": worth.low, f"{what} high": worth.high}
    columns = ["net", "change", "seeds", "test error", "sd", "test diff", "test low", "test high"]
    columns += ["training diff", "training low", "training high"]
    return Table(pd.DataFrame(rows, columns=columns), _sentences(found))


def _row(change: str, runs: Sequence[Run]) -> dict[str, Any]:
    test = summarise([last_error(run) for run in runs])
    sizes = {"seeds": test.n, "test error": test.mean, "sd": test.sd}
    return {"net": runs[0].label, "change": change, **sizes}


@style.style()
def deviations_figure(runs: Sequence[Run]) -> Figure:
    """Differences to the baseline with 95 % intervals; right of zero is worse."""
    found = variants(runs)
    figure, axes = style.subplots(panel=(7.2, 1.2 + 0.24 * max(len(found), 3)))
    axes.axvline(0, color="#444444", linewidth=0.8)
    for row, variant in enumerate(reversed(found)):
        colour = style.depth_colour(variant.baseline[0].depth)
        reach = variant.test.reach
        marker = "s" if variant.baseline[0].is_plain else "o"
        axes.errorbar(variant.test.value, row, xerr=reach, fmt=marker, color=colour, capsize=2)
    names = [f"{v.baseline[0].label}: {v.change} ({how_many(len(v.runs), 'seed')})" for v in found]
    axes.set_yticks(range(len(found)), names[::-1])
    axes.set_ylim(-0.6, max(len(found), 1) - 0.4)
    axes.set_xlabel("test error minus the baseline's (points; right of 0 is worse)")
    return style.underneath(figure, _sentences(found), columns=1)


def _sentences(found: Sequence[Variant]) -> list[str]:
    if not found:
        return ["No variant with a logged baseline."]
    runs = list({str(r.path): r for v in found for r in (*v.baseline, *v.runs)}.values())
    groups = list({v.baseline[0].experiment: v.baseline for v in found}.values())
    bases = sorted({v.test.basis for v in found if v.test.known})
    bars = "no bars: one seed has no interval"
    if bases:
        bars = f"bars: 95 % interval of the difference, from the {' or the '.join(bases)}"
    iterations = ", ".join(sorted({f"{r.max_iters:,} iterations" for r in runs}))
    return [
        clauses(data_of(runs), f"baseline: {seeds_clause(groups)}", iterations, devices_of(runs)),
        f"Last test error; {bars}.",
        *comparison_notes(runs),
    ]
