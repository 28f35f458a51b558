"""The step is the same replayed, compiled and eager; stand-ins for CUDA graphs and the compiler."""

import copy
import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ranks import UNSEEN, StopAt, do, finished, small_job
from resnet_repro.data import synthetic
from resnet_repro.models.blocks import GroupedBatchNorm2d
from resnet_repro.models.build import build
from resnet_repro.models.spec import NetSpec
from resnet_repro.options import ConfigError
from resnet_repro.training import DivergedError, estimate, graph, stepper
from resnet_repro.training import run as run_module
from resnet_repro.training.build import RunContext, assemble
from resnet_repro.training.device import Setup, set_up
from resnet_repro.training.distributed import World
from resnet_repro.training.graph import (
    EAGER_CALLS,
    BatchesAhead,
    GraphedEval,
    GraphedStep,
    counted_together,
)
from resnet_repro.training.launch import Job
from resnet_repro.training.state import SGD, TrainState
from resnet_repro.training.stepper import compile_obstacle, eager_step, make, with_compiled_blocks

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


@pytest.fixture(autouse=True)
def few_ahead(monkeypatch):
    monkeypatch.setattr(graph, "AHEAD", AHEAD)


@pytest.fixture
def tape(monkeypatch):
    tape = Tape()

    def graphed(parts: RunContext, state: TrainState) -> tuple[GraphedStep, Any]:
        return GraphedStep(parts, state, tape), {"step": "graph"}

    monkeypatch.setattr(run_module, "make", graphed)
    return tape


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return finished(small_job(tmp_path_factory.mktemp("eager"), BATCHES))


def test_replayed_run_is_the_eager_run(whole, tmp_path, tape):
    """Rate drops, logs, evaluations, checkpoints and gradient probes fall within it."""
    job = small_job(tmp_path, BATCHES)
    assert finished(job) == whole
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
    assert finished(job) == whole


SHORT = ("recipe.max_iters=6", "recipe.milestones=[4]", "evaluation.every_iters=3", *UNSEEN)


@pytest.mark.parametrize(
    "arguments",
    [
        ("trainer.precision=bf16", "recipe.batch_size=8"),  # slow on most CPUs
        ("recipe.nesterov=true", "recipe.decay_bn=false", "model.bn_group=8"),
        ("recipe.momentum=0", "recipe.weight_decay=0", "model.shortcut=C", "data.pad=zero"),
        ("evaluation.batch_size=25", "recipe.warmup=error80"),  # the last batch is smaller
    ],
)
def test_every_kind_of_step_is_the_eager_one(tmp_path, tape, monkeypatch, arguments):
    replayed = finished(small_job(tmp_path / "replayed", *SHORT, *arguments))
    assert tape.captures == 2
    monkeypatch.setattr(run_module, "make", make)
    assert finished(small_job(tmp_path / "eager", *SHORT, *arguments)) == replayed


def test_divergence_is_named_as_without_graphs(tmp_path, tape, monkeypatch):
    with pytest.raises(DivergedError) as replayed:
        do(small_job(tmp_path / "replayed", "recipe.lr=1e30", *UNSEEN))
    monkeypatch.setattr(run_module, "make", make)
    with pytest.raises(DivergedError) as eager:
        do(small_job(tmp_path / "eager", "recipe.lr=1e30", *UNSEEN))
    assert str(replayed.value) == str(eager.value)


def parts_of(job: Job) -> tuple[RunContext, TrainState]:
    return assemble(job.config, set_up(job.config.trainer), synthetic.make((200, 70)))


def in_double(optimizer: SGD) -> None:
    """Stands in for the SGD kernel of CUDA: it multiplies by the rate in double."""
    for group in optimizer.param_groups:
        for p in group["params"]:
            assert p.grad is not None
            kept = optimizer.state[p]
            kept["momentum_buffer"] = 0.9 * kept.get("momentum_buffer", 0) + p.grad
            p.data.copy_(p.data.double() - float(group["lr"]) * kept["momentum_buffer"].double())


