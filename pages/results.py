"""The parts of docs/RESULTS.md that are numbers: from the logged runs to Markdown."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from pages.agreement import (
    KINDS,
    agreement_table,
    compare_curves,
    logged_at,
    means_by_rate,
    statistics_table,
)
from pages.study import Study
from resnet_repro.analysis import load, paper
from resnet_repro.analysis.captions import data_of, run_sentences
from resnet_repro.analysis.curves import mean_curve
from resnet_repro.analysis.load import grouped
from resnet_repro.analysis.logged_run import Run
from resnet_repro.analysis.protocol import cifar_nets, deviations
from resnet_repro.analysis.tables import NOTHING, to_markdown, with_sd
from resnet_repro.config import PROFILES
from resnet_repro.items import ITEMS
from resnet_repro.items.deviations import deviations_table, variants
from resnet_repro.items.fig7 import responses
from resnet_repro.items.gradients import brief, gradients, weights
from resnet_repro.items.table6 import NETS, table6
from resnet_repro.items.tables2_5 import net_table
from resnet_repro.options import shown

MIXED_HARDWARE = re.compile(r" Mixed hardware: .*?\)\.(?= Mixed |$)")
SMOOTHED = 3  # points of curves that lie close, where one is compared with the other


def runs_block(study: Study) -> str:
    """What was run: one row per profile, data set, hardware and precision."""
    finished = sorted(
        study.finished,
        key=lambda run: (PROFILES.index(run.profile), not run.is_plain, run.depth),
    )
    lines = [_runs_table(finished) if finished else "No run is finished yet.", ""]
    lines += [f"- in no table: {_ended(run)}" for run in study.begun if not run.is_finished]
    if study.checks:
        looks = "; ".join(map(_ended, study.checks))
        lines += [f"- looks at one question each, in no figure or verdict: {looks}"]
    lines += [
        f"- given up, in no figure or table: `{run.place}` {run.status['state']}: "
        f"{run.status.get('reason') or NOTHING}"
        for run in study.runs
        if run.status.get("state") in load.GIVEN_UP
    ]
    return "\n".join(lines).rstrip()


def _runs_table(runs: Sequence[Run]) -> str:
    changed = load.variants_of(run.experiment for run in runs)
    seeds = Counter((run.experiment, run.profile, run.device) for run in runs)
    rows = [
        {
            "profile": run.profile,
            "data": data_of([run]),
            "nets": run.experiment if run.experiment in changed else run.label,
            "seeds": seeds[run.experiment, run.profile, run.device],
            "iterations": f"{run.max_iters:,}",
            "batch": f"{run.config['recipe']['batch_size']}",
            "on": run.device,
            "hours": float(run.meta.get("wall_time_s") or 0) / 3600,
        }
        for run in runs
    ]
    summed_up = {
        "nets": lambda labels: ", ".join(labels.unique()),
        "seeds": lambda counts: " to ".join(map(str, sorted({counts.min(), counts.max()}))),
        "iterations": lambda lengths: " or ".join(lengths.unique()),
        "batch": lambda sizes: " or ".join(sizes.unique()),
        "hours": lambda hours: f"{hours.sum():.1f}",
    }
    places = pd.DataFrame(rows).groupby(["profile", "data", "on"], sort=False, as_index=False)
    return to_markdown(places.agg(summed_up)[list(rows[0])])


def _ended(run: Run) -> str:
    at = f"stopped at iteration {int(run.status.get('iter', 0)):,} of {run.max_iters:,}"
    return f"`{run.place}`, {run.meta.get('precision')}, {'finished' if run.is_finished else at}"


def protocol_block(study: Study) -> str:
    """In what the finished runs differ from the paper's protocol: keys, and how they compute.

    Caffe, in which the authors worked, computes in fp32 and keeps channels before rows; here
    channels are always last in memory.
    """
    if not study.finished:
        return "No run is finished yet."
    every = [run.experiment for run in study.finished]
    changed = [
        (f"`{key}`", theirs, ours, experiments)
        for key, theirs, ours, experiments in deviations(study.finished)
        if key.split(".")[0] in ("data", "model", "recipe")
    ]
    changed += [
        ("precision", "fp32", precision, [run.experiment for run in same])
        for precision, same in sorted(grouped(study.finished, lambda run: run.precision).items())
        if precision != "fp32"
    ]
    changed.append(("memory layout", "NCHW", "channels last", every))
    rows = [
        (*what, "every run" if {*names} == {*every} else ", ".join(dict.fromkeys(names)))
        for *what, names in changed
    ]
    return to_markdown(pd.DataFrame(rows, columns=["key", "paper's protocol", "here", "in"]))


def claims_block(study: Study) -> str:
    """Every claim with its verdict and the evidence; the hardware stands in the table of runs."""
    lines = []
    for result in study.claims:
        sentence = MIXED_HARDWARE.sub("", result.sentence).rstrip(".")
        if not sentence.startswith(("plain-", "ResNet-")):  # names that keep their first letter
            sentence = sentence[:1].upper() + sentence[1:]
        lines.append(f"- **{result.id} {result.verdict}**: {result.title}. {sentence}.")
    return "\n".join(lines)


def table6_block(study: Study) -> str:
    """Table 6 in short: our error, the paper's, the public runs', the verdict."""
    runs = study.item("table6")
    table = table6(runs)
    table = table[table["net"].isin(NETS)].copy()
    table["test error (%)"] = list(map(with_sd, table["test error"], table["sd"]))
    table["clean training error (%)"] = list(map(with_sd, table["clean training error"]))
    columns = ["net", "test error (%)", "clean training error (%)", "seeds", "paper"]
    short = table[[*columns, "public runs", "verdict"]]
    notes = [*run_sentences(runs), "All columns: [table6.md](tables/table6.md)."]
    return f"{to_markdown(short)}\n\n{' '.join(notes)}"


def agreement_block(study: Study) -> str:
    """Our curves compared with the paper's, and nets that share no iteration with it."""
    stretches, uncompared = compare_curves(study.begun)
    parts = ["No logged curve has an iteration in common with the paper's yet."]
    if stretches:
        picture = "![Our curves over the paper's](figures/agreement.png)"
        parts = [to_markdown(agreement_table(stretches)), picture]
    if uncompared:
        lines = (
            f"- {', '.join(nets)} ({profile} profile): {reason}"
            for (profile, reason), nets in uncompared.items()
        )
        parts += ["Not compared:", "\n".join(lines)]
    return "\n\n".join(parts)


