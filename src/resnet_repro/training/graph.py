"""A training step and an evaluation pass as CUDA graphs: captured once, then replayed.

Many batches are prepared on the device in one go. A step (select the batch, forward, loss,
backward, SGD, counts) needs nothing from the host: a counter on the device selects the batch, the
learning rate lies there, and so do losses and wrong counts until something is logged. The kernels
are those of an eager step, and so are the results.

:func:`capture_on_cuda` holds every call that needs a GPU; a test passes a stand-in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from resnet_repro.data.resident import ResidentImages
from resnet_repro.evaluation.count import wrong_counts
from resnet_repro.training.build import RunContext
from resnet_repro.training.device import Setup
from resnet_repro.training.state import TrainState, forward_backward, set_rate

Work = Callable[[], None]
Capture = Callable[[Work], Work]  # from work to a function that repeats it

EAGER_CALLS = 3  # before a capture: libraries select their kernels, the compiler makes its own
AHEAD, AHEAD_BYTES = 64, 2**28  # most batches prepared in one go, and the memory they may take


def capture_on_cuda(work: Work) -> Work:
    """Capture what ``work`` launches on the current stream; return a function that replays it.

    Capturing computes nothing. Tensors that ``work`` makes keep their addresses; each replay writes
    their values again. Other threads, such as those that pin memory, may call CUDA meanwhile.
    """
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
    with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
        work()
    replay: Work = graph.replay
    return replay


class Replayed:
    """Work that becomes a graph: it launches the same kernels on the same memory in every call.

    The first calls run eagerly, which a capture needs; the next captures; from there on all replay.
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


def plain_norms(net: nn.Module) -> list[nn.BatchNorm2d]:
    """The batch-norm layers of ``net`` that count batches and do nothing else with the count."""
    norms = [module for module in net.modules() if type(module) is nn.BatchNorm2d]
    return [n for n in norms if n.num_batches_tracked is not None and n.momentum is not None]


@contextmanager
def counted_together(norms: Sequence[nn.BatchNorm2d]) -> Iterator[None]:
    """Count the batch of a training pass in all of ``norms`` at once.

    Each layer by itself launches a kernel for it, one in a dozen of all kernels of a step.
    """
    counters = [norm.num_batches_tracked for norm in norms]
    for norm in norms:
        norm.num_batches_tracked = None
    try:
        yield
    finally:
        for norm, counter in zip(norms, counters, strict=True):
            norm.num_batches_tracked = counter
    if counters:
        torch._foreach_add_([counter for counter in counters if counter is not None], 1)


class BatchesAhead:
    """The next batches of a run without other workers, ready on the device.

    ``count`` are prepared in one go, by default as many as fit into a little memory.
    """

    def __init__(self, images: ResidentImages, count: int | None = None):
        batch, _, height, width = images.share_shape
        room = AHEAD_BYTES // (4 * math.prod(images.share_shape))
        self.count = count = count or max(1, min(AHEAD, room))
        self._source, device = images, images.train_set.device
        self._first = -1  # iteration of the first of them
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


class GraphedStepper:
    """Does the updates of a run by replaying a graph of the whole step.

    The run's images lie on the device, there are no other workers, and a checkpoint is loaded
    already: the graph keeps the addresses. ``ahead`` batches are prepared in one go.
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
        self._norms, device = plain_norms(state.model), context.setup.device
        self._rate = torch.empty((), dtype=torch.float32, device=device)
        lengths = [self._batches.count, state.window.length]
        self._lengths = torch.tensor(lengths, device=device)
        # The device selects the batch, and the row of the window.
        self._rows = torch.tensor([state.iteration % length for length in lengths], device=device)
        self._replayed = Replayed(self._update, capture)
        state.graphed_eval = GraphedEval(state.model, context.setup, capture)

    def step(self, lr: float) -> None:
        """Do the update that follows the state's iteration."""
        self._batches.prepare(self._state.iteration)
        rate = self._setup.rate(lr)
        self._rate.fill_(rate)
        self._replayed()
        set_rate(self._state.optimizer, rate)  # what a checkpoint keeps
        self._state.iteration += 1

    def _update(self) -> None:
        state = self._state
        images, labels = self._batches.at(self._rows[:1])
        with counted_together(self._norms):
            loss, logits = forward_backward(state, self._setup, images, labels)
        set_rate(state.optimizer, self._rate)
        state.optimizer.step()
        state.window.add(self._rows[1:], loss, wrong_counts(logits, labels), len(labels))
        self._rows.add_(1).remainder_(self._lengths)


class GraphedEval:
    """A net's forward pass in evaluation, replayed for batches of the first one's shape.

    Any other, such as a smaller last batch, goes through the net eagerly; the kernels are the same.
    """

    def __init__(self, net: Callable[[Tensor], Tensor], setup: Setup, capture: Capture):
        self._net, self._setup = net, setup
        self._images = self._logits = torch.empty(0)
        # One eager call is enough: by now training has prepared the device.
        self._replayed = Replayed(self._forward, capture, eager_calls=1)

    def __call__(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, 3, H, W); use them before the next call."""
        if not self._images.numel():
            self._images = torch.empty_like(images)
        if images.shape != self._images.shape:
            return self._net(images)
        self._images.copy_(images)
        self._replayed()
        return self._logits

    @torch.no_grad()
    def _forward(self) -> None:
        # Weights that were cast outside the graph would not be cast when it is replayed.
        with self._setup.autocast(cache=False):
            self._logits = self._net(self._images)
