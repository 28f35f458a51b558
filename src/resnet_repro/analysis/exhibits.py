"""What the report shows: every figure and table that analysis can draw, ready to be put in a page.

Nothing is listed twice. An exhibit is an item of ``conf/item`` (its runs, its title) drawn by the
function ``save_<item>(runs, out_dir)`` of any module of :mod:`resnet_repro.analysis`, or, if there
is none and it has variants, as a comparison of these with their baselines. A function without an
item is shown too, and so is ``save_<name>(out_dir)``, which needs no runs.
What cannot be drawn says why in its place.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import yaml

import resnet_repro.analysis as analysis
from resnet_repro.analysis.captions import run_sentences
from resnet_repro.analysis.load import Run
from resnet_repro.analysis.page_parts import Picture, Table, as_svg, picture, read_table
from resnet_repro.analysis.paper_figures import FIGURES, paper_figure
from resnet_repro.analysis.protocol import why_not_comparable

CONF = Path(__file__).resolve().parents[3] / "conf"
# The claims an exhibit bears on, by number (docs/FIDELITY.md).
BEARS_ON = {
    "fig1": ("C2",),
    "fig4": ("C7",),
    "fig6": ("C1", "C2", "C3", "C4", "C5"),
    "fig7": ("C6",),
    "gradients": ("C10",),
    "table2": ("C7",),
    "table3": ("C8", "C9"),
    "table4": ("C9",),
    "table6": ("C3", "C4", "C5"),
}
IN_PLACE = ("claims",)  # the page has a part of its own for them
Save = Callable[..., list[Path]]


@dataclass(frozen=True)
class Item:
    """An item of ``conf/item``: what it is and the experiments it is made of."""

    name: str
    title: str
    experiments: tuple[str, ...]


@dataclass(frozen=True)
class Exhibit:
    """A figure or table, drawn.

    Attributes:
        theirs: the paper's own figure, where its curves are known.
        caption: data, profile, seeds, hardware of the runs.
        apart: why ours must not be held against theirs point by point; empty where it may.
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


def load_items(conf: Path = CONF) -> dict[str, Item]:
    """Read ``conf/item``, in the order figures, tables, the rest.

    Raises:
        ValueError: an item that lists no experiments.
    """
    texts = {p.stem: p.read_text(encoding="utf-8") for p in (conf / "item").glob("*.yaml")}
    loaded = {name: yaml.safe_load(text) for name, text in texts.items()}

    def experiments(name: str) -> tuple[str, ...]:
        content = loaded[name] or {}
        for base in content.get("defaults", []):
            if isinstance(base, str) and base in loaded:
                return experiments(base)
        try:
            listed = content["hydra"]["sweeper"]["params"]["experiment"]
        except KeyError:
            raise ValueError(f"{conf / 'item' / name}.yaml lists no experiments") from None
        return tuple(word.strip() for word in listed.split(","))

    items = {}
    for name in sorted(texts, key=order):
        comment = re.search(r"^# (?!@package)(.*)$", texts[name], flags=re.M)
        title = comment[1].split("  make ")[0].strip().rstrip(".") if comment else name
        items[name] = Item(name, title, experiments(name))
    return items


def order(name: str) -> tuple[int, str]:
    """Key that sorts figures, then tables, then the rest."""
    kinds = ("fig", "gradients", "table")
    return next((n for n, kind in enumerate(kinds) if name.startswith(kind)), len(kinds)), name


def variants_of(experiments: Iterable[str]) -> set[str]:
    """Experiments with exactly one choice changed: another one's name and a word more."""
    known = set(experiments)
    return {name for name in known if name.rpartition("_")[0] in known}


def without_variants(runs: Sequence[Run], conf: Path = CONF) -> list[Run]:
    """The runs of the nets themselves; a variant has a net's name and must not be averaged in."""
    known = {path.stem for path in (conf / "experiment").glob("*.yaml")}
    variants = variants_of(known | {run.experiment for run in runs})
    return [run for run in runs if run.experiment not in variants]


