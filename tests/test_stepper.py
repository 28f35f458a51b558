"""The replayed step is the eager step, bit for bit; a stand-in takes the place of CUDA graphs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ranks import StopAt, do, fingerprint, small_job
from resnet_repro.data import synthetic
from resnet_repro.data.resident import ResidentImages
from resnet_repro.training import DivergedError, graph
from resnet_repro.training import run as run_module
from resnet_repro.training.build import RunContext, assemble
from resnet_repro.training.device import Setup, set_up
from resnet_repro.training.graph import (
    EAGER_CALLS,
    BatchesAhead,
    GraphedEval,
    GraphedStepper,
    Replayed,
    capture_on_cuda,
)
from resnet_repro.training.launch import Job
from resnet_repro.training.state import TrainState
from resnet_repro.training.stepper import EagerStepper, make

pytestmark = pytest.mark.usefixtures("few_images")
AHEAD = 5  # divides neither the iterations nor the log points
BATCHES = "evaluation.batch_size=30"  # two of the test images; of the clean ones 30 and 20


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
def tape(monkeypatch):
    """From here on, runs are replayed."""
    tape = Tape()

    def graphed(parts: RunContext, state: TrainState) -> GraphedStepper:
        return GraphedStepper(parts, state, {"step": "graph"}, capture=tape, ahead=AHEAD)

    monkeypatch.setattr(run_module, "make", graphed)
    return tape


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An eager run that nothing disturbed."""
    job = small_job(tmp_path_factory.mktemp("eager"), BATCHES)
    assert do(job) == "finished"
    return job.folder


def test_replayed_run_is_the_eager_run(whole, tmp_path, tape):
    """Rate drops, logs, evaluations, checkpoints and gradient probes fall within it."""
    job = small_job(tmp_path, BATCHES)
    assert do(job) == "finished"
    assert fingerprint(job.folder) == fingerprint(whole)
    assert job.folder.meta()["engine"] == {"step": "graph"}
    # The step; and evaluation, thrice two batches, and the clean images: the first runs eagerly.
    assert tape.captures == 2
    assert tape.replays == (12 - EAGER_CALLS) + (3 * 2 + 1 - 1)


@pytest.mark.parametrize("stop_at", [EAGER_CALLS, EAGER_CALLS + 1, 7])
def test_stopped_replayed_or_eager_and_resumed_gives_the_same_bits(
    whole, tmp_path, tape, stop_at, monkeypatch
):
    """A checkpoint of either is one of the other."""
    job = small_job(tmp_path, BATCHES)
    assert do(job, StopAt(stop_at)) == "preempted"
    assert job.folder.status()["iter"] == stop_at
    with monkeypatch.context() as eager:
        eager.setattr(run_module, "make", make)
        assert do(job, StopAt(2)) == "preempted"
    assert do(job) == "finished"
    assert fingerprint(job.folder) == fingerprint(whole)


SHORT = ("recipe.max_iters=6", "recipe.milestones=[4]", "evaluation.every_iters=3")


@pytest.mark.parametrize(
    "words",
    [
        ("trainer.precision=bf16",),
        ("recipe.nesterov=true", "recipe.decay_bn=false", "model.bn_group=8"),
        ("recipe.momentum=0", "recipe.weight_decay=0", "model.shortcut=C", "data.pad=zero"),
        ("evaluation.batch_size=25", "recipe.warmup=error80"),  # the last batch is smaller
    ],
)
def test_every_kind_of_step_is_the_eager_one(tmp_path, tape, monkeypatch, words):
    replayed, eager = (small_job(tmp_path / name, *SHORT, *words) for name in "ab")
    assert do(replayed) == "finished"
    assert tape.captures == 2
    monkeypatch.setattr(run_module, "make", make)
    assert do(eager) == "finished"
    assert fingerprint(replayed.folder) == fingerprint(eager.folder)


def test_divergence_is_named_as_without_graphs(tmp_path, tape, monkeypatch):
    said = []
    for name in ("replayed", "eager"):
        with pytest.raises(DivergedError) as caught:
            do(small_job(tmp_path / name, "recipe.lr=1e30"))
        said.append(str(caught.value))
        monkeypatch.setattr(run_module, "make", make)
    assert said[0] == said[1]


def parts_of(job: Job) -> tuple[RunContext, TrainState]:
    return assemble(job.config, set_up(job.config.trainer), synthetic.make((200, 70)))


def test_gradients_may_be_read_between_replays(tmp_path):
    """They lie where they lay, and are those of the last update."""
    job = small_job(tmp_path)
    (parts, state), (other_parts, other) = parts_of(job), parts_of(job)
    graphed = GraphedStepper(parts, state, {}, capture=Tape(), ahead=AHEAD)
    eager = make(other_parts, other)
    for _ in range(EAGER_CALLS + 3):
        graphed.step(0.1)
        eager.step(0.1)
        for a, b in zip(state.model.parameters(), other.model.parameters(), strict=True):
            assert a.grad is not None
            assert b.grad is not None
            assert torch.equal(a.grad, b.grad)
    assert state.iteration == other.iteration == EAGER_CALLS + 3