def statistics_block(study: Study) -> str:
    """Test errors of checkpoints by the batch-norm statistics used, beside the paper's curve."""
    table = statistics_table([run for run in study.begun if run.data == "cifar10"])
    return "No checkpoint was tested with both yet." if table.empty else to_markdown(table)


def looks_block(study: Study) -> str:
    """Compare a look that changes a key with the run it varies and the paper's curve.

    Errors are means over the iterations that all three have.
    """
    rows = []
    finished = {(run.label, run.profile, run.seed): run for run in study.finished}
    for look in (run for run in study.checks if run.changes and run.data == "cifar10"):
        varied = finished.get((look.label, look.profile, look.seed))
        if varied is None:
            continue
        for kind, name in KINDS.items():
            curves = {"paper": paper.curve(6, look.label, kind)}
            grid = curves["paper"].index.to_numpy()
            for what, run in (("the run", varied), ("the look", look)):
                curves[what] = logged_at(run, kind, grid, 1_000)
            net = {"net": _net(look), "error (%)": name}
            rows += [net | row for row in means_by_rate(curves, look)]
    table = pd.DataFrame(rows).drop(columns="points", errors="ignore")
    return to_markdown(table) if rows else "No look came so far."


def crossing_block(study: Study) -> str:
    """Up to which iteration ResNet-56 is above ResNet-20: in the paper's Fig. 6, and here."""
    nets = cifar_nets([run for run in study.item("fig6") if run.profile == "paper"], "ResNet")
    sources: dict[str, Callable[[str, str], pd.Series[float]]] = {
        "the paper's Figure 6": lambda label, kind: paper.curve(6, label, kind)
    }
    if {"ResNet-20", "ResNet-56"} <= nets.keys():
        sources["our runs"] = lambda label, kind: mean_curve(nets[label], kind)["mean"]
    found = []
    for source, curve in sources.items():
        until = []
        for kind, name in KINDS.items():
            gap = curve("ResNet-56", kind) - curve("ResNet-20", kind)
            smooth = gap.dropna().rolling(SMOOTHED, center=True, min_periods=1).mean()
            above = smooth[(smooth > 0).cumprod().astype(bool)]
            until.append(f"{int(above.index[-1]) if len(above) else 0:,} in {name}")
        found.append(f"in {source} up to iteration {' and '.join(until)}")
    return f"ResNet-56 is above ResNet-20 {'; '.join(found)} (means over {SMOOTHED} points)."


