"""Fig. 5: the basic block and the bottleneck, with their counted sizes."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from resnet_repro.analysis import diagram, style
from resnet_repro.analysis.counted import Counted, CountedBlock


def save(out_dir: Path) -> list[Path]:
    """Draw Fig. 5 and write it as ``fig5.png`` and ``fig5.svg``."""
    return style.save(fig5(), "fig5", out_dir)


def fig5(counted: Counted | None = None) -> Figure:
    """Fig. 5: the basic block of ResNet-34 (left), the bottleneck of ResNet-50 (right).

    Both are blocks of the first stage (56x56 maps) that keep their shape, drawn and compared as
    they were counted.
    """
    counted = counted or Counted()
    basic = _identity_block(counted, "ResNet-34 A")
    narrow = _identity_block(counted, "ResNet-50")
    with style.style():
        figure, axes = diagram.canvas(5.6, 2.95)
        for x, block in ((1.3, basic), (4.0, narrow)):
            top = 2.42 if block is narrow else 2.42 - diagram.BLOCK_PITCH / 2
            texts = [f"{y.kernel}x{y.kernel}, {y.out_channels}" for y in block.main]
            diagram.block(axes, x, top, texts, f"{block.main[0].in_channels}-d")
            params = sum(layer.params for layer in block.main)
            adds = sum(layer.multiply_adds for layer in block.main)
            size = f"{params / 1e3:.1f}k weights, {adds / 1e6:.0f}M multiply-adds"
            diagram.label(
                axes, (x + diagram.BLOCK_SIDE / 4, 0.1), size, fontsize=8, color=diagram.INK
            )
        side = basic.main[0].out_size
        style.underneath(
            figure,
            [
                f"Left: basic block, as in ResNet-34; right: bottleneck, as in ResNet-50, 101 and "
                f"152; both on {side}x{side} maps of the first stage, at similar cost. Each conv "
                "is followed by batch normalisation; weights are the convs' own."
            ],
        )
    return figure


def _identity_block(counted: Counted, net: str) -> CountedBlock:
    blocks = counted.blocks(net)
    return next(block for block in blocks if not block.changes_shape)
