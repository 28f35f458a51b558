"""One page that shows the study: ``python -m resnet_repro.analysis.report``.

It works from the file system, without a network: figures and style stand in the page, links lead
to the run folders. Profile by profile it holds the claims with their evidence, every figure and
table beside the paper's, the differences from the paper's protocol, and all runs with their state.
Equal results give equal bytes.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jinja2

from resnet_repro.analysis.captions import DATA_NAMES
from resnet_repro.analysis.claims import check_all
from resnet_repro.analysis.exhibits import (
    Exhibit,
    Item,
    find_saves,
    load_items,
    net_exhibits,
    run_exhibits,
    without_variants,
)
from resnet_repro.analysis.imagenet_claims import check_imagenet
from resnet_repro.analysis.judge import (
    FAILS,
    HOLDS,
    INCONCLUSIVE,
    NO_RUNS,
    OPEN,
    OPPOSITE,
    SAME,
    ClaimResult,
)
from resnet_repro.analysis.load import PROFILE_ORDER, Run
from resnet_repro.analysis.mechanism_claims import AS_SAID
from resnet_repro.analysis.report_runs import (
    Deviation,
    Logged,
    Row,
    deviations,
    read_profiles,
    rows,
    without,
)
from resnet_repro.analysis.stats import COMPATIBLE, DIFFERS, REPRODUCED
from resnet_repro.runs.atomic import write_text_atomic

TEMPLATES = Path(__file__).with_name("templates")
RUNS, OUT = Path("results/runs"), Path("results/report/index.html")
WHAT = {
    "paper": "the paper's protocol",
    "short": "the paper's proportions on fewer iterations",
    "quick": "the same nets on a schedule of minutes",
}
# The look of a verdict by its first words.
_LOOKS = {HOLDS: "good", REPRODUCED: "good", FAILS: "bad", DIFFERS: "bad"}
_LOOKS |= dict.fromkeys((COMPATIBLE, INCONCLUSIVE, SAME, OPPOSITE, OPEN, *AS_SAID.values()), "open")
_LOOKS |= {"finished": "good", "diverged": "bad", "failed": "bad"}


@dataclass(frozen=True)
class Section:
    """All of one profile."""

    profile: str
    what: str
    summary: str
    claims: list[ClaimResult]
    exhibits: list[Exhibit]
    deviations: list[Deviation]
    rows: list[Row]
    missing: list[str]
    problems: list[str]


def report(root: Path, out: Path, profiles: Sequence[str] = PROFILE_ORDER) -> tuple[str, list[str]]:
    """Make the page for the runs below ``root``, with links as seen from ``out``.

    Returns:
        The HTML, and one line for each thing that could not be shown.
    """
    items, hide = load_items(), [str(root.resolve()), str(root)]
    of_runs, of_nets = find_saves()
    sections = []
    for logged in read_profiles(root, profiles):
        exhibits = run_exhibits(logged.runs, items, of_runs, hide)
        sections.append(_section(logged, items, exhibits, out.parent, hide))
    sections.sort(key=lambda section: not section.claims)  # where nothing is finished: at the end
    nets = net_exhibits(of_nets, hide)
    shown = [(section.profile, exhibit) for section in sections for exhibit in section.exhibits]
    problems = [f"{s.profile}: {problem}" for s in sections for problem in s.problems]
    problems += [
        f"{where}: {exhibit.name}: {exhibit.problem}"
        for where, exhibit in [*shown, *(("nets", exhibit) for exhibit in nets)]
        if exhibit.problem
    ]
    page = _environment().get_template("report.html.j2")
    titles = {claim.id: claim.title for section in sections for claim in section.claims}
    matrix = _matrix(sections)
    return page.render(sections=sections, nets=nets, matrix=matrix, titles=titles), problems


def _section(
    logged: Logged, items: dict[str, Item], exhibits: list[Exhibit], start: Path, hide: list[str]
) -> Section:
    experiments = list(dict.fromkeys(name for i in items.values() for name in i.experiments))
    there = {run.experiment for run in logged.runs}
    claims, problems = _claims(without_variants(logged.runs), hide) if logged.runs else ([], [])
    listed = rows(logged, start)
    return Section(
        logged.profile,
        WHAT.get(logged.profile, ""),
        _summary(logged, listed),
        claims,
        exhibits,
        deviations(logged.runs),
        listed,
        [name for name in experiments if name not in there],
        logged.problems + problems,
    )


def _claims(runs: Sequence[Run], hide: Sequence[str]) -> tuple[list[ClaimResult], list[str]]:
    """Every claim tested on runs of one profile, by number, and what could not be tested.

    Nets of one name on two data sets are two tests.
    """
    by_data: dict[str, list[Run]] = {}
    for run in runs:
        by_data.setdefault(str(run.config["data"]["name"]), []).append(run)
    checks = [partial(check_all, group) for group in by_data.values() or [[]]]
    results: dict[tuple[str, str], ClaimResult] = {}
    problems = []
    for check in (*checks, partial(check_imagenet, runs)):
        try:
            results |= {(result.id, result.sentence): result for result in check()}
        except Exception as error:  # the other claims are still of interest
            problems.append(f"claims: {without(str(error), hide)}")
    tested = {result.id for result in results.values() if result.verdict != NO_RUNS}
    told = [r for r in results.values() if r.verdict != NO_RUNS or r.id not in tested]
    return sorted(told, key=lambda result: int(result.id[1:])), problems


def _summary(logged: Logged, listed: Sequence[Row]) -> str:
    states = sorted(row.state for row in listed)
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    nets = len({run.experiment for run in logged.runs})
    data = sorted({str(run.config["data"]["name"]) for run in logged.runs})
    on = " and ".join(DATA_NAMES.get(name, name) for name in data)
    finished = f"{_number(nets, 'experiment')} on {on}" if nets else "no experiment"
    return f"{_number(len(listed), 'run')} ({counts}); finished: {finished}."


def _number(count: int, what: str) -> str:
    return f"{count} {what}" + ("" if count == 1 else "s")


def _matrix(sections: Sequence[Section]) -> dict[str, dict[str, list[ClaimResult]]]:
    """Claims by number and profile; of two data sets there are two results."""
    tested = [section for section in sections if section.claims]
    ids = dict.fromkeys(claim.id for section in tested for claim in section.claims)
    return {
        id: {s.profile: [claim for claim in s.claims if claim.id == id] for s in tested}
        for id in sorted(ids, key=lambda id: int(id[1:]))
    }


def verdict_look(text: str) -> str:
    """The style of a verdict or state: ``good``, ``bad``, ``open`` or ``none``."""
    return next((look for words, look in _LOOKS.items() if text.startswith(words)), "none")


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["look"] = verdict_look
    environment.filters["capitalised"] = lambda text: text[:1].upper() + text[1:]
    return environment


def main(words: Sequence[str] | None = None) -> int:
    """Write the page; 1 if something could not be shown, which the page says too."""
    parser = argparse.ArgumentParser(description="Write the report of all logged runs.")
    parser.add_argument("--runs", type=Path, default=RUNS, help="folder of the run folders")
    parser.add_argument("--out", type=Path, default=OUT, help="the page to write")
    parser.add_argument(
        "--profiles", nargs="+", default=PROFILE_ORDER, choices=PROFILE_ORDER, help="default: all"
    )
    asked = parser.parse_args(words)
    html, problems = report(asked.runs, asked.out, asked.profiles)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomic(asked.out, html)
    print(os.path.relpath(asked.out))
    for problem in problems:
        print(f"not shown: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
