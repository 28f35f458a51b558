"""``docs/RELIABILITY.md``: what was done to runs and what came of it, counted from the records.

``python -m reliability.page`` rewrites what stands between the two markers of the
document from ``results/reliability/``.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from reliability.record import Record
from resnet_repro.paths import REPOSITORY as REPO

BEGIN, END = "<!-- counts: begin -->", "<!-- counts: end -->"
DOCUMENT, RECORDS = Path("docs/RELIABILITY.md"), Path("results/reliability")
Parts = Mapping[str, Record]


def load_parts(folder: Path) -> dict[str, Record]:
    return {path.stem: Record.at(path) for path in sorted(folder.glob("*.json"))}


def section(parts: Parts) -> str:
    """The counts in Markdown: a summary, one row for each part, kills by phase, where it was."""
    if not parts:
        return "Nothing was measured yet: `make reliability`.\n"
    table = ["| what was done | how often | what came of it |", "|---|---:|---|"]
    for name, sentence in SENTENCES.items():
        if name in parts:
            table.append(f"| {' | '.join(sentence)} |".format_map(Counts(parts[name])))
    return "\n".join([*summary(parts), "", *table, "", *by_phase(parts), where(parts)]) + "\n"


def summary(parts: Parts) -> list[str]:
    everything = [trial for part in parts.values() for trial in part.trials]
    changed = sum(trial.get("identical") is False for trial in everything)
    silent = sum(part.total("silent") for part in parts.values()) + changed
    orphans = sum(part.total("orphans") for part in parts.values())
    slowest = max(part.most("to_exit_s") for part in parts.values())
    failed = sum(not trial["ok"] for trial in everything)
    return [
        f"- Silent corruptions: **{silent}**. Trials that did not come out as they should: "
        f"**{failed}** of {len(everything):,}.",
        f"- Processes left behind: **{orphans}**. Longest time from a fault or signal to the end "
        f"of the last process: **{slowest:.1f} s**.",
    ]


# Part -> what was done, how often, what came of it; names in braces are of :class:`Counts`.
SAME = "{ok} with identical bits afterwards"
SENTENCES = {
    "kills": (
        "SIGKILL at a random moment, one to three in a run ({real} to the real command)",
        "{phases:,}",
        "{survived} survived: {ok} runs with identical bits",
    ),
    "crashes": ("death at a named place of the code, first and later time", "{trials:,}", SAME),
    "syscalls": (
        "SIGKILL at the n-th rename, fsync, unlink, ftruncate or open",
        "{hit:,}",
        "{hit_ok} with identical bits afterwards",
    ),
    "stops": (
        "SIGTERM, SIGINT, SIGUSR1 to process or group, in each phase; twice",
        "{trials:,}",
        f"{SAME}; saved after {{lost:.0f}} more iteration at most, ended within {{slowest:.1f}} s",
    ),
    "workers": (
        "{sizes} workers: a rank or command killed, hung or told to stop",
        "{trials:,}",
        f"{SAME}; {{orphans}} processes left",
    ),
    "checkpoints": (
        "a checkpoint damaged, missing its digest, or another run's",
        "{files:,}",
        "{silent} loaded silently; {kept} set aside or refused, by name",
    ),
    "disk": (
        "a disk of limited size (it filled up {full} times), then room made",
        "{trials:,}",
        f"{SAME}; the file and what is free named each time",
    ),
    "rivals": (
        "two commands on one run folder at the same moment",
        "{trials:,}",
        "{ok} times one proceeded and the other named it",
    ),
    "leaks": (
        "one run killed or stopped again and again",
        "{cycles:,}",
        "{orphans} processes left, {more_open_files} more open files, "
        "{generations:.0f} checkpoints at most{memory}",
    ),
    "defects": ("a defect planted in the source", "{planted:,}", "{caught} fail a test"),
}


class Counts(dict[str, Any]):
    """What the sentences name: by default a total over the trials of a part."""

    def __init__(self, part: Record):
        self._part, trials = part, part.trials
        phases = [(trial, len(trial.get("phases", []))) for trial in trials]
        slopes = [t["memory_slope_mib"] for t in trials if "memory_slope_mib" in t]
        super().__init__(
            trials=len(trials),
            real=sum(count for trial, count in phases if trial.get("variant") == "command"),
            survived=sum(count for trial, count in phases if trial["ok"]),
            hit_ok=sum(bool(trial["ok"] and trial.get("hit")) for trial in trials),
            lost=part.most("more_iterations"),
            slowest=part.most("to_exit_s"),
            sizes=", ".join(map(str, sorted({trial.get("workers", 2) for trial in trials}))),
            kept=part.total("set_aside") + part.total("refused"),
            generations=part.most("generations"),
            memory=f", memory {max(slopes):+.3f} MiB a cycle" if slopes else "",
            planted=sum("caught" in trial for trial in trials),
        )

    def __missing__(self, key: str) -> int:
        return self._part.total(key)


def by_phase(parts: Parts) -> list[str]:
    if "kills" not in parts:
        return []
    hit = Counter(phase for trial in parts["kills"].trials for phase in trial.get("phases", []))
    listed = ", ".join(f"{count} in {phase}" for phase, count in hit.most_common())
    return [f"The random kills by what they interrupted: {listed}.", ""]


def where(parts: Parts) -> str:
    sessions = [session for part in parts.values() for session in part.sessions]
    dates = sorted({date[:10] for s in sessions for date in (s["first"], s["last"])})
    labels = _each(s["hardware"]["label"] for s in sessions)
    torch = _each(s["versions"]["torch"] for s in sessions)
    python = _each(s["versions"]["python"] for s in sessions)
    code = _each(
        str(s["git"]["revision"])[:12] + (" with changes" if s["git"]["dirty"] else "")
        for s in sessions
    )
    days = " to ".join(dict.fromkeys((dates[0], dates[-1])))
    return f"Measured on {labels}; torch {torch}, Python {python}; {days}; revision {code}."


def _each(values: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(values))


def current() -> str:
    """The document with its counts rewritten from the records; ValueError: it has no markers."""
    before, _, rest = (REPO / DOCUMENT).read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"{DOCUMENT}: the markers {BEGIN} and {END} are not in it")
    return f"{before}{BEGIN}\n{section(load_parts(REPO / RECORDS))}{END}{after}"


if __name__ == "__main__":
    (REPO / DOCUMENT).write_text(current(), encoding="utf-8")
