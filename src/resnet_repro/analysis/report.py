"""One page that shows the study: ``python -m resnet_repro.analysis.report``.

It works from the file system, without a network: figures and style are in the page, links lead
to the run folders. Profile by profile it holds the claims with their evidence, every figure and
table beside the paper's, the differences from the paper's protocol, and all runs with their state.
Equal results give equal bytes.
"""

import argparse
import os
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2

from resnet_repro import paths
from resnet_repro.analysis import judge, stats
from resnet_repro.analysis.captions import data_of
from resnet_repro.analysis.exhibits import exhibit, run_exhibits
from resnet_repro.analysis.judge import ClaimResult, check
from resnet_repro.analysis.load import Logged, without_variants
from resnet_repro.analysis.logged_run import Run
from resnet_repro.analysis.protocol import deviations
from resnet_repro.analysis.stats import how_many
from resnet_repro.analysis.tables import NOTHING
from resnet_repro.conf import load_item
from resnet_repro.exits import explained, notify
from resnet_repro.items import CLAIMS, DRAWINGS, ITEMS
from resnet_repro.items.gradients import VERDICTS
from resnet_repro.paths import AUTO, expand, writing
from resnet_repro.runs.atomic import write_text_atomic
from resnet_repro.runs.folder import RunFolder

TEMPLATES = Path(__file__).with_name("templates")
OUT = Path("results/report/index.html")
WHAT = {
    "paper": "the paper's protocol",
    "short": "the paper's proportions on fewer iterations",
    "quick": "the same nets on a schedule of minutes",
}
# The look of a verdict by its first words.
_OPEN = (judge.INCONCLUSIVE, judge.SAME, judge.OPPOSITE, judge.OPEN, stats.COMPATIBLE)
_LOOKS: dict[str, tuple[str, ...]] = {
    "good": (judge.HOLDS, stats.REPRODUCED, "finished"),
    "bad": (judge.FAILS, stats.DIFFERS, "diverged", "failed"),
    "open": (*_OPEN, *VERDICTS.values()),
}


def report(root: Path, out: Path, profiles: Sequence[str]) -> tuple[str, list[str], bool]:
    """Make the page for the runs below ``root``, with links as seen from ``out``.

    Returns the HTML, a line for each thing that could not be shown, and whether any item was drawn.
    """
    logged = {profile: Logged(root, [profile]) for profile in profiles}
    sections = [
        _section(profile, found, out.parent) for profile, found in logged.items() if found.folders
    ]
    sections.sort(key=lambda section: not section["claims"])  # nothing is finished: at the end
    nets = [exhibit(drawing, None) for drawing in DRAWINGS.values()]
    problems = [f"{s['profile']}: {problem}" for s in sections for problem in s["problems"]]
    exhibits = {s["profile"]: s["exhibits"] for s in sections}
    problems += [
        f"{place}: {shown.item.name}: {shown.problem}"
        for place, every in (exhibits | {"nets": nets}).items()
        for shown in every
        if shown.problem
    ]
    titles = {c.id: c.title for c in CLAIMS if any(s["claims"] for s in sections)}
    local = partial(without, folders=[str(root.resolve()), str(root)])
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "look": verdict_look,
        "local": local,
        "capitalised": lambda text: text[:1].upper() + text[1:],
    }
    page = environment.get_template("report.html.j2")
    html = page.render(sections=sections, nets=nets, titles=titles)
    any_drawn = any(not shown.problem for every in exhibits.values() for shown in every)
    return html, list(map(local, problems)), any_drawn


def without(text: str, folders: Iterable[str]) -> str:
    """Return a message without the folders of this machine."""
    for folder in folders:
        text = text.replace(folder.rstrip("/") + "/", "")
    return text


