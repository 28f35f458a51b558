"""The parts of README and docs/RESULTS.md that are numbers: from the logged runs to Markdown."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

import pandas as pd

from resnet_repro.analysis import paper
from resnet_repro.analysis.agreement import KINDS, agreement_table, compare_curves
from resnet_repro.analysis.captions import DATA_NAMES, run_sentences
from resnet_repro.analysis.judge import NO_RUNS
from resnet_repro.analysis.load import PROFILE_ORDER, Run, without_variants
from resnet_repro.analysis.protocol import by_net, why_not_comparable
from resnet_repro.analysis.stats import clean_training_error, last_error, summarise
from resnet_repro.analysis.study import Study, protocol_block, runs_block
from resnet_repro.analysis.sweeps import sentences, sweep_name, swept_keys
from resnet_repro.analysis.tables import to_markdown
from resnet_repro.items.claims_cifar import check_all
from resnet_repro.items.claims_imagenet import check_imagenet
from resnet_repro.items.deviations import deviations_table, variants
from resnet_repro.items.gradients import gradient_precision, gradients, weights
from resnet_repro.items.table6 import NETS, table6
from resnet_repro.items.tables2_5 import net_table

NET_NAMES = ("plain-", "ResNet-")  # are not written otherwise at the beginning of a sentence
NOTHING_BY_THE_PROTOCOL = (
    "No run by the paper's protocol is finished yet. The runs below are much shorter: they show "
    "that the harness works and decide no claim of the paper."
)
SMOOTHED = 3  # points of a digitised curve, where two are compared that lie close


def claims_block(study: Study) -> str:
    """Every claim with its verdict and the evidence."""
    return "\n".join(
        f"- **{result.id} {result.verdict}**: {result.title}. {_sentence(result.sentence)}"
        for result in study.claims
    )


def _sentence(text: str) -> str:
    begun = text if text.startswith(NET_NAMES) else text[:1].upper() + text[1:]
    return begun.rstrip(".") + "."


def table6_block(study: Study) -> str:
    """Table 6 in short: our error, the paper's, the public runs', the verdict."""
    runs = study.of_table("table6")
    table = table6(runs)
    table = table[table["net"].isin(NETS)]
    error = [
        f"{row['test error']:.2f}" + (f" +- {row['sd']:.2f}" if pd.notna(row["sd"]) else "")
        if pd.notna(row["test error"])
        else "-"
        for _, row in table.iterrows()
    ]
    clean = table["clean training error"].map(lambda x: "-" if pd.isna(x) else f"{x:.2f}")
    short = pd.DataFrame(
        {
            "net": table["net"],
            "test error (%)": error,
            "clean training error (%)": clean,
            "seeds": table["seeds"],
            "paper": table["paper"],
            "public runs": table["public runs"],
            "verdict": table["verdict"],
        }
    )
    notes = [*run_sentences(runs), "All columns: [table6.md](tables/table6.md)."]
    return f"{to_markdown(short)}\n\n{' '.join(notes)}"


def agreement_block(study: Study) -> str:
    """Our curves compared with the paper's, and nets that share no iteration with it."""
    stretches, uncompared = compare_curves(study.logged)
    lines = []
    if stretches:
        lines += [to_markdown(agreement_table(stretches)), "", _picture("agreement"), ""]
    else:
        lines += ["No logged curve has an iteration in common with the paper's yet.", ""]
    if uncompared:
        lines += ["Not compared:", ""]
    lines += [
        f"- {', '.join(nets)} ({profile} profile): {reason}"
        for (profile, reason), nets in uncompared.items()
    ]
    return "\n".join(lines).rstrip()


def crossing_block(_: Study) -> str:
    """When the paper's own ResNet-56 overtakes its ResNet-20."""
    parts = []
    for kind, name in KINDS.items():
        deep, shallow = (paper.curve(6, f"ResNet-{depth}", kind) for depth in (56, 20))
        gap = (deep - shallow).dropna().rolling(SMOOTHED, center=True, min_periods=1).mean()
        above = gap[(gap > 0).cumprod().astype(bool)]
        until = int(above.index[-1]) if len(above) else 0
        parts.append(f"the {name} up to iteration {until:,}")
    return (
        "In the paper's Figure 6, ResNet-56 is above ResNet-20 at the beginning too: "
        f"{' and '.join(parts)} (means over {SMOOTHED} points)."
    )


