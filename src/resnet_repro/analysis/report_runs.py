"""What the report says of runs: which are there, how far they are, how they differ from the paper.

Everything that lies below the folder of runs is listed, whatever its state; a folder that cannot
be read says why.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from resnet_repro.analysis.load import Run, load_runs
from resnet_repro.analysis.tables import NOTHING
from resnet_repro.runs.folder import RunFolder, RunFolderError, find_runs


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
class Deviation:
    """A key in which runs differ from the paper's protocol."""

    key: str
    paper: str
    here: str
    runs: tuple[str, ...]


@dataclass(frozen=True)
class Logged:
    """What lies in the run folders of one profile.

    Attributes:
        runs: finished, of experiments under their own name: what figures are drawn from.
        folders: all.
        problems: runs that cannot be loaded, and why.
    """

    profile: str
    runs: list[Run]
    folders: list[RunFolder]
    problems: list[str]


def read_profiles(root: Path, profiles: Sequence[str]) -> list[Logged]:
    """Load the runs below ``root`` profile by profile; a profile without a folder is left out."""
    folders: dict[str, list[RunFolder]] = {}
    for folder in find_runs(root):
        folders.setdefault(folder.path.parts[-3], []).append(folder)
    found = []
    for profile in profiles:
        problems: list[str] = []
        runs = load_runs(root, profile=profile, skip=problems.append)
        problems = [without(problem, [str(root)]) for problem in problems]
        if profile in folders:
            found.append(Logged(profile, runs, folders[profile], problems))
    return found


def without(text: str, places: Iterable[str]) -> str:
    """A message without the folders of this machine."""
    for place in places:
        text = text.replace(place.rstrip("/") + "/", "")
    return text


def rows(logged: Logged, start: Path) -> list[Row]:
    """The runs of a profile as rows; links lead from the folder ``start``."""
    return [_row(folder, start) for folder in logged.folders]


def _last_error(folder: RunFolder) -> str:
    """The last single-view test error, as :func:`resnet_repro.analysis.stats.last_error`."""
    wanted = {"kind": "test", "protocol": "1-crop"}
    try:
        bn = folder.config().get("evaluation", {}).get("bn", "running")
        wanted["bn"] = bn
        errors = [
            record.get("top1_err")
            for record in folder.metrics()
            if all(record.get(key, value) == value for key, value in wanted.items())
        ]
    except (OSError, ValueError, AttributeError, RunFolderError):
        return NOTHING
    known = [error for error in errors if isinstance(error, int | float)]
    return f"{known[-1]:.2f}" if known else NOTHING


def _row(folder: RunFolder, start: Path) -> Row:
    name = "/".join(folder.path.parts[-2:])
    link = quote(Path(os.path.relpath(folder.path, start)).as_posix()) + "/"
    try:
        status, meta = folder.status(), folder.meta()
    except RunFolderError as error:
        said = without(str(error), [str(folder.path)])
        return Row(name, link, reason=said)
    git, net, machine = (_group(meta, key) for key in ("git", "net", "hardware"))
    revision = str(git.get("revision") or NOTHING)[:9]
    spent = meta.get("wall_time_s")
    return Row(
        name,
        link,
        str(net.get("label", NOTHING)),
        str(status.get("state", NOTHING)),
        f"{_count(status.get('iter'))} of {_count(status.get('max_iters'))}",
        _last_error(folder),
        f"{machine.get('label', NOTHING)}, {meta.get('precision', NOTHING)}",
        f"{spent / 60:.1f} min" if isinstance(spent, int | float) else NOTHING,
        revision + (", changed" if git.get("dirty") else ""),
        without(str(status.get("reason") or ""), [str(folder.path)]),
    )


def _group(meta: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = meta.get(key)
    return value if isinstance(value, Mapping) else {}


def _count(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else NOTHING


def deviations(runs: Sequence[Run]) -> list[Deviation]:
    """The keys in which runs differ from the paper's protocol, as their ``meta.json`` says."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for run in runs:
        for key, pair in sorted(_group(run.meta, "deviations").items()):
            paper, here = pair if isinstance(pair, list) and len(pair) == 2 else (None, pair)
            names = found.setdefault((key, _value(paper), _value(here)), [])
            if run.experiment not in names:
                names.append(run.experiment)
    return [Deviation(*what, tuple(names)) for what, names in sorted(found.items())]


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ", ".join(map(_value, value))
    return f"{value:,}" if isinstance(value, int) else str(value)
