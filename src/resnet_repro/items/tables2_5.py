"""Tables 2 to 5: errors on ImageNet beside the paper's, Tiny ImageNet in columns of its own.

A table has one protocol: 10-crop for 2 and 3, multi-scale for 4. A number of another
protocol is in a column of ours only where that column says so, and is then not compared.
Table 5 is of ensembles.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from resnet_repro.analysis import paper
from resnet_repro.analysis.captions import TITLES, data_name, run_sentences, seeds_of
from resnet_repro.analysis.evaluations import (
    SINGLE_VIEW,
    Evaluation,
    Score,
    evaluations_beside,
    not_used,
    score_of,
)
from resnet_repro.analysis.judge import public_noise
from resnet_repro.analysis.logged_run import Run
from resnet_repro.analysis.paper import PaperValue
from resnet_repro.analysis.protocol import Nets, by_net, nets_by_data, why_not_comparable
from resnet_repro.analysis.stats import summarise, verdict
from resnet_repro.analysis.tables import Table

PROTOCOLS = {2: "10-crop", 3: "10-crop", 4: "multi-scale"}
QUOTED = "quoted, not run"


@dataclass(frozen=True)
class PaperRow:
    """A row of one of the paper's tables; percent, None or NaN where it prints nothing."""

    net: str
    top1: float | None
    top5: float | None
    images: str = "validation"  # it was tested on

    @property
    def quoted(self) -> bool:
        """Whether the paper reports it from elsewhere, or tested a net that is not its own."""
        return not self.net.startswith(("plain-", "ResNet"))

    @property
    def name(self) -> str:
        """The name without the number of its reference."""
        return re.sub(r" \[[\d,]+\]", "", self.net)


def paper_rows(number: int) -> list[PaperRow]:
    """The rows of Table 2, 3, 4 or 5, with the nets named as here."""
    table = paper.read(f"table{number}")
    if number == 2:
        ours = {"plain-{}": "plain_top1_err_pct_10crop_val"}
        ours["ResNet-{} A"] = "resnet_optionA_top1_err_pct_10crop_val"
        return [
            PaperRow(name.format(int(row["layers"])), float(row[column]), None)
            for name, column in ours.items()
            for _, row in table.iterrows()
        ]
    short = table.rename(columns=lambda name: name.partition("_")[0]).to_dict("records")
    return [
        PaperRow(
            row["model" if number == 3 else "method"],
            row.get("top1"),
            row["top5"],
            "test" if "test" in str(row.get("evaluated")) else "validation",
        )
        for row in short
    ]


def net_table(number: int, runs: Sequence[Run]) -> Table:
    """Table 2, 3 or 4: one row per net of the paper, in its order.

    Per data set: mean top-1 and top-5 error of the last iterate over the seeds, the 95 % t
    interval of the former, and their basis (protocol, seeds, profile), from the runs
    and the evaluations beside them. The verdict is on top-1, on ImageNet alone.
    """
    evaluations, nets, protocol = evaluations_beside(runs), nets_by_data(runs), PROTOCOLS[number]
    rows = [_row(row, nets, evaluations, protocol) for row in paper_rows(number)]
    notes = [
        f"Errors in percent; the table's protocol is {protocol}. ImageNet: 50,000 validation "
        f"images; {TITLES['tiny_imagenet']}: its 10,000 validation images.",
        "A number of another protocol says so and is not compared with the paper's. Mean of the "
        "last iterate over seeds; 95 %: t interval over seeds, none for one seed.",
    ]
    if number == 4:
        notes.append("That Table 4 is multi-scale is inferred: its caption names no protocol.")
    if number > 2:
        notes.append("Quoted: others' nets as the paper reports or tested them, not run here.")
    for data, found in nets.items():
        used = [run for net in found.values() for run in net]
        notes += run_sentences(used)
        untested = [run for run in used if score_of(run, protocol, evaluations) is None]
        if untested:
            names = ", ".join(f"{x} {seeds_of(group)}" for x, group in by_net(untested).items())
            notes.append(
                f"Not tested at {protocol} on {data_name(data)}: {names}. A net none of whose "
                f"seeds was tested so is shown at {SINGLE_VIEW}."
            )
    return Table(pd.DataFrame(rows), notes + not_used(runs, evaluations))