def late_start_block(_: Study) -> str:
    """When each net of the paper's Figure 4 comes below the top of its axis."""
    nets = ("plain-18", "plain-34", "ResNet-18 A", "ResNet-34 A")
    begun = [f"{net} at {int(paper.curve(4, net, 'train').index[0]):,}" for net in nets]
    return (
        "In the paper's Figure 4 the training error comes below the top of the axis later for the "
        f"deeper net of both kinds: {', '.join(begun)} iterations."
    )


def first_update_block(study: Study) -> str:
    """What the first update does to the first conv's weights, net by net."""
    rows = []
    for run in study.of("gradients") + study.checks + study.of("fig4"):
        norms, sizes = gradients(run), weights(run)
        if norms is None or sizes is None or len(sizes) < 2:
            continue
        row = {
            "net": f"{run.label}, seed {run.seed}, {run.meta.get('precision')}",
            "gradient norm, first and last conv, at initialisation": _ends(norms.iloc[0]),
            "weight norm, first and last conv, at initialisation": _ends(sizes.iloc[0]),
            "weight norm later": f"{_ends(sizes.iloc[1])} (iteration {sizes.index[1]:,})",
        }
        if row not in rows:  # a look at one question may repeat a run
            rows.append(row)
    return to_markdown(pd.DataFrame(rows)) if rows else "No gradient norms are logged yet."


def gradient_precision_block(study: Study) -> str:
    """How precise the logged gradients are: of the first batch at initialisation, net by net."""
    rows = []
    for run in study.of("gradients") + study.checks + study.of("fig4"):
        found = gradient_precision(run)
        if found is None:
            continue
        row = {"net": f"{run.label}, seed {run.seed}, {run.meta.get('precision')}"}
        for conv, values in (("first", found.iloc[0]), ("last", found.iloc[-1])):
            row[f"weight gradient, {conv} conv"] = (
                f"cosine {values['cosine']:.2f}, relative error {values['relative_error']:.2f}, "
                f"norm {_norm(values, 'grad_norm')}"
            )
            row[f"gradient at {conv} BN output"] = _norm(values, "bn_output_grad_norm")
        rows.append(row)
    return to_markdown(pd.DataFrame(rows)) if rows else "No run has logged it yet."


def precision_control_block(study: Study) -> str:
    """What another precision changes in the next updates of a run, beside what a seed changes."""
    lines = []
    for path in sorted((study.root.parent / "bench").glob("precision_*.json")):
        kept = json.loads(path.read_text(encoding="utf-8"))
        table = pd.DataFrame(kept["rows"]).rename(
            columns={
                "from": "from iteration",
                "loss": "mean loss",
                "train_error": "training error (%)",
                "clean_train_error": "clean training error (%)",
                "test_error": "test error (%)",
            }
        )
        where = f"{kept['net']} (`{kept['run']}`), {kept['hardware']['label']}"
        lines += [to_markdown(table), "", f"{where}; `python -m benchmarks.precision`."]
    return "\n".join(lines) or "It has not been measured yet: `python -m benchmarks.precision`."


def _norm(values: pd.Series[float], norm: str) -> str:
    return f"{values[norm]:.3g} ({values[f'{norm}_float64']:.3g})"


def _ends(by_layer: pd.Series[float]) -> str:
    first, last = (f"{x:,.0f}" if x >= 100 else f"{x:.2g}" for x in by_layer.iloc[[0, -1]])
    return f"{first}, {last}"


def tiny_block(study: Study) -> str:
    """Errors of the ImageNet nets on Tiny ImageNet beside the paper's ImageNet."""
    lines = [_picture("fig4"), ""] if study.of("fig4") else []
    for number in (2, 3):
        runs = study.of_table(f"table{number}")
        table = net_table(number, runs).frame
        table = table[table["Tiny ImageNet top-1"].notna()]
        if table.empty:
            continue
        names = {"paper top-1": "paper, ImageNet, 10-crop, top-1", "paper top-5": "top-5"}
        shown = table.drop(columns=[c for c in table if str(c).startswith(("ImageNet", "verdict"))])
        link = f"[table{number}.md](tables/table{number}.md)"
        lines += [f"Nets of Table {number} (whole: {link}):", ""]
        lines += [to_markdown(shown.rename(columns=names)), ""]
        lines += [" ".join(run_sentences([run for run in runs if _of_tiny(run)])), ""]
    return "\n".join(lines).rstrip() or "No run on Tiny ImageNet is finished yet."


def _of_tiny(run: Run) -> bool:
    return bool(run.config["data"]["name"] == "tiny_imagenet")


