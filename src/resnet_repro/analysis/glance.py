"""One run at a glance: its error curves and, where they were logged, its layer responses."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from resnet_repro.analysis import style
from resnet_repro.analysis.captions import run_sentences
from resnet_repro.analysis.load import Run, load_run
from resnet_repro.analysis.probes import responses

DPI = 110  # for a screen


def overview(run: Run) -> Figure:
    """Test error (bold), training error (dashed) and loss of one run over the iterations.

    A third panel has the layer responses where they were logged. Dotted lines are the drops of
    the learning rate.
    """
    inside = responses(run)
    with style.style():
        figure = style.new_figure(2 if inside is None else 3, panel=(3.4, 2.7))
        errors, losses, *more = figure.subplots(1, 2 if inside is None else 3)
        _draw(errors, run, "top1_err")
        errors.set_ylabel("error (%)")
        errors.set_title(run.label)
        _draw(losses, run, "loss")
        losses.set_ylabel("loss (nats)")
        losses.set_title("cross-entropy")
        if inside is not None:
            colour = style.depth_colour(run.depth)
            more[0].plot(inside.index.to_numpy(), inside.to_numpy(), color=colour)
            more[0].set_title("layer responses (std)")
            more[0].set_xlabel("layer")
            more[0].set_ylim(bottom=0)
        handles, labels = errors.get_legend_handles_labels()
        style.underneath(figure, run_sentences([run]), handles, labels)
    return figure


def _draw(axes: Axes, run: Run, column: str) -> None:
    colour = style.depth_colour(run.depth)
    looks = (("test", "test", style.TEST), ("train", "training", style.TRAIN))
    for kind, word, look in looks:
        curve = run.curve(kind, column)
        axes.plot(curve.index.to_numpy(), curve.to_numpy(), color=colour, label=word, **look)
    for drop in run.config["recipe"]["milestones"]:
        axes.axvline(drop, color="#bbbbbb", linewidth=0.7, linestyle=":", zorder=1)
    axes.set_xlim(0, run.max_iters)
    axes.set_xlabel("iteration")


def save_picture(run_dir: Path, out_dir: Path) -> Path:
    """Draw the run in a folder, in whatever state it is, as ``overview.png``; return its path."""
    figure = overview(load_run(run_dir))
    out_dir.mkdir(parents=True, exist_ok=True)
    path = out_dir / "overview.png"
    with style.style():
        figure.savefig(path, dpi=DPI, metadata={"Software": None})
    return path
