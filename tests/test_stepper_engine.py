"""Graphs and compiled blocks: when they are used, what is said where not, what is compiled."""

import copy
import dataclasses
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ranks import do, fingerprint, small_job
from resnet_repro.models.blocks import GroupedBatchNorm2d
from resnet_repro.models.build import build
from resnet_repro.models.spec import NetSpec
from resnet_repro.options import ConfigError
from resnet_repro.training import estimate, stepper
from resnet_repro.training.device import Setup
from resnet_repro.training.distributed import World
from resnet_repro.training.graph import GraphedStepper, counted_together
from resnet_repro.training.stepper import EagerStepper, make, why_not, with_compiled_blocks
from test_stepper import Tape, parts_of

pytestmark = pytest.mark.usefixtures("few_images")
COMPILED = "trainer.compile=always"
SHORT = ("recipe.max_iters=2", "recipe.milestones=[]")


def test_on_the_cpu_steps_are_eager_and_nothing_is_said(tmp_path, capsys):
    parts, state = parts_of(small_job(tmp_path))
    made = make(parts, state)
    assert isinstance(made, EagerStepper)
    assert made.engine == {"step": "eager", "blocks": "eager", "remarks": []}
    assert state.train_net is state.model
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("data", ["synthetic", "tiny_imagenet", "imagenet"])
def test_the_estimate_times_the_steps_of_the_run(tmp_path, monkeypatch, data):
    """Where a run replays, so does its estimate; decoded pictures are trained eagerly."""
    tape = Tape()
    monkeypatch.setattr(stepper, "GraphedStepper", partial(GraphedStepper, capture=tape))
    monkeypatch.setattr(
        estimate, "choose", lambda p, _: stepper.Engine(graph=p.config.trainer.graph != "never")
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
    """Hosts that train with different engines must not look alike."""
    parts, state = parts_of(small_job(tmp_path))
    gpu = dataclasses.replace(parts.setup, device=torch.device("cuda", 0), gpu="a GPU")
    monkeypatch.setattr(stepper, "why_not", no_compiler)
    monkeypatch.setattr(stepper.Engine, "stepper", lambda *_: None)
    make(dataclasses.replace(parts, setup=gpu), state)
    run_line, remark = capsys.readouterr().err.splitlines()
    assert run_line.startswith("cifar10_resnet20")
    assert run_line.endswith("smoke seed 0: graph steps, eager blocks, fp32, a GPU")
    assert "trainer.compile=auto: blocks are not compiled" in remark


def test_the_image_has_a_compiler():
    """Triton needs one; without it a container would train with another engine than its host."""
    dockerfile = Path(__file__).resolve().parents[1] / "Dockerfile"
    assert re.search(r"apt-get install .*\bg\+\+", dockerfile.read_text(encoding="utf-8"))


def test_without_a_compiler_one_line_is_said_and_training_continues(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(stepper, "why_not", no_compiler)
    monkeypatch.setitem(stepper.COMPILE_PAYS, "cpu", True)
    job = small_job(tmp_path, *SHORT)
    assert do(job) == "finished"
    line = f"trainer.compile=auto: blocks are not compiled ({no_compiler()})"
    assert capsys.readouterr().err.splitlines() == [line]
    assert job.folder.meta()["engine"] == {"step": "eager", "blocks": "eager", "remarks": [line]}
    with pytest.raises(ConfigError, match=r"^trainer.compile=always: InvalidCxxCompiler: No work"):
        do(small_job(tmp_path / "asked", COMPILED))


BUSY = "2 workers add up their gradients in every step"


@pytest.mark.parametrize(
    ("words", "workers", "found"),
    [
        ((), 1, (True, True, [])),
        (("trainer.graph=never", "trainer.compile=never"), 1, (False, False, [])),
        (
            ("trainer.deterministic=true",), 1,
            (True, False, ["compile=auto: blocks are not compiled (trainer.deterministic=true)"]),
        ),
        (
            (), 2,
            (False, False, [f"graph=auto: steps are not captured ({BUSY})",
                            f"compile=auto: blocks are not compiled ({BUSY})"]),
        ),
    ],
)  # fmt: skip
def test_what_a_gpu_would_do_and_what_keeps_it_from_more(
    tmp_path, monkeypatch, words, workers, found
):
    parts, state = parts_of(small_job(tmp_path, *words))
    setup = dataclasses.replace(parts.setup, device=torch.device("cuda"))
    parts = dataclasses.replace(parts, setup=setup, world=World(0, workers))
    monkeypatch.setattr(stepper, "why_not", lambda *_, **__: None)
    engine = stepper.choose(parts, state)
    torch.use_deterministic_algorithms(False)
    remarks = [f"trainer.{remark}" for remark in found[2]]
    assert (engine.graph, engine.compiled, engine.remarks) == (*found[:2], remarks)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("graph=true", "graph=true: must be one of auto, always, never"),
        ("graph=always devices=2", "graph=always: only with trainer.devices=1"),
        ("compile=always devices=2", "compile=always: only with trainer.devices=1"),
        ("graph=always", "graph=always: needs a CUDA device; use auto or never"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_written(
    tmp_path, words, message, monkeypatch
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError) as caught:
        do(small_job(tmp_path, *(f"trainer.{word}" for word in words.split())))
    assert str(caught.value) == f"trainer.{message}"
    assert not any(tmp_path.iterdir())


SETUP = Setup(torch.device("cpu"), "fp32", 1, None)
SHAPE = (4, 3, 16, 16)


@pytest.fixture
def graphs(monkeypatch):
    """What is compiled runs the same kernels as ever; each piece is noted with its size."""
    found: list[int] = []

    def backend(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., Any]:
        found.append(len(graph.graph.nodes))
        return graph.forward

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    forget()
    yield found
    forget()


def forget() -> None:
    """Forget what was compiled."""
    torch._dynamo.reset()
    stepper._compiled.cache_clear()


def net_of(depth: int, shortcut: str = "A", **more: Any) -> nn.Module:
    return build(NetSpec("cifar", depth, shortcut, **more), 10)


def test_compiled_run_is_recorded_and_its_folder_complete(tmp_path, graphs):
    """Probes still see into the blocks; with the same kernels even the bits are the same."""
    compiled, plain = small_job(tmp_path / "a", COMPILED), small_job(tmp_path / "b")
    assert do(compiled) == do(plain) == "finished"
    assert compiled.folder.meta()["engine"]["blocks"] == "compiled"
    assert len(graphs) == 3  # a block of each stage; evaluation goes through the net itself
    assert fingerprint(compiled.folder) == fingerprint(plain.folder)
    assert do(small_job(tmp_path / "b", COMPILED)) == "skipped"  # it is the same run


def train_once(net: nn.Module) -> None:
    net.train()(torch.ones(SHAPE).contiguous(memory_format=torch.channels_last)).sum().backward()


def test_trying_the_compiler_compiles_what_training_uses_whatever_the_depth(graphs):
    for depth in (14, 32):
        forget()
        graphs.clear()
        net = net_of(depth)
        before, twin = copy.deepcopy(net.state_dict()), with_compiled_blocks(net)
        assert why_not(net, SETUP, SHAPE, counters_apart=False) is None
        assert len(graphs) == 5
        assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
        assert all(p.grad is None for p in net.parameters())
        train_once(twin)
        assert len(graphs) == 5


def test_more_kinds_of_block_than_the_compiler_keeps_by_itself(graphs):
    """Beyond its limit of eight it would refuse, or silently stop compiling."""
    for shortcut in ("none", "A", "B", "C", "gate"):
        train_once(with_compiled_blocks(net_of(14, shortcut)))
    assert len(graphs) > 16


def test_compiled_net_shares_everything_with_the_net(graphs):
    net = net_of(14)
    twin, other = with_compiled_blocks(net), copy.deepcopy(net)
    assert set(map(id, twin.parameters())) == set(map(id, net.parameters()))
    assert set(map(id, twin.buffers())) == set(map(id, net.buffers()))
    assert not any(isinstance(module, stepper.CompiledBlock) for module in net.modules())
    train_once(twin)
    train_once(other)
    for a, b in zip(net.parameters(), other.parameters(), strict=True):
        assert a.grad is not None
        assert b.grad is not None
        assert torch.equal(a.grad, b.grad)
    assert all(map(torch.equal, net.buffers(), other.buffers()))
    twin.eval()
    assert not any(
        module.training for module in net.modules() if isinstance(module, nn.BatchNorm2d)
    )


def test_a_compiler_that_is_not_there_is_named(tmp_path, monkeypatch):
    import torch._inductor.config as inductor

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(inductor, "fx_graph_cache", False)
    monkeypatch.setattr(inductor.cpp, "cxx", ("no-such-compiler",))
    forget()
    why = why_not(net_of(8), SETUP, SHAPE, counters_apart=False)
    assert why is not None
    assert "compiler" in why.lower()
    assert "\n" not in why


def test_batches_are_counted_as_each_layer_would():
    norms: list[nn.Module] = [
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
    assert do(compiled) == do(plain) == "finished"
    windows = [fingerprint(job.folder)["window"] for job in (compiled, plain)]
    assert max(abs(a[0] - b[0]) for a, b in zip(*windows, strict=True)) < 1e-4
    assert compiled.folder.meta()["engine"]["blocks"] == "compiled"