def atlas_block(study: Study) -> str:
    """What each changed choice is worth, where it was measured."""
    runs = study.of("deviations")
    if not variants(runs):
        return "No variant with a finished baseline of its profile is logged yet."
    return f"{_picture('deviations')}\n\n{to_markdown(deviations_table(runs))}"


def readme_block(study: Study) -> str:
    """The README's results: Figure 1, a table of the nets, what the runs are, tested claims."""
    groups = _groups(without_variants(study.finished))
    if not groups:
        return "No run is logged in this repository yet: `make quickstart` makes the first two."
    lines = []
    if all(run.profile != "paper" for run in study.finished):
        lines += [f"**{NOTHING_BY_THE_PROTOCOL}**", ""]
    if study.of("fig1"):
        lines += ["![Figure 1 redrawn from the logged runs](docs/figures/fig1.png)", ""]
    lines += [to_markdown(pd.DataFrame([row for group in groups for row in _net_rows(group)])), ""]
    lines += [" ".join(said for group in groups for said in run_sentences(group)), ""]
    tested = [
        result
        for group in groups
        for result in (*check_all(group), *check_imagenet(group))
        if result.verdict != NO_RUNS
    ]
    claims = [
        {
            "the paper's claim": f"{result.id}: {result.title}",
            "verdict": result.verdict,
            "from": result.where,
        }
        for result in sorted(tested, key=lambda result: int(result.id[1:]))
    ]
    if claims:
        lines += [to_markdown(pd.DataFrame(claims)), ""]
    link = "docs/RESULTS.md"
    return "\n".join([*lines, f"Evidence, intervals and what it means: [{link}]({link})."])


def sweep_block(study: Study) -> str:
    """The committed example of a sweep: picture, what was run, table."""
    lines = []
    for runs in study.sweeps:
        keys = swept_keys(runs)
        picture = f"docs/figures/{sweep_name(keys)}.png"
        lines += [f"![Error against {' and '.join(keys)}]({picture})", ""]
        lines += [" ".join(sentences(runs, keys))]
    return "\n".join(lines) or "No sweep is logged in this repository yet."


def _groups(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs of one profile and one data set each, the longest profile first."""
    groups: dict[tuple[int, str], list[Run]] = {}
    for run in runs:
        key = (PROFILE_ORDER.index(run.profile), str(run.config["data"]["name"]))
        groups.setdefault(key, []).append(run)
    return [groups[key] for key in sorted(groups)]


def _net_rows(runs: Sequence[Run]) -> list[dict[str, str]]:
    comparable = not why_not_comparable(runs)
    rows = []
    for label, group in by_net(runs).items():
        test = summarise([last_error(run) for run in group])
        clean = [error for run in group if (error := clean_training_error(run)) is not None]
        value = paper.test_error(label)
        data = str(group[0].config["data"]["name"])
        rows.append(
            {
                "net": label if data == "cifar10" else f"{label}, {DATA_NAMES.get(data, data)}",
                "profile": group[0].profile,
                "seeds": str(test.n),
                "test error (%)": f"{test.mean:.2f}" + (f" +- {test.sd:.2f}" if test.n > 1 else ""),
                "clean training error (%)": f"{sum(clean) / len(clean):.2f}" if clean else "-",
                "paper": f"{value.value:.2f}" if value and comparable else "not comparable",
            }
        )
    return rows


def _picture(name: str) -> str:
    return f"![{TITLES[name]}](figures/{name}.png)"


TITLES = {
    "fig1": "Figure 1: training and test error of plain nets",
    "fig6": "Figure 6: training and test error, plain and residual nets",
    "fig7": "Figure 7: standard deviation of layer responses",
    "gradients": "Gradient and weight norms by layer and over the iterations",
    "agreement": "Our curves over the paper's",
    "fig4": "Figure 4 on Tiny ImageNet: training and validation error",
    "deviations": "What each changed choice is worth",
}


def _figure_block(name: str) -> Callable[[Study], str]:
    def block(study: Study) -> str:
        return _picture(name) if study.of(name) else "No run of it is logged yet."

    return block


BLOCKS: Mapping[str, Callable[[Study], str]] = {
    "results": readme_block,
    "sweep": sweep_block,
    "runs": runs_block,
    "protocol": protocol_block,
    "claims": claims_block,
    "table 6": table6_block,
    "curves": agreement_block,
    "crossing": crossing_block,
    "late start": late_start_block,
    "first update": first_update_block,
    "gradient precision": gradient_precision_block,
    "precision control": precision_control_block,
    "tiny imagenet": tiny_block,
    "deviations": atlas_block,
    **{name: _figure_block(name) for name in ("fig1", "fig6", "fig7", "gradients")},
}