def late_start_block(_: Study) -> str:
    """When each net of the paper's Figure 4 comes below the top of its axis."""
    nets = ("plain-18", "plain-34", "ResNet-18 A", "ResNet-34 A")
    begun = [f"{net} at {int(paper.curve(4, net, 'train').index[0]):,}" for net in nets]
    return (
        "In the paper's Figure 4 the training error comes below the top of the axis later for the "
        f"deeper net of both kinds: {', '.join(begun)} iterations."
    )


def responses_block(study: Study) -> str:
    """Layer responses (Fig. 7) beside the paper's; one row per run.

    Looks at responses follow the finished runs of their net and profile.
    """
    looks = [run for run in study.checks if responses(run) is not None]
    asked = {(run.label, run.profile) for run in looks}
    same = [run for run in study.finished if (run.label, run.profile) in asked]
    rows = []
    for run in {run.place: run for run in (*study.item("fig7"), *same, *looks)}.values():
        ours, theirs = responses(run), paper.responses(run.label)
        if ours is None or theirs.empty:
            continue
        rows.append(
            {
                "net": f"{_net(run)}, {run.profile} profile",
                "mean std": ours.mean(),
                "the paper's": theirs.mean(),
                "lowest std": ours.min(),
                "the paper's lowest": theirs.min(),
                "ours over the paper's, mean of layers": (ours / theirs).mean(),
                "correlation of layers": ours.corr(theirs),
            }
        )
    return to_markdown(pd.DataFrame(rows)) if rows else "No run has logged them yet."


def _net(run: Run) -> str:
    """A net with its seed and, of a variant, what it changes."""
    changes = (f"{key}={shown(ours)}" for key, (_, ours) in run.changes.items())
    return ", ".join([run.label, f"seed {run.seed}", *changes])


def gradients_block(study: Study, describe: Callable[[Run], dict[str, str]]) -> str:
    """One row per net whose gradients were looked at, also in runs that only did that."""
    rows = []
    for run in study.item("gradients") + study.checks + study.item("fig4"):
        if found := describe(run):
            rows.append({"net": f"{_net(run)}, {run.meta.get('precision')}", **found})
    return to_markdown(pd.DataFrame(rows)) if rows else "No run has logged it yet."


def first_update(run: Run) -> dict[str, str]:
    """What the first update does to the first conv's weights."""
    norms, sizes = gradients(run), weights(run)
    if norms is None or sizes is None or len(sizes) < 2:
        return {}

    def ends(by_layer: pd.Series[float]) -> str:
        return ", ".join(map(brief, by_layer.iloc[[0, -1]]))

    later = (f"{brief(size)} at {at:,}" for at, size in sizes.iloc[1:, 0].items())
    return {
        "gradient norm, first and last conv, at initialisation": ends(norms.iloc[0]),
        "weight norm, first and last conv, at initialisation": ends(sizes.iloc[0]),
        "weight norm of the first conv, at later iterations": "; ".join(later),
    }


def gradients_against_float64(run: Run) -> dict[str, str]:
    """How precise the logged gradients of the first batch at initialisation are."""
    found = run.table("gradient_precision")
    if found is None:
        return {}
    found = found.sort_values("layer")
    row: dict[str, str] = {}
    for conv, at in (("first", 0), ("last", -1)):
        values = found.iloc[at]
        norm, at_output = (
            f"{values[name]:.3g} ({values[f'{name}_float64']:.3g})"
            for name in ("grad_norm", "bn_output_grad_norm")
        )
        row[f"weight gradient, {conv} conv"] = (
            f"cosine {values['cosine']:.2f}, relative error {values['relative_error']:.2f}, "
            f"norm {norm}"
        )
        row[f"gradient at {conv} BN output"] = at_output
    return row


