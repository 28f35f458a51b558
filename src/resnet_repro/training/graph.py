"""Work of a fixed shape, recorded once and done again without its host: CUDA graphs.

:func:`capture_on_cuda` holds every call that needs a GPU. A test gives something else in its place:
recording that keeps the function, replaying that calls it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from resnet_repro.training.device import Setup

Work = Callable[[], None]
Capture = Callable[[Work], Work]  # from work to what does the same work again

USUAL_CALLS = 3  # before a capture: libraries choose their kernels, the compiler makes its own


def capture_on_cuda(work: Work) -> Work:
    """Record what ``work`` launches on the current stream; return what launches all of it at once.

    Recording computes nothing. Tensors that ``work`` makes stay where they are from then on, in
    memory of the graph's own: each replay writes their values anew.
    """
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
        work()
    replay: Work = graph.replay
    return replay


class Replayed:
    """Work that becomes a graph.

    The first calls do it as usual: they are what a capture needs before it, and being real calls
    they need not be undone. Then it is captured, and from there on replayed.

    Args:
        work: launches the same kernels on the same memory in every call, and reads nothing back.
        capture: how it is recorded.
        usual_calls: done as usual first.
    """

    def __init__(self, work: Work, capture: Capture, usual_calls: int = USUAL_CALLS):
        self._work, self._capture, self._left = work, capture, usual_calls
        self._replay: Work | None = None

    def __call__(self) -> None:
        """Do the work."""
        if self._left > 0:
            self._left -= 1
            self._work()
            return
        if self._replay is None:
            self._replay = self._capture(self._work)
        self._replay()


class ReplayedForward:
    """A net's forward pass in evaluation, replayed for batches of one shape.

    The shape is that of the first batch; any other, such as a smaller last batch, goes through the
    net as usual. The counts are those of the net itself: the kernels are the same.
    """

    def __init__(self, net: Callable[[Tensor], Tensor], setup: Setup, capture: Capture):
        self._net, self._setup = net, setup
        self._images: Tensor | None = None
        self._logits: Tensor | None = None
        # One call as usual is enough: by now training has made the device ready.
        self._pass = Replayed(self._forward, capture, usual_calls=1)

    def __call__(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, 3, H, W); to be used before the next call."""
        if self._images is None:
            self._images = torch.empty_like(images)
        if images.shape != self._images.shape:
            return self._net(images)
        self._images.copy_(images)
        self._pass()
        assert self._logits is not None
        return self._logits

    @torch.no_grad()
    def _forward(self) -> None:
        assert self._images is not None
        # Weights that were cast outside the graph would be cast no more when it is replayed.
        with self._setup.autocast(cache=False):
            self._logits = self._net(self._images)
