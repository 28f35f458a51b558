"""Variants against their baselines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fabricate import fabricate
from resnet_repro.analysis.load import Run, load_runs
from resnet_repro.items import ITEMS
from resnet_repro.items.deviations import (
    deviations_figure,
    deviations_table,
    variants,
)


def variant(root: Path, suffix: str, key: str, value: Any, test: float, seed: int) -> None:
    name = f"cifar10_resnet56_{suffix}"
    changes = {"experiment": name, "name": name, key: value}
    fabricate(root, "ResNet-56", seed=seed, test=test, changes=changes)


@pytest.fixture
def runs(tmp_path: Path) -> list[Run]:
    for seed in range(3):
        fabricate(tmp_path, "ResNet-56", seed=seed, test=7.0 + 0.1 * seed)
        variant(tmp_path, "45k", "data.train_split", "45k", 7.6 + 0.1 * seed, seed)
        variant(tmp_path, "nesterov", "recipe.nesterov", True, 7.0 + 0.1 * seed, seed)
        fabricate(tmp_path, "plain-20", seed=seed)  # no variant of it
    return load_runs(tmp_path)


def test_each_variant_is_held_against_the_net_its_name_begins_with(runs: list[Run]) -> None:
    nesterov, fewer = variants(runs)
    assert (nesterov.change, fewer.change) == ("Nesterov momentum", "45,000 training images")
    assert fewer.test.value == pytest.approx(0.6)
    assert fewer.test.low > 0  # sd 0.1 over three seeds on both sides
    assert nesterov.test.low < 0 < nesterov.test.high
    assert fewer.test.basis == "noise of our seeds and public runs"


def test_table_has_the_baseline_first_and_no_difference_for_it(runs: list[Run]) -> None:
    table = deviations_table(runs)
    assert set(table["net"]) == {"ResNet-56"}
    assert table["change"].tolist() == [
        "as the paper",
        "Nesterov momentum",
        "45,000 training images",
    ]
    assert table["test diff"].isna().tolist() == [True, False, False]
    assert table["test error"].tolist() == pytest.approx([7.1, 7.1, 7.7])


def test_figure_names_change_and_seeds_and_draws_the_intervals(runs: list[Run]) -> None:
    (axes,) = deviations_figure(runs).axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == [
        "ResNet-56: 45,000 training images (3 seeds)",
        "ResNet-56: Nesterov momentum (3 seeds)",
    ]
    assert len(axes.containers) == 2


def test_nothing_to_compare_is_said(tmp_path: Path) -> None:
    variant(tmp_path, "45k", "data.train_split", "45k", 7.6, 0)
    figure = deviations_figure(load_runs(tmp_path))
    assert "No variant with a logged baseline." in figure.texts[0].get_text()


def test_files(runs: list[Run], tmp_path: Path) -> None:
    paths = ITEMS["deviations"].draw(runs, tmp_path / "figures")
    assert {path.name for path in paths} == {
        f"deviations.{ending}" for ending in ("png", "svg", "md", "tex", "csv")
    }
