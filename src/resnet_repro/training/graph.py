"""A training step and an evaluation pass as CUDA graphs: captured once, then replayed.

Images, crops and flips of many batches are prepared on the device in one go. A step (select the
batch, forward, loss, backward, SGD, counts) is captured and replayed; it needs nothing from the
host. A counter on the device selects the batch, the learning rate is a number on the device that is
written when it changes, and losses and wrong counts stay there until something is logged. The
kernels are those of an eager step, and so are the results.

:func:`capture_on_cuda` holds every call that needs a GPU. A test passes a stand-in: its capture
keeps the function, its replay calls it. No object here refers back to its owner, so a finished run
frees its memory as soon as it is dropped, without the garbage collector.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from resnet_repro.data.resident import ResidentImages
from resnet_repro.evaluation.count import wrong_counts
from resnet_repro.training import compiled
from resnet_repro.training.assemble import RunContext
from resnet_repro.training.device import Setup
from resnet_repro.training.state import TrainState, forward_backward, set_rate

Work = Callable[[], None]
Capture = Callable[[Work], Work]  # from work to a function that repeats it

EAGER_CALLS = 3  # before a capture: libraries select their kernels, the compiler makes its own
AHEAD, AHEAD_BYTES = 64, 2**28  # most batches prepared in one go, and the memory they may take


def capture_on_cuda(work: Work) -> Work:
    """Capture what ``work`` launches on the current stream; return a function that replays it.

    Capturing computes nothing. Tensors that ``work`` makes keep their addresses, in memory of the
    graph's own; each replay writes their values again. Other threads, such as those that pin memory
    for another run, may call CUDA meanwhile.
    """
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
    with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
        work()
    replay: Work = graph.replay
    return replay


class Replayed:
    """Work that becomes a graph.

    The first calls run eagerly: a capture needs them before it, and as they are real calls they
    need not be undone. The next call captures, and all calls from there on replay.

    Args:
        work: launches the same kernels on the same memory in every call, and reads nothing back.
        capture: how it is captured.
        eager_calls: number of eager calls.
    """

    def __init__(self, work: Work, capture: Capture, eager_calls: int = EAGER_CALLS):
        self._work, self._capture, self._eager_left = work, capture, eager_calls
        self._replay: Work | None = None

    def __call__(self) -> None:
        """Do the work."""
        if self._eager_left > 0:
            self._eager_left -= 1
            self._work()
            return
        if self._replay is None:
            self._replay = self._capture(self._work)
        self._replay()


class BatchesAhead:
    """The next batches of a run, ready on the device.

    Args:
        images: of the run; their batches are not split among workers.
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
        """Ensure that the batch of this iteration is among them."""
        first = iteration - iteration % self.count
        if first == self._first:
            return
        chosen = self._source.order.batches(first, self.count)
        images, labels = self._source.train_set.train_batch(chosen)
        self._images.copy_(images.permute(0, 2, 3, 1).view_as(self._images))
        self._labels.copy_(labels.view_as(self._labels))
        self._first = first

    def at(self, row: Tensor) -> tuple[Tensor, Tensor]:
        """Images and labels of batch number ``row``, a tensor (1,) on the device."""
        images = self._images.index_select(0, row).squeeze(0)
        return images.permute(0, 3, 1, 2), self._labels.index_select(0, row).squeeze(0)


class _Update:
    """The work of one step, as it is captured; the device selects batch and window row."""

    def __init__(self, setup: Setup, state: TrainState, batches: BatchesAhead):
        self._setup, self._state, self._batches = setup, state, batches
        self._norms = compiled.plain_norms(state.model)
        self.rate = torch.empty((), dtype=torch.float32, device=setup.device)
        lengths = [batches.count, state.window.length]
        self._lengths = torch.tensor(lengths, device=setup.device)
        rows = [state.iteration % length for length in lengths]
        self._rows = torch.tensor(rows, device=setup.device)

    def __call__(self) -> None:
        state = self._state
        images, labels = self._batches.at(self._rows[:1])
        with compiled.counted_together(self._norms):
            loss, logits = forward_backward(state, self._setup, images, labels)
        set_rate(state.optimizer, self.rate)
        state.optimizer.step()
        state.window.add_at(self._rows[1:], loss, wrong_counts(logits, labels), len(labels))
        self._rows.add_(1).remainder_(self._lengths)


class GraphedStepper:
    """Does the updates of a run by replaying a graph of the whole step.

    Args:
        context: of a run with its images on the device, without other workers.
        state: a checkpoint is loaded already: the graph keeps the addresses.
        engine: what it is, for ``meta.json``.
        capture: how a graph is made.
        ahead: batches prepared in one go.
    """

    def __init__(
        self,
        context: RunContext,
        state: TrainState,
        engine: dict[str, Any],
        capture: Capture = capture_on_cuda,
        ahead: int | None = None,
    ):
        assert isinstance(context.images, ResidentImages)
        self._setup, self._state, self.engine = context.setup, state, engine
        self._batches = BatchesAhead(context.images, ahead)
        self._update = _Update(context.setup, state, self._batches)
        self._replayed = Replayed(self._update, capture)
        self._rate_there: float | None = None  # the rate that the device holds
        state.graphed_eval = GraphedEval(state.model, context.setup, capture)

    def step(self, lr: float) -> None:
        """Do the update that follows the state's iteration."""
        self._batches.prepare(self._state.iteration)
        rate = self._setup.rate(lr)
        if rate != self._rate_there:
            self._update.rate.fill_(rate)
            self._rate_there = rate
        self._replayed()
        set_rate(self._state.optimizer, rate)  # what a checkpoint keeps
        self._state.iteration += 1


class _Forward:
    """The work of one evaluation pass, as it is captured."""

    def __init__(self, net: Callable[[Tensor], Tensor], setup: Setup, images: Tensor):
        self._net, self._setup = net, setup
        self.images, self.logits = torch.empty_like(images), torch.empty(0)

    @torch.no_grad()
    def __call__(self) -> None:
        # Weights that were cast outside the graph would not be cast when it is replayed.
        with self._setup.autocast(cache=False):
            self.logits = self._net(self.images)


class GraphedEval:
    """A net's forward pass in evaluation, replayed for batches of one shape.

    The shape is that of the first batch; any other, such as a smaller last batch, goes through the
    net eagerly. The counts are those of the net itself: the kernels are the same.
    """

    def __init__(self, net: Callable[[Tensor], Tensor], setup: Setup, capture: Capture):
        self._net, self._setup, self._capture = net, setup, capture
        self._forward: _Forward | None = None

    def __call__(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, 3, H, W); use them before the next call."""
        if self._forward is None:
            self._forward = _Forward(self._net, self._setup, images)
            # One eager call is enough: by now training has prepared the device.
            self._replayed = Replayed(self._forward, self._capture, eager_calls=1)
        if images.shape != self._forward.images.shape:
            return self._net(images)
        self._forward.images.copy_(images)
        self._replayed()
        return self._forward.logits
