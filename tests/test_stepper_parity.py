"""The checks of ``benchmarks.parity``: they pass where ways agree and fail where not."""

import json
from functools import partial
from typing import Any

import pytest
import torch

from benchmarks import parity
from benchmarks.record import Scope
from resnet_repro.training import graph, stepper
from resnet_repro.training.build import RunContext
from resnet_repro.training.graph import GraphedStepper
from resnet_repro.training.state import TrainState
from resnet_repro.training.stepper import Stepper

TINY = (
    "data=synthetic", "profile=smoke", "model.depth=8", "recipe.batch_size=8", "trainer.threads=1",
)  # fmt: skip


@pytest.fixture(autouse=True)
def same_kernels(monkeypatch):
    """What is compiled runs the same kernels as ever; few iterations are compared."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    monkeypatch.setattr(parity, "BITS", 6)
    monkeypatch.setitem(parity.TIMED, "cpu", 1)
    torch._dynamo.reset()
    stepper._compiled.cache_clear()
    yield
    torch._dynamo.reset()
    stepper._compiled.cache_clear()
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def with_graphs(monkeypatch):
    """Graphs that are no graphs: replaying does the work again."""
    plain = stepper.make

    def make(parts: RunContext, state: TrainState) -> Stepper:
        if parts.config.trainer.graph == "auto" and parts.config.trainer.compile == "never":
            return GraphedStepper(parts, state, {}, capture=lambda work: work, ahead=4)
        return plain(parts, state)

    monkeypatch.setattr(stepper, "make", make)
    monkeypatch.setattr(parity, "GRAPH", ("trainer.graph=auto", "trainer.compile=never"))


def tiny() -> parity.Subject:
    return parity.Subject("cifar10_resnet20", TINY, 3)


def passed(rows: Any) -> list[bool]:
    return [row["passed"] for row in rows]


def test_ways_that_agree_pass_and_are_written(tmp_path, monkeypatch, capsys):
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


def test_first_losses_that_were_measured_lie_well_within_their_bounds():
    """And bounds that would pass anything are none: a net that has learned nothing is at 2.3."""
    for depth, found in {20: 0.0023, 56: 0.0346, 110: 0.0078}.items():
        assert 1.2 * found < parity.first_bound("bf16", depth) < 0.1
        assert 8 * parity.first_bound("tf32", depth) > parity.first_bound("bf16", depth)
    assert parity.first_bound("fp32", 110) < 1e-4


def test_a_graph_passes_unless_it_forgets_the_rate(with_graphs, monkeypatch):
    """As one would that keeps the number it was captured with."""
    assert passed(parity.same_bits(tiny())) == [True] * 4
    monkeypatch.setattr(graph, "set_rate", lambda optimizer, lr: None)
    assert set(passed(parity.same_bits(tiny()))) == {False}


def test_a_forward_pass_passes_unless_it_has_old_weights(with_graphs, monkeypatch):
    """As one would that has the weights' casts from outside the graph."""

    def stale(self: graph.GraphedEval) -> None:
        if not self._logits.numel():
            self._logits = self._net(self._images)

    assert passed(parity.evaluation(tiny())) == [True, True]
    monkeypatch.setattr(graph.GraphedEval, "_forward", stale)
    assert False in passed(parity.evaluation(tiny()))


def test_other_batches_and_other_losses_fail(monkeypatch):
    monkeypatch.setattr(parity, "nudge", lambda *_: None)  # nothing may be off at all
    found = {(row["way"], row["precision"]): row for row in parity.losses(tiny())}
    assert found["rounding", "fp32"]["found"] == 0
    assert not found["eager", "bf16"]["passed"]
    monkeypatch.setattr(
        graph.BatchesAhead, "at", lambda self, row: (self._images[0], self._labels[0])
    )
    assert parity.batches(tiny())["found"] == 3


def test_a_rerun_with_other_bits_fails(monkeypatch):
    made, trainings = parity.Subject.training, []

    def changing(self: parity.Subject, *words: str) -> Any:
        trainings.append(made(self, *words))
        if len(trainings) == 2:
            parity.nudge(trainings[-1], 0)
        return trainings[-1]

    monkeypatch.setattr(parity.Subject, "training", changing)
    assert passed(parity.rerun(tiny(), 1)) == [False, True]


def test_what_cannot_be_had_neither_passes_nor_fails(monkeypatch):
    monkeypatch.setattr(stepper, "why_not", lambda *_, **__: "there is no compiler")
    rows = [*parity.compiling(tiny(), 1)]
    assert passed(rows) == [None, None]
    assert rows[0]["why_not"] == "trainer.compile=always: there is no compiler"