def weights_after(job: Job, *, graph: bool) -> list[Tensor]:
    parts, state = parts_of(job)
    step = GraphedStep(parts, state, Tape()) if graph else eager_step(parts, state)
    for lr in (0.1, 0.1, 0.1, 0.1, 0.01, 0.01):
        step(lr)
    assert [group["lr"] for group in state.optimizer.param_groups] == [pytest.approx(0.01)] * 2
    return [p.detach().clone() for p in state.model.parameters()]


def test_one_rate_for_eager_and_replayed_steps(tmp_path, monkeypatch):
    """A graph holds it as float32; CUDA computes in double, where 0.1 is another number."""
    monkeypatch.setattr(SGD, "step", in_double)
    job = small_job(tmp_path)
    replayed, eager = weights_after(job, graph=True), weights_after(job, graph=False)
    assert not all(map(torch.equal, replayed, eager))  # with the rates of a CPU
    cuda, rate = Setup(torch.device("cuda", 0), "fp32", 1, None), Setup.rate
    monkeypatch.setattr(Setup, "rate", lambda _, lr: rate(cuda, lr))
    assert all(map(torch.equal, replayed, weights_after(job, graph=False)))


def test_batches_prepared_ahead_are_those_of_the_order_and_take_little_memory(
    tmp_path, monkeypatch
):
    """Over three epochs of 200 images, with batches of 16 that straddle them."""
    parts, _ = parts_of(small_job(tmp_path))
    for count in (1, AHEAD, 64):
        monkeypatch.setattr(graph, "AHEAD", count)
        ahead = BatchesAhead(parts.images)
        for iteration in [*range(40), 3, 39]:
            ahead.prepare(iteration)
            images, labels = ahead.at(torch.tensor([iteration % count]))
            expected = parts.images.batch(iteration)
            assert torch.equal(images, expected[0])
            assert torch.equal(labels, expected[1])
            assert images.is_contiguous(memory_format=torch.channels_last)
    for room, count in ((2**28, 64), (3 * 16 * 3 * 32 * 32 * 4 + 1, 3), (1, 1)):
        monkeypatch.setattr(graph, "AHEAD_BYTES", room)
        assert BatchesAhead(parts.images).count == count


def test_a_forward_pass_is_replayed_for_one_shape_and_follows_the_weights(tmp_path):
    """In bf16, where a cast weight must be neither taken into the graph nor left behind by it."""
    parts, state = parts_of(small_job(tmp_path, "trainer.precision=bf16"))
    state.model.eval()
    cached, tape = [], Tape()

    def net(images: Tensor) -> Tensor:
        cached.append(torch.is_autocast_cache_enabled())
        return state.model(images)

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

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        assert function not in READS_BACK, f"{function} would wait for the device"
        shapes = [value.shape for value in args if isinstance(value, Tensor)]
        self.calls.append((function, shapes))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_step_launches_the_same_every_time_and_reads_nothing_back(tmp_path, precision):
    """What a capture demands: nothing depends on the host, and nothing goes to it."""
    parts, state = parts_of(small_job(tmp_path, f"trainer.precision={precision}"))
    step = GraphedStep(parts, state, Tape())
    step(0.1)  # makes the momentum
    launched = []
    for _ in range(2):
        step._batches.prepare(state.iteration)
        with Launched() as noted:
            step._update()
        state.iteration += 1
        launched.append(noted.calls)
    assert launched[0] == launched[1]
    aten, functions = torch.ops.aten, {function for function, _ in launched[0]}
    assert {aten.convolution_backward.default, aten._fused_sgd_.tensor_lr} <= functions
    with Launched(), pytest.raises(AssertionError, match="would wait for the device"):
        float(state.window.sums[0, 0])


COMPILED = "trainer.compile=always"
NOT_COMPILED = "trainer.compile=auto: blocks are not compiled"
NOT_CAPTURED = "trainer.graph=auto: steps are not captured"
BRIEF = ("recipe.max_iters=2", "recipe.milestones=[]", *UNSEEN)


