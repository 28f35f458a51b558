"""Graphs and compiled blocks: when they are used, and what is said where they are not."""

from __future__ import annotations

import dataclasses
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from resnet_repro.options import ConfigError
from resnet_repro.training import compiled, estimate, stepper
from resnet_repro.training.distributed import World
from resnet_repro.training.graph import GraphedStepper
from resnet_repro.training.stepper import EagerStepper, make
from test_stepper import Tape, parts_of
from test_training import do, small_job

COMPILED = "trainer.compile=always"


def test_on_the_cpu_steps_are_eager_and_nothing_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts, state = parts_of(small_job(tmp_path))
    made = make(parts, state)
    assert isinstance(made, EagerStepper)
    assert made.engine == {"step": "eager", "blocks": "eager", "remarks": []}
    assert state.train_net is state.model
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("data", ["synthetic", "tiny_imagenet", "imagenet"])
def test_the_estimate_times_the_steps_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: str
) -> None:
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


def test_a_run_on_a_gpu_says_what_trains_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Hosts that train with different engines must not look alike."""
    parts, state = parts_of(small_job(tmp_path))
    gpu = dataclasses.replace(parts.setup, device=torch.device("cuda", 0), gpu="a GPU")
    parts = dataclasses.replace(parts, setup=gpu)
    monkeypatch.setattr(compiled, "why_not", no_compiler)
    monkeypatch.setattr(stepper.Engine, "stepper", lambda *_: None)
    make(parts, state)
    run_line, remark = capsys.readouterr().err.splitlines()
    assert run_line.startswith("cifar10_resnet20")
    assert run_line.endswith("smoke seed 0: graph steps, eager blocks, fp32, a GPU")
    assert "trainer.compile=auto: blocks are not compiled" in remark


def test_the_image_has_a_compiler() -> None:
    """Triton needs one; without it a container would train with another engine than its host."""
    dockerfile = Path(__file__).resolve().parents[1] / "Dockerfile"
    assert re.search(r"apt-get install .*\bg\+\+", dockerfile.read_text(encoding="utf-8"))


def no_compiler(*_: Any, **__: Any) -> str:
    return "InvalidCxxCompiler: No working C++ compiler found"


def test_without_a_compiler_one_line_is_said_and_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(compiled, "why_not", no_compiler)
    monkeypatch.setitem(stepper.COMPILE_PAYS, "cpu", True)
    job = small_job(tmp_path, "recipe.max_iters=2", "recipe.milestones=[]")
    assert do(job) == "finished"
    line = (
        "trainer.compile=auto: blocks are not compiled "
        "(InvalidCxxCompiler: No working C++ compiler found)"
    )
    assert capsys.readouterr().err.splitlines() == [line]
    assert job.folder.meta()["engine"] == {"step": "eager", "blocks": "eager", "remarks": [line]}
    with pytest.raises(ConfigError, match=r"^trainer.compile=always: InvalidCxxCompiler: No work"):
        do(small_job(tmp_path / "asked", COMPILED))


def chosen(
    monkeypatch: pytest.MonkeyPatch, root: Path, *words: str, world: World | None = None
) -> stepper.Engine:
    """What would be done on a GPU; nothing is computed."""
    parts, state = parts_of(small_job(root, *words))
    setup = dataclasses.replace(parts.setup, device=torch.device("cuda"))
    parts = dataclasses.replace(parts, setup=setup, world=world or parts.world)
    monkeypatch.setattr(compiled, "why_not", lambda *_, **__: None)
    return stepper.choose(parts, state)


def test_on_a_gpu_steps_are_captured_and_blocks_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = chosen(monkeypatch, tmp_path)
    assert found.record() == {"step": "graph", "blocks": "compiled", "remarks": []}
    found = chosen(monkeypatch, tmp_path, "trainer.graph=never", "trainer.compile=never")
    assert found.record() == {"step": "eager", "blocks": "eager", "remarks": []}


def test_what_keeps_a_gpu_from_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repeatable = chosen(monkeypatch, tmp_path, "trainer.deterministic=true")
    torch.use_deterministic_algorithms(False)
    assert repeatable.graph
    assert repeatable.remarks == [
        "trainer.compile=auto: blocks are not compiled (trainer.deterministic=true)"
    ]
    several = chosen(monkeypatch, tmp_path, world=World(0, 2))
    why = "2 workers add up their gradients in every step"
    assert several.remarks == [
        f"trainer.graph=auto: steps are not captured ({why})",
        f"trainer.compile=auto: blocks are not compiled ({why})",
    ]
    assert not several.graph
    assert not several.compiled


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("trainer.graph=true",), "trainer.graph=true: must be one of auto, always, never"),
        (
            ("trainer.graph=always", "trainer.devices=2"),
            "trainer.graph=always: only with trainer.devices=1",
        ),
        (
            ("trainer.compile=always", "trainer.devices=2"),
            "trainer.compile=always: only with trainer.devices=1",
        ),
    ],
)
def test_impossible_together(tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        small_job(tmp_path, *words)
    assert str(caught.value) == message


def test_a_graph_without_a_gpu_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(ConfigError, match=r"^trainer.graph=always: needs a CUDA device"):
        do(small_job(tmp_path, "trainer.graph=always"))
    assert not any(tmp_path.iterdir())
