"""What an iteration must do at least: bytes to move, multiply-adds to make. Arithmetic alone.

Of every conv's output, in the type of the activations (its kernels fused where neighbours allow,
nothing kept on the chip from one to the next):

forward    the conv writes it; batch-norm reads it and writes what the next conv reads
backward   batch-norm reads the gradient and that output and writes a gradient; of the latter and
           of the conv's input the next two kernels make the gradients of input and weights

and of every parameter, in fp32: read in both directions, its gradient written, read with it and its
momentum by the update, which writes both. Small nets stay in a device's cache in part, which
is how a kernel can be faster than the memory allows.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from resnet_repro.models.count import count_params, list_layers

# Passes over a conv's output, by the kernels that make them.
CONV_PASSES = {
    "the conv writes it": 1,
    "the next conv reads it": 1,
    "its gradient is read for that of the input": 1,
    "the gradient of the input is written": 1,
    "its gradient is read for that of the weights": 1,
    "the input is read for the gradient of the weights": 1,
}
NORM_PASSES = {
    "batch-norm reads it": 1,
    "batch-norm writes it": 1,
    "batch-norm reads the gradient": 1,
    "batch-norm reads it again": 1,
    "batch-norm writes the gradient": 1,
}
# Read forward and backward, gradient written; the update reads parameter, gradient and momentum and
# writes parameter and momentum.
PARAMETER_PASSES = 8
PARAMETER_BYTES = 4
PASSES = 3  # over the multiply-adds: forward, to the inputs, to the weights
ACTIVATION_BYTES = {"bf16": 2, "tf32": 4, "fp32": 4}


@dataclass(frozen=True)
class Least:
    """What an iteration must do at least.

    Attributes:
        conv_bytes: moved by convolutions.
        norm_bytes: by batch-norm, ReLU and addition.
        update_bytes: by reading and updating the parameters.
        operations: multiplications and additions, counted apart.
    """

    conv_bytes: int
    norm_bytes: int
    update_bytes: int
    operations: int

    @property
    def bytes(self) -> int:
        """All that must be moved."""
        return self.conv_bytes + self.norm_bytes + self.update_bytes


def least(net: nn.Module, batch_size: int, image_size: int, precision: str) -> Least:
    """What an iteration of ``net`` must do at least.

    Args:
        net: on any device, also the meta device.
        batch_size: images of the iteration.
        image_size: their side in pixels.
        precision: of the convolutions, ``bf16``, ``tf32`` or ``fp32``.
    """
    layers = list_layers(net, image_size)
    outputs = sum(
        layer.out_channels * layer.out_height * layer.out_width
        for layer in layers
        if layer.kind == "conv"
    )
    multiply_adds = sum(layer.multiply_adds for layer in layers)
    moved = outputs * batch_size * ACTIVATION_BYTES[precision]
    return Least(
        conv_bytes=sum(CONV_PASSES.values()) * moved,
        norm_bytes=sum(NORM_PASSES.values()) * moved,
        update_bytes=PARAMETER_PASSES * PARAMETER_BYTES * count_params(net),
        operations=2 * PASSES * multiply_adds * batch_size,
    )
