"""Table 6: test error of the CIFAR-10 nets from logged runs, beside the paper's and public runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from resnet_repro.analysis import paper, stats
from resnet_repro.analysis.captions import run_sentences
from resnet_repro.analysis.judge import public_noise
from resnet_repro.analysis.logged_run import Run
from resnet_repro.analysis.paper import PaperValue
from resnet_repro.analysis.protocol import by_net, why_not_comparable
from resnet_repro.analysis.stats import Summary, last_error, mean_of, summarise
from resnet_repro.analysis.tables import NOTHING, Table

DEPTHS = (20, 32, 44, 56, 110, 1202)
NETS = tuple(f"plain-{depth}" for depth in DEPTHS[:-1]) + tuple(f"ResNet-{d}" for d in DEPTHS)


def table6(runs: Sequence[Run]) -> pd.DataFrame:
    """Table 6: test error of the CIFAR-10 nets, ours beside the paper's; percent.

    One row per net; the rows the paper quotes come first and are marked. A net of the paper
    without runs keeps its row. The headline is the last evaluation; ``best on test`` is the mean
    over seeds of the lowest point of each curve, which was chosen on the test set. Nets that are
    not the paper's (Highway, other blocks) follow at the end.
    """
    nets = by_net(run for run in runs if run.family == "cifar")
    labels = [*NETS, *(label for label in nets if label not in NETS)]
    papers = paper.read("table6")
    rows = [_quoted(row) for _, row in papers[papers["method"] != "ResNet"].iterrows()]
    rows += [_row(label, nets.get(label, [])) for label in labels]
    return pd.DataFrame(rows, columns=list(rows[-1])).astype({"seeds": "Int64"})


def table6_with_notes(runs: Sequence[Run]) -> Table:
    """Table 6 and the sentences under it."""
    notes = [
        "Errors in percent on the 10,000 test images, single view; sd and 95 % t interval over "
        "seeds. The headline is the last evaluation.",
        "Verdict: on the 95 % interval of ours minus the paper's value; "
        f"{stats.REPRODUCED}: within {stats.MARGIN} points; {stats.DIFFERS}: excludes 0; "
        f"{stats.COMPATIBLE}: contains 0, but too wide to say.",
        "Best on test was chosen on the test set and flatters.",
        "A plain net's paper value is a reading of Fig. 6: the paper prints none.",
        "Quoted: reported by the paper from others' work, not run here.",
    ]
    return Table(table6(runs), notes + run_sentences(runs))


def _row(label: str, runs: Sequence[Run]) -> dict[str, Any]:
    value = paper.test_error(label)
    last = summarise([last_error(run) for run in runs]) if runs else Summary(0, math.nan)
    return {
        "net": label,
        "params (M)": runs[0].meta["net"]["params"] / 1e6 if runs else None,
        "profile": runs[0].profile if runs else None,
        "seeds": last.n,
        "test error": last.mean,
        "sd": last.sd,
        "low": last.low,
        "high": last.high,
        "best seed": min((last_error(run) for run in runs), default=None),
        "best on test": mean_of(lambda run: run.curve("test").min(), runs),
        "mean of last ten": mean_of(lambda run: run.curve("test").tail(10).mean(), runs),
        "clean training error": mean_of(stats.clean_training_error, runs),
        "paper": _paper_text(label, value),
        "public runs": _public_text(label),
        "verdict": verdict_of(runs, value),
    }


def _quoted(row: pd.Series[Any]) -> dict[str, Any]:
    layers = "" if pd.isna(row["layers"]) else f", {int(row['layers'])} layers"
    value = f"{row['cifar10_test_err_pct']:.2f}"
    if not pd.isna(row["mean_err_pct_over_runs"]):
        value += f" ({row['mean_err_pct_over_runs']:.2f} +- {row['std_err_pct_over_runs']:.2f})"
    return {
        "net": row["method"].split(" [")[0] + layers,
        "params (M)": row["params_millions"],
        "paper": f"{value}, quoted",
        "verdict": "quoted, not run",
    }


def _paper_text(label: str, value: PaperValue | None) -> str:
    if value is None:
        return "> 60 (caption of Fig. 6)" if label == "plain-110" else NOTHING
    if value.best is not None:
        return f"{value.best:.2f} ({value.value:.2f} +- {value.sd:.2f})"
    read_off = value.source.startswith(paper.READ_OFF)
    return f"{value.value:g} ({value.source})" if read_off else f"{value.value:.2f}"


def _public_text(label: str) -> str:
    public = paper.public_runs(label)
    if math.isnan(public["median"]):
        return "none" if public["runs"] == 0 else NOTHING
    runs = "" if math.isnan(public["runs"]) else f", {public['runs']:g}"
    return f"{public['median']:g} ({public['min']:g}-{public['max']:g}{runs})"


def verdict_of(runs: Sequence[Run], value: PaperValue | None) -> str:
    """Our last test errors of one net against the paper's value, or why they are not compared."""
    if not runs:
        return "no runs"
    if value is None:
        return "above 60 is claim C1" if runs[0].label == "plain-110" else "not in the paper"
    if reason := why_not_comparable(runs):
        return f"not comparable: {reason}"
    return stats.verdict([last_error(run) for run in runs], value, public_noise(runs))
