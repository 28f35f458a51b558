"""The results section of the README, written from the run folders: no number in it is typed.

``python -m resnet_repro.analysis.readme`` rewrites what stands between the two markers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from resnet_repro.analysis.captions import DATA_NAMES, run_sentences
from resnet_repro.analysis.claims import check_all
from resnet_repro.analysis.curves import save_fig1
from resnet_repro.analysis.exhibits import without_variants
from resnet_repro.analysis.imagenet_claims import check_imagenet
from resnet_repro.analysis.judge import NO_RUNS
from resnet_repro.analysis.load import PROFILE_ORDER, Run, load_runs
from resnet_repro.analysis.paper import Paper
from resnet_repro.analysis.protocol import by_net, why_not_comparable
from resnet_repro.analysis.stats import clean_training_error, last_error, summarise

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
FIGURES, RESULTS = "docs/figures", "docs/RESULTS.md"
REPO = Path(__file__).resolve().parents[3]


def section(runs: Sequence[Run], figure: str | None) -> str:
    """The section in Markdown: figure, table, what the runs are, verdicts of tested claims."""
    if not runs:
        return "No run is logged in this repository yet: `make quickstart` makes the first two.\n"
    lines = [f"![Figure 1 redrawn from the logged runs]({figure})", ""] if figure else []
    groups = list(_groups(runs))
    lines += _head("net", "profile", "seeds", "test error (%)", "clean training error (%)", "paper")
    for group in groups:
        lines += _rows(group)
    lines += ["", " ".join(said for group in groups for said in run_sentences(group)), ""]
    tested = [
        (int(result.id[1:]), _row(f"{result.id}: {result.title}", result.verdict, result.where))
        for group in groups
        for result in (*check_all(group), *check_imagenet(group))
        if result.verdict != NO_RUNS
    ]
    verdicts = [row for _, row in sorted(tested, key=lambda found: found[0])]
    if verdicts:
        lines += [*_head("the paper's claim", "verdict", "from"), *verdicts, ""]
    return "\n".join([*lines, f"Evidence, intervals and what it means: [{RESULTS}]({RESULTS})."])


def _groups(runs: Sequence[Run]) -> Iterator[list[Run]]:
    """Runs of one profile and one data set."""
    data_sets = sorted({str(run.config["data"]["name"]) for run in runs})
    for profile in PROFILE_ORDER:
        for data in data_sets:
            wanted = (profile, data)
            group = [r for r in runs if (r.profile, r.config["data"]["name"]) == wanted]
            if group:
                yield group


def _rows(runs: Sequence[Run]) -> list[str]:
    book = Paper()
    comparable = not why_not_comparable(runs)
    rows = []
    for label, group in by_net(runs).items():
        test = summarise([last_error(run) for run in group])
        clean = [error for run in group if (error := clean_training_error(run)) is not None]
        spread = f" +- {test.sd:.2f}" if test.n > 1 else ""
        value = book.test_error(label)
        paper = f"{value.value:.2f}" if value is not None and comparable else "not comparable"
        data = str(group[0].config["data"]["name"])
        name = label if data == "cifar10" else f"{label}, {DATA_NAMES.get(data, data)}"
        cells = [name, group[0].profile, str(test.n), f"{test.mean:.2f}{spread}"]
        rows.append(_row(*cells, f"{sum(clean) / len(clean):.2f}" if clean else "-", paper))
    return rows


def _head(*cells: str) -> list[str]:
    return [_row(*cells), "|---" * len(cells) + "|"]


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


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
    logged = without_variants(load_runs(repo / "results" / "runs"))
    runs = [run for run in logged if run.profile in ("paper", "short")]
    shown = f"{FIGURES}/fig1.png" if fig1_runs(runs) else None
    return rewrite((repo / "README.md").read_text(encoding="utf-8"), section(runs, shown))


def fig1_runs(runs: Sequence[Run]) -> list[Run]:
    """The runs of Figure 1 in the best profile that has both its nets; none where none has."""
    for profile in PROFILE_ORDER:
        found = [
            r
            for r in without_variants(runs)
            if r.profile == profile and r.label in ("plain-20", "plain-56")
        ]
        if len({run.label for run in found}) == 2:
            return found
    return []


if __name__ == "__main__":
    logged = fig1_runs(load_runs(REPO / "results" / "runs"))
    if logged:
        save_fig1(logged, REPO / FIGURES)  # results/figures is what the user drew last
    (REPO / "README.md").write_text(current(), encoding="utf-8")
