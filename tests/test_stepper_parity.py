"""The checks of ``benchmarks.parity``: they pass where ways agree and fail where not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import parity, subject
from benchmarks.record import Scope
from resnet_repro.training import compiled, graph, stepper
from resnet_repro.training.assemble import RunContext
from resnet_repro.training.graph import GraphedStepper
from resnet_repro.training.state import TrainState
from resnet_repro.training.stepper import Stepper

TINY = (
    "data=synthetic", "profile=smoke", "model.depth=8", "recipe.batch_size=8", "trainer.threads=1",
)  # fmt: skip
STAND_IN = ("trainer.graph=auto", "trainer.compile=never")  # of a graph


@pytest.fixture(autouse=True)
def same_kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is compiled runs the same kernels as ever; few iterations are compared."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    monkeypatch.setattr(parity, "BITS", 6)
    monkeypatch.setitem(parity.TIMED, "cpu", 1)
    torch._dynamo.reset()
    compiled._compiled.cache_clear()
    yield
    torch._dynamo.reset()
    compiled._compiled.cache_clear()
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def with_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs that are no graphs: replaying does the work again."""
    plain = stepper.make

    def make(parts: RunContext, state: TrainState) -> Stepper:
        if parts.config.trainer.graph == "auto" and parts.config.trainer.compile == "never":
            return GraphedStepper(parts, state, {}, capture=lambda work: work, ahead=4)
        return plain(parts, state)

    monkeypatch.setattr(stepper, "make", make)
    monkeypatch.setattr(subject, "make", make)
    monkeypatch.setattr(parity, "GRAPH", STAND_IN)


def tiny(iterations: int = 3) -> subject.Subject:
    return subject.Subject.of("cifar10_resnet20", TINY, iterations)


def results(rows: list[dict[str, Any]]) -> list[tuple[str, str, bool]]:
    return [(row["check"], row["way"], row["passed"]) for row in rows]


def test_ways_that_agree_pass_and_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scope = Scope(experiments=("cifar10_resnet20",), rounds=1, iterations=3)
    monkeypatch.setattr(parity, "SCOPES", {"cpu": scope, "cuda": scope})
    words = ["parity", "--out", str(tmp_path), *TINY, "trainer.device=cpu"]
    monkeypatch.setattr("sys.argv", words)
    monkeypatch.setitem(parity.TIMES, "bf16", 1e9)  # three iterations have not gone apart yet
    assert parity.main() == 0
    (path,) = tmp_path.glob("parity_*.json")
    rows = json.loads(path.read_text())["rows"]
    by_check: dict[str, list[str]] = {}
    for row in rows:
        assert row["passed"], row
        by_check.setdefault(row["check"], []).append(row["way"])
    assert by_check == {
        "batches": ["ahead"],
        "losses": ["rounding", "compiled", "eager", "compiled"],
        "first loss": ["compiled", "eager", "compiled"],
        "rerun": ["eager", "compiled"],
        "compiling": ["compiled", "compiled"],
    }
    assert capsys.readouterr().out.count("ok  ") == len(rows)
    bf16 = [row for row in rows if row["check"] == "first loss" and row["precision"] == "bf16"]
    assert all(row["found"] > 0 for row in bf16)


def test_first_losses_that_were_measured_lie_well_within_their_bounds() -> None:
    """And bounds that would pass anything are none: a net that has learned nothing is at 2.3."""
    for depth, found in {20: 0.0023, 56: 0.0346, 110: 0.0078}.items():
        assert 1.2 * found < parity.first_bound("bf16", depth) < 0.1
        assert 8 * parity.first_bound("tf32", depth) > parity.first_bound("bf16", depth)
    assert parity.first_bound("fp32", 110) < 1e-4


def test_a_graph_that_launches_the_same_kernels_passes(with_graphs: None) -> None:
    assert results(list(parity.same_bits(tiny()))) == [
        ("same bits", "graph", True),
        ("same bits", "graph, stopped and resumed", True),
        ("same bits", "graph, run 1 of 2 at once", True),
        ("same bits", "graph, run 2 of 2 at once", True),
    ]
    assert results(list(parity.evaluation(tiny()))) == [
        ("evaluation", "graph, early", True),
        ("evaluation", "graph, later", True),
    ]


def test_a_graph_that_forgets_the_rate_fails(
    with_graphs: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one would that keeps the number it was captured with."""
    monkeypatch.setattr(graph, "set_rate", lambda optimizer, lr: None)
    assert {row["passed"] for row in parity.same_bits(tiny())} == {False}


def test_a_forward_pass_of_old_weights_fails(
    with_graphs: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one would that has the weights' casts from outside the graph."""

    def stale(self: graph._Forward) -> None:
        if not self.logits.numel():
            self.logits = self._net(self.images)

    monkeypatch.setattr(graph._Forward, "__call__", stale)
    assert False in {row["passed"] for row in parity.evaluation(tiny())}


def test_other_batches_and_other_losses_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "nudge", lambda *_: None)
    monkeypatch.setattr(parity, "nudge", lambda *_: None)  # nothing may be off at all
    found = {(row["way"], row["precision"]): row for row in parity.losses(tiny())}
    assert found["rounding", "fp32"]["found"] == 0
    assert not found["eager", "bf16"]["passed"]
    monkeypatch.setattr(
        graph.BatchesAhead, "at", lambda self, row: (self._images[0], self._labels[0])
    )
    assert parity.batches(tiny())["found"] == 3


def test_a_rerun_with_other_bits_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    made = subject.Subject.training
    count = 0

    def changing(self: subject.Subject, *words: str) -> Any:
        nonlocal count
        count += 1
        training = made(self, *words)
        if count == 2:
            subject.nudge(training, 0)
        return training

    monkeypatch.setattr(subject.Subject, "training", changing)
    assert [row["passed"] for row in parity.rerun(tiny(), 1)] == [False, True]


def test_what_cannot_be_had_neither_passes_nor_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "why_not", lambda *_, **__: "there is no compiler")
    rows = [*parity.compiling(tiny(), 1)]
    assert [row["passed"] for row in rows] == [None, None]
    assert rows[0]["why_not"] == "trainer.compile=always: there is no compiler"
