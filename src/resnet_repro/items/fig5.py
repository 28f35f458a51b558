"""Fig. 5: the basic block and the bottleneck, with their counted sizes."""

from matplotlib.figure import Figure

from resnet_repro.analysis import counted, diagram, style
from resnet_repro.analysis.diagram import BLOCK_PITCH, BLOCK_SIDE


@style.style()
def fig5() -> Figure:
    """Fig. 5: the basic block of ResNet-34 (left), the bottleneck of ResNet-50 (right).

    Both are blocks of the first stage (56x56 maps) that keep their shape, drawn as counted.
    """
    basic, narrow = (
        next(block for block in counted.blocks(net) if not block.changes_shape)
        for net in ("ResNet-34 A", "ResNet-50")
    )
    figure, axes = diagram.canvas(5.6, 2.95)
    for x, top, block in ((1.3, 2.42 - BLOCK_PITCH / 2, basic), (4.0, 2.42, narrow)):
        texts = [f"{y.kernel}x{y.kernel}, {y.out_channels}" for y in block.main]
        diagram.draw_block(axes, x, top, texts, f"{block.main[0].in_channels}-d")
        params = sum(layer.params for layer in block.main)
        adds = sum(layer.multiply_adds for layer in block.main)
        size = f"{params / 1e3:.1f}k weights, {adds / 1e6:.0f}M multiply-adds"
        diagram.draw_label(axes, (x + BLOCK_SIDE / 4, 0.1), size, fontsize=8, color=diagram.INK)
    side = basic.main[0].out_size
    caption = (
        f"Left: basic block, as in ResNet-34; right: bottleneck, as in ResNet-50, 101 and "
        f"152; both on {side}x{side} maps of the first stage, at similar cost. Each conv "
        "is followed by batch normalisation; weights are the convs' own."
    )
    return style.underneath(figure, [caption])
