"""Table 6 from logged runs beside the paper's, and any table as Markdown, LaTeX and CSV."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from resnet_repro.analysis.captions import run_sentences
from resnet_repro.analysis.judge import ClaimResult, public_noise
from resnet_repro.analysis.load import Run
from resnet_repro.analysis.paper import Paper, PaperValue, PublicRuns
from resnet_repro.analysis.protocol import by_net, why_not_comparable
from resnet_repro.analysis.stats import (
    COMPATIBLE,
    DIFFERS,
    MARGIN,
    REPRODUCED,
    best_error,
    clean_training_error,
    last_error,
    mean_last_ten,
    summarise,
    verdict,
)
from resnet_repro.analysis.style import writing

DEPTHS = (20, 32, 44, 56, 110, 1202)
NETS = tuple(f"plain-{depth}" for depth in DEPTHS[:-1]) + tuple(f"ResNet-{d}" for d in DEPTHS)
NOTHING = "-"


def table6(runs: Sequence[Run], paper: Paper | None = None) -> pd.DataFrame:
    """Table 6: test error of the CIFAR-10 nets, ours beside the paper's; percent.

    One row per net; the rows the paper quotes come first and are marked. A net of the paper
    without runs keeps its row. The headline is the last evaluation; ``best on test`` is the mean
    over seeds of the lowest point of each curve, which was chosen on the test set. Nets that are
    not the paper's (Highway, other blocks) follow at the end.
    """
    book = paper or Paper()
    nets = by_net(runs)
    labels = [*NETS, *(label for label in nets if label not in NETS)]
    rows = [_quoted(row) for _, row in book.quoted().iterrows()]
    rows += [_row(label, nets.get(label, []), book) for label in labels]
    table = pd.DataFrame(rows, columns=list(rows[-1]))
    return table.astype({"seeds": "Int64"})


def table6_notes(runs: Sequence[Run]) -> list[str]:
    """Sentences to print under the table."""
    return [
        "Errors in percent on the 10,000 test images, single view; sd and 95 % t interval over "
        "seeds. The headline is the last evaluation.",
        f"Verdict: on the 95 % interval of ours minus the paper's value; {REPRODUCED}: within "
        f"{MARGIN} points; {DIFFERS}: excludes 0; {COMPATIBLE}: contains 0, but too wide to say.",
        "Best on test was chosen on the test set and flatters.",
        "A plain net's paper value is a reading of Fig. 6: the paper prints none.",
        "Quoted: reported by the paper from others' work, not run here.",
        *run_sentences(runs),
    ]


def save_table6(runs: Sequence[Run], out_dir: Path, paper: Paper | None = None) -> list[Path]:
    """Write Table 6 as ``table6.md``, ``table6.tex`` and ``table6.csv``."""
    return write_table(table6(runs, paper), "table6", out_dir, notes=table6_notes(runs))


def write_table(
    table: pd.DataFrame, stem: str, out_dir: Path, notes: Sequence[str] = ()
) -> list[Path]:
    """Write a table as Markdown, LaTeX and CSV; equal tables give equal bytes.

    Markdown and LaTeX show two decimals and ``-`` where there is nothing, leave out columns that
    hold nothing, and carry the notes; the CSV holds the numbers alone, in all columns.
    """
    out_dir = Path(out_dir)
    shown, markdown = _shown(table), to_markdown(table)
    latex = shown.map(_tex).rename(columns=_tex).to_latex(index=False, escape=False)
    texts = {
        ".md": "\n".join([markdown, "", *(f"- {note}" for note in notes)]).rstrip() + "\n",
        ".tex": latex + "".join(f"% {note}\n" for note in notes),
        ".csv": table.to_csv(index=False, float_format="%.6g", lineterminator="\n"),
    }
    paths = [out_dir / f"{stem}{ending}" for ending in texts]
    with writing(out_dir):
        out_dir.mkdir(parents=True, exist_ok=True)
        for path, text in zip(paths, texts.values(), strict=True):
            path.write_text(text, encoding="utf-8")
    return paths


def write_claims(
    results: Sequence[ClaimResult], stem: str, out_dir: Path, notes: Sequence[str]
) -> list[Path]:
    """Write claims with verdicts and evidence as :func:`write_table` does."""
    rows = [
        {"id": r.id, "claim": r.title, "verdict": r.verdict, "evidence": r.sentence}
        for r in results
    ]
    return write_table(pd.DataFrame(rows), stem, out_dir, notes)


def to_markdown(table: pd.DataFrame) -> str:
    """Return a table as Markdown: two decimals, ``-`` where there is nothing, no empty columns."""
    return str(_shown(table).to_markdown(index=False, disable_numparse=True))


def _shown(table: pd.DataFrame) -> pd.DataFrame:
    return table.loc[:, table.notna().any() | (len(table) == 0)].map(_cell)


def _row(label: str, runs: Sequence[Run], paper: Paper) -> dict[str, Any]:
    value, public = paper.test_error(label), paper.public(label)
    last = summarise([last_error(run) for run in runs]) if runs else None
    clean = [error for run in runs if (error := clean_training_error(run)) is not None]
    return {
        "net": label,
        "params (M)": runs[0].meta["net"]["params"] / 1e6 if runs else None,
        "profile": runs[0].profile if runs else None,
        "seeds": len(runs),
        "test error": last.mean if last else None,
        "sd": last.sd if last else None,
        "low": last.low if last else None,
        "high": last.high if last else None,
        "best seed": min(last_error(run) for run in runs) if runs else None,
        "best on test": _mean(best_error, runs),
        "mean of last ten": _mean(mean_last_ten, runs),
        "clean training error": summarise(clean).mean if clean else None,
        "paper": _paper_words(label, value),
        "public runs": _public_words(public),
        "verdict": _verdict(runs, value),
    }


def _quoted(row: pd.Series[Any]) -> dict[str, Any]:
    layers = "" if pd.isna(row["layers"]) else f", {int(row['layers'])} layers"
    value = f"{row['cifar10_test_err_pct']:.2f}"
    if not pd.isna(row["mean_err_pct_over_runs"]):
        value += f" ({row['mean_err_pct_over_runs']:.2f} +- {row['std_err_pct_over_runs']:.2f})"
    return {
        "net": row["method"].split(" [")[0] + layers,
        "params (M)": row["params_millions"],
        "paper": f"{value}, quoted",
        "verdict": "quoted, not run",
    }


def _mean(measure: Callable[[Run], float], runs: Sequence[Run]) -> float | None:
    return summarise([measure(run) for run in runs]).mean if runs else None


def _paper_words(label: str, value: PaperValue | None) -> str:
    if value is None:
        return "> 60 (caption of Fig. 6)" if label == "plain-110" else NOTHING
    if value.best is not None:
        return f"{value.best:.2f} ({value.value:.2f} +- {value.sd:.2f})"
    if value.is_read_off:
        return f"{value.value:g} ({value.source})"
    return f"{value.value:.2f}"


def _public_words(public: PublicRuns) -> str:
    if public.median is None:
        return "none" if public.runs == 0 else NOTHING
    runs = "" if public.runs is None else f", {public.runs}"
    return f"{public.median:g} ({public.low:g}-{public.high:g}{runs})"


def _verdict(runs: Sequence[Run], value: PaperValue | None) -> str:
    if not runs:
        return "no runs"
    if value is None:
        return "above 60 is claim C1" if runs[0].label == "plain-110" else "not in the paper"
    ours = [last_error(run) for run in runs]
    return verdict(ours, value, public_noise(runs), not_comparable=why_not_comparable(runs))


def _cell(value: Any) -> str:
    if pd.isna(value):
        return NOTHING
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def _tex(text: Any) -> str:
    escaped: str = re.sub(r"([&%$#_])", r"\\\1", str(text))
    return escaped.replace("+-", r"$\pm$").replace("> ", r"$>$ ")
