"""Tables 2 to 4: errors on ImageNet beside the paper's, Tiny ImageNet in columns of its own.

A table has one protocol: 10-crop for 2 and 3, multi-scale for 4. A number of another
protocol stands in a column of ours only where that column says so, and is then not compared.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from resnet_repro.analysis.captions import run_sentences, seeds_of
from resnet_repro.analysis.evaluations import (
    SINGLE_VIEW,
    Evaluation,
    Score,
    evaluations_beside,
    not_used,
    score_of,
)
from resnet_repro.analysis.imagenet import (
    DATA_SETS,
    TITLES,
    Nets,
    data_name,
    nets_by_data,
)
from resnet_repro.analysis.judge import public_noise
from resnet_repro.analysis.load import Run
from resnet_repro.analysis.paper import Paper, PaperValue
from resnet_repro.analysis.protocol import by_net, why_not_comparable
from resnet_repro.analysis.stats import summarise, verdict
from resnet_repro.analysis.tables import write_table

PROTOCOLS = {2: "10-crop", 3: "10-crop", 4: "multi-scale"}
QUOTED = "quoted, not run"


@dataclass(frozen=True)
class PaperRow:
    """A row of one of the paper's tables; percent."""

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


def paper_rows(number: int, paper: Paper) -> list[PaperRow]:
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
    name = "model" if number == 3 else "method"
    top1, top5 = (
        next((str(c) for c in table.columns if str(c).startswith(top)), None)
        for top in ("top1", "top5")
    )
    return [
        PaperRow(
            str(row[name]),
            _number(row, top1),
            _number(row, top5),
            "test" if "test" in str(row.get("evaluated_on")) else "validation",
        )
        for _, row in table.iterrows()
    ]


def _number(row: pd.Series[Any], column: str | None) -> float | None:
    return None if column is None or pd.isna(row[column]) else float(row[column])


def net_table(
    number: int,
    runs: Sequence[Run],
    paper: Paper | None = None,
    evaluations: Sequence[Evaluation] | None = None,
) -> pd.DataFrame:
    """Table 2, 3 or 4: one row per net, the paper's order, nets that it does not have at the end.

    Per data set: mean top-1 and top-5 error of the last iterate over the seeds, the 95 % t
    interval of the former, and what stands behind them (protocol, seeds, profile). The verdict
    is on top-1, on ImageNet alone. Without ``evaluations``, those beside the run folders are
    taken.

    Raises:
        ValueError: runs of one net that must not be averaged.
    """
    if evaluations is None:
        evaluations = evaluations_beside(runs)
    nets, listed = nets_by_data(runs), paper_rows(number, paper or Paper())
    rows = [_row(row, nets, evaluations, PROTOCOLS[number]) for row in listed]
    return pd.DataFrame(rows)


def save(number: int, runs: Sequence[Run], out_dir: Path) -> list[Path]:
    """Write Table 2, 3 or 4 as ``table<number>.md``, ``.tex`` and ``.csv``."""
    evaluations = evaluations_beside(runs)
    return write_table(
        net_table(number, runs, evaluations=evaluations),
        f"table{number}",
        out_dir,
        notes=notes(number, runs, evaluations),
    )


def notes(number: int, runs: Sequence[Run], evaluations: Sequence[Evaluation] = ()) -> list[str]:
    """Sentences to print under a table."""
    protocol = PROTOCOLS[number]
    said = [
        f"Errors in percent; the table's protocol is {protocol}. ImageNet: 50,000 validation "
        f"images; {TITLES['tiny_imagenet']}: its 10,000 validation images.",
        "A number of another protocol says so and is not compared with the paper's. Mean of the "
        "last iterate over seeds; 95 %: t interval over seeds, none for one seed.",
    ]
    if number == 4:
        said.append("That Table 4 is multi-scale is inferred: its caption names no protocol.")
    if number > 2:
        said.append("Quoted: others' nets as the paper reports or tested them, not run here.")
    for data, nets in nets_by_data(runs).items():
        there = [run for group in nets.values() for run in group]
        said += run_sentences(there)
        untested = [run for run in there if score_of(run, protocol, evaluations) is None]
        if untested:
            names = ", ".join(f"{x} {seeds_of(group)}" for x, group in by_net(untested).items())
            said.append(
                f"Not tested at {protocol} on {data_name(data)}: {names}. A net of which no seed "
                f"was is shown at {SINGLE_VIEW}."
            )
    return said + not_used(runs, evaluations)


def _row(
    row: PaperRow, nets: dict[str, Nets], evaluations: Sequence[Evaluation], protocol: str
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "net": row.name,
        "paper top-1": row.top1,
        "paper top-5": row.top5,
    }
    for data in DATA_SETS:
        group = nets[data].get(row.net, [])
        scores, used = _scores(group, evaluations, protocol)
        found |= _columns(data, scores, used, group, protocol, quoted=row.quoted)
        if data == "imagenet":
            quoted = QUOTED + ("; test set" if row.images == "test" else "")
            found["verdict"] = quoted if row.quoted else _verdict(row, scores, used, protocol)
    return found


def _scores(
    group: Sequence[Run], evaluations: Sequence[Evaluation], protocol: str
) -> tuple[list[Score], list[Run]]:
    """Scores under the protocol of the runs that have one; where none has, the single views."""
    for wanted in (protocol, SINGLE_VIEW):
        pairs = [(score_of(run, wanted, evaluations), run) for run in group]
        found = [(score, run) for score, run in pairs if score is not None]
        if found:
            return [score for score, _ in found], [run for _, run in found]
    return [], []


def _columns(
    data: str,
    scores: Sequence[Score],
    used: Sequence[Run],
    group: Sequence[Run],
    protocol: str,
    *,
    quoted: bool,
) -> dict[str, Any]:
    name = data_name(data)
    top1 = summarise([score.top1 for score in scores]) if scores else None
    top5 = [score.top5 for score in scores if score.top5 is not None]
    said = None if quoted else "no runs"
    if scores:
        only = "" if scores[0].protocol == protocol else " only"
        some = f" (of {len(group)})" if len(used) < len(group) else ""
        which = f"{scores[0].protocol}{only}{left_out(scores)}"
        said = f"{which}, {seeds_of(used)}{some}, {used[0].profile} profile"
    return {
        f"{name} top-1": top1.mean if top1 else None,
        f"{name} 95 %": f"{top1.low:.2f}-{top1.high:.2f}" if top1 and top1.n > 1 else None,
        f"{name} top-5": summarise(top5).mean if top5 and len(top5) == len(scores) else None,
        f"{name} runs": said,
    }


def left_out(scores: Sequence[Score]) -> str:
    """Say behind the protocol how many images could not be shown; empty where all were."""
    total = sum(score.left_out for score in scores)
    return f" ({total} undecodable images left out)" if total else ""


def _verdict(row: PaperRow, scores: Sequence[Score], used: Sequence[Run], protocol: str) -> str:
    """Our ImageNet top-1 error against the paper's."""
    if not scores:
        return "no runs"
    if row.top1 is None:
        return "the paper has no top-1 error"
    reason = why_not_comparable(used)
    if scores[0].protocol != protocol:
        reason = f"{scores[0].protocol}, the table's is {protocol}"
    elif not reason and left_out(scores):
        reason = left_out(scores).strip(" ()")
    ours = [score.top1 for score in scores]
    value = PaperValue(row.top1, "Table")
    return verdict(ours, value, public_noise(used), not_comparable=reason)
