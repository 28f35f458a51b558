"""The README's results and ``docs/RESULTS.md``, from the run folders: no number in them is typed.

``python -m resnet_repro.analysis.pages`` draws ``docs/figures`` and ``docs/tables``, rewrites the
what stands in the two between ``<!-- made: NAME -->`` and ``<!-- end -->``. The rest is written by
hand. A paragraph that reads a verdict names it in a comment, for example
``<!-- reads: C1 holds -->``; where the runs have come to say something else, the command and the
tests name it.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from resnet_repro.analysis import style
from resnet_repro.analysis.agreement import agreement, compare_curves
from resnet_repro.analysis.judge import ClaimResult
from resnet_repro.analysis.load import tell
from resnet_repro.analysis.page_blocks import BLOCKS
from resnet_repro.analysis.study import Study
from resnet_repro.analysis.style import writing
from resnet_repro.analysis.sweeps import SWEEP, save_sweep, swept_keys
from resnet_repro.analysis.tables import write_table
from resnet_repro.exits import explained
from resnet_repro.items import ITEMS
from resnet_repro.items.claims_imagenet import imagenet_claims
from resnet_repro.items.deviations import variants
from resnet_repro.paths import REPOSITORY, given
from resnet_repro.runs.atomic import write_text_atomic

RUNS, README, PAGE = Path("results/runs"), Path("README.md"), Path("docs/RESULTS.md")
FIGURES = ("fig1", "fig4", "fig6", "fig7", "gradients", "deviations")
TABLES = ("table2", "table3", "table6", "claims")
IMAGENET_CLAIMS, AGREEMENT = "claims_imagenet", "agreement"
_BLOCK = re.compile(r"(<!-- made: (.+?) -->\n).*?(<!-- end -->)", re.S)
_READING = re.compile(r"<!-- reads: (.+?) -->")


def rewrite(text: str, study: Study) -> str:
    """Put what the runs say into every block of the page.

    Raises:
        ValueError: a block nobody makes, or one that is never closed.
    """
    opened = text.count("<!-- made: ")
    if opened != len(_BLOCK.findall(text)):
        raise ValueError(f"{opened} blocks begin with <!-- made: ... -->, not all end")
    unknown = [name for _, name, _ in _BLOCK.findall(text) if name not in BLOCKS]
    if unknown:
        raise ValueError(f"no block is called {unknown[0]}; one of {', '.join(BLOCKS)}")
    return _BLOCK.sub(lambda m: f"{m[1]}{BLOCKS[m[2]](study).strip()}\n{m[3]}", text)


def outdated(text: str, claims: Sequence[ClaimResult]) -> list[str]:
    """Readings of the page that were written for other verdicts than the runs give now."""
    now: dict[str, list[str]] = {}
    for claim in claims:
        now.setdefault(claim.id, []).append(claim.verdict)
    found = []
    for reading in _READING.findall(text):
        for word in reading.split(", "):
            number, _, verdict = word.partition(" ")
            if now.get(number) != [verdict]:
                says = " and ".join(now.get(number, ["not known"]))
                found.append(f"<!-- reads: {reading} -->: {number} is now {says}")
    return found


def draw(study: Study, docs: Path) -> list[Path]:
    """Draw every figure and table that the finished runs can fill, and remove old ones.

    Returns:
        What was written.
    """
    written: list[Path] = []
    for name in FIGURES:
        runs = study.of(name)
        if runs and (name != "deviations" or variants(runs)):
            written += ITEMS[name].draw(runs, docs / "figures")
    for name in TABLES:
        if runs := study.of_table(name):
            written += ITEMS[name].draw(runs, docs / "tables")
    if study.every("fig4", "table3"):
        frame, notes = imagenet_claims(study.every("fig4", "table3"))
        written += write_table(frame, IMAGENET_CLAIMS, docs / "tables", notes)
    for runs in study.sweeps:
        written += save_sweep(runs, swept_keys(runs), docs / "figures", docs / "tables")
    stretches, _ = compare_curves(study.logged)
    if stretches:
        written += style.save(agreement(stretches), AGREEMENT, docs / "figures")
    made = (*FIGURES, *TABLES, IMAGENET_CLAIMS, AGREEMENT)
    for folder in ("figures", "tables"):
        for path in (docs / folder).glob("*"):
            if (path.stem in made or path.stem.startswith(SWEEP)) and path not in written:
                path.unlink()
    return written


def main(words: Sequence[str] | None = None) -> int:
    """Draw, rewrite both pages, and name the readings that need rereading; 1 if there are any."""
    parser = argparse.ArgumentParser(description="Write README and docs/RESULTS.md from the runs.")
    parser.add_argument("--repo", type=given, default=REPOSITORY, help="root of the project")
    repo = parser.parse_args(words).repo
    study = Study(repo / RUNS)
    for line in study.all.left_out:
        tell(line)
    with explained():
        for path in draw(study, repo / PAGE.parent):
            print(path.relative_to(repo))
        problems = []
        for page in (README, PAGE):
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
