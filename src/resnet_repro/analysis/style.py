"""One look for all figures: readable in print and by the colour-blind.

Colour encodes the depth and is the same in every figure (Okabe and Ito's palette). Bold is test
error, thin dashed is training error, as in Fig. 6. The paper's own curve has the same colour,
paler and thinner, and is drawn underneath.
"""

import io
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from PIL import Image

from resnet_repro.paths import writing

DPI = 200
PNG_COLOURS = 128
PANEL_INCHES = (3.7, 3.0)
LINE_INCHES = 0.135  # of the caption
ROW_INCHES = 0.18  # of the legend
CAPTION_COLUMNS_PER_INCH = 17

# Two shades never meet that differ in hue alone: light and dark alternate along each figure.
_DEPTHS = {
    "#999999": (8,),
    "#CC79A7": (14, 101),
    "#0072B2": (18, 20),
    "#56B4E9": (32,),
    "#D55E00": (34, 56),
    "#E69F00": (44,),
    "#009E73": (50, 1202),
    "#000000": (110, 152),
}
# In diagrams colour encodes the side of the map: 224x224 pixels down to 1x1.
_MAPS = {
    "#777777": (224,),
    "#B0578D": (112,),
    "#0072B2": (56, 32),
    "#007F5F": (28, 16),
    "#B77A00": (14,),
    "#C24E00": (8, 7),
    "#555555": (1,),
}

TEST: dict[str, Any] = {"linewidth": 1.8, "linestyle": "-"}
TRAIN: dict[str, Any] = {"linewidth": 1.0, "linestyle": (0, (4, 1.6))}
PAPER_TEST: dict[str, Any] = {"linewidth": 0.8, "linestyle": "-", "zorder": 1.5}
PAPER_TRAIN: dict[str, Any] = {"linewidth": 0.7, "linestyle": (0, (1, 1)), "zorder": 1.4}

_RC: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: the same figure everywhere
    "font.size": 9,
    "axes.labelsize": 9,
    "axes.titlesize": 9.5,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.5,
    "xtick.direction": "out",
    "ytick.direction": "out",
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "legend.handlelength": 2.4,
    "lines.solid_capstyle": "round",
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "svg.hashsalt": "resnet_repro",
    "svg.fonttype": "path",
}


@contextmanager
def style() -> Iterator[None]:
    """Draw in the project's style within the block."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_RC)  # type: ignore[arg-type]
        yield


def subplots(
    rows: int = 1, columns: int = 1, panel: tuple[float, float] = PANEL_INCHES, **how: Any
) -> tuple[Figure, Any]:
    """As ``pyplot.subplots``, bound to no window system; ``panel``: inches, width and height."""
    figure = Figure(figsize=(panel[0] * columns, panel[1] * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, **how)


def depth_colour(depth: int) -> str:
    """Return the colour of a depth, the same in all figures; unknown depths are grey."""
    return next((colour for colour, depths in _DEPTHS.items() if depth in depths), "#777777")


def map_colour(size: int) -> str:
    """Return the colour of a layer by the side of the map it returns; unknown sides are grey."""
    return next((colour for colour, sizes in _MAPS.items() if size in sizes), "#777777")


def pale(colour: str, share: float = 0.5) -> tuple[float, float, float]:
    """Mix a colour with white; the paper's curves are drawn so."""
    red, green, blue = (1 - (1 - part) * share for part in to_rgb(colour))
    return red, green, blue


Legend = tuple[Sequence[Artist], Sequence[str]]


def underneath(
    figure: Figure, sentences: Sequence[str], legend: Axes | Legend = ((), ()), columns: int = 2
) -> Figure:
    """Lengthen a figure downwards by a legend and a caption, so that neither hides anything.

    ``sentences`` are wrapped to the figure's width. ``legend``: handles and texts, or the panel
    whose lines have them, filled row by row. The figure, which has panels alone, is returned.
    """
    handles, labels = legend.get_legend_handles_labels() if isinstance(legend, Axes) else legend
    width, panels = figure.get_size_inches()
    lines = textwrap.wrap(" ".join(sentences), int(width * CAPTION_COLUMNS_PER_INCH))
    caption = LINE_INCHES * len(lines) + 0.08
    rows = -(-len(handles) // columns)
    key = (ROW_INCHES * rows + 0.12) if rows else 0.0
    height = panels + key + caption
    figure.set_size_inches(width, height)
    engine = figure.get_layout_engine()
    assert isinstance(engine, ConstrainedLayoutEngine)
    engine.set(rect=(0.005, (key + caption) / height, 0.985, panels / height))
    if rows:
        blanks = [(Line2D([], [], linestyle="none"), "")] * (rows * columns - len(handles))
        cells = [*zip(handles, labels, strict=True), *blanks]
        by_column = [cell for column in range(columns) for cell in cells[column::columns]]
        place: dict[str, Any] = {"loc": "lower center", "bbox_to_anchor": (0.5, caption / height)}
        shown, texts = zip(*by_column, strict=True)
        figure.legend(shown, texts, ncols=columns, borderaxespad=0.2, **place)
    look: dict[str, Any] = {"fontsize": 7, "color": "#333333", "linespacing": 1.3, "gid": "caption"}
    text = "\n".join(lines)
    figure.text(0.5, (caption - 0.02) / height, text, ha="center", va="top", **look)
    # The solver's last digits vary from process to process; the bytes of a figure must not.
    engine.execute(figure)
    figure.set_layout_engine("none")
    for axes in figure.axes:
        left, bottom, width, height = (round(side, 5) for side in axes.get_position().bounds)
        axes.set_position((left, bottom, width, height))
    return figure


def save(figure: Figure, stem: str, out_dir: Path) -> list[Path]:
    """Write ``stem.png`` (200 dpi) and ``stem.svg``, and return both paths.

    Equal figures give equal bytes. ConfigError: they cannot be written there.
    """
    paths = [Path(out_dir) / f"{stem}.png", Path(out_dir) / f"{stem}.svg"]
    pixels = io.BytesIO()
    with writing(out_dir):
        paths[0].parent.mkdir(parents=True, exist_ok=True)
        with style():
            figure.savefig(pixels, format="png", dpi=DPI)
            figure.savefig(paths[1], metadata={"Date": None, "Creator": None})
        paths[0].write_bytes(with_palette(pixels, dpi=(DPI, DPI)))
    return paths


def with_palette(png: IO[bytes], **how: Any) -> bytes:
    """Return a PNG in few colours, a third of the bytes of lines and text; the same each time."""
    small = io.BytesIO()
    with Image.open(png) as drawn:
        quantized = drawn.convert("RGB").quantize(PNG_COLOURS, dither=Image.Dither.NONE)
    quantized.save(small, "png", optimize=True, **how)
    return small.getvalue()
