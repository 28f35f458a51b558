"""Figures and tables made fit to stand in a page: SVG as data URIs, CSV as text."""

from __future__ import annotations

import base64
import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from resnet_repro.analysis import style
from resnet_repro.analysis.tables import NOTHING

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


def as_svg(figure: Figure) -> str:
    """A figure as SVG text; equal figures give equal text."""
    text = io.StringIO()
    with style.style():
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return text.getvalue()


def picture(svg: str, alt: str) -> Picture:
    """Make an SVG fit to stand in a page.

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
