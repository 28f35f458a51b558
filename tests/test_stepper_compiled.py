"""Compiled blocks: compiled once for nets of any depth, and sharing everything with the net."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from resnet_repro.models.build import build
from resnet_repro.models.norm import GroupedBatchNorm2d
from resnet_repro.models.spec import NetSpec
from resnet_repro.training import compiled
from resnet_repro.training.device import Setup
from test_training import do, fingerprint, small_job

COMPILED = "trainer.compile=always"
SETUP = Setup(torch.device("cpu"), "fp32", 1, None)
SHAPE = (4, 3, 16, 16)


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """What is compiled runs the same kernels as ever; each piece is noted with its size."""
    found: list[int] = []

    def backend(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., Any]:
        found.append(len(graph.graph.nodes))
        return graph.forward

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    torch._dynamo.reset()
    compiled._compiled.cache_clear()
    yield found
    torch._dynamo.reset()
    compiled._compiled.cache_clear()


def net_of(depth: int, shortcut: str = "A", **more: Any) -> nn.Module:
    return build(NetSpec("cifar", depth, shortcut, **more), 10)


def test_compiled_run_is_recorded_and_its_folder_complete(
    tmp_path: Path, graphs: list[int]
) -> None:
    """Probes still see into the blocks; with the same kernels even the bits are the same."""
    compiled, plain = small_job(tmp_path / "a", COMPILED), small_job(tmp_path / "b")
    assert do(compiled) == do(plain) == "finished"
    assert compiled.folder.meta()["engine"]["blocks"] == "compiled"
    assert len(graphs) == 3  # a block of each stage; evaluation goes through the net itself
    assert fingerprint(compiled.folder) == fingerprint(plain.folder)
    assert do(small_job(tmp_path / "b", COMPILED)) == "skipped"  # it is the same run


def train_once(net: nn.Module) -> None:
    net.train()(torch.ones(SHAPE)).sum().backward()


def test_what_is_compiled_does_not_grow_with_the_depth(graphs: list[int]) -> None:
    counts = []
    for depth in (14, 32):
        graphs.clear()
        torch._dynamo.reset()
        compiled._compiled.cache_clear()
        train_once(compiled.with_compiled_blocks(net_of(depth)))
        counts.append(list(graphs))
    assert len(counts[0]) == 5
    assert counts[0] == counts[1]


def test_trying_the_compiler_compiles_what_training_uses(graphs: list[int]) -> None:
    net = net_of(20)
    before, twin = copy.deepcopy(net.state_dict()), compiled.with_compiled_blocks(net)
    assert compiled.why_not(net, SETUP, SHAPE, counters_apart=False) is None
    assert len(graphs) == 5
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(p.grad is None for p in net.parameters())
    images = torch.ones(SHAPE).contiguous(memory_format=torch.channels_last)
    twin.train()(images).sum().backward()
    assert len(graphs) == 5


def test_more_kinds_of_block_than_the_compiler_keeps_by_itself(graphs: list[int]) -> None:
    """Beyond its limit of eight it would refuse, or silently stop compiling."""
    for shortcut in ("none", "A", "B", "C", "gate"):
        train_once(compiled.with_compiled_blocks(net_of(14, shortcut)))
    assert len(graphs) > 16


def test_compiled_net_shares_everything_with_the_net(graphs: list[int]) -> None:
    net = net_of(14)
    twin = compiled.with_compiled_blocks(net)
    shared = {id(p) for p in net.parameters()}
    assert {id(p) for p in twin.parameters()} == shared
    assert {id(b) for b in twin.buffers()} == {id(b) for b in net.buffers()}
    assert not any(isinstance(module, compiled.CompiledBlock) for module in net.modules())
    other = copy.deepcopy(net)
    train_once(twin)
    train_once(other)
    for (name, a), b in zip(net.named_parameters(), other.parameters(), strict=True):
        assert a.grad is not None
        assert b.grad is not None
        assert torch.equal(a.grad, b.grad), name
    for (name, a), b in zip(net.named_buffers(), other.buffers(), strict=True):
        assert torch.equal(a, b), name
    twin.eval()
    assert not any(bn.training for bn in compiled.plain_norms(net))


def test_a_compiler_that_is_not_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch._inductor.config as inductor

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(inductor, "fx_graph_cache", False)
    monkeypatch.setattr(inductor.cpp, "cxx", ("no-such-compiler",))
    torch._dynamo.reset()
    compiled._compiled.cache_clear()
    why = compiled.why_not(net_of(8), SETUP, SHAPE, counters_apart=False)
    assert why is not None
    assert "compiler" in why.lower()
    assert "\n" not in why


def test_batches_are_counted_as_each_layer_would(tmp_path: Path) -> None:
    norms: list[nn.Module] = [
        nn.BatchNorm2d(2),
        nn.BatchNorm2d(2),
        nn.BatchNorm2d(2, momentum=None),  # uses its count
        nn.BatchNorm2d(2, track_running_stats=False),
        GroupedBatchNorm2d(2, 1, eps=1e-5, momentum=0.1),
    ]
    net, plain = nn.Sequential(*norms), copy.deepcopy(nn.Sequential(*norms))
    found = compiled.plain_norms(net)
    assert [id(norm) for norm in found] == [id(norm) for norm in norms[:2]]
    for _ in range(3):
        images = torch.randn(4, 2, 3, 3)
        with compiled.counted_together(found):
            made = net(images)
        assert torch.equal(made, plain(images))
    for (name, a), b in zip(net.named_buffers(), plain.buffers(), strict=True):
        assert torch.equal(a, b), name
    with pytest.raises(ValueError, match="in the middle"), compiled.counted_together(found):
        raise ValueError("in the middle")
    assert [int(norm.num_batches_tracked or 0) for norm in found] == [3, 3]


@pytest.mark.slow
def test_the_real_compiler_trains_as_eager_code_does(tmp_path: Path) -> None:
    """Takes a minute or more; rounding apart, measured 2e-6 after six updates."""
    short = ("recipe.max_iters=6", "recipe.milestones=[4]", "recipe.lr=0.01")
    compiled, plain = small_job(tmp_path / "a", COMPILED, *short), small_job(tmp_path / "b", *short)
    assert do(compiled) == do(plain) == "finished"
    pairs = zip(fingerprint(compiled.folder)["window"], fingerprint(plain.folder)["window"],
                strict=True)  # fmt: skip
    losses = [(a[0], b[0]) for a, b in pairs]
    assert max(abs(a - b) for a, b in losses) < 1e-4
    assert compiled.folder.meta()["engine"]["blocks"] == "compiled"
