"""The README's results and ``docs/RESULTS.md``, from the run folders: no number in them is typed.

``python -m resnet_repro.analysis.pages`` draws ``docs/figures`` and ``docs/tables`` and rewrites
what stands in the two between ``<!-- made: NAME -->`` and ``<!-- end -->``. The rest is written by
hand. A paragraph that reads a verdict names it in a comment, for example
``<!-- reads: C1 holds -->``; where the runs now say something else, the command and the tests name
it.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path

from resnet_repro.analysis import style
from resnet_repro.analysis.agreement import agreement, compare_curves
from resnet_repro.analysis.judge import ClaimResult, by_number, first_tested
from resnet_repro.analysis.load import Logged, Run, grouped, warn
from resnet_repro.analysis.page_blocks import BLOCKS
from resnet_repro.analysis.tables import write_table
from resnet_repro.compare import SWEEP, save_sweep, swept_keys
from resnet_repro.conf import load_item
from resnet_repro.exits import explained
from resnet_repro.items import ITEMS
from resnet_repro.items.claims_cifar import check_all
from resnet_repro.items.claims_imagenet import check_imagenet, imagenet_claims
from resnet_repro.items.deviations import variants
from resnet_repro.paths import REPOSITORY, expand, writing
from resnet_repro.runs.atomic import write_text_atomic

COMMITTED = ("paper", "short")  # profiles whose runs are in the repository
UNFINISHED = "unfinished"  # beside the runs: stopped ones, with their checkpoints
RUNS, README, PAGE = Path("results/runs"), Path("README.md"), Path("docs/RESULTS.md")
FIGURES = ("fig1", "fig4", "fig6", "fig7", "gradients", "deviations")
TABLES = ("table2", "table3", "table6", "claims")
IMAGENET_CLAIMS, AGREEMENT = "claims_imagenet", "agreement"
_BLOCK = re.compile(r"(<!-- made: (.+?) -->\n).*?(<!-- end -->)", re.S)
_READING = re.compile(r"<!-- reads: (.+?) -->")


class Study(Logged):
    """The logged runs that the pages speak of, below the folder of the run folders.

    Those in ``unfinished/`` beside it count as far as they go, until there is one in their place.
    """

    def __init__(self, root: Path):
        super().__init__(root, COMMITTED)
        here, unfinished = {run.place for run in self.runs}, Logged(root.parent / UNFINISHED)
        self.runs += [run for run in unfinished.runs if run.place not in here]
        self.problems += unfinished.problems

    def item(self, name: str) -> list[Run]:
        """Return the finished runs that an item is drawn from."""
        return self.of_item(load_item(name))

    @property
    def imagenet(self) -> list[Run]:
        """The finished runs of the ImageNet nets, of all profiles."""
        names = {*load_item("fig4").drawn, *load_item("table3").drawn}
        return [run for run in self.finished if run.experiment in names]

    @property
    def checks(self) -> list[Run]:
        """Short looks at one question, runs named ``check_...``: in no figure, table or claim."""
        return [run for run in self.runs if run.name.startswith("check_")]

    @cached_property
    def sweeps(self) -> list[list[Run]]:
        """The finished runs of each example of a sweep: ``results/sweeps/<sweep>``."""
        folders = sorted(self.root.parent.glob("sweeps/*/"))
        return [[run for run in Logged(path).runs if run.is_finished] for path in folders]

    @cached_property
    def claims(self) -> list[ClaimResult]:
        """Every claim, on runs of the paper's protocol where they can test it."""
        results = first_tested(check_all, self.item("claims"))
        results += first_tested(check_imagenet, self.imagenet)
        return by_number(results)


def filled(text: str, blocks: Mapping[str, Callable[[], str]]) -> str:
    """Return a page with every block replaced by what its maker says now.

    A ValueError names a block that nobody makes, or says that one is never closed.
    """
    opened = text.count("<!-- made: ")
    if opened != len(_BLOCK.findall(text)):
        raise ValueError(f"{opened} blocks begin with <!-- made: ... -->, not all end")
    unknown = [name for _, name, _ in _BLOCK.findall(text) if name not in blocks]
    if unknown:
        raise ValueError(f"no block is called {unknown[0]}; one of {', '.join(blocks)}")
    return _BLOCK.sub(lambda m: f"{m[1]}{blocks[m[2]]().strip()}\n{m[3]}", text)


def rewrite(text: str, study: Study) -> str:
    """Put what the runs say into every block of README or docs/RESULTS.md."""
    return filled(text, {name: partial(block, study) for name, block in BLOCKS.items()})


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


def draw(study: Study, docs: Path) -> list[Path]:
    """Draw every figure and table that the finished runs can fill, and remove old ones."""
    figures, tables, written = docs / "figures", docs / "tables", list[Path]()
    for name in (*FIGURES, *TABLES):
        runs = study.item(name)
        if runs and (name != "deviations" or variants(runs)):
            written += ITEMS[name].draw(runs, figures if name in FIGURES else tables)
    if study.imagenet:
        frame, notes = imagenet_claims(study.imagenet)
        written += write_table(frame, IMAGENET_CLAIMS, tables, notes)
    for runs in study.sweeps:
        written += save_sweep(runs, swept_keys(runs), figures, tables)
    stretches, _ = compare_curves(study.begun)
    if stretches:
        written += style.save(agreement(stretches), AGREEMENT, figures)
    stems = (*FIGURES, *TABLES, IMAGENET_CLAIMS, AGREEMENT)
    for path in (*figures.glob("*"), *tables.glob("*")):
        if (path.stem in stems or path.stem.startswith(SWEEP)) and path not in written:
            path.unlink()
    return written


def main(argv: Sequence[str] | None = None) -> int:
    """Draw, rewrite both pages, and name the readings that need rereading; 1 if there are any."""
    parser = argparse.ArgumentParser(description="Write README and docs/RESULTS.md from the runs.")
    parser.add_argument("--repo", type=expand, default=REPOSITORY, help="root of the project")
    repo = parser.parse_args(argv).repo
    study = Study(repo / RUNS)
    for line in study.left_out:
        warn(line)
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