@pytest.mark.parametrize("data", ["synthetic", "tiny_imagenet", "imagenet"])
def test_the_estimate_times_the_steps_of_the_run(tmp_path, monkeypatch, data):
    """Where a run replays, so does its estimate; decoded pictures are trained eagerly."""
    tape = Tape()
    monkeypatch.setattr(stepper, "GraphedStep", partial(GraphedStep, capture=tape))
    steps = {"auto": "graph", "never": "eager"}
    monkeypatch.setattr(
        estimate, "choose", lambda p, _: stepper.Engine(step=steps[p.config.trainer.graph])
    )
    monkeypatch.setattr(estimate, "PIXELS", 4 * 64 * 64)
    config = small_job(tmp_path).config
    where = dataclasses.replace(config.data, name=data, root=str(tmp_path))
    pace = estimate.measure(dataclasses.replace(config, data=where))
    assert pace.per_update > 0
    assert tape.captures == (0 if data == "imagenet" else 2)
    assert pace.sizes == estimate.SETS[data]


def no_compiler(*_: Any, **__: Any) -> str:
    return "InvalidCxxCompiler: No working C++ compiler found"


def test_a_run_on_a_gpu_says_what_trains_it(tmp_path, monkeypatch, capsys):
    parts, state = parts_of(small_job(tmp_path))
    gpu = dataclasses.replace(parts.setup, device=torch.device("cuda", 0), gpu="a GPU")
    monkeypatch.setattr(stepper, "compile_obstacle", no_compiler)
    monkeypatch.setattr(stepper.Engine, "build", lambda *_: None)
    make(dataclasses.replace(parts, setup=gpu), state)
    run_line, remark = capsys.readouterr().err.splitlines()
    assert run_line.startswith("cifar10_resnet20")
    assert run_line.endswith("smoke seed 0: graph steps, eager blocks, fp32, a GPU")
    assert NOT_COMPILED in remark


