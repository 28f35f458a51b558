"""Table 6 beside the paper's, with verdicts, in three formats."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from fabricate import fabricate
from resnet_repro.analysis.load import Run, load_runs
from resnet_repro.analysis.tables import write_table
from resnet_repro.items import ITEMS
from resnet_repro.items.table6 import NETS, table6


def runs_of(root: Path, profile: str = "paper") -> list[Run]:
    for seed, error in enumerate((8.5, 8.7, 8.9)):
        fabricate(root, "ResNet-20", profile=profile, seed=seed, test=error, train=0.8)
    fabricate(root, "plain-20", profile=profile, test=9.6)
    for seed, error in enumerate((8.9, 9.0, 9.1)):
        fabricate(root, "ResNet-56", profile=profile, seed=seed, test=error)
    return load_runs(root)


def test_rows_numbers_and_verdicts(tmp_path: Path) -> None:
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


def test_where_the_paper_values_come_from(tmp_path: Path) -> None:
    table = table6(runs_of(tmp_path)).set_index("net")
    assert table.loc["plain-20", "paper"] == "9.7 (read off Fig. 6)"
    assert table.loc["plain-110", "paper"] == "> 60 (caption of Fig. 6)"
    assert table.loc["ResNet-110", "paper"] == "6.43 (6.61 +- 0.16)"
    quoted = table[table["verdict"] == "quoted, not run"]
    assert list(quoted.index) == [
        "Maxout",
        "NIN",
        "DSN",
        "FitNet, 19 layers",
        "Highway, 19 layers",
        "Highway, 32 layers",
    ]
    assert quoted["paper"].str.endswith(", quoted").all()
    assert quoted["test error"].isna().all()


def test_a_short_profile_gets_no_verdict(tmp_path: Path) -> None:
    table = table6(runs_of(tmp_path, "quick")).set_index("net")
    assert table.loc["ResNet-20", "verdict"] == "not comparable: quick profile"


def test_three_formats(tmp_path: Path) -> None:
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
    again = ITEMS["table6"].draw(load_runs(tmp_path / "runs"), tmp_path / "again")
    assert [p.read_bytes() for p in paths] == [p.read_bytes() for p in again]


def test_any_table_can_be_written(tmp_path: Path) -> None:
    table = pd.DataFrame({"net": ["a_b & c", "d"], "error": [1.234, None]})
    markdown, latex, numbers = write_table(table, "any", tmp_path)
    assert "| 1.23" in markdown.read_text()
    assert r"a\_b \& c & 1.23" in latex.read_text()
    assert numbers.read_text() == "net,error\na_b & c,1.234\nd,\n"
