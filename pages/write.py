"""Write what the runs say into README, docs/RESULTS.md and docs/FIDELITY.md.

``python -m pages.write`` draws ``docs/figures`` and ``docs/tables`` and rewrites what stands in the
three between ``<!-- made: NAME -->`` and ``<!-- end -->``: no number there is typed. The rest is
written by hand. A paragraph that reads a verdict names it in a comment, for example
``<!-- reads: C1 holds -->``; where the runs now say something else, the command and the tests name
it.
"""

import argparse
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from pages import fidelity, readme, results
from pages.study import Study, draw
from resnet_repro.analysis.judge import ClaimResult
from resnet_repro.analysis.load import grouped
from resnet_repro.analysis.logged_run import warn
from resnet_repro.exits import explained
from resnet_repro.paths import REPOSITORY, expand, writing
from resnet_repro.runs.atomic import write_text_atomic

RUNS, DOCS = Path("results/runs"), Path("docs")
PAGES = (Path("README.md"), DOCS / "RESULTS.md", DOCS / "FIDELITY.md")
_BLOCK = re.compile(r"(<!-- made: (.+?) -->\n).*?(<!-- end -->)", re.S)
_READING = re.compile(r"<!-- reads: (.+?) -->")
BLOCKS: Mapping[str, Callable[[Study], str]] = {
    "results": readme.readme_block,
    "sweep": readme.sweep_block,
    "runs": results.runs_block,
    "protocol": results.protocol_block,
    "claims": results.claims_block,
    "table 6": results.table6_block,
    "curves": results.agreement_block,
    "statistics": results.statistics_block,
    "looks": results.looks_block,
    "crossing": results.crossing_block,
    "responses": results.responses_block,
    "late start": results.late_start_block,
    "first update": partial(results.gradients_block, describe=results.first_update),
    "gradient precision": partial(
        results.gradients_block, describe=results.gradients_against_float64
    ),
    "precision control": results.precision_control_block,
    "tiny imagenet": results.tiny_block,
    "deviations": results.atlas_block,
    "constants": fidelity.constants_block,
    "error rates": fidelity.rates_block,
    **{n: partial(results.figure_block, name=n) for n in ("fig1", "fig6", "fig7", "gradients")},
}


def rewrite(text: str, study: Study) -> str:
    """Return a page with every block remade. ValueError: nobody makes one, or one never ends."""
    opened = text.count("<!-- made: ")
    if opened != len(_BLOCK.findall(text)):
        raise ValueError(f"{opened} blocks begin with <!-- made: ... -->, not all end")
    unknown = [name for _, name, _ in _BLOCK.findall(text) if name not in BLOCKS]
    if unknown:
        raise ValueError(f"no block is called {unknown[0]}; one of {', '.join(BLOCKS)}")
    return _BLOCK.sub(lambda m: f"{m[1]}{BLOCKS[m[2]](study).strip()}\n{m[3]}", text)


def outdated(text: str, claims: Sequence[ClaimResult]) -> list[str]:
    """Readings of the page that were written for other verdicts than the runs give now."""
    now = {id: [c.verdict for c in same] for id, same in grouped(claims, lambda c: c.id).items()}
    found = []
    for reading in _READING.findall(text):
        for number, _, verdict in (word.partition(" ") for word in reading.split(", ")):
            if now.get(number) != [verdict]:
                says = " and ".join(now.get(number, ["not known"]))
                found.append(f"<!-- reads: {reading} -->: {number} is now {says}")
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Draw, rewrite the pages, and name the readings that need rereading; 1 if there are any."""
    parser = argparse.ArgumentParser(
        description="Write README, docs/RESULTS.md and docs/FIDELITY.md."
    )
    parser.add_argument("--repo", type=expand, default=REPOSITORY, help="root of the project")
    repo = parser.parse_args(argv).repo
    study = Study(repo / RUNS)
    for line in study.left_out:
        warn(line)
    with explained():
        for path in draw(study, repo / DOCS):
            print(path.relative_to(repo))
        problems = []
        for page in PAGES:
            text = rewrite((repo / page).read_text(encoding="utf-8"), study)
            with writing(repo / page):
                write_text_atomic(repo / page, text)
            print(page)
            problems += [f"{page}: read again: {line}" for line in outdated(text, study.claims)]
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
