"""Fig. 2: a residual block."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from resnet_repro.analysis import diagram, style

X, F = r"$\mathbf{x}$", r"$\mathcal{F}(\mathbf{x})$"


def save(out_dir: Path) -> list[Path]:
    """Draw Fig. 2 and write it as ``fig2.png`` and ``fig2.svg``."""
    return style.save(fig2(), "fig2", out_dir)


def fig2() -> Figure:
    """Fig. 2: residual learning, a building block."""
    pitch = diagram.BLOCK_PITCH
    with style.style():
        figure, axes = diagram.canvas(3.7, 1.95)
        x, top = 1.75, 1.42
        diagram.block(axes, x, top, ["weight layer"] * 2, X)
        left = {"ha": "right", "fontsize": 10}
        diagram.label(axes, (x - 0.72, top - pitch / 2), F, **left)
        diagram.label(axes, (x - 0.16, top - 1.52 * pitch), f"{F} + {X}", **left)
        beside = (x + diagram.BLOCK_SIDE + 0.08, top - 0.5 * pitch)
        diagram.label(axes, beside, f"{X}\nidentity", ha="left", fontsize=8.5)
        style.underneath(
            figure,
            [
                "Residual learning: y = relu(F(x) + x). Here each weight layer is a conv with "
                "batch normalisation; a plain net has the same layers without the shortcut."
            ],
        )
    return figure
