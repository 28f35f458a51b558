"""Every item by name: its title, how it is drawn, and the claims it bears on.

No torch, no Hydra: the report and the results page are made from this list.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from resnet_repro.analysis import claims, gradients, imagenet_claims, responses, tables
from resnet_repro.analysis.judge import ClaimResult
from resnet_repro.analysis.load import Run
from resnet_repro.analysis.mechanism_claims import gradients_stay_healthy, responses_are_smaller
from resnet_repro.items import (
    deviations,
    fig1,
    fig2,
    fig3,
    fig4,
    fig5,
    fig6,
    table1,
    table5,
    tables2_3_4,
)

FIGURES, TABLES = Path("results/figures"), Path("results/tables")
Claim = Callable[[Sequence[Run]], ClaimResult]


@dataclass(frozen=True)
class Item:
    """A figure or table made from logged runs; ``conf/item`` lists its experiments.

    Attributes:
        draw: writes the files of the item into a folder and returns their paths.
        claims: of the paper, tested on the item's runs.
        out: folder of what is drawn.
        protocol: of evaluation that the finished nets need besides the single view.
        together: whether that protocol is needed of the nets as an ensemble.
    """

    title: str
    draw: Callable[[Sequence[Run], Path], list[Path]]
    claims: tuple[Claim, ...] = ()
    out: Path = FIGURES
    protocol: str = ""
    together: bool = False


@dataclass(frozen=True)
class Drawing:
    """A figure or table made from the counted nets alone."""

    title: str
    draw: Callable[[Path], list[Path]]
    out: Path = FIGURES


def _variants(name: str) -> Callable[[Sequence[Run], Path], list[Path]]:
    return partial(deviations.save, stem=name)


ITEMS = {
    "fig1": Item(
        "Fig. 1: training and test error of plain-20 and plain-56",
        fig1.save,
        (claims.plain_training_error_rises,),
    ),
    "fig4": Item(
        "Fig. 4: plain and residual nets of 18 and 34 layers, on Tiny ImageNet",
        fig4.save,
        (imagenet_claims.plain_degrades_residual_does_not,),
    ),
    "fig6": Item(
        "Fig. 6: plain nets (left), residual nets (middle), 110 against 1202 layers (right)",
        fig6.save,
        (
            claims.plain_test_error_rises,
            claims.plain_training_error_rises,
            claims.residual_errors_fall,
            claims.residual_beats_plain,
            claims.depth_1202_overfits,
        ),
    ),
    "fig7": Item(
        "Fig. 7: layer responses of plain and residual nets",
        responses.save_fig7,
        (responses_are_smaller,),
    ),
    "gradients": Item(
        "Gradient norms and the forward signal of plain and residual nets (the remarks of "
        "Sec. 4.1)",
        gradients.save_gradients,
        (gradients_stay_healthy,),
    ),
    "table2": Item(
        "Table 2: the nets of Fig. 4, 10-crop",
        partial(tables2_3_4.save, 2),
        (imagenet_claims.plain_degrades_residual_does_not,),
        TABLES,
        protocol="10-crop",
    ),
    "table3": Item(
        "Table 3: shortcut options and depth, 10-crop, on Tiny ImageNet",
        partial(tables2_3_4.save, 3),
        (imagenet_claims.shortcuts_beat_plain, imagenet_claims.deeper_is_better),
        TABLES,
        protocol="10-crop",
    ),
    "table4": Item(
        "Table 4: single nets, fully convolutional over several scales, on Tiny ImageNet",
        partial(tables2_3_4.save, 4),
        (partial(imagenet_claims.deeper_is_better, protocol="multi-scale"),),
        TABLES,
        protocol="multi-scale",
    ),
    "table5": Item(
        "Table 5: ensembles of the nets of Table 4",
        table5.save,
        out=TABLES,
        protocol="multi-scale",
        together=True,
    ),
    "table6": Item(
        "Table 6: test error of residual nets from 20 to 1202 layers, plain nets beside them: "
        "the runs of Fig. 6",
        tables.save_table6,
        (
            claims.residual_errors_fall,
            claims.residual_beats_plain,
            claims.depth_1202_overfits,
        ),
        TABLES,
    ),
    "blocks": Item("Blocks of one, two and three layers (Sec. 3.2)", _variants("blocks")),
    "claims": Item(
        "Claims C1 to C6 and C10 on every CIFAR-10 net of the paper",
        claims.save_claims,
        claims.CIFAR_CLAIMS,
        TABLES,
    ),
    "deviations": Item(
        "What each choice the paper leaves open is worth: ResNet-56 and plain-56 with exactly one "
        "changed",
        _variants("deviations"),
    ),
    "highway": Item(
        "Identity against gated shortcuts (Highway) under one protocol", _variants("highway")
    ),
}

DRAWINGS = {
    "fig2": Drawing("Fig. 2: residual learning, a building block", fig2.save),
    "fig3": Drawing(
        "Fig. 3: the three nets side by side, maps of one size at one height", fig3.save
    ),
    "fig5": Drawing(
        "Fig. 5: the basic block of ResNet-34 (left), the bottleneck of ResNet-50 (right)",
        fig5.save,
    ),
    "table1": Drawing(
        "Table 1: layers, output size, then one column per depth; sizes and the paper's beneath",
        table1.save,
        TABLES,
    ),
}
