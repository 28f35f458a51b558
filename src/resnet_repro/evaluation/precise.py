"""Batch-norm statistics as true averages over training images instead of running averages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def precise_bn(model: nn.Module, batches: Iterable[Tensor]) -> Iterator[int]:
    """Let ``model`` test with statistics averaged over ``batches``; then restore its own.

    A running average lags behind the weights; the authors' release averages over a large batch
    after training. Here mean and unbiased variance of every batch under the final weights are
    averaged with equal weight for each image. In the block the model is in evaluation mode; mode,
    momentum and statistics are restored after it, whatever happens in it.

    Args:
        model: a net with batch norm.
        batches: prepared training images (N, 3, H, W), each of the size used in training: the
            variance within a batch depends on it.

    Yields:
        The number of images averaged over.

    Raises:
        ValueError: no images.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    was_training, momenta = model.training, [norm.momentum for norm in norms]
    kept = [(value, value.clone()) for norm in norms for value in norm.buffers()]
    seen = 0
    try:
        model.train()
        with torch.no_grad():
            for images in batches:
                seen += len(images)
                for norm in norms:  # not None: torch would read its counter back from the device
                    norm.momentum = len(images) / seen
                model(images)
        if not seen:
            raise ValueError("precise batch norm needs at least one batch of training images")
        model.eval()
        yield seen
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for value, before in kept:
            value.copy_(before)
        model.train(was_training)