def precision_control_block(study: Study) -> str:
    """What another precision changes in gradients and updates, beside what chance changes."""
    paths = sorted((study.root.parent / "bench").glob("precision_*.json"))
    files = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    compared = [
        {
            "net": saved["net"],
            "at iteration": f"{row['from']:,}",
            f"moved by {saved['precision']} (%)": f"{100 * row['rounding']:.0f}",
            "moved by the choice of the mini-batch (%)": f"{100 * row['sampling']:.0f}",
            "mini-batches": f"{row['batches']}",
            "on": row["on"],
        }
        for saved in files
        for row in saved.get("gradients", ())
    ]
    parts = [to_markdown(pd.DataFrame(compared))] if compared else []
    parts += [_continuations(saved) for saved in files if saved["rows"]]
    return "\n\n".join(parts) or "It has not been measured yet: `python -m benchmarks.precision`."


def _continuations(saved: dict[str, Any]) -> str:
    """Tabulate the same updates done in several ways, from each checkpoint."""
    names = {
        "from": "from iteration",
        "loss": "mean loss",
        "train_error": "training error (%)",
        "clean_train_error": "clean training error (%)",
        "test_error": "test error (%)",
    }
    rows = pd.DataFrame(saved["rows"])
    written = {"from": "{:,}".format, "loss": "{:.4f}".format}
    table = rows.assign(**{key: rows[key].map(way) for key, way in written.items()})
    table = table.rename(columns=names)
    table = table.drop(columns=["made", "revision", "on"])
    devices = " and ".join(rows["on"].unique())
    where = f"{saved['net']} (`{saved['run']}`), {devices}"
    lines = [to_markdown(table), "", f"{where}; `python -m benchmarks.precision`."]
    way = rows["continuation"].str.rsplit(", seed ", n=1, expand=True)
    for start, group in rows.groupby("from"):
        spreads = []
        for what, same in (("precision and layout", 1), ("seed", 0)):
            values = group.groupby(way[same])[["loss", "clean_train_error"]]
            loss, error = (values.max() - values.min()).max()
            spreads.append(f"by {what} {loss:.4f} and {error:.2f} points")
        lines.append(
            f"From iteration {start:,}, mean loss and clean training error differ "
            f"{', '.join(spreads)}."
        )
    return "\n".join(lines)


def tiny_block(study: Study) -> str:
    """Errors of the ImageNet nets on Tiny ImageNet beside the paper's ImageNet."""
    parts = [figure_block(study, "fig4")] if study.item("fig4") else []
    names = {"paper top-1": "paper, ImageNet, 10-crop, top-1", "paper top-5": "top-5"}
    for number in (2, 3):
        runs = study.item(f"table{number}")
        table = net_table(number, runs).frame
        table = table[table["Tiny ImageNet top-1"].notna()]
        if table.empty:
            continue
        ours = table.drop(columns=[c for c in table if str(c).startswith(("ImageNet", "verdict"))])
        link = f"[table{number}.md](tables/table{number}.md)"
        tiny = [run for run in runs if run.data == "tiny_imagenet"]
        parts.append(f"Nets of Table {number} (whole: {link}):")
        parts += [to_markdown(ours.rename(columns=names)), " ".join(run_sentences(tiny))]
    return "\n\n".join(parts) or "No run on Tiny ImageNet is finished yet."


def atlas_block(study: Study) -> str:
    """What each changed choice is worth, where it was measured."""
    runs = study.item("deviations")
    if not variants(runs):
        return "No variant with a finished baseline of its profile is logged yet."
    return f"{figure_block(study, 'deviations')}\n\n{to_markdown(deviations_table(runs).frame)}"


def figure_block(study: Study, name: str) -> str:
    """The picture of an item."""
    picture = f"![{ITEMS[name].title}](figures/{name}.png)"
    return picture if study.item(name) else "No run of it is logged yet."
