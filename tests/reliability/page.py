"""``docs/RELIABILITY.md``: what was done to runs and what came of it, counted from the records.

``python -m reliability.page`` rewrites what stands between the two markers of the
document from ``results/reliability/``.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resnet_repro.paths import REPOSITORY as REPO

BEGIN, END = "<!-- counts: begin -->", "<!-- counts: end -->"
DOCUMENT, RECORDS = Path("docs/RELIABILITY.md"), Path("results/reliability")
Trial = Mapping[str, Any]


@dataclass(frozen=True)
class Part:
    """The record of one part of the programme (``reliability.record``)."""

    name: str
    sessions: list[dict[str, Any]]
    trials: list[Trial]

    def total(self, key: str) -> int:
        """Sum of a count over the trials; a list counts its items."""
        values = [trial.get(key) or 0 for trial in self.trials]
        return sum(len(value) if isinstance(value, list) else int(value) for value in values)

    def good(self) -> int:
        """Trials that came out as they should."""
        return sum(bool(trial["ok"]) for trial in self.trials)

    def longest(self, key: str) -> float:
        """The largest of some seconds; 0 where none was measured."""
        return max((float(trial.get(key) or 0) for trial in self.trials), default=0.0)


def load_parts(folder: Path) -> dict[str, Part]:
    """Read the records of ``results/reliability``; what was not done is not there."""
    parts = {}
    for path in sorted(folder.glob("*.json")):
        loaded = json.loads(path.read_text(encoding="utf-8"))
        parts[path.stem] = Part(path.stem, loaded["sessions"], loaded["trials"])
    return parts


def section(parts: Mapping[str, Part]) -> str:
    """The counts in Markdown: a summary, one row for each part, kills by phase, where it was."""
    if not parts:
        return "Nothing was measured yet: `make reliability`.\n"
    table = ["| what was done | how often | what came of it |", "|---|---:|---|"]
    rows = [sentence(parts[name]) for name, sentence in SENTENCES.items() if name in parts]
    table += [f"| {what} | {count:,} | {found} |" for what, count, found in rows]
    return "\n".join([*summary(parts), "", *table, "", *by_phase(parts), *where(parts)]) + "\n"


def summary(parts: Mapping[str, Part]) -> list[str]:
    """The figures to look at first."""
    everything = [trial for part in parts.values() for trial in part.trials]
    changed = sum(trial.get("identical") is False for trial in everything)
    silent = sum(part.total("silent") for part in parts.values()) + changed
    orphans = sum(part.total("orphans") for part in parts.values())
    slowest = max((part.longest("to_exit_s") for part in parts.values()), default=0.0)
    failed = sum(not trial["ok"] for trial in everything)
    return [
        f"- Silent corruptions: **{silent}**. Trials that did not come out as they should: "
        f"**{failed}** of {len(everything):,}.",
        f"- Processes left behind: **{orphans}**. Longest time from a fault or signal to the end "
        f"of the last process: **{slowest:.1f} s**.",
    ]


Row = tuple[str, int, str]


def _kills(part: Part) -> Row:
    real = sum(len(t.get("phases", [])) for t in part.trials if t.get("variant") == "command")
    same = sum(len(t.get("phases", [])) for t in part.trials if t["ok"])
    what = f"SIGKILL at a random moment, one to three in a run ({real} to the real command)"
    return what, part.total("phases"), f"{same} survived: {part.good()} runs with identical bits"


def _crashes(part: Part) -> Row:
    return "death at a named place of the code, first and later time", len(part.trials), _same(part)


def _syscalls(part: Part) -> Row:
    what = "SIGKILL at the n-th rename, fsync, unlink, ftruncate or open"
    same = sum(bool(trial["ok"] and trial.get("hit")) for trial in part.trials)
    return what, part.total("hit"), f"{same} with identical bits afterwards"


def _checkpoints(part: Part) -> Row:
    kept = part.total("set_aside") + part.total("refused")
    found = f"{part.total('silent')} loaded silently; {kept} set aside or refused, by name"
    return "a checkpoint damaged, missing its digest, or another run's", part.total("files"), found


def _workers(part: Part) -> Row:
    sizes = ", ".join(str(size) for size in sorted({t.get("workers", 2) for t in part.trials}))
    what = f"{sizes} workers: a rank, launcher or command killed, hung or told to stop"
    return what, len(part.trials), f"{_same(part)}; {part.total('orphans')} processes left"


def _stops(part: Part) -> Row:
    lost = max((t.get("more_iterations", 0) for t in part.trials), default=0)
    what = "SIGTERM, SIGINT, SIGUSR1 to process or group, in each phase; twice"
    found = f"{_same(part)}; saved after {lost} more iteration at most, "
    return what, len(part.trials), found + f"ended within {part.longest('to_exit_s'):.1f} s"


def _rivals(part: Part) -> Row:
    found = f"{part.good()} times one proceeded and the other named it"
    return "two commands on one run folder at the same moment", len(part.trials), found


def _inputs(part: Part) -> Row:
    found = f"{part.good()} refused in one line with the right exit code, nothing written"
    return "words that cannot be meant, said to the real command", len(part.trials), found


def _disk(part: Part) -> Row:
    full = part.total("full")
    what = f"a disk of limited size (it filled up {full} times), then room made"
    return what, len(part.trials), f"{_same(part)}; the file and what is free named each time"


def _leaks(part: Part) -> Row:
    slopes = [t["memory_slope_mib"] for t in part.trials if "memory_slope_mib" in t]
    files = max((t.get("generations", 0) for t in part.trials), default=0)
    found = f"{part.total('orphans')} processes left, {part.total('more_open_files')} more open "
    found += f"files, {files} checkpoints at most"
    found += f", memory {max(slopes):+.3f} MiB a cycle" if slopes else ""
    return "one run killed or stopped again and again", part.total("cycles"), found


def _defects(part: Part) -> Row:
    planted = sum("caught" in trial for trial in part.trials)
    return "a defect planted in the source", planted, f"{part.total('caught')} fail a test"


def _same(part: Part) -> str:
    return f"{part.good()} with identical bits afterwards"


SENTENCES: dict[str, Callable[[Part], Row]] = {
    "kills": _kills,
    "crashes": _crashes,
    "syscalls": _syscalls,
    "stops": _stops,
    "workers": _workers,
    "checkpoints": _checkpoints,
    "disk": _disk,
    "rivals": _rivals,
    "leaks": _leaks,
    "inputs": _inputs,
    "defects": _defects,
}


def by_phase(parts: Mapping[str, Part]) -> list[str]:
    """What the random kills interrupted."""
    if "kills" not in parts:
        return []
    hit = Counter(phase for trial in parts["kills"].trials for phase in trial.get("phases", []))
    told = ", ".join(f"{count} in {phase}" for phase, count in hit.most_common())
    return [f"The random kills by what they interrupted: {told}.", ""]


def where(parts: Mapping[str, Part]) -> list[str]:
    """On what code and machine, and when."""
    sessions = [session for part in parts.values() for session in part.sessions]
    dates = sorted(date[:10] for s in sessions for date in (s["first"], s["last"]))
    labels = _each(s["hardware"]["label"] for s in sessions)
    torch = _each(s["versions"]["torch"] for s in sessions)
    python = _each(s["versions"]["python"] for s in sessions)
    code = _each(
        str(s["git"]["revision"])[:12] + (" with changes" if s["git"]["dirty"] else "")
        for s in sessions
    )
    days = dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"
    return [f"Measured on {labels}; torch {torch}, Python {python}; {days}; revision {code}."]


def _each(values: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(values))


def current(repo: Path = REPO) -> str:
    """The document with its counts made anew from the records."""
    text = (repo / DOCUMENT).read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{DOCUMENT}: the markers {BEGIN} and {END} are not in it")
    return f"{before}{BEGIN}\n{section(load_parts(repo / RECORDS))}{END}{after}"


if __name__ == "__main__":
    (REPO / DOCUMENT).write_text(current(), encoding="utf-8")
