"""How the updates of a run are done: one by one from the host, or replayed as one CUDA graph.

Eager: the host prepares each batch and launches each kernel. Graphed: images, crops and flips of
many batches are prepared on the device in one go; a step (choose the batch, forward, loss,
backward, SGD, counts) is captured once and replayed. It needs nothing from the host: a counter on
the device picks the batch, the rate is a number on the device that is written when it changes,
losses and wrong counts stay there until something is logged. The kernels are the same, so are the
results.
"""

from __future__ import annotations

import math
import sys
from typing import Any, Protocol

import torch
from torch import Tensor

from resnet_repro.data.images import ResidentImages
from resnet_repro.evaluation.counting import wrong_counts
from resnet_repro.training import fusion
from resnet_repro.training.engine import choose
from resnet_repro.training.graph import Capture, Replayed, ReplayedForward, capture_on_cuda
from resnet_repro.training.parts import Parts
from resnet_repro.training.state import TrainState, forward_backward, step

AHEAD, AHEAD_BYTES = 64, 2**28  # most batches prepared in one go, and the memory they may take


class Stepper(Protocol):
    """Does updates; ``engine`` says how, for ``meta.json``."""

    engine: dict[str, Any]

    def step(self, lr: float) -> None:
        """Do the update that follows the state's iteration, at this rate.

        Loss, errors and gradient of it may still be on their way when this returns; reading them
        (the state's window, ``.grad``) waits for them.
        """


class EagerStepper:
    """Batch and step, iteration by iteration."""

    def __init__(self, parts: Parts, state: TrainState, engine: dict[str, Any]):
        self._parts, self._state, self.engine = parts, state, engine

    def step(self, lr: float) -> None:
        """Do the update that follows the state's iteration."""
        images, labels = self._parts.batch(self._state.iteration)
        step(self._state, self._parts.setup, images, labels, lr)


class BatchesAhead:
    """The next batches of a run, ready on the device.

    Args:
        images: of the run; their batches are not shared out among workers.
        count: batches prepared in one go; by default as many as fit into a little memory.
    """

    def __init__(self, images: ResidentImages, count: int | None = None):
        batch, _, height, width = images.share_shape
        room = AHEAD_BYTES // (4 * math.prod(images.share_shape))
        self.count = count = count or max(1, min(AHEAD, room))
        self._source = images
        self._first = -1  # iteration of the first of them
        device = images.train_set.device
        self._images = torch.empty(count, batch, height, width, 3, device=device)
        self._labels = torch.empty(count, batch, dtype=torch.int64, device=device)

    def prepare(self, iteration: int) -> None:
        """See to it that the batch of this iteration is among them."""
        first = iteration - iteration % self.count
        if first == self._first:
            return
        chosen = self._source.order.batches(first, self.count)
        images, labels = self._source.train_set.train_batch(chosen)
        self._images.copy_(images.permute(0, 2, 3, 1).view_as(self._images))
        self._labels.copy_(labels.view_as(self._labels))
        self._first = first

    def at(self, row: Tensor) -> tuple[Tensor, Tensor]:
        """Batch number ``row`` of them; ``row`` (1,) is a number the device knows."""
        images = self._images.index_select(0, row).squeeze(0)
        return images.permute(0, 3, 1, 2), self._labels.index_select(0, row).squeeze(0)


class GraphedStepper:
    """The whole step as one graph.

    Args:
        parts: of a run with its images on the device, alone on it.
        state: where it stands, a checkpoint loaded already: the graph keeps the addresses.
        engine: what it is, for ``meta.json``.
        capture: how a graph is made.
        ahead: batches prepared in one go.
    """

    def __init__(
        self,
        parts: Parts,
        state: TrainState,
        engine: dict[str, Any],
        capture: Capture = capture_on_cuda,
        ahead: int | None = None,
    ):
        assert isinstance(parts.images, ResidentImages)
        self._setup, self._state, self.engine = parts.setup, state, engine
        self._batches = BatchesAhead(parts.images, ahead)
        self._norms = fusion.plain_norms(state.model)
        device, window = parts.setup.device, state.window
        self._lr = torch.empty((), dtype=torch.float32, device=device)
        self._lr_there: float | None = None  # what it holds
        lengths = [self._batches.count, window.length]
        self._lengths = torch.tensor(lengths, device=device)
        # Where this iteration's batch lies, and where its sums go; the device counts on by itself.
        self._rows = torch.tensor([state.iteration % length for length in lengths], device=device)
        self._update = Replayed(self._launch, capture)
        state.scorer = ReplayedForward(state.model, parts.setup, capture)

    def step(self, lr: float) -> None:
        """Do the update that follows the state's iteration."""
        self._batches.prepare(self._state.iteration)
        if lr != self._lr_there:
            self._lr.fill_(lr)
            self._lr_there = lr
        self._update()
        self._set_lr(lr)  # what a checkpoint keeps
        self._state.iteration += 1

    def _launch(self) -> None:
        state = self._state
        images, labels = self._batches.at(self._rows[:1])
        with fusion.counted_together(self._norms):
            loss, logits = forward_backward(state, self._setup, images, labels)
        self._set_lr(self._lr)
        state.optimizer.step()
        state.window.add_at(self._rows[1:], loss, wrong_counts(logits, labels), len(labels))
        self._rows.add_(1).remainder_(self._lengths)

    def _set_lr(self, lr: float | Tensor) -> None:
        for group in self._state.optimizer.param_groups:
            group["lr"] = lr


def make(parts: Parts, state: TrainState) -> Stepper:
    """What does the updates of a run, as its configuration and this machine allow.

    This is the one way to train: :func:`resnet_repro.training.run.run` calls it, and so does
    anything that measures a step. Call it when ``state`` stands where it is to go on, weights
    loaded, and on CUDA with a stream of its own as the current one
    (:class:`resnet_repro.training.lanes.Lane`); then ``stepper.step(lr)`` again and again. The
    state's net may be looked at between two steps, but no other step be done on it. Sets
    ``state.replica`` (compiled blocks) and ``state.scorer`` (captured evaluation); compiles, if it
    does, here. A GPU is at work behind the caller's back: synchronise before reading a clock.

    Raises:
        ConfigError: something was asked for that cannot be had.
    """
    engine = choose(parts, state)
    if parts.world.rank == 0:
        for remark in engine.remarks:
            print(remark, file=sys.stderr, flush=True)
    if engine.compiled:
        state.replica = fusion.with_compiled_blocks(state.model)
    kind = GraphedStepper if engine.graph else EagerStepper
    return kind(parts, state, engine.record())
