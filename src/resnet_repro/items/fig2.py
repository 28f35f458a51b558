"""Fig. 2: a residual block."""

from matplotlib.figure import Figure

from resnet_repro.analysis import diagram, style
from resnet_repro.analysis.diagram import BLOCK_PITCH, BLOCK_SIDE

X, F = r"$\mathbf{x}$", r"$\mathcal{F}(\mathbf{x})$"


@style.style()
def fig2() -> Figure:
    """Fig. 2: residual learning, a building block."""
    figure, axes = diagram.canvas(3.7, 1.95)
    x, top = 1.75, 1.42
    diagram.draw_block(axes, x, top, ["weight layer"] * 2, X)
    left = {"ha": "right", "fontsize": 10}
    diagram.draw_label(axes, (x - 0.72, top - BLOCK_PITCH / 2), F, **left)
    diagram.draw_label(axes, (x - 0.16, top - 1.52 * BLOCK_PITCH), f"{F} + {X}", **left)
    position = (x + BLOCK_SIDE + 0.08, top - 0.5 * BLOCK_PITCH)
    diagram.draw_label(axes, position, f"{X}\nidentity", ha="left", fontsize=8.5)
    caption = (
        "Residual learning: y = relu(F(x) + x). Here each weight layer is a conv with "
        "batch normalisation; a plain net has the same layers without the shortcut."
    )
    return style.underneath(figure, [caption])
