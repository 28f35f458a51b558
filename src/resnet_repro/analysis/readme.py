"""The results section of the README, written from the run folders: no number in it is typed.

``python -m resnet_repro.analysis.readme`` rewrites what stands between the two markers.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from resnet_repro.analysis.captions import run_sentences
from resnet_repro.analysis.claims import check_all
from resnet_repro.analysis.curves import save_fig1
from resnet_repro.analysis.load import PROFILE_ORDER, Run, load_runs
from resnet_repro.analysis.paper import Paper
from resnet_repro.analysis.protocol import by_net, why_not_comparable
from resnet_repro.analysis.stats import clean_training_error, last_error, summarise

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
FIGURES = "docs/figures"
REPO = Path(__file__).resolve().parents[3]


def section(runs: Sequence[Run], figure: str | None) -> str:
    """The section in Markdown: figure, one table per profile, the claims that could be tested."""
    if not runs:
        return "No run is logged in this repository yet: `make quickstart` makes the first two.\n"
    lines = [f"![Figure 1 redrawn from the logged runs]({figure})", ""] if figure else []
    for profile in PROFILE_ORDER:
        group = [run for run in runs if run.profile == profile]
        if group:
            lines += [*_table(group), "", " ".join(run_sentences(group)), ""]
            tested = [result for result in check_all(group) if result.verdict != "no runs"]
            lines += [f"- **{r.id} {r.verdict}**: {r.sentence}" for r in tested]
            lines += [""] if tested else []
    return "\n".join(lines)


def _table(runs: Sequence[Run]) -> list[str]:
    book = Paper()
    comparable = not why_not_comparable(runs)
    head = ["net", "profile", "seeds", "test error (%)", "clean training error (%)"]
    rows = ["| " + " | ".join([*head, "paper"]) + " |", "|---" * (len(head) + 1) + "|"]
    for label, group in by_net(runs).items():
        test = summarise([last_error(run) for run in group])
        clean = [error for run in group if (error := clean_training_error(run)) is not None]
        spread = f" +- {test.sd:.2f}" if test.n > 1 else ""
        value = book.test_error(label)
        paper = f"{value.value:.2f}" if value is not None and comparable else "not comparable"
        cells = [label, group[0].profile, str(test.n), f"{test.mean:.2f}{spread}"]
        cells += [f"{sum(clean) / len(clean):.2f}" if clean else "-", paper]
        rows.append("| " + " | ".join(cells) + " |")
    return rows


def rewrite(text: str, content: str) -> str:
    """Put ``content`` between the markers of ``text``.

    Raises:
        ValueError: the markers are not there.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the markers {BEGIN} and {END} are not in the text")
    return f"{before}{BEGIN}\n{content.rstrip()}\n{END}{after}"


def current(repo: Path = REPO) -> str:
    """The README with its results section made anew from ``results/``."""
    runs = [r for r in load_runs(repo / "results" / "runs") if r.profile in ("paper", "short")]
    shown = f"{FIGURES}/fig1.png" if fig1_runs(runs) else None
    return rewrite((repo / "README.md").read_text(encoding="utf-8"), section(runs, shown))


def fig1_runs(runs: Sequence[Run]) -> list[Run]:
    """The runs of Figure 1 in the best profile that has both its nets; none where none has."""
    for profile in PROFILE_ORDER:
        found = [r for r in runs if r.profile == profile and r.label in ("plain-20", "plain-56")]
        if len({run.label for run in found}) == 2:
            return found
    return []


if __name__ == "__main__":
    logged = fig1_runs(load_runs(REPO / "results" / "runs"))
    if logged:
        save_fig1(logged, REPO / FIGURES)  # results/figures is what the user drew last
    (REPO / "README.md").write_text(current(), encoding="utf-8")
