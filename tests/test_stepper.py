"""The replayed step is the eager step, bit for bit; a stand-in takes the place of CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from resnet_repro.data import synthetic
from resnet_repro.runs.folder import RunFolder
from resnet_repro.training import DivergedError
from resnet_repro.training import run as run_module
from resnet_repro.training.assemble import RunContext, assemble
from resnet_repro.training.device import Setup, set_up
from resnet_repro.training.graph import EAGER_CALLS, GraphedStepper
from resnet_repro.training.launch import Job
from resnet_repro.training.state import TrainState
from resnet_repro.training.stepper import EagerStepper, make
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

    def graphed(parts: RunContext, state: TrainState) -> GraphedStepper:
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
    assert tape.replays == (12 - EAGER_CALLS) + (3 * 2 - 1)


@pytest.mark.parametrize("stop_at", [1, EAGER_CALLS, EAGER_CALLS + 1, AHEAD, 7, 11])
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


def parts_of(job: Job) -> tuple[RunContext, TrainState]:
    config = job.config
    return assemble(config, set_up(config.trainer), synthetic.make(200, 70))


def test_gradients_may_be_read_between_replays(tmp_path: Path) -> None:
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


def in_double(optimizer: torch.optim.SGD) -> None:
    """Stands in for the SGD kernel of CUDA: it multiplies by the rate in double."""
    for group in optimizer.param_groups:
        for p in group["params"]:
            assert p.grad is not None
            kept = optimizer.state[p]
            kept["momentum_buffer"] = 0.9 * kept.get("momentum_buffer", 0) + p.grad
            p.data.copy_(p.data.double() - float(group["lr"]) * kept["momentum_buffer"].double())


def weights_after(job: Job, *, graph: bool) -> list[torch.Tensor]:
    parts, state = parts_of(job)
    eager = EagerStepper(parts, state, {})
    made = GraphedStepper(parts, state, {}, capture=Tape()) if graph else eager
    for lr in (0.1, 0.1, 0.1, 0.1, 0.01, 0.01):
        made.step(lr)
    return [p.detach().clone() for p in state.model.parameters()]


def test_one_rate_for_eager_and_replayed_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A graph holds it as float32; CUDA computes in double, where 0.1 is another number."""
    monkeypatch.setattr(torch.optim.SGD, "step", in_double)
    job = small_job(tmp_path)
    replayed, eager = weights_after(job, graph=True), weights_after(job, graph=False)
    assert not all(map(torch.equal, replayed, eager))  # with the rates of a CPU
    cuda, rate = Setup(torch.device("cuda", 0), "fp32", 1, None), Setup.rate
    monkeypatch.setattr(Setup, "rate", lambda _, lr: rate(cuda, lr))
    assert all(map(torch.equal, replayed, weights_after(job, graph=False)))
