"""What the report shows: every item of the registry, drawn and ready to be put in a page.

What cannot be drawn says why in its place.
"""

from __future__ import annotations

import base64
import csv
import io
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure

from resnet_repro.analysis import style
from resnet_repro.analysis.captions import run_sentences
from resnet_repro.analysis.load import Run, variants_of
from resnet_repro.analysis.paper_figures import FIGURES, paper_figure
from resnet_repro.analysis.protocol import why_not_comparable
from resnet_repro.analysis.tables import NOTHING
from resnet_repro.conf import load_item
from resnet_repro.items.registry import Drawing, Item

IN_PLACE = ("claims",)  # the page has a part of its own for them
LEADING = ("test error", "sd", "paper", "verdict")


@dataclass(frozen=True)
class Picture:
    """A figure as a data URI, with its size in pixels of the page."""

    source: str
    width: int
    height: int
    alt: str


@dataclass(frozen=True)
class Table:
    """A table as text; ``numeric`` says which columns hold numbers alone."""

    name: str
    head: list[str]
    rows: list[list[str]]
    numeric: list[bool]
    notes: list[str]


@dataclass(frozen=True)
class Exhibit:
    """A figure or table, drawn.

    Attributes:
        theirs: the paper's own figure, where its curves are known.
        caption: data, profile, seeds, hardware of the runs.
        apart: why ours must not be compared with theirs point by point; empty where it may.
        missing: experiments of the item without a finished run.
        problem: why it could not be drawn; empty where it could.
    """

    name: str
    title: str
    claims: tuple[str, ...]
    theirs: Picture | None = None
    pictures: list[Picture] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    caption: str = ""
    apart: str = ""
    missing: tuple[str, ...] = ()
    problem: str = ""


def order(name: str) -> tuple[int, str]:
    """Key that sorts figures, then tables, then the rest."""
    kinds = ("fig", "gradients", "table")
    return next((n for n, kind in enumerate(kinds) if name.startswith(kind)), len(kinds)), name


def run_exhibits(
    runs: Sequence[Run], items: Mapping[str, Item], hide: Sequence[str] = ()
) -> list[Exhibit]:
    """Draw every item that these runs, of one profile, have something to say about.

    Args:
        runs: finished runs.
        items: by name, as in the registry.
        hide: places on this machine that messages must not name.
    """
    experiments = {name: load_item(name).experiments for name in items}
    variants = variants_of(name for listed in experiments.values() for name in listed)
    exhibits = []
    for name in sorted(items, key=order):
        wanted, item = experiments[name], items[name]
        used = [run for run in runs if run.experiment in wanted]
        there = {run.experiment for run in used}
        compares = variants.intersection(wanted)
        if name in IN_PLACE or not there & (compares or there):
            continue
        exhibit = Exhibit(
            name,
            item.title,
            tuple(dict.fromkeys(claim([]).id for claim in item.claims)),
            missing=tuple(experiment for experiment in wanted if experiment not in there),
        )
        exhibits.append(_draw(exhibit, partial(item.draw, used), used, hide))
    return exhibits


def net_exhibits(drawings: Mapping[str, Drawing], hide: Sequence[str] = ()) -> list[Exhibit]:
    """Draw what needs no runs."""
    return [
        _draw(Exhibit(name, drawing.title, ()), drawing.draw, [], hide)
        for name, drawing in sorted(drawings.items(), key=lambda pair: order(pair[0]))
    ]


def _draw(
    exhibit: Exhibit, save: Callable[[Path], list[Path]], runs: Sequence[Run], hide: Sequence[str]
) -> Exhibit:
    values = dict(vars(exhibit))
    with tempfile.TemporaryDirectory() as place:
        try:
            caption = " ".join(run_sentences(runs))
            paths = save(Path(place) / "figures")
            title = exhibit.title
            values["pictures"] = [
                picture(path.read_text(encoding="utf-8"), f"{title}. {caption or 'Drawn here.'}")
                for path in paths
                if path.suffix == ".svg"
            ]
            values["tables"] = [read_table(path) for path in paths if path.suffix == ".csv"]
            values["caption"] = caption
            if exhibit.name in FIGURES and runs:
                values["apart"] = why_not_comparable(runs)
                alt = f"The paper's own curves: {title}"
                values["theirs"] = picture(as_svg(paper_figure(exhibit.name)), alt)
        except Exception as error:  # one exhibit must not cost the page
            said = f"{type(error).__name__}: {error}"
            for path in (place, *hide):
                said = said.replace(path.rstrip("/") + "/", "")
            values |= {"problem": said, "pictures": [], "tables": []}
    return Exhibit(**values)


def as_svg(figure: Figure) -> str:
    """A figure as SVG text; equal figures give equal text."""
    text = io.StringIO()
    with style.style():
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return text.getvalue()


def picture(svg: str, alt: str) -> Picture:
    """Make an SVG fit for a page.

    Raises:
        ValueError: it does not say its size.
    """
    sides = [re.search(rf'<svg[^>]*?\s{side}="([\d.]+)pt"', svg) for side in ("width", "height")]
    if not all(sides):
        raise ValueError("an SVG without width and height in points")
    width, height = (round(float(side[1]) * 96 / 72) for side in sides if side)
    data = base64.b64encode(svg.encode("utf-8")).decode("ascii")
    return Picture(f"data:image/svg+xml;base64,{data}", width, height, alt)


def read_table(path: Path) -> Table:
    """Read what :func:`resnet_repro.analysis.tables.write_table` wrote: CSV, Markdown beside it.

    The Markdown has the texts as they are shown and the notes, without columns that hold nothing;
    the CSV says what is a number, and serves alone where there is no Markdown or a ``|`` in a cell
    makes it unreadable.
    """
    head, *rows = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"))))
    beside = path.with_suffix(".md")
    lines = beside.read_text(encoding="utf-8").splitlines() if beside.exists() else []
    shown = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line[:1] == "|"]
    if not _is_whole(shown, len(rows)) or not set(shown[0]) <= set(head):
        shown = [head, [], *([cell or NOTHING for cell in row] for row in rows)]
    columns = {name: [row[place] for row in rows] for place, name in enumerate(head)}
    names = shown[0]
    kept = [name for name in names if name == names[0] or not rows or any(columns[name])]
    kept = [kept[place] for place in _places(kept)]
    notes = [line.removeprefix("- ") for line in lines if line.startswith("- ")]
    if len(kept) < len(head):
        notes.append("Columns without any value are left out here.")
    return Table(
        path.stem,
        kept,
        [[row[names.index(name)] for name in kept] for row in shown[2:]],
        [_is_numeric(columns[name]) for name in kept],
        notes,
    )


def _is_whole(shown: Sequence[Sequence[str]], rows: int) -> bool:
    """Whether a Markdown table has its head, its rule and all rows, each with all cells."""
    return len(shown) == rows + 2 and len({len(row) for row in shown}) == 1


def _places(head: Sequence[str]) -> list[int]:
    """Columns in the page's order: where there is a verdict, what it rests on comes before all."""
    first = [place for name in LEADING for place, column in enumerate(head) if column == name]
    if "verdict" not in head:
        return list(range(len(head)))
    return list(dict.fromkeys([0, *first, *range(len(head))]))


def _is_numeric(column: Sequence[str]) -> bool:
    filled = [cell for cell in column if cell]
    return bool(filled) and all(re.fullmatch(r"-?\d[\d.]*(?:e[-+]\d+)?", cell) for cell in filled)