def _row(
    row: PaperRow, nets: Mapping[str, Nets], evaluations: Sequence[Evaluation], protocol: str
) -> dict[str, Any]:
    cells: dict[str, Any] = {"net": row.name, "paper top-1": row.top1, "paper top-5": row.top5}
    for data, found in nets.items():
        name, net = data_name(data), found.get(row.net, [])
        used, scores = _tested(net, evaluations, protocol)
        cells |= _errors(name, scores)
        cells[f"{name} runs"] = None if row.quoted else "no runs"
        if used:
            how = scores[0].protocol + " only" * (scores[0].protocol != protocol)
            some = f" (of {len(net)})" if len(used) < len(net) else ""
            basis = f"{how}{_left_out(scores)}, {seeds_of(used)}{some}, {used[0].profile} profile"
            cells[f"{name} runs"] = basis
        if data == "imagenet":
            cells["verdict"] = _verdict(row, used, scores, protocol)
    return cells


def _tested(
    net: Sequence[Run], evaluations: Sequence[Evaluation], protocol: str
) -> tuple[list[Run], list[Score]]:
    """The runs with a score under the protocol; where none has, with those of the single view."""
    for view in (protocol, SINGLE_VIEW):
        scores = {run.path: score_of(run, view, evaluations) for run in net}
        if used := [run for run in net if scores[run.path]]:
            return used, [score for score in scores.values() if score]
    return [], []


def _errors(data: str, scores: Sequence[Score]) -> dict[str, Any]:
    top1 = summarise([score.top1 for score in scores]) if scores else None
    top5 = [score.top5 for score in scores if score.top5 is not None]
    return {
        f"{data} top-1": top1.mean if top1 else None,
        f"{data} 95 %": f"{top1.low:.2f}-{top1.high:.2f}" if top1 and top1.n > 1 else None,
        f"{data} top-5": summarise(top5).mean if top5 and len(top5) == len(scores) else None,
    }


def _left_out(scores: Sequence[Score]) -> str:
    """Note after the protocol how many images could not be shown; empty where all were."""
    total = sum(score.left_out for score in scores)
    return f" ({total} undecodable images left out)" if total else ""


def _verdict(row: PaperRow, runs: Sequence[Run], scores: Sequence[Score], protocol: str) -> str:
    """Our ImageNet top-1 error against the paper's."""
    if row.quoted:
        return QUOTED + ("; test set" if row.images == "test" else "")
    if not runs:
        return "no runs"
    if pd.isna(row.top1):
        return "the paper has no top-1 error"
    reason = why_not_comparable(runs) or _left_out(scores).strip(" ()")
    if scores[0].protocol != protocol:
        reason = f"{scores[0].protocol}, the table's is {protocol}"
    if reason:
        return f"not comparable: {reason}"
    ours = [score.top1 for score in scores]
    return verdict(ours, PaperValue(row.top1, "Table"), public_noise(runs))


def table5(runs: Sequence[Run]) -> Table:
    """Table 5: the paper's ensembles (ImageNet test set), then ours (validation images)."""
    evaluations = evaluations_beside(runs)
    ensembles = [
        (members, found.score)
        for found in evaluations
        if len(members := found.members(runs)) > 1 and not found.fault(members)
    ]
    paper_column, source = "paper top-5 (test)", "the paper's six nets, multi-scale"
    rows = [
        {"ensemble": row.name, paper_column: row.top5, "runs": QUOTED if row.quoted else source}
        for row in paper_rows(5)
    ]
    rows += [_ensemble(members, score) for members, score in ensembles]
    columns = ["ensemble", paper_column]
    shown = [data_name(data) for data in nets_by_data(runs)]
    columns += [f"{data} {top}" for data in shown for top in ("top-1", "top-5")]
    notes = [
        "Errors in percent. The paper's are on the ImageNet test set, whose labels are not "
        "public; ours are on validation images, so no verdict is given.",
        "An ensemble averages the scores of its nets.",
        "Quoted: reported by the paper from others' work, not run here.",
        *run_sentences([run for members, _ in ensembles for run in members]),
    ]
    if not ensembles:
        notes.append("No ensemble of logged runs was evaluated.")
    frame = pd.DataFrame(rows, columns=[*columns, "runs"])
    return Table(frame, notes + not_used(runs, evaluations))


def _ensemble(members: Sequence[Run], score: Score) -> dict[str, Any]:
    labels = ", ".join(f"{run.label} seed {run.seed}" for run in members)
    data = data_name(members[0].data)
    return {
        "ensemble": f"{len(members)} nets: {labels}",
        f"{data} top-1": score.top1,
        f"{data} top-5": score.top5,
        "runs": f"{score.protocol}{_left_out([score])}, {members[0].profile} profile",
    }
