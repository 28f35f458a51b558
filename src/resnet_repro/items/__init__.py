"""The figures and tables of the paper: every item by its name, how it is drawn, its claims.

A file of this folder says which nets an item shows, how it is drawn, its caption, and the claim
that is about it alone. No torch, no Hydra: report and pages are made from this list.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure

from resnet_repro.analysis import style
from resnet_repro.analysis.judge import Claim
from resnet_repro.analysis.logged_run import Run
from resnet_repro.analysis.tables import Table, claims_table, write_table
from resnet_repro.items import (
    claims_cifar,
    claims_imagenet,
    deviations,
    fig1,
    fig2_fig5,
    fig3,
    fig4,
    fig6,
    fig7,
    gradients,
    table1,
    table6,
    tables2_5,
)


@dataclass(frozen=True)
class Item:
    """A figure, a table, or both, made from the runs that ``conf/item`` lists, or from nothing.

    ``claims`` of the paper are tested on these runs. ``protocol``: of evaluation that the nets need
    besides the single view, ``together`` as an ensemble.
    """

    name: str
    title: str
    figure: Callable[..., Figure] | None = None
    table: Callable[..., Table] | None = None
    claims: tuple[Claim, ...] = ()
    protocol: str = ""
    together: bool = False

    @property
    def out(self) -> Path:
        """Folder that it is drawn into."""
        return Path("results/figures" if self.figure else "results/tables")

    def make(self, runs: Sequence[Run] | None) -> tuple[Figure | None, Table | None]:
        """Make its figure and its table; ``runs``: None for what needs none."""
        args = () if runs is None else (runs,)
        return self.figure and self.figure(*args), self.table and self.table(*args)

    def draw(self, runs: Sequence[Run] | None, out_dir: Path) -> list[Path]:
        """Write ``<name>.png``, ``.svg`` of a figure, ``.md``, ``.tex``, ``.csv`` of a table.

        The table of a figure goes into the folder ``tables`` beside ``out_dir``. ConfigError:
        they cannot be written there.
        """
        (figure, table), paths = self.make(runs), list[Path]()
        if figure:
            paths += style.save(figure, self.name, out_dir)
            out_dir = out_dir.parent / "tables"
        if table:
            paths += write_table(table.frame, self.name, out_dir, table.notes)
        return paths


C7, C8, C9 = claims_imagenet.IMAGENET_CLAIMS
C1, C2, C3, C4, C5, C6, C10 = claims_cifar.CIFAR_CLAIMS
CLAIMS = (C1, C2, C3, C4, C5, C6, C7, C8, C9, C10)
_VARIANTS = (deviations.deviations_figure, deviations.deviations_table)
_ITEMS = (
    Item(
        "fig1",
        "Fig. 1: training and test error of plain-20 and plain-56",
        fig1.fig1,
        claims=(C2,),
    ),
    Item(
        "fig4",
        "Fig. 4: plain and residual nets of 18 and 34 layers, on Tiny ImageNet",
        fig4.fig4,
        claims=(C7,),
    ),
    Item(
        "fig6",
        "Fig. 6: plain nets, residual nets, 110 against 1202 layers",
        fig6.fig6,
        claims=(C1, C2, C3, C4, C5),
    ),
    Item("fig7", "Fig. 7: layer responses of plain and residual nets", fig7.fig7, claims=(C6,)),
    Item(
        "gradients",
        "Gradient norms and the forward signal of plain and residual nets (the remarks of "
        "Sec. 4.1)",
        gradients.gradient_figure,
        claims=(C10,),
    ),
    Item(
        "table2",
        "Table 2: the nets of Fig. 4, 10-crop",
        table=partial(tables2_5.net_table, 2),
        claims=(C7,),
        protocol="10-crop",
    ),
    Item(
        "table3",
        "Table 3: shortcut options and depth, 10-crop, on Tiny ImageNet",
        table=partial(tables2_5.net_table, 3),
        claims=(C8, C9),
        protocol="10-crop",
    ),
    Item(
        "table4",
        "Table 4: single nets, fully convolutional over several scales, on Tiny ImageNet",
        table=partial(tables2_5.net_table, 4),
        claims=(C9.at("multi-scale"),),
        protocol="multi-scale",
    ),
    Item(
        "table5",
        "Table 5: ensembles of the nets of Table 4",
        table=tables2_5.table5,
        protocol="multi-scale",
        together=True,
    ),
    Item(
        "table6",
        "Table 6: test error of residual nets from 20 to 1202 layers, plain nets beside them: "
        "the runs of Fig. 6",
        table=table6.table6_with_notes,
        claims=(C3, C4, C5),
    ),
    Item("blocks", "Blocks of one, two and three layers (Sec. 3.2)", *_VARIANTS),
    Item(
        "claims",
        "Claims C1 to C6 and C10 on every CIFAR-10 net of the paper",
        table=partial(claims_table, claims_cifar.CIFAR_CLAIMS),
        claims=claims_cifar.CIFAR_CLAIMS,
    ),
    Item(
        "deviations",
        "What each choice the paper leaves open is worth: ResNet-56 and plain-56 with exactly one "
        "changed",
        *_VARIANTS,
    ),
    Item("highway", "Identity against gated shortcuts (Highway) under one protocol", *_VARIANTS),
)
# Made from the counted nets alone.
_DRAWINGS = (
    Item("fig2", "Fig. 2: residual learning, a building block", fig2_fig5.fig2),
    Item("fig3", "Fig. 3: the three nets side by side, maps of one size at one height", fig3.fig3),
    Item(
        "fig5",
        "Fig. 5: the basic block of ResNet-34 (left), the bottleneck of ResNet-50 (right)",
        fig2_fig5.fig5,
    ),
    Item(
        "table1",
        "Table 1: layers, output size, then one column per depth; sizes and the paper's beneath",
        table=table1.table1,
    ),
)
ITEMS = {item.name: item for item in _ITEMS}
DRAWINGS = {item.name: item for item in _DRAWINGS}
