"""The README's results section comes from the run folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from fabricate import fabricate
from resnet_repro.analysis.load import load_runs
from resnet_repro.analysis.readme import REPO, current, rewrite, section


def test_the_committed_readme_says_what_the_committed_runs_say() -> None:
    assert (REPO / "README.md").read_text(encoding="utf-8") == current(), (
        "python -m resnet_repro.analysis.readme"
    )


def test_section_has_numbers_of_the_runs_and_no_paper_value_for_another_schedule(
    tmp_path: Path,
) -> None:
    for seed in range(2):
        fabricate(tmp_path, "plain-20", profile="quick", seed=seed, test=50.0 + seed)
        fabricate(tmp_path, "ResNet-20", seed=seed, test=8.7)
    text = section(load_runs(tmp_path), "fig.png")
    assert "| ResNet-20 | paper | 2 | 8.70 +- 0.00 |" in text
    assert "| 8.75 |" in text
    assert "| plain-20 | quick | 2 | 50.50 +- 0.71 |" in text
    assert "not comparable" in text
    assert text.startswith("![Figure 1")


def test_nothing_logged_is_said() -> None:
    assert section([], None).startswith("No run is logged")


def test_only_what_is_between_the_markers_changes() -> None:
    text = "a\n<!-- results: begin -->\nold\n<!-- results: end -->\nb\n"
    assert rewrite(text, "new\n") == text.replace("old", "new")
    with pytest.raises(ValueError, match="markers"):
        rewrite("no markers", "new")
