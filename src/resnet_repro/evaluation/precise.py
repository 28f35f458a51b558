"""Batch-norm statistics as true averages over training images instead of running averages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def precise_bn(model: nn.Module, batches: Iterable[Tensor]) -> Iterator[int]:
    """Let ``model`` test with statistics averaged over ``batches``; then restore its own.

    A running average forgets and lags behind the weights; the authors' release averages over a
    large batch after training. Here the mean and the unbiased variance of every batch under the
    final weights are averaged with equal weight for each image. In the block the model is in
    evaluation mode; mode, momentum and statistics are as before after it, whatever happens in it.

    Args:
        model: a net with batch norm.
        batches: prepared training images (N, 3, H, W), each of the size used in training: the
            variance within a batch depends on it.

    Yields:
        The number of images averaged over.

    Raises:
        ValueError: no batch norm, or no images.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    if not norms:
        raise ValueError(f"{type(model).__name__} has no batch norm")
    was_training = model.training
    momenta = [norm.momentum for norm in norms]
    kept = [{name: value.clone() for name, value in norm.named_buffers()} for norm in norms]
    try:
        seen = _average(model, norms, batches)
        model.eval()
        yield seen
    finally:
        for norm, momentum, buffers in zip(norms, momenta, kept, strict=True):
            norm.momentum = momentum
            for name, value in norm.named_buffers():
                value.copy_(buffers[name])
        model.train(was_training)


@torch.no_grad()
def _average(model: nn.Module, norms: list[nn.BatchNorm2d], batches: Iterable[Tensor]) -> int:
    model.train()
    seen = 0
    for images in batches:
        seen += len(images)
        for norm in norms:  # not None: torch would read its counter back from the device
            norm.momentum = len(images) / seen
        model(images)
    if not seen:
        raise ValueError("precise batch norm needs at least one batch of training images")
    return seen
