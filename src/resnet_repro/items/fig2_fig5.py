"""Fig. 2: a residual block; Fig. 5: the basic block and the bottleneck, with counted sizes."""

from collections.abc import Sequence
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from resnet_repro.analysis import counted, diagram, style

# Size of a box, from box to box, reach of the shortcut, radius of an addition; inches.
BOX, PITCH, SIDE, RADIUS = (1.15, 0.27), 0.62, 0.95, 0.085
COLOUR = "#0072B2"
X, F = r"$\mathbf{x}$", r"$\mathcal{F}(\mathbf{x})$"


@style.style()
def fig2() -> Figure:
    """Fig. 2: residual learning, a building block."""
    figure, axes = diagram.canvas(3.7, 1.95)
    x, top = 1.75, 1.42
    _draw_block(axes, x, top, ["weight layer"] * 2, X)
    left = {"ha": "right", "fontsize": 10}
    diagram.draw_label(axes, (x - 0.72, top - PITCH / 2), F, **left)
    diagram.draw_label(axes, (x - 0.16, top - 1.52 * PITCH), f"{F} + {X}", **left)
    position = (x + SIDE + 0.08, top - 0.5 * PITCH)
    diagram.draw_label(axes, position, f"{X}\nidentity", ha="left", fontsize=8.5)
    caption = (
        "Residual learning: y = relu(F(x) + x). Here each weight layer is a conv with "
        "batch normalisation; a plain net has the same layers without the shortcut."
    )
    return style.underneath(figure, [caption])


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
    for x, top, block in ((1.3, 2.42 - PITCH / 2, basic), (4.0, 2.42, narrow)):
        texts = [f"{y.kernel}x{y.kernel}, {y.out_channels}" for y in block.main]
        _draw_block(axes, x, top, texts, f"{block.main[0].in_channels}-d")
        params = sum(layer.params for layer in block.main)
        adds = sum(layer.multiply_adds for layer in block.main)
        size = f"{params / 1e3:.1f}k weights, {adds / 1e6:.0f}M multiply-adds"
        diagram.draw_label(axes, (x + SIDE / 4, 0.1), size, fontsize=8, color=diagram.INK)
    side = basic.main[0].out_size
    caption = (
        f"Left: basic block, as in ResNet-34; right: bottleneck, as in ResNet-50, 101 and "
        f"152; both on {side}x{side} maps of the first stage, at similar cost. Each conv "
        "is followed by batch normalisation; weights are the convs' own."
    )
    return style.underneath(figure, [caption])


def _draw_block(axes: Axes, x: float, top: float, texts: Sequence[str], into: str) -> None:
    """Draw a block whose first box is centred on (``x``, ``top``) and whose input is ``into``."""
    half = BOX[1] / 2
    heights = [top - PITCH * number for number in range(len(texts))]
    start, sum_at = top + 0.28, heights[-1] - 0.52 * PITCH
    diagram.draw_label(axes, (x, top + 0.47), into, fontsize=9)
    diagram.draw_arrow(axes, (x, top + 0.4), (x, top + half))
    boxes = [(y, text, COLOUR) for y, text in zip(heights, texts, strict=True)]
    diagram.draw_stack(axes, x, boxes, BOX, 8.5)
    for one, two in pairwise(heights):
        diagram.draw_label(axes, (x + 0.06, (one + two) / 2), "relu", ha="left", fontsize=8)
    diagram.draw_arrow(axes, (x, heights[-1] - half), (x, sum_at + RADIUS))
    axes.add_patch(Circle((x, sum_at), RADIUS, facecolor="white", zorder=3, **diagram.PEN))
    arm = RADIUS * 0.6
    plus = [(x - arm, sum_at), (x + arm, sum_at), (x, sum_at - arm), (x, sum_at + arm)]
    diagram.draw_strokes(axes, *plus, zorder=4)
    diagram.draw_shortcut(axes, (x, start), (x + RADIUS, sum_at), SIDE)
    diagram.draw_arrow(axes, (x, sum_at - RADIUS), (x, sum_at - 0.38))
    diagram.draw_label(axes, (x + 0.06, sum_at - 0.22), "relu", ha="left", fontsize=8)
