"""The replayed step is the eager step, bit for bit; a stand-in takes the place of CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from resnet_repro.data import synthetic
from resnet_repro.data.images import ResidentImages
from resnet_repro.data.order import BatchOrder
from resnet_repro.runs.folder import RunFolder
from resnet_repro.training import run as run_module
from resnet_repro.training import stepper as stepper_module
from resnet_repro.training.assemble import assemble
from resnet_repro.training.device import set_up
from resnet_repro.training.errors import DivergedError
from resnet_repro.training.graph import (
    USUAL_CALLS,
    Replayed,
    ReplayedForward,
    capture_on_cuda,
)
from resnet_repro.training.launch import Job
from resnet_repro.training.parts import Parts
from resnet_repro.training.state import TrainState
from resnet_repro.training.stepper import BatchesAhead, GraphedStepper, make
from test_training import WARM, StopAt, do, fingerprint, small_job

AHEAD = 5  # divides neither the iterations nor the log points


class Tape:
    """Stands in for CUDA graphs: a capture computes nothing, a replay does the work again."""

    def __init__(self) -> None:
        self.captures = self.replays = 0

    def __call__(self, work: Callable[[], None]) -> Callable[[], None]:
        self.captures += 1

        def replay() -> None:
            self.replays += 1
            work()

        return replay


@pytest.fixture
def tape(monkeypatch: pytest.MonkeyPatch) -> Tape:
    """From here on, runs are replayed."""
    tape = Tape()

    def graphed(parts: Parts, state: TrainState) -> GraphedStepper:
        return GraphedStepper(parts, state, {"step": "graph"}, capture=tape, ahead=AHEAD)

    monkeypatch.setattr(run_module, "make", graphed)
    return tape


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """An eager run that nothing disturbed."""
    job = small_job(tmp_path_factory.mktemp("eager"))
    assert do(job) == "finished"
    return job.folder


def test_replayed_run_is_the_eager_run(whole: RunFolder, tmp_path: Path, tape: Tape) -> None:
    """Rate drops, logs, evaluations, checkpoints and gradient probes fall within it."""
    job = small_job(tmp_path)
    assert do(job) == "finished"
    assert fingerprint(job.folder) == fingerprint(whole)
    assert whole.meta()["engine"] == {"step": "eager", "blocks": "eager", "remarks": []}
    assert job.folder.meta()["engine"] == {"step": "graph"}
    # The step; and evaluation, thrice two batches, the first as usual.
    assert tape.captures == 2
    assert tape.replays == (12 - USUAL_CALLS) + (3 * 2 - 1)


@pytest.mark.parametrize("stop_at", [1, USUAL_CALLS, USUAL_CALLS + 1, AHEAD, 7, 11])
def test_stopped_and_resumed_gives_the_same_bits(
    whole: RunFolder, tmp_path: Path, tape: Tape, stop_at: int
) -> None:
    job = small_job(tmp_path)
    assert do(job, StopAt(stop_at)) == "preempted"
    assert job.folder.status()["iter"] == stop_at
    assert do(job) == "finished"
    assert fingerprint(job.folder) == fingerprint(whole)


def test_begun_replayed_and_finished_eagerly_gives_the_same_bits(
    whole: RunFolder, tmp_path: Path, tape: Tape, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a checkpoint of either is one of the other."""
    job = small_job(tmp_path)
    assert do(job, StopAt(5)) == "preempted"
    monkeypatch.setattr(run_module, "make", make)
    assert do(job, StopAt(3)) == "preempted"
    assert do(job) == "finished"
    assert fingerprint(job.folder) == fingerprint(whole)


def test_warm_up_ends_at_the_same_iteration(
    tmp_path: Path, tape: Tape, monkeypatch: pytest.MonkeyPatch
) -> None:
    replayed = small_job(tmp_path / "replayed", *WARM)
    assert do(replayed) == "finished"
    assert tape.replays > 100
    eager = small_job(tmp_path / "eager", *WARM)
    monkeypatch.setattr(run_module, "make", make)
    assert do(eager) == "finished"
    assert fingerprint(replayed.folder) == fingerprint(eager.folder)
    assert fingerprint(eager.folder)["warmup_exit"] is not None


