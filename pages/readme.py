"""The README's results: pictures, nets, claims, and the committed example of a sweep."""

from collections.abc import Sequence

import pandas as pd

from pages.study import Study
from resnet_repro import compare
from resnet_repro.analysis import load, paper, stats
from resnet_repro.analysis.captions import data_of, run_sentences
from resnet_repro.analysis.judge import NO_RUNS
from resnet_repro.analysis.load import grouped
from resnet_repro.analysis.logged_run import Run
from resnet_repro.analysis.protocol import by_net, why_not_comparable
from resnet_repro.analysis.tables import NOTHING, to_markdown, with_sd
from resnet_repro.config import PROFILES
from resnet_repro.items import ITEMS
from resnet_repro.items.table6 import verdict_of


def readme_block(study: Study) -> str:
    """The README's results, by the paper's protocol or, without such a run, of the longest runs."""
    every = load.without_variants(study.finished)
    if not every:
        return "No run is logged in this repository yet: `make quickstart` makes the first two."
    profile = min((run.profile for run in every), key=PROFILES.index)
    groups = grouped((r for r in every if r.profile == profile), lambda run: run.data).values()
    parts = list[str]()
    if profile != "paper":
        parts.append(
            "**No run by the paper's protocol is finished yet. The runs below are much shorter: "
            "they show that the harness works and decide no claim of the paper.**"
        )
    parts += _readme_pictures(study, by_protocol=profile == "paper")
    parts.append(to_markdown(pd.DataFrame([row for group in groups for row in _net_rows(group)])))
    parts.append(" ".join(line for group in groups for line in run_sentences(group)))
    claims = [
        (f"{result.id}: {result.title}", result.verdict, result.where)
        for result in study.claims
        if result.verdict != NO_RUNS and result.profile == profile
    ]
    if claims:
        columns = ["the paper's claim", "verdict", "from"]
        parts.append(to_markdown(pd.DataFrame(claims, columns=columns)))
    parts.append(
        "Evidence, intervals, shorter runs and what it means: [docs/RESULTS.md](docs/RESULTS.md)."
    )
    return "\n\n".join(parts)


def _readme_pictures(study: Study, *, by_protocol: bool) -> list[str]:
    """Figs. 1 and 6 where they follow the paper's protocol, else its runs over the paper's."""
    drawn = {name: study.item(name) for name in ("fig1", "fig6")}
    names = [name for name, runs in drawn.items() if runs and runs[0].profile == "paper"]
    if not names and by_protocol:
        return ["![Our curves over the paper's](docs/figures/agreement.png)"]
    names = names or [name for name, runs in drawn.items() if runs][:1]
    return [f"![{ITEMS[name].title}](docs/figures/{name}.png)" for name in names]


def _net_rows(runs: Sequence[Run]) -> list[dict[str, str]]:
    reason, rows = why_not_comparable(runs), []
    for label, group in by_net(runs).items():
        test = stats.summarise([stats.last_error(run) for run in group])
        clean, value = stats.mean_of(stats.clean_training_error, group), paper.test_error(label)
        rows.append(
            {
                "net": label if group[0].data == "cifar10" else f"{label}, {data_of(group)}",
                "seeds": str(test.n),
                "test error (%)": with_sd(test.mean, test.sd),
                "clean training error (%)": with_sd(clean),
                "paper": f"{value.value:.2f}" if value and not reason else NOTHING,
                "verdict": f"not comparable: {reason}" if reason else verdict_of(group, value),
            }
        )
    return rows


def sweep_block(study: Study) -> str:
    """The committed example of a sweep: picture, what was run, table."""
    lines = []
    for runs in study.sweeps:
        keys = compare.swept_keys(runs)
        picture = f"docs/figures/{compare.sweep_name(keys)}.png"
        lines += [f"![Error against {' and '.join(keys)}]({picture})", ""]
        lines.append(" ".join(compare.sentences(runs, keys)))
    return "\n".join(lines) or "No sweep is logged in this repository yet."
