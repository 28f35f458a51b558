"""Our error curves over the paper's, net by net, where both were trained alike."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from resnet_repro.analysis import style
from resnet_repro.analysis.captions import run_sentences
from resnet_repro.analysis.curve_compare import KINDS, Stretch
from resnet_repro.analysis.panels import draw_paper, iter_unit
from resnet_repro.analysis.paper import Paper

COLUMNS = 3
LOOKS = {
    "train": (style.TRAIN, style.PAPER_TRAIN),
    "test": (style.TEST, style.PAPER_TEST),
}


def draw_agreement(
    stretches: Sequence[Stretch], out_dir: Path, paper: Paper | None = None
) -> list[Path]:
    """Draw the compared curves and write them as ``agreement.png`` and ``agreement.svg``."""
    return style.save(agreement(stretches, paper), "agreement", out_dir)


def agreement(stretches: Sequence[Stretch], paper: Paper | None = None) -> Figure:
    """One panel per net: ours, with a dot where it is compared, over the paper's curve, pale.

    Raises:
        ValueError: there is nothing to compare.
    """
    nets: dict[str, list[Stretch]] = {}
    for stretch in stretches:
        nets.setdefault(stretch.net, []).append(stretch)
    if not nets:
        raise ValueError("no curve of ours has an iteration in common with the paper's")
    columns = min(COLUMNS, len(nets))
    rows = -(-len(nets) // columns)
    book = paper or Paper()
    with style.style():
        figure = style.new_figure(columns, rows=rows, panel=(3.4 if columns > 1 else 5.0, 2.9))
        grid = figure.subplots(rows, columns, squeeze=False)
        for axes, (net, parts) in zip(grid.flat, nets.items(), strict=False):
            _draw(axes, net, parts, book)
        for axes in list(grid.flat)[len(nets) :]:
            axes.remove()
        handles, labels = grid.flat[0].get_legend_handles_labels()
        runs = list({str(r.path): r for s in stretches for r in s.runs}.values())
        said = [
            "Dots: where ours is compared with the paper's digitised curve.",
            *run_sentences(runs),
        ]
        style.underneath(figure, said, handles, labels, columns=2)
    return figure


def _draw(axes: Axes, net: str, parts: Sequence[Stretch], paper: Paper) -> None:
    run = parts[0].runs[0]
    colour, unit = style.depth_colour(run.depth), iter_unit([run])
    figure = 6 if run.config["model"]["family"] == "cifar" else 4
    for kind, (ours, theirs) in LOOKS.items():
        whole = [part for part in parts if part.kind == kind]
        if not whole:
            continue
        for number, part in enumerate(whole):
            label = KINDS[kind] if number == 0 else None
            x = part.course.index.to_numpy() / unit
            axes.plot(x, part.course.to_numpy(), color=colour, label=label, zorder=2.5, **ours)
            x = part.ours.index.to_numpy() / unit
            axes.plot(x, part.ours.to_numpy(), "o", color=colour, markersize=3, zorder=2.6)
        draw_paper(axes, paper, figure, run, kind, theirs)
        axes.lines[-1].set_label(f"{KINDS[kind]} in the paper")
    last = max(int(part.ours.index[-1]) for part in parts)
    axes.set_xlim(0, last * 1.05 / unit)
    highest = max(float(max(part.ours.max(), part.paper.max())) for part in parts)
    axes.set_ylim(0, max(20.0, 5 * (highest // 5 + 1)))
    axes.set_title(net)
    axes.set_xlabel("iter. (1e4)")
    axes.set_ylabel("error (%)")
