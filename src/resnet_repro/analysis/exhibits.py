"""Draw every item for the report, beside the paper's own figure, or say why it cannot be drawn."""

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.figure import Figure

from resnet_repro.analysis import paper, style
from resnet_repro.analysis.captions import run_sentences
from resnet_repro.analysis.curves import ERRORS, legend, with_gaps
from resnet_repro.analysis.load import can_draw
from resnet_repro.analysis.logged_run import Run
from resnet_repro.analysis.protocol import why_not_comparable
from resnet_repro.analysis.tables import Table, as_shown
from resnet_repro.conf import load_item
from resnet_repro.items import Item, fig4, fig6, fig7

LEADING = ("test error", "sd", "paper", "verdict")


class Picture(NamedTuple):
    """A figure as a data URI, with its size in pixels of the page."""

    source: str
    width: int
    height: int
    alt: str


class ShownTable(NamedTuple):
    """A table as text; ``numeric`` says which columns hold numbers alone."""

    name: str
    head: list[str]
    rows: list[list[str]]
    numeric: list[bool]
    notes: list[str]


@dataclass(frozen=True)
class Exhibit:
    """An item, drawn, beside the paper's own figure where its curves are known."""

    item: Item
    paper_picture: Picture | None = None
    picture: Picture | None = None
    table: ShownTable | None = None
    caption: str = ""
    not_comparable: str = ""  # why ours must not be compared with the paper's point by point
    missing: Sequence[str] = ()  # experiments of the item without a finished run
    problem: str = ""  # why it could not be drawn


def run_exhibits(runs: Sequence[Run], items: Mapping[str, Item]) -> list[Exhibit]:
    """Draw every item for which there are runs among these, of one profile."""
    exhibits = []
    for listed in map(load_item, items):
        used = [run for run in runs if run.experiment in listed.drawn]
        logged = {run.experiment for run in used}
        # The page has a section of its own for the claims.
        if listed.name != "claims" and can_draw(listed.experiments, logged):
            missing = [each for each in listed.experiments if each not in logged]
            exhibits.append(exhibit(items[listed.name], used, missing))
    return exhibits


def exhibit(item: Item, runs: Sequence[Run] | None, missing: Sequence[str] = ()) -> Exhibit:
    """Draw an item from runs; ``None``: it needs none."""
    shown: dict[str, Any] = {}
    try:
        shown["caption"] = caption = " ".join(run_sentences(runs or []))
        figure, table = item.make(runs)
        if figure:
            shown["picture"] = picture(figure, f"{item.title}. {caption or 'Drawn here.'}")
        if table:
            shown["table"] = _table(item.name, table)
        if item.name in PAPERS and runs:
            shown["not_comparable"] = why_not_comparable(runs)
            alt = f"The paper's own curves: {item.title}"
            shown["paper_picture"] = picture(PAPERS[item.name](), alt)
    except Exception as error:  # one exhibit must not cost the page
        shown = {"problem": f"{type(error).__name__}: {error}"}
    return Exhibit(item, missing=missing, **shown)


def picture(figure: Figure, alt: str) -> Picture:
    """Render a figure for a page; equal figures give equal texts."""
    text = io.StringIO()
    with style.style():
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    width, height = (round(float(side) * 96) for side in figure.get_size_inches())
    data = base64.b64encode(text.getvalue().encode("utf-8")).decode("ascii")
    return Picture(f"data:image/svg+xml;base64,{data}", width, height, alt)


def _table(name: str, table: Table) -> ShownTable:
    """Format a table: without empty columns, which a note says; the basis of a verdict first."""
    frame, cells = table.frame, as_shown(table.frame)
    values = {str(name): [x for x in frame[name].dropna() if x != ""] for name in cells}
    first = str(frame.columns[0])
    shown = [column for column in values if column == first or values[column] or frame.empty]
    if "verdict" in shown:
        shown = list(dict.fromkeys([first, *(x for x in LEADING if x in shown), *shown]))
    notes = list(table.notes)
    if len(shown) < len(frame.columns):
        notes.append("Columns without any value are left out here.")
    rows = [[str(cell) for cell in row] for row in cells[shown].to_numpy()]
    return ShownTable(name, shown, rows, [_are_numbers(values[column]) for column in shown], notes)


def _are_numbers(values: Sequence[Any]) -> bool:
    numbers = pd.to_numeric(pd.Series(values, dtype=object), errors="coerce")
    return bool(values) and bool(numbers.notna().all())


@style.style()
def _errors(
    number: int,
    titles: Mapping[str, str],
    family: str = "cifar",
    test: str = "test error",
    *,
    one_kind: bool = False,
) -> Figure:
    """Draw the paper's Fig. 1, 4 or 6 from the points read off it; the page has the caption.

    ``titles``: of its panels; ``one_kind``: a panel has one kind of error (Fig. 1), which is then
    bold.
    """
    figure, row = style.subplots(1, len(titles))
    table = paper.figure(number)
    for axes, (place, title) in zip(row, titles.items(), strict=True):
        panel = table[table["panel"] == f"{number} {place}"]
        for net, curve in dict.fromkeys(zip(panel["net"], panel["curve"], strict=True)):
            points = with_gaps(paper.curve(number, net, curve, panel=place))
            kind = style.TRAIN if curve == "train" and not one_kind else style.TEST
            colour = style.depth_colour(_depth(net))
            axes.plot(points.index.to_numpy() / 1e4, points.to_numpy(), color=colour, **kind)
        axes.set_title(title)
        axes.set_ylim(*ERRORS[family])
        if panel["iteration_1e4"].min() < panel["iteration_1e4"].max() / 2:
            axes.set_xlim(left=0)  # where the error comes from above the axes too
        axes.set_xlabel("iteration (1e4)")
    row[0].set_ylabel("error (%)")
    handles, labels = legend({_depth(net) for net in table["net"]}, 1, test)
    shown = slice(-2 if one_kind else None)  # without the two styles of lines
    return style.underneath(figure, [], (handles[shown], labels[shown]), columns=4)


@style.style()
def _responses() -> Figure:
    nets = list(dict.fromkeys(paper.figure(7)["net"]))
    figure, panels = fig7.panels(max(map(_depth, nets)))
    for axes, ordered in zip(panels, (False, True), strict=True):
        for net in nets:
            fig7.draw_paper(axes, net, ordered, pale=False)
        axes.set_ylim(bottom=0)
    return style.underneath(figure, [], panels[0], columns=4)


def _depth(net: str) -> int:
    return int(net.split(" ")[0].split("-")[1])


# The figures that the paper has, too.
PAPERS: Mapping[str, Callable[[], Figure]] = {
    "fig1": partial(_errors, 1, {"left": "training error", "right": "test error"}, one_kind=True),
    "fig4": partial(
        _errors,
        4,
        {place: f"ImageNet: {title}" for place, (title, _) in fig4.PANELS.items()},
        "imagenet",
        "validation error, centre crop",
    ),
    "fig6": partial(_errors, 6, {place: title for place, (title, _) in fig6.PANELS.items()}),
    "fig7": _responses,
}
