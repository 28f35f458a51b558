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
from typing import Any
from urllib.parse import quote

import jinja2

from resnet_repro.analysis.captions import DATA_NAMES
from resnet_repro.analysis.exhibits import Exhibit, net_exhibits, run_exhibits, without
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
from resnet_repro.analysis.load import PROFILE_ORDER, Logged, Run, without_variants
from resnet_repro.analysis.stats import COMPATIBLE, DIFFERS, REPRODUCED, last_error
from resnet_repro.analysis.study import Deviation, deviations
from resnet_repro.analysis.style import writing
from resnet_repro.analysis.tables import NOTHING
from resnet_repro.conf import load_item
from resnet_repro.exits import explained
from resnet_repro.items import DRAWINGS, ITEMS
from resnet_repro.items.claims_cifar import check_all
from resnet_repro.items.claims_imagenet import check_imagenet
from resnet_repro.items.gradients import AS_SAID
from resnet_repro.paths import given
from resnet_repro.runs.atomic import write_text_atomic
from resnet_repro.runs.folder import RunFolder

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
class Row:
    """One run folder as the report lists it; texts, ``-`` where nothing is known."""

    name: str
    link: str
    net: str = NOTHING
    state: str = NOTHING
    iterations: str = NOTHING
    test_error: str = NOTHING
    hardware: str = NOTHING
    time: str = NOTHING
    code: str = NOTHING
    reason: str = ""


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
    left_out: list[str]


def report(root: Path, out: Path, profiles: Sequence[str] = PROFILE_ORDER) -> tuple[str, list[str]]:
    """Make the page for the runs below ``root``, with links as seen from ``out``.

    Returns:
        The HTML, and one line for each thing that could not be shown.
    """
    hide = [str(root.resolve()), str(root)]
    sections = []
    for profile in profiles:
        logged = Logged.read(root, [profile])
        if logged.folders:
            exhibits = run_exhibits(logged.finished, ITEMS, hide)
            sections.append(_section(profile, logged, exhibits, out.parent, hide))
    sections.sort(key=lambda section: not section.claims)  # where nothing is finished: at the end
    nets = net_exhibits(DRAWINGS, hide)
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
    profile: str, logged: Logged, exhibits: list[Exhibit], start: Path, hide: list[str]
) -> Section:
    listed_nets = dict.fromkeys(each for name in ITEMS for each in load_item(name).experiments)
    finished = logged.finished
    there = {run.experiment for run in finished}
    claims, problems = _claims(without_variants(finished), hide) if finished else ([], [])
    runs = {run.path: run for run in logged.runs}
    listed = [_row(folder, runs.get(folder.path.absolute()), start) for folder in logged.folders]
    return Section(
        profile,
        WHAT.get(profile, ""),
        _summary(logged, listed),
        claims,
        exhibits,
        deviations(logged.finished),
        listed,
        [name for name in listed_nets if name not in there],
        [without(line, hide) for line in logged.problems] + problems,
        [without(line, hide) for line in logged.left_out if line not in logged.problems],
    )


def _row(folder: RunFolder, run: Run | None, start: Path) -> Row:
    """List a run folder, whether it can be read or not; its link leads from ``start``."""
    name = "/".join(folder.path.parts[-2:])
    link = quote(Path(os.path.relpath(folder.path, start)).as_posix()) + "/"
    if run is None:
        return Row(name, link, state="not readable")
    git, machine = run.meta.get("git", {}), run.meta.get("hardware", {})
    spent = run.meta.get("wall_time_s")
    return Row(
        name,
        link,
        run.label,
        str(run.status.get("state", NOTHING)),
        f"{_count(run.status.get('iter'))} of {_count(run.status.get('max_iters'))}",
        f"{last_error(run):.2f}" if len(run.curve("test")) else NOTHING,
        f"{machine.get('label', NOTHING)}, {run.meta.get('precision', NOTHING)}",
        f"{spent / 60:.1f} min" if isinstance(spent, int | float) else NOTHING,
        str(git.get("revision") or NOTHING)[:9] + (", changed" if git.get("dirty") else ""),
        without(str(run.status.get("reason") or ""), [str(folder.path)]),
    )


def _count(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else NOTHING


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
    nets = len({run.experiment for run in logged.finished})
    data = sorted({str(run.config["data"]["name"]) for run in logged.finished})
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
    parser.add_argument("--runs", type=given, default=RUNS, help="folder of the run folders")
    parser.add_argument("--out", type=given, default=OUT, help="the page to write")
    parser.add_argument(
        "--profiles", nargs="+", default=PROFILE_ORDER, choices=PROFILE_ORDER, help="default: all"
    )
    asked = parser.parse_args(words)
    with explained():
        html, problems = report(asked.runs, asked.out, asked.profiles)
        with writing(asked.out):
            asked.out.parent.mkdir(parents=True, exist_ok=True)
            write_text_atomic(asked.out, html)
    print(os.path.relpath(asked.out))
    for problem in problems:
        print(f"not shown: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