def _section(profile: str, logged: Logged, start: Path) -> dict[str, Any]:
    """All of one profile; links lead from ``start``."""
    finished = logged.finished
    claims, problems = _claims(without_variants(finished)) if finished else ([], [])
    readable = {run.path: run for run in logged.runs}
    rows = [_row(folder, readable.get(folder.path.absolute()), start) for folder in logged.folders]
    experiments = dict.fromkeys(each for name in ITEMS for each in load_item(name).experiments)
    done = {run.experiment for run in finished}
    states = Counter(sorted(row["state"] for row in rows))
    counts = ", ".join(f"{count} {state}" for state, count in states.items())
    nets = f"{how_many(len(done), 'experiment')} on {data_of(finished)}"
    return {
        "profile": profile,
        "what": WHAT[profile],
        "summary": f"{how_many(len(rows), 'run')} ({counts}); finished: "
        f"{nets if done else 'no experiment'}.",
        "claims": claims,
        "exhibits": run_exhibits(finished, ITEMS),
        "deviations": deviations(finished),
        "rows": rows,
        "missing": [name for name in experiments if name not in done],
        "problems": logged.problems + problems,
        "left_out": logged.standing_for_none,
    }


def _row(folder: RunFolder, run: Run | None, start: Path) -> dict[str, str]:
    """List a run folder, whether it can be read or not; its link leads from ``start``."""
    link = quote(Path(os.path.relpath(folder.path, start)).as_posix()) + "/"
    row = {"name": "/".join(folder.path.parts[-2:]), "link": link, "reason": ""}
    if run is None:
        columns = ("net", "iterations", "test_error", "hardware", "time", "code")
        return row | dict.fromkeys(columns, NOTHING) | {"state": "not readable"}
    git, spent = run.meta.get("git", {}), run.meta.get("wall_time_s")
    at, end = (
        f"{value:,}" if isinstance(value := run.status.get(key), int) else NOTHING
        for key in ("iter", "max_iters")
    )
    return row | {
        "net": run.label,
        "state": str(run.status.get("state", NOTHING)),
        "iterations": f"{at} of {end}",
        "test_error": f"{stats.last_error(run):.2f}" if len(run.curve("test")) else NOTHING,
        "hardware": run.device,
        "time": f"{spent / 60:.1f} min" if isinstance(spent, int | float) else NOTHING,
        "code": str(git.get("revision") or NOTHING)[:9] + (", changed" if git.get("dirty") else ""),
        "reason": without(str(run.status.get("reason") or ""), [str(folder.path)]),
    }


def _claims(runs: Sequence[Run]) -> tuple[list[ClaimResult], list[str]]:
    """Every claim tested on runs of one profile, and what could not be tested."""
    results, problems = list[ClaimResult](), list[str]()
    for claim in CLAIMS:
        try:
            results += check([claim], runs)
        except Exception as error:  # the other claims are still of interest
            problems.append(f"{claim.id}: {error}")
    return results, problems


def verdict_look(text: str) -> str:
    """The style of a verdict or state: ``good``, ``bad``, ``open`` or ``none``."""
    return next((look for look, prefixes in _LOOKS.items() if text.startswith(prefixes)), "none")


def main(argv: Sequence[str] | None = None) -> int:
    """Write the page; return 1 if nothing could be drawn. It and stderr name what is not shown."""
    parser = argparse.ArgumentParser(description="Write the report of all logged runs.")
    parser.add_argument("--runs", default=AUTO, help="folder of the run folders")
    parser.add_argument("--out", type=expand, default=OUT, help="the page to write")
    parser.add_argument("--profiles", nargs="+", default=[*WHAT], choices=WHAT, help="default: all")
    args = parser.parse_args(argv)
    with explained():
        html, problems, any_drawn = report(paths.runs(args.runs), args.out, args.profiles)
        with writing(args.out):
            args.out.parent.mkdir(parents=True, exist_ok=True)
            write_text_atomic(args.out, html)
    print(os.path.relpath(args.out))
    for problem in problems:
        notify(f"not shown: {problem}")
    return 1 if problems and not any_drawn else 0


if __name__ == "__main__":
    sys.exit(main())
