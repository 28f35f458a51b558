"""What the results page says of the runs themselves: which there are, how they differ."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from resnet_repro.analysis.captions import DATA_NAMES
from resnet_repro.analysis.committed import COMMITTED, Study
from resnet_repro.analysis.exhibits import variants_of
from resnet_repro.analysis.load import Run
from resnet_repro.analysis.protocol import unlike_caffe
from resnet_repro.analysis.report_runs import deviations
from resnet_repro.analysis.tables import to_markdown


def runs_block(study: Study) -> str:
    """What was run: one row per profile, data set, hardware and precision."""
    rows = []
    for key, group in _by_place(study.logged).items():
        done = [run for run in group if _is_done(run)]
        if not done:
            continue
        profile, data, machine, precision = key
        hours = sum(float(run.meta.get("wall_time_s") or 0) for run in done) / 3600
        iterations = sorted({run.max_iters for run in done})
        batches = sorted({int(run.config["recipe"]["batch_size"]) for run in done})
        rows.append(
            {
                "profile": profile,
                "data": data,
                "nets": ", ".join(by_net_or_variant(done)),
                "seeds": _seeds(done),
                "iterations": " or ".join(f"{n:,}" for n in iterations),
                "batch": " or ".join(map(str, batches)),
                "on": f"{machine}, {precision}",
                "hours": f"{hours:.1f}",
            }
        )
    lines = [to_markdown(pd.DataFrame(rows)) if rows else "No run is finished yet.", ""]
    lines += [f"- in no table: {_said(run)}" for run in study.logged if not _is_done(run)]
    lines += [
        f"- a look at one question, in no figure or table: {_said(run)}" for run in study.checks
    ]
    lines += [f"- given up, in no figure or table: {said}" for said in study.given_up]
    return "\n".join(lines).rstrip()


def _is_done(run: Run) -> bool:
    return bool(run.status.get("state") == "finished")


def _said(run: Run) -> str:
    at = int(run.status.get("iter", 0))
    return (
        f"`{run.profile}/{run.name}/seed{run.seed}`, {run.meta.get('precision')}, stopped at "
        f"iteration {at:,} of {run.max_iters:,}"
    )


def _by_place(runs: Sequence[Run]) -> dict[tuple[str, str, str, str], list[Run]]:
    groups: dict[tuple[str, str, str, str], list[Run]] = {}
    for run in sorted(runs, key=lambda r: (COMMITTED.index(r.profile), not r.is_plain, r.depth)):
        data = str(run.config["data"]["name"])
        machine = str(run.meta.get("hardware", {}).get("label"))
        key = (run.profile, DATA_NAMES.get(data, data), machine, str(run.meta.get("precision")))
        groups.setdefault(key, []).append(run)
    return groups


def by_net_or_variant(runs: Sequence[Run]) -> list[str]:
    """Nets by label; a variant of one by the name of its experiment."""
    known = {run.experiment for run in runs}
    changed = variants_of(known)
    return list(dict.fromkeys(r.experiment if r.experiment in changed else r.label for r in runs))


def _seeds(runs: Sequence[Run]) -> str:
    counts = {
        len({r.seed for r in runs if r.experiment == e}) for e in {r.experiment for r in runs}
    }
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"


def protocol_block(study: Study) -> str:
    """In what the finished runs differ from the paper's protocol: keys, and how they compute."""
    changed = [
        (f"`{found.key}`", found.paper, found.here, list(found.runs))
        for found in deviations(study.finished)
        if found.key.split(".")[0] in ("data", "model", "recipe")
    ]
    every = {run.experiment for run in study.finished}
    rows = [
        {
            "key": key,
            "paper's protocol": paper,
            "here": here,
            "in": "every run" if set(names) == every else ", ".join(names),
        }
        for key, paper, here, names in changed + unlike_caffe(study.finished)
    ]
    return to_markdown(pd.DataFrame(rows)) if rows else "No run is finished yet."