@pytest.mark.parametrize(
    "words",
    [
        ("trainer.precision=bf16",),
        ("recipe.nesterov=true", "recipe.decay_bn=false"),
        ("recipe.momentum=0", "recipe.weight_decay=0"),
        ("model.bn_group=8",),
        ("model.shortcut=C", "data.pad=zero"),
        ("evaluation.batch_size=64",),  # the last batch is smaller
    ],
)
def test_every_kind_of_step_is_the_eager_one(
    tmp_path: Path, tape: Tape, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    short = ("recipe.max_iters=6", "recipe.milestones=[4]", *words)
    replayed, eager = small_job(tmp_path / "a", *short), small_job(tmp_path / "b", *short)
    assert do(replayed) == "finished"
    assert tape.captures == 2
    monkeypatch.setattr(run_module, "make", make)
    assert do(eager) == "finished"
    assert fingerprint(replayed.folder) == fingerprint(eager.folder)


def test_divergence_is_named_as_without_graphs(
    tmp_path: Path, tape: Tape, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = small_job(tmp_path, "recipe.lr=1e30")
    with pytest.raises(DivergedError) as replayed:
        do(job)
    monkeypatch.setattr(run_module, "make", make)
    with pytest.raises(DivergedError) as eager:
        do(small_job(tmp_path / "eager", "recipe.lr=1e30"))
    assert str(replayed.value) == str(eager.value)


def parts_of(job: Job) -> tuple[Parts, TrainState]:
    config = job.config
    return assemble(config, set_up(config.trainer), synthetic.make(200, 70))


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


def test_gradients_may_be_read_between_replays(tmp_path: Path) -> None:
    """They lie where they lay, and are those of the last update."""
    job = small_job(tmp_path)
    (parts, state), (other_parts, other) = parts_of(job), parts_of(job)
    graphed = GraphedStepper(parts, state, {}, capture=Tape(), ahead=AHEAD)
    eager = make(other_parts, other)
    for _ in range(USUAL_CALLS + 3):
        graphed.step(0.1)
        eager.step(0.1)
        for a, b in zip(state.model.parameters(), other.model.parameters(), strict=True):
            assert a.grad is not None
            assert b.grad is not None
            assert torch.equal(a.grad, b.grad)
    assert state.iteration == other.iteration == USUAL_CALLS + 3


def test_rate_is_written_only_when_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts, state = parts_of(small_job(tmp_path))
    graphed = GraphedStepper(parts, state, {}, capture=Tape(), ahead=AHEAD)
    written: list[float] = []
    fill = torch.Tensor.fill_
    monkeypatch.setattr(
        torch.Tensor, "fill_", lambda self, value: written.append(value) or fill(self, value)
    )
    for lr in (0.1, 0.1, 0.1, 0.1, 0.01, 0.01):
        graphed.step(lr)
    assert written == [0.1, 0.01]
    assert [group["lr"] for group in state.optimizer.param_groups] == [0.01, 0.01]


def test_work_is_done_as_usual_then_captured_once_then_replayed() -> None:
    done: list[int] = []
    tape = Tape()
    replayed = Replayed(lambda: done.append(1), tape, usual_calls=2)
    counts: list[Any] = []
    for _ in range(4):
        replayed()
        counts.append((len(done), tape.captures, tape.replays))
    assert counts == [(1, 0, 0), (2, 0, 0), (3, 1, 1), (4, 1, 2)]


def test_forward_pass_is_replayed_for_one_shape_and_follows_the_weights(tmp_path: Path) -> None:
    parts, state = parts_of(small_job(tmp_path))
    state.model.eval()
    tape, shapes = Tape(), [16, 16, 16, 9, 16, 20]
    forward = ReplayedForward(state.model, parts.setup, tape)
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
    def recording(graph: Graph, stream: str) -> Iterator[None]:
        said.append((type(graph), stream))
        yield
        said.append("recorded")

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", recording)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: "mine")
    replay = capture_on_cuda(lambda: said.append("launched"))
    assert said == [(Graph, "mine"), "launched", "recorded"]
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

    forward = ReplayedForward(net, parts.setup, Tape())
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
            stepper._launch()
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
    monkeypatch.setattr(stepper_module, "AHEAD_BYTES", 3 * 16 * 3 * 32 * 32 * 4 + 1)
    assert BatchesAhead(parts.images).count == 3
    monkeypatch.setattr(stepper_module, "AHEAD_BYTES", 1)
    assert BatchesAhead(parts.images).count == 1
