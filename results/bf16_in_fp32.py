"""Run bf16 training on a CPU without bf16 units: ``python bf16_in_fp32.py MODULE WORDS``.

MODULE is ``resnet_repro.train``, with ``trainer.precision=bf16``, or ``benchmarks.precision``. A
conv takes and returns bf16, as on other CPUs, but is computed in fp32: the product of two bf16
numbers is exact there, and the sums are in fp32 on both. Torch's own bf16 convs take about twelve
times as long on such a CPU.

ResNet-56 was trained so between iterations 42,050 and 52,840; ``earlier`` in its ``meta.json`` has
the parts and their processors, added from the ``meta.json`` committed at these iterations, since
the revision of that run did not record them yet. At plain-56's checkpoints of iterations 16,000 and
36,000 the gradients of this arithmetic were as far from fp32's as those of torch's own bf16 convs.
"""

import runpy
import sys
from typing import Any

import torch
from torch import Tensor, nn

Pair = tuple[int, int]


class ConvInFp32(torch.autograd.Function):
    """A conv of bf16 numbers, and its gradients, rounded to bf16 after sums in fp32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> Tensor:
        """Return bf16 maps of bf16 images and weights."""
        ctx.save_for_backward(x, weight)
        ctx.geometry = None, stride, padding, (1, 1), False, (0, 0), 1
        return torch.ops.aten.convolution(x.float(), weight.float(), *ctx.geometry).bfloat16()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, None, None]:
        """Return the gradients with respect to images and weights in bf16."""
        x, weight = ctx.saved_tensors
        exact, needed = (
            (grad.float(), x.float(), weight.float()),
            (ctx.needs_input_grad[0], True, False),
        )
        to_input, to_weight, _ = torch.ops.aten.convolution_backward(*exact, *ctx.geometry, needed)
        return None if to_input is None else to_input.bfloat16(), to_weight.bfloat16(), None, None


def forward(self: nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Under autocast to bf16, replace ``nn.Conv2d._conv_forward``."""
    if not torch.is_autocast_enabled("cpu"):
        return native(self, x, weight, bias)
    assert bias is None
    return ConvInFp32.apply(x.bfloat16(), weight.bfloat16(), self.stride, self.padding)


native = nn.Conv2d._conv_forward
nn.Conv2d._conv_forward = forward
runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
