"""The parts of a replayed step: batches prepared ahead, what may be captured, evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from resnet_repro.data.order import BatchOrder
from resnet_repro.data.resident import ResidentImages
from resnet_repro.training import graph
from resnet_repro.training.graph import (
    BatchesAhead,
    GraphedEval,
    GraphedStepper,
    Replayed,
    capture_on_cuda,
)
from test_stepper import AHEAD, Tape, parts_of
from test_training import small_job


@pytest.mark.parametrize("count", [1, AHEAD, 64])
def test_batches_prepared_ahead_are_those_of_the_order(tmp_path: Path, count: int) -> None:
    """Over three epochs of 200 images, with batches of 16 that straddle them."""
    parts, _ = parts_of(small_job(tmp_path))
    assert isinstance(parts.images, ResidentImages)
    ahead = BatchesAhead(parts.images, count)
    for iteration in [*range(40), 3, 39]:
        ahead.prepare(iteration)
        images, labels = ahead.at(torch.tensor([iteration % count]))
        expected = parts.batch(iteration)
        assert torch.equal(images, expected[0])
        assert torch.equal(labels, expected[1])
        assert images.is_contiguous(memory_format=torch.channels_last)


def test_many_batches_of_the_order_are_the_single_ones() -> None:
    order = BatchOrder(num_images=50, batch_size=16, seed=3)
    together = order.batches(2, 7)
    for name in ("indices", "dy", "dx", "flip"):
        single = [getattr(order.batch(i), name) for i in range(2, 9)]
        assert np.array_equal(getattr(together, name), np.concatenate(single))


def test_work_is_done_as_usual_then_captured_once_then_replayed() -> None:
    done: list[int] = []
    tape = Tape()
    replayed = Replayed(lambda: done.append(1), tape, eager_calls=2)
    counts: list[Any] = []
    for _ in range(4):
        replayed()
        counts.append((len(done), tape.captures, tape.replays))
    assert counts == [(1, 0, 0), (2, 0, 0), (3, 1, 1), (4, 1, 2)]


def test_forward_pass_is_replayed_for_one_shape_and_follows_the_weights(tmp_path: Path) -> None:
    parts, state = parts_of(small_job(tmp_path))
    state.model.eval()
    tape, shapes = Tape(), [16, 16, 16, 9, 16, 20]
    forward = GraphedEval(state.model, parts.setup, tape)
    with torch.no_grad():
        for count in shapes:
            images = torch.randn(count, 3, 32, 32).contiguous(memory_format=torch.channels_last)
            assert torch.equal(forward(images), state.model(images))
            state.model.head.fc.weight.mul_(1.5)
    assert (tape.captures, tape.replays) == (1, 3)


def test_capture_records_on_the_current_stream_and_gives_the_replay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[Any] = []

    class Graph:
        def replay(self) -> None:
            said.append("replayed")

    @contextmanager
    def recording(graph: Graph, **how: str) -> Iterator[None]:
        said.append((type(graph), how))
        yield
        said.append("recorded")

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", recording)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: "mine")
    replay = capture_on_cuda(lambda: said.append("launched"))
    how = {"stream": "mine", "capture_error_mode": "thread_local"}  # beside pinning threads
    assert said == [(Graph, how), "launched", "recorded"]
    replay()
    assert said[3:] == ["replayed"]


def test_casts_are_not_kept_across_a_capture(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In bf16 a cast weight must be neither taken into the graph nor left behind by it."""
    parts, state = parts_of(small_job(tmp_path, "trainer.precision=bf16"))
    state.model.eval()
    enabled: list[bool] = []

    def net(images: Tensor) -> Tensor:
        enabled.append(torch.is_autocast_cache_enabled())
        scores: Tensor = state.model(images)
        return scores

    forward = GraphedEval(net, parts.setup, Tape())
    images = torch.randn(4, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    with torch.no_grad(), parts.setup.autocast():
        for count in (4, 4, 3):
            assert torch.equal(forward(images[:count]), state.model(images[:count]))
            with torch.no_grad():
                state.model.head.fc.weight.mul_(1.5)
            torch.clear_autocast_cache()
    assert enabled == [False, False, True]


READS_BACK = {
    torch.ops.aten._local_scalar_dense.default,
    torch.ops.aten.item.default,
    torch.ops.aten.is_nonzero.default,
    torch.ops.aten.nonzero.default,
    torch.ops.aten.masked_select.default,
    torch.ops.aten.equal.default,
    torch.ops.aten.bincount.default,
}


class Launched(TorchDispatchMode):
    """Notes what is computed, and on what shapes; reading anything back is an error."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Any] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        assert function not in READS_BACK, f"{function} would wait for the device"
        shapes = [value.shape for value in args if isinstance(value, Tensor)]
        self.calls.append((function, shapes))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_step_launches_the_same_every_time_and_reads_nothing_back(
    tmp_path: Path, precision: str
) -> None:
    """What a capture demands: nothing depends on the host, and nothing goes to it."""
    parts, state = parts_of(small_job(tmp_path, f"trainer.precision={precision}"))
    stepper = GraphedStepper(parts, state, {}, capture=Tape(), ahead=AHEAD)
    stepper.step(0.1)  # makes the momentum
    launched = []
    for _ in range(2):
        stepper._batches.prepare(state.iteration)
        with Launched() as noted:
            stepper._update()
        state.iteration += 1
        launched.append(noted.calls)
    assert launched[0] == launched[1]
    aten, functions = torch.ops.aten, {function for function, _ in launched[0]}
    assert {aten.convolution_backward.default, aten._fused_sgd_.tensor_lr} <= functions
    with Launched(), pytest.raises(AssertionError, match="would wait for the device"):
        float(state.window.sums[0, 0])


def test_batches_ahead_take_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts, _ = parts_of(small_job(tmp_path))
    assert isinstance(parts.images, ResidentImages)
    assert BatchesAhead(parts.images).count == 64
    monkeypatch.setattr(graph, "AHEAD_BYTES", 3 * 16 * 3 * 32 * 32 * 4 + 1)
    assert BatchesAhead(parts.images).count == 3
    monkeypatch.setattr(graph, "AHEAD_BYTES", 1)
    assert BatchesAhead(parts.images).count == 1
