"""Shortcuts (Sec. 3.2, 3.3 and 4.1): what a block does with its input besides F.

``shortcut(x, residual)`` joins the block's input ``x`` (N, C_in, H, W) with ``residual`` = F(x)
(N, C_out, H/stride, W/stride) and returns the block's output before the last ReLU, in the shape of
``residual``. Only projections and gates have parameters.

==========  ==================================================================================
``none``    plain net: F alone
``A``       identity; where the width grows, every stride-th pixel and new channels of zeros
``B``       identity; where the shape changes, a 1x1 conv with BN
``C``       a 1x1 conv with BN everywhere
``gate``    Highway baseline: a learned gate between F and the input carried as in A
==========  ==================================================================================
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resnet_repro.models.blocks import NormFactory
from resnet_repro.models.spec import NetSpec


class NoShortcut(nn.Module):
    """The plain net's: the input is not used again."""

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:  # noqa: ARG002
        """Return F(x) as it is."""
        return residual


class IdentityShortcut(nn.Module):
    """Eq. 1: F(x) + x."""

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        """Add the input; both shapes are equal."""
        return residual + x


class ZeroPadShortcut(nn.Module):
    """Option A where the shape changes: subsampled input, channels of zeros added.

    The paper leaves open which: here every stride-th pixel from the first, and the new channels
    after the old ones (``end``) or half before (``both``; one more after if the number is odd).
    ValueError: the width shrinks.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, zero_pad: str) -> None:
        super().__init__()
        new = out_channels - in_channels
        if new < 0:
            raise ValueError(f"option A cannot go from {in_channels} to {out_channels} channels")
        self.stride = stride
        self.before = new // 2 if zero_pad == "both" else 0
        self.after = new - self.before

    def carry(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, ceil(H/stride), ceil(W/stride))."""
        pixels = x[:, :, :: self.stride, :: self.stride]
        return F.pad(pixels, (0, 0, 0, 0, self.before, self.after))

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        """Add the padded input."""
        return residual + self.carry(x)


class ProjectionShortcut(nn.Module):
    """Eq. 2, options B and C: 1x1 conv with the block's stride, then BN.

    The paper does not mention this BN; its released nets have it. Costs
    ``C_in * C_out + 2 * C_out`` parameters.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, norm: NormFactory) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)
        self.bn = norm(out_channels)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        """Add the projected input."""
        projected: Tensor = self.bn(self.conv(x))
        return residual + projected


class GatedShortcut(nn.Module):
    """Highway gate: y = T F(x) + (1 - T) carry(x), with T = sigmoid(1x1 conv of x + bias).

    The carry is option A's, so that a gated and a residual net differ in the gate alone. A 1x1 gate
    costs ``C_in * C_out + C_out`` parameters (5.2 % more for the 20-layer net); with a 3x3 gate the
    comparison would be one of sizes. ``gate_bias``, where its bias starts, is negative, to carry at
    first.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, zero_pad: str, gate_bias: float
    ) -> None:
        super().__init__()
        self.gate = nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=True)
        self.path = ZeroPadShortcut(in_channels, out_channels, stride, zero_pad)
        self.gate_bias = gate_bias

    def transform_gate(self, x: Tensor) -> Tensor:
        """T in (0, 1), of the residual's shape; 1 lets F through, 0 carries the input."""
        return torch.sigmoid(self.gate(x))

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        """Blend F(x) and the carried input."""
        carried = self.path.carry(x)
        return carried + self.transform_gate(x) * (residual - carried)


def make_shortcut(
    spec: NetSpec, in_channels: int, out_channels: int, stride: int, norm: NormFactory
) -> nn.Module:
    """The shortcut of a block; ValueError: the spec names one that is not made here."""
    changes = stride != 1 or in_channels != out_channels
    match spec.shortcut:
        case "none":
            return NoShortcut()
        case "gate":
            return GatedShortcut(in_channels, out_channels, stride, spec.zero_pad, spec.gate_bias)
        case "A" if changes:
            return ZeroPadShortcut(in_channels, out_channels, stride, spec.zero_pad)
        case "B" if changes:
            return ProjectionShortcut(in_channels, out_channels, stride, norm)
        case "C":
            return ProjectionShortcut(in_channels, out_channels, stride, norm)
        case "A" | "B":
            return IdentityShortcut()
    raise ValueError(f"shortcut={spec.shortcut}: make_shortcut does not know it")
