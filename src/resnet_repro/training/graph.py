"""A training step and an evaluation pass as CUDA graphs: captured once, then replayed.

Many batches are prepared on the device in one go. A step needs nothing from the host: a counter on
the device selects the batch, and the learning rate, losses and wrong counts are there. The kernels
are those of an eager step, and so are the results. Only :func:`capture_on_cuda` needs a GPU.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

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
    """Capture what ``work`` launches on the current stream, computing nothing, to be replayed.

    Tensors that ``work`` makes keep their addresses; each replay writes their values again.
    """
    # Other threads, such as those that pin memory, may call CUDA meanwhile: "thread_local".
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
    with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
        work()
    replay: Work = graph.replay
    return replay


class Replayed:
    """Work of the same kernels on the same memory: first eager calls, then a graph's replays."""

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


@contextmanager
def counted_together(net: nn.Module) -> Iterator[None]:
    """Count the batch of a training pass in all BN layers at once.

    Each layer by itself launches a kernel for it, one in a dozen of all kernels of a step.
    """
    counters = {
        norm: norm.num_batches_tracked
        for norm in net.modules()
        if type(norm) is nn.BatchNorm2d
        and norm.num_batches_tracked is not None
        and norm.momentum is not None
    }
    for norm in counters:
        norm.num_batches_tracked = None
    try:
        yield
    finally:
        for norm, counter in counters.items():
            norm.num_batches_tracked = counter
    if counters:
        torch._foreach_add_(list(counters.values()), 1)


class BatchesAhead:
    """The next ``count`` batches of a run, ready on the device."""

    def __init__(self, images: ResidentImages):
        batch, _, height, width = images.share_shape
        room = AHEAD_BYTES // (4 * math.prod(images.share_shape))
        self.count = count = max(1, min(AHEAD, room))
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


class GraphedStep:
    """The step of a run, done by replaying a graph of all of it.

    The run has no other workers, and a checkpoint is loaded already: the graph keeps the addresses.
    """

    def __init__(self, context: RunContext, state: TrainState, capture: Capture = capture_on_cuda):
        assert isinstance(context.images, ResidentImages)
        self._setup, self._state = context.setup, state
        self._batches = BatchesAhead(context.images)
        device = context.setup.device
        self._rate = torch.empty((), dtype=torch.float32, device=device)
        lengths = [self._batches.count, state.window.length]
        self._lengths = torch.tensor(lengths, device=device)
        # The device selects the batch, and the row of the window.
        self._rows = torch.tensor([state.iteration % length for length in lengths], device=device)
        self._replayed = Replayed(self._update, capture)
        state.graphed_eval = GraphedEval(state.model, context.setup, capture)

    def __call__(self, lr: float) -> None:
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
        with counted_together(state.train_net):
            loss, logits = forward_backward(state, self._setup, images, labels)
        set_rate(state.optimizer, self._rate)
        state.optimizer.step()
        state.window.add(self._rows[1:], loss, wrong_counts(logits, labels), len(labels))
        self._rows.add_(1).remainder_(self._lengths)


class GraphedEval:
    """A net's forward pass in evaluation: replayed for the first batch's shape, else eager."""

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