def test_without_a_compiler_one_line_is_printed_and_training_continues(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(stepper, "compile_obstacle", no_compiler)
    monkeypatch.setitem(stepper.COMPILE_PAYS, "cpu", True)
    job = small_job(tmp_path, *BRIEF)
    assert do(job) == "finished"
    line = f"{NOT_COMPILED} ({no_compiler()})"
    assert capsys.readouterr().err.splitlines() == [line]
    assert job.folder.meta()["engine"] == {"step": "eager", "blocks": "eager", "remarks": [line]}
    with pytest.raises(ConfigError, match=r"^trainer.compile=always: InvalidCxxCompiler: No work"):
        do(small_job(tmp_path / "asked", COMPILED))


BUSY = "2 workers add up their gradients in every step"
EXACT = "trainer.deterministic=true"


@pytest.mark.parametrize(
    ("arguments", "workers", "found"),
    [
        ((), 1, ("graph", "compiled", [])),
        (("trainer.graph=never", "trainer.compile=never"), 1, ("eager", "eager", [])),
        ((EXACT,), 1, ("graph", "eager", [f"{NOT_COMPILED} ({EXACT})"])),
        ((), 2, ("eager", "eager", [f"{NOT_CAPTURED} ({BUSY})", f"{NOT_COMPILED} ({BUSY})"])),
    ],
)
def test_what_a_gpu_would_do_and_what_keeps_it_from_more(
    tmp_path, monkeypatch, arguments, workers, found
):
    parts, state = parts_of(small_job(tmp_path, *arguments))
    setup = dataclasses.replace(parts.setup, device=torch.device("cuda"))
    parts = dataclasses.replace(parts, setup=setup, world=World(0, workers))
    monkeypatch.setattr(stepper, "compile_obstacle", lambda *_, **__: None)
    engine = stepper.choose(parts, state)
    torch.use_deterministic_algorithms(False)
    assert (engine.step, engine.blocks, engine.remarks) == found


SETUP = Setup(torch.device("cpu"), "fp32", 1, None)
SHAPE = (4, 3, 16, 16)


@pytest.fixture
def graphs(monkeypatch):
    """What is compiled runs the same kernels as ever; each piece is noted."""
    found = []

    def backend(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., Any]:
        found.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    torch._dynamo.reset()
    yield found
    torch._dynamo.reset()


def net_of(depth: int, shortcut: str = "A", **more: Any) -> nn.Module:
    return build(NetSpec("cifar", depth, shortcut, **more), 10)


def test_compiled_run_is_recorded_and_its_folder_complete(tmp_path, graphs):
    """Probes still see into the blocks; with the same kernels even the bits are the same."""
    compiled, plain = small_job(tmp_path / "a", COMPILED), small_job(tmp_path / "b")
    computed = finished(compiled)
    assert len(graphs) == 3  # a block of each stage; evaluation goes through the net itself
    assert finished(plain) == computed
    assert compiled.folder.meta()["engine"]["blocks"] == "compiled"
    assert do(small_job(tmp_path / "b", COMPILED)) == "skipped"  # it is the same run


def train_once(net: nn.Module) -> None:
    net.train()(torch.ones(SHAPE).contiguous(memory_format=torch.channels_last)).sum().backward()


def test_trying_the_compiler_compiles_what_training_uses_whatever_the_depth(graphs):
    for depth in (14, 32):
        torch._dynamo.reset()
        graphs.clear()
        net = net_of(depth)
        before, twin = copy.deepcopy(net.state_dict()), with_compiled_blocks(net)
        assert compile_obstacle(net, SETUP, SHAPE, graphed=False) is None
        assert len(graphs) == 5
        assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
        assert all(p.grad is None for p in net.parameters())
        train_once(twin)
        assert len(graphs) == 5


def test_every_kind_of_block_compiles_whole_and_computes_what_the_net_does(graphs):
    """Beyond its limit of eight the compiler would refuse, or silently stop compiling."""
    nets = [net_of(14, shortcut) for shortcut in ("none", "A", "B", "C", "gate")]
    nets += [net_of(8, bn_group=2), net_of(20, layers_per_block=3)]
    nets.append(build(NetSpec("imagenet", 18, "B"), 10))
    for net in nets:
        twin, other = with_compiled_blocks(net), copy.deepcopy(net)
        assert set(map(id, twin.parameters())) == set(map(id, net.parameters()))
        train_once(twin)
        train_once(other)
        for a, b in zip(net.parameters(), other.parameters(), strict=True):
            assert torch.equal(a.grad, b.grad)
        assert all(map(torch.equal, net.buffers(), other.buffers()))
    assert len(graphs) > 16


def test_a_compiler_that_is_not_there_is_named(tmp_path, monkeypatch):
    import torch._inductor.config as inductor

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch._dynamo.reset()
    with inductor.patch({"fx_graph_cache": False, "cpp.cxx": ("no-such-compiler",)}):
        why = compile_obstacle(net_of(8), SETUP, SHAPE, graphed=False)
    assert why.startswith("InvalidCxxCompiler: No working C++ compiler found")
    assert "\n" not in why


def test_batches_are_counted_as_each_layer_would():
    norms = [
        nn.BatchNorm2d(2),
        nn.BatchNorm2d(2),
        nn.BatchNorm2d(2, momentum=None),  # uses its count
        nn.BatchNorm2d(2, track_running_stats=False),
        GroupedBatchNorm2d(2, 1, eps=1e-5, momentum=0.1),
    ]
    net, plain = nn.Sequential(*norms), copy.deepcopy(nn.Sequential(*norms))
    for _ in range(3):
        images = torch.randn(4, 2, 3, 3)
        with counted_together(net):
            apart = [getattr(norm, "num_batches_tracked", None) is None for norm in norms]
            made = net(images)
        assert apart == [True, True, False, True, False]
        assert torch.equal(made, plain(images))
    assert all(map(torch.equal, net.buffers(), plain.buffers()))
    with pytest.raises(ValueError, match="in the middle"), counted_together(net):
        raise ValueError("in the middle")
    assert [int(norm.num_batches_tracked) for norm in norms[:2]] == [3, 3]


@pytest.mark.slow
def test_the_real_compiler_trains_as_eager_code_does(tmp_path):
    """Takes a minute or more; rounding apart, measured 2e-6 after six updates."""
    short = ("recipe.max_iters=6", "recipe.milestones=[4]", "recipe.lr=0.01")
    compiled, plain = small_job(tmp_path / "a", COMPILED, *short), small_job(tmp_path / "b", *short)
    windows = [finished(job)["window"] for job in (compiled, plain)]
    assert max(abs(a[0] - b[0]) for a, b in zip(*windows, strict=True)) < 1e-4
    assert compiled.folder.meta()["engine"]["blocks"] == "compiled"
