"""Table 5: ensembles of logged runs beside the paper's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from resnet_repro.analysis.captions import run_sentences
from resnet_repro.analysis.evaluations import (
    Evaluation,
    Score,
    evaluations_beside,
    not_used,
    run_key,
)
from resnet_repro.analysis.imagenet import DATA_SETS, data_name
from resnet_repro.analysis.load import Run
from resnet_repro.analysis.paper import Paper
from resnet_repro.analysis.tables import write_table
from resnet_repro.items.tables2_3_4 import QUOTED, left_out, paper_rows


def table5(
    runs: Sequence[Run],
    paper: Paper | None = None,
    evaluations: Sequence[Evaluation] | None = None,
) -> pd.DataFrame:
    """Table 5: the paper's ensembles, then one row per evaluated ensemble of these runs.

    The paper's errors are on the ImageNet test set, ours on the validation images. Without
    ``evaluations``, those beside the run folders are taken.
    """
    if evaluations is None:
        evaluations = evaluations_beside(runs)
    rows: list[dict[str, Any]] = [
        {
            "ensemble": row.name,
            "paper top-5 (test)": row.top5,
            "runs": QUOTED if row.quoted else "the paper's six nets, multi-scale",
        }
        for row in paper_rows(5, paper or Paper())
    ]
    rows += [_row(members, score) for members, score in _ensembles(runs, evaluations)]
    columns = ["ensemble", "paper top-5 (test)"]
    columns += [f"{data_name(data)} {top}" for data in DATA_SETS for top in ("top-1", "top-5")]
    return pd.DataFrame(rows, columns=[*columns, "runs"])


def _ensembles(
    runs: Sequence[Run], evaluations: Sequence[Evaluation]
) -> list[tuple[list[Run], Score]]:
    """The evaluated ensembles of these runs: members and score."""
    known = {run_key(run.path): run for run in runs}
    return [
        (members, found.score)
        for found in evaluations
        if len(members := [known[net.run] for net in found.nets if net.run in known]) > 1
        and found.is_of(members)
    ]


def save(runs: Sequence[Run], out_dir: Path) -> list[Path]:
    """Write Table 5 as ``table5.md``, ``table5.tex`` and ``table5.csv``."""
    evaluations = evaluations_beside(runs)
    table = table5(runs, evaluations=evaluations)
    said = [
        "Errors in percent. The paper's are on the ImageNet test set, whose labels are not "
        "public; ours are on validation images, so no verdict is given.",
        "An ensemble averages the scores of its nets.",
        "Quoted: reported by the paper from others' work, not run here.",
    ]
    ensembles = _ensembles(runs, evaluations)
    said += run_sentences([run for members, _ in ensembles for run in members])
    if not ensembles:
        said.append("No ensemble of logged runs was evaluated.")
    return write_table(table, "table5", out_dir, notes=said + not_used(runs, evaluations))


def _row(members: Sequence[Run], score: Score) -> dict[str, Any]:
    labels = ", ".join(f"{run.label} seed {run.seed}" for run in members)
    data = data_name(str(members[0].config["data"]["name"]))
    return {
        "ensemble": f"{len(members)} nets: {labels}",
        f"{data} top-1": score.top1,
        f"{data} top-5": score.top5,
        "runs": f"{score.protocol}{left_out([score])}, {members[0].profile} profile",
    }