def find_saves() -> tuple[dict[str, Save], dict[str, Save]]:
    """Functions that draw: those of runs by name, and those that need none."""
    of_runs: dict[str, Save] = {}
    of_nets: dict[str, Save] = {}
    for module in sorted(found.name for found in pkgutil.iter_modules(analysis.__path__)):
        loaded = importlib.import_module(f"{analysis.__name__}.{module}")
        for name, function in inspect.getmembers(loaded, inspect.isfunction):
            if not name.startswith("save_") or function.__module__ != loaded.__name__:
                continue
            needed = [
                parameter.name
                for parameter in inspect.signature(function).parameters.values()
                if parameter.default is parameter.empty
            ]
            if needed == ["runs", "out_dir"]:
                of_runs[name.removeprefix("save_")] = function
            elif needed == ["out_dir"]:
                of_nets[name.removeprefix("save_")] = function
    return of_runs, of_nets


def drawer_of(name: str, experiments: Sequence[str], saves: Mapping[str, Save]) -> str:
    """The function that draws an item: its own, else the comparison of variants."""
    return name if name in saves or not variants_of(experiments) else "deviations"


def run_exhibits(
    runs: Sequence[Run], items: dict[str, Item], saves: dict[str, Save], hide: Sequence[str] = ()
) -> list[Exhibit]:
    """Draw everything that these runs, of one profile, have something to say about.

    Args:
        runs: finished runs.
        items: what is shown under the items' names.
        saves: functions that draw, by name.
        hide: places on this machine that messages must not name.
    """
    variants = variants_of(name for item in items.values() for name in item.experiments)
    everything = {name: item.experiments for name, item in items.items()}
    plain = tuple(run.experiment for run in without_variants(runs))
    everything |= {name: plain for name in saves if name not in items and "claims" not in name}
    exhibits = []
    for name in sorted(everything, key=order):
        wanted = everything[name]
        drawer = drawer_of(name, wanted, saves)
        used = [run for run in runs if run.experiment in wanted]
        there = {run.experiment for run in used}
        compares = variants.intersection(wanted)
        if name in IN_PLACE or drawer not in saves or not there & (compares or there):
            continue
        exhibit = Exhibit(
            name,
            items[name].title if name in items else title_of(name, saves[name]),
            BEARS_ON.get(name, ()),
            missing=tuple(experiment for experiment in wanted if experiment not in there),
        )
        more = {} if drawer == name else {"stem": name}
        exhibits.append(_draw(exhibit, partial(saves[drawer], used, **more), used, hide))
    return exhibits


def net_exhibits(saves: dict[str, Save], hide: Sequence[str] = ()) -> list[Exhibit]:
    """Draw what needs no runs."""
    return [
        _draw(Exhibit(name, title_of(name, saves[name]), ()), saves[name], [], hide)
        for name in sorted(saves, key=order)
    ]


def title_of(name: str, save: Save) -> str:
    """What the function that makes a figure or table (``fig2``, ``table1``) says of it."""
    made_by = getattr(sys.modules[save.__module__], name, save)
    line = (inspect.getdoc(made_by) or name).splitlines()[0]
    return line.rstrip(".")


def caption_of(runs: Sequence[Run]) -> str:
    """Data, schedule, seeds and hardware of runs, those of variants said once."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.experiment, []).append(run)
    try:
        sentences = run_sentences(runs)
    except ValueError:  # a net and its variants have one name and are not averaged
        sentences = [said for group in groups.values() for said in run_sentences(group)]
    return " ".join(dict.fromkeys(sentences))


def _draw(
    exhibit: Exhibit, save: Callable[[Path], list[Path]], runs: Sequence[Run], hide: Sequence[str]
) -> Exhibit:
    values = dict(vars(exhibit))
    with tempfile.TemporaryDirectory() as place:
        try:
            caption = caption_of(runs)
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