def in_double(optimizer: torch.optim.SGD) -> None:
    """Stands in for the SGD kernel of CUDA: it multiplies by the rate in double."""
    for group in optimizer.param_groups:
        for p in group["params"]:
            assert p.grad is not None
            kept = optimizer.state[p]
            kept["momentum_buffer"] = 0.9 * kept.get("momentum_buffer", 0) + p.grad
            p.data.copy_(p.data.double() - float(group["lr"]) * kept["momentum_buffer"].double())


def weights_after(job: Job, *, graph: bool) -> list[Tensor]:
    parts, state = parts_of(job)
    eager = EagerStepper(parts, state, {})
    made = GraphedStepper(parts, state, {}, capture=Tape()) if graph else eager
    for lr in (0.1, 0.1, 0.1, 0.1, 0.01, 0.01):
        made.step(lr)
    assert [group["lr"] for group in state.optimizer.param_groups] == [pytest.approx(0.01)] * 2
    return [p.detach().clone() for p in state.model.parameters()]


def test_one_rate_for_eager_and_replayed_steps(tmp_path, monkeypatch):
    """A graph holds it as float32; CUDA computes in double, where 0.1 is another number."""
    monkeypatch.setattr(torch.optim.SGD, "step", in_double)
    job = small_job(tmp_path)
    replayed, eager = weights_after(job, graph=True), weights_after(job, graph=False)
    assert not all(map(torch.equal, replayed, eager))  # with the rates of a CPU
    cuda, rate = Setup(torch.device("cuda", 0), "fp32", 1, None), Setup.rate
    monkeypatch.setattr(Setup, "rate", lambda _, lr: rate(cuda, lr))
    assert all(map(torch.equal, replayed, weights_after(job, graph=False)))


@pytest.mark.parametrize("count", [1, AHEAD, 64])
def test_batches_prepared_ahead_are_those_of_the_order(tmp_path, count):
    """Over three epochs of 200 images, with batches of 16 that straddle them."""
    parts, _ = parts_of(small_job(tmp_path))
    assert isinstance(parts.images, ResidentImages)
    ahead = BatchesAhead(parts.images, count)
    for iteration in [*range(40), 3, 39]:
        ahead.prepare(iteration)
        images, labels = ahead.at(torch.tensor([iteration % count]))
        expected = parts.images.batch(iteration)
        assert torch.equal(images, expected[0])
        assert torch.equal(labels, expected[1])
        assert images.is_contiguous(memory_format=torch.channels_last)


def test_batches_ahead_take_little_memory(tmp_path, monkeypatch):
    parts, _ = parts_of(small_job(tmp_path))
    assert isinstance(parts.images, ResidentImages)
    for room, count in ((2**28, 64), (3 * 16 * 3 * 32 * 32 * 4 + 1, 3), (1, 1)):
        monkeypatch.setattr(graph, "AHEAD_BYTES", room)
        assert BatchesAhead(parts.images).count == count


def test_work_is_done_as_usual_then_captured_once_then_replayed():
    done: list[int] = []
    tape = Tape()
    replayed = Replayed(lambda: done.append(1), tape, eager_calls=2)
    counts: list[Any] = []
    for _ in range(4):
        replayed()
        counts.append((len(done), tape.captures, tape.replays))
    assert counts == [(1, 0, 0), (2, 0, 0), (3, 1, 1), (4, 1, 2)]


def test_capture_records_on_the_current_stream_and_gives_the_replay(monkeypatch):
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


def test_a_forward_pass_is_replayed_for_one_shape_and_follows_the_weights(tmp_path):
    """In bf16, where a cast weight must be neither taken into the graph nor left behind by it."""
    parts, state = parts_of(small_job(tmp_path, "trainer.precision=bf16"))
    state.model.eval()
    cached: list[bool] = []

    def net(images: Tensor) -> Tensor:
        cached.append(torch.is_autocast_cache_enabled())
        scores: Tensor = state.model(images)
        return scores

    tape = Tape()
    forward = GraphedEval(net, parts.setup, tape)
    images = torch.randn(20, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    with torch.no_grad(), parts.setup.autocast():
        for count in (16, 16, 16, 9, 16, 20):
            assert torch.equal(forward(images[:count]), state.model(images[:count]))
            state.model.head.fc.weight.mul_(1.5)
            torch.clear_autocast_cache()
    assert (tape.captures, tape.replays) == (1, 3)
    assert cached == [False, False, False, True, False, True]


READS_BACK = {
    getattr(torch.ops.aten, name).default
    for name in ("_local_scalar_dense", "item", "is_nonzero", "nonzero", "masked_select", "equal",
                 "bincount")
}  # fmt: skip


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
def test_a_step_launches_the_same_every_time_and_reads_nothing_back(tmp_path, precision):
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
