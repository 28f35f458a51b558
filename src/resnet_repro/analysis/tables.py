"""Any table as Markdown, LaTeX and CSV."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from resnet_repro.analysis.captions import run_sentences
from resnet_repro.analysis.judge import Claim, by_setting, check
from resnet_repro.analysis.logged_run import Run
from resnet_repro.paths import writing

NOTHING = "-"


class Table(NamedTuple):
    """A table and the sentences under it."""

    frame: pd.DataFrame
    notes: Sequence[str] = ()


def write_table(
    frame: pd.DataFrame, stem: str, out_dir: Path, notes: Sequence[str] = ()
) -> list[Path]:
    """Write a table as Markdown, LaTeX and CSV; equal tables give equal bytes.

    Markdown and LaTeX show two decimals and ``-`` where there is nothing, leave out columns that
    hold nothing, and carry the notes; the CSV holds the numbers alone, in all columns.
    """
    latex = as_shown(frame).map(_tex).rename(columns=_tex).to_latex(index=False, escape=False)
    texts = {
        ".md": "\n".join([to_markdown(frame), "", *(f"- {x}" for x in notes)]).rstrip() + "\n",
        ".tex": latex + "".join(f"% {note}\n" for note in notes),
        ".csv": frame.to_csv(index=False, float_format="%.6g", lineterminator="\n"),
    }
    paths = {Path(out_dir) / f"{stem}{ending}": text for ending, text in texts.items()}
    with writing(Path(out_dir)):
        Path(out_dir).mkdir(parents=True, exist_ok=True)
        for path, text in paths.items():
            path.write_text(text, encoding="utf-8")
    return list(paths)


def claims_table(claims: Sequence[Claim], runs: Sequence[Run]) -> Table:
    """Claims with verdicts and evidence, each tested on the first profile whose runs can."""
    rows = [(r.id, r.title, r.verdict, r.sentence) for r in check(claims, runs)]
    notes = [
        text for groups in by_setting(runs) for group in groups for text in run_sentences(group)
    ]
    return Table(pd.DataFrame(rows, columns=["id", "claim", "verdict", "evidence"]), notes)


def to_markdown(frame: pd.DataFrame) -> str:
    """Return a table as Markdown: two decimals, ``-`` where there is nothing, no empty columns."""
    return str(as_shown(frame).to_markdown(index=False, disable_numparse=True))


def with_sd(mean: Any, sd: Any = None) -> str:
    """Return ``9.11`` or, where there is a standard deviation, ``9.11 +- 0.20``."""
    if pd.isna(mean):
        return NOTHING
    return f"{mean:.2f}" if pd.isna(sd) else f"{mean:.2f} +- {sd:.2f}"


def as_shown(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the cells as texts, without columns that hold nothing."""
    return frame.loc[:, frame.notna().any() | (len(frame) == 0)].map(_cell)


def _cell(value: Any) -> str:
    if pd.isna(value):
        return NOTHING
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def _tex(text: Any) -> str:
    escaped: str = re.sub(r"([&%$#_])", r"\\\1", str(text))
    return escaped.replace("+-", r"$\pm$").replace("> ", r"$>$ ")
