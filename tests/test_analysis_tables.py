"""Table 6 and the table of variants: numbers, verdicts, and the three formats of any table."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from fabricate import fabricate
from resnet_repro.analysis.load import Run, load_runs
from resnet_repro.analysis.tables import write_table
from resnet_repro.items import ITEMS
from resnet_repro.items.deviations import deviations_figure, deviations_table, variants
from resnet_repro.items.table6 import NETS, table6


def runs_of(root: Path, profile: str = "paper") -> list[Run]:
    for seed, error in enumerate((8.5, 8.7, 8.9)):
        fabricate(root, "ResNet-20", profile=profile, seed=seed, test=error, train=0.8)
    fabricate(root, "plain-20", profile=profile, test=9.6)
    for seed, error in enumerate((8.9, 9.0, 9.1)):
        fabricate(root, "ResNet-56", profile=profile, seed=seed, test=error)
    return load_runs(root)


def test_rows_numbers_and_verdicts(tmp_path):
    table = table6(runs_of(tmp_path)).set_index("net")
    assert list(table.index[-len(NETS) :]) == list(NETS)
    ours = table.loc["ResNet-20"]
    assert (ours["seeds"], ours["profile"], ours["paper"]) == (3, "paper", "8.75")
    assert ours["test error"] == pytest.approx(8.7)
    assert ours["sd"] == pytest.approx(0.2)
    assert ours["low"] == pytest.approx(8.7 - 4.302653 * 0.2 / 3**0.5, abs=1e-5)
    assert ours["best seed"] == pytest.approx(8.5)
    assert ours["best on test"] <= ours["test error"]
    assert ours["clean training error"] == pytest.approx(0.72)
    assert ours["public runs"] == "8.41 (8.04-9.18, 10)"
    assert ours["verdict"].startswith("reproduced (-0.05 points, 95 % interval ")
    assert table.loc["ResNet-56", "verdict"].startswith("differs (+2.03 points")
    assert table.loc["plain-20", "verdict"].startswith("reproduced (-0.10 points")
    assert table.loc["ResNet-32", "verdict"] == "no runs"
    short = table6(runs_of(tmp_path / "short", "quick")).set_index("net")
    assert short.loc["ResNet-20", "verdict"] == "not comparable: quick profile"


def test_where_the_paper_values_come_from():
    table = table6([]).set_index("net")
    assert table.loc["plain-20", "paper"] == "9.7 (read off Fig. 6)"
    assert table.loc["plain-110", "paper"] == "> 60 (caption of Fig. 6)"
    assert table.loc["ResNet-110", "paper"] == "6.43 (6.61 +- 0.16)"
    quoted = table[table["verdict"] == "quoted, not run"]
    layers = ("FitNet, 19 layers", "Highway, 19 layers", "Highway, 32 layers")
    assert list(quoted.index) == ["Maxout", "NIN", "DSN", *layers]
    assert quoted["paper"].str.endswith(", quoted").all()
    assert quoted["test error"].isna().all()


def test_three_formats(tmp_path):
    paths = ITEMS["table6"].draw(runs_of(tmp_path / "runs"), tmp_path)
    assert [path.name for path in paths] == ["table6.md", "table6.tex", "table6.csv"]
    markdown, latex, _ = (path.read_text() for path in paths)
    header = markdown.splitlines()[0]
    assert header.startswith("| net")
    assert "read off Fig. 6" in markdown
    assert "nan" not in markdown.lower()
    assert "- Quoted:" in markdown
    assert "bf16" in markdown
    assert "bf16" in latex
    assert r"\begin{tabular}" in latex
    assert r"95 \% interval" in latex
    assert r"6.61 $\pm$ 0.16" in latex
    back = pd.read_csv(paths[2]).set_index("net")
    assert back.loc["ResNet-20", "test error"] == pytest.approx(8.7)
    assert back.loc["ResNet-20", "seeds"] == 3


def test_any_table_can_be_written(tmp_path):
    table = pd.DataFrame({"net": ["a_b & c", "d"], "error": [1.234, None]})
    markdown, latex, numbers = write_table(table, "any", tmp_path)
    assert "| 1.23" in markdown.read_text()
    assert r"a\_b \& c & 1.23" in latex.read_text()
    assert numbers.read_text() == "net,error\na_b & c,1.234\nd,\n"


def variant(root: Path, suffix: str, key: str, value: Any, test: float, seed: int) -> None:
    name = f"cifar10_resnet56_{suffix}"
    changes = {"experiment": name, "name": name, key: value}
    fabricate(root, "ResNet-56", seed=seed, test=test, changes=changes)


@pytest.fixture
def changed(tmp_path):
    for seed in range(3):
        fabricate(tmp_path, "ResNet-56", seed=seed, test=7.0 + 0.1 * seed)
        variant(tmp_path, "45k", "data.train_split", "45k", 7.6 + 0.1 * seed, seed)
        variant(tmp_path, "nesterov", "recipe.nesterov", True, 7.0 + 0.1 * seed, seed)
        fabricate(tmp_path, "plain-20", seed=seed)  # no variant of it
    return load_runs(tmp_path)


def test_each_variant_is_held_against_the_net_its_name_begins_with(changed):
    nesterov, fewer = variants(changed)
    assert (nesterov.change, fewer.change) == ("Nesterov momentum", "45,000 training images")
    assert fewer.test.value == pytest.approx(0.6)
    assert fewer.test.low > 0  # sd 0.1 over three seeds on both sides
    assert nesterov.test.low < 0 < nesterov.test.high
    assert fewer.test.basis == "noise of our seeds and public runs"


def test_table_has_the_baseline_first_and_no_difference_for_it(changed):
    table = deviations_table(changed)
    assert set(table["net"]) == {"ResNet-56"}
    assert table["change"].tolist() == [
        "as the paper",
        "Nesterov momentum",
        "45,000 training images",
    ]
    assert table["test diff"].isna().tolist() == [True, False, False]
    assert table["test error"].tolist() == pytest.approx([7.1, 7.1, 7.7])


def test_figure_names_change_and_seeds_and_draws_the_intervals(changed):
    (axes,) = deviations_figure(changed).axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == [
        "ResNet-56: 45,000 training images (3 seeds)",
        "ResNet-56: Nesterov momentum (3 seeds)",
    ]
    assert len(axes.containers) == 2


def test_nothing_to_compare_is_said(tmp_path):
    variant(tmp_path, "45k", "data.train_split", "45k", 7.6, 0)
    figure = deviations_figure(load_runs(tmp_path))
    assert "No variant with a logged baseline." in figure.texts[0].get_text()


def test_files(changed, tmp_path):
    paths = ITEMS["deviations"].draw(changed, tmp_path / "figures")
    assert {path.name for path in paths} == {
        f"deviations.{ending}" for ending in ("png", "svg", "md", "tex", "csv")
    }
