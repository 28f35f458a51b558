"""The runs that the pages speak of, and the figures and tables that they show."""

from functools import cached_property
from pathlib import Path

from pages.agreement import agreement, compare_curves
from resnet_repro.analysis import style
from resnet_repro.analysis.judge import ClaimResult, check
from resnet_repro.analysis.load import Logged, can_draw
from resnet_repro.analysis.logged_run import Run
from resnet_repro.analysis.tables import claims_table, write_table
from resnet_repro.compare import SWEEP, save_sweep, swept_keys
from resnet_repro.conf import load_item
from resnet_repro.items import CLAIMS, ITEMS
from resnet_repro.items.claims_imagenet import IMAGENET_CLAIMS

COMMITTED = ("paper", "short")  # profiles whose runs are in the repository
FIGURES = ("fig1", "fig4", "fig6", "fig7", "gradients", "deviations")
TABLES = ("table2", "table3", "table6", "claims")
CLAIMS_IMAGENET, AGREEMENT = "claims_imagenet", "agreement"


class Study(Logged):
    """The logged runs that the pages speak of, below the folder of the run folders."""

    def __init__(self, root: Path):
        super().__init__(root, COMMITTED)

    def item(self, name: str) -> list[Run]:
        """Return the finished runs that an item is drawn from."""
        return self.of_item(load_item(name))

    @property
    def imagenet(self) -> list[Run]:
        """The finished runs of the ImageNet nets, of all profiles."""
        names = {*load_item("fig4").drawn, *load_item("table3").drawn}
        return [run for run in self.finished if run.experiment in names]

    @property
    def checks(self) -> list[Run]:
        """Short looks at one question, runs named ``check_...``: in no figure, table or claim."""
        return [run for run in self.runs if run.name.startswith("check_")]

    @cached_property
    def sweeps(self) -> list[list[Run]]:
        """The finished runs of each example of a sweep: ``results/sweeps/<sweep>``."""
        folders = sorted(self.root.parent.glob("sweeps/*/"))
        return [[run for run in Logged(path).runs if run.is_finished] for path in folders]

    @cached_property
    def claims(self) -> list[ClaimResult]:
        """Every claim, on runs of the paper's protocol where they can test it."""
        return check(CLAIMS, self.item("claims") + self.imagenet)


def draw(study: Study, docs: Path) -> list[Path]:
    """Draw every figure and table that the finished runs can fill, and remove old ones."""
    figures, tables, written = docs / "figures", docs / "tables", list[Path]()
    for name in (*FIGURES, *TABLES):
        runs = study.item(name)
        if can_draw(load_item(name).experiments, {run.experiment for run in runs}):
            written += ITEMS[name].draw(runs, figures if name in FIGURES else tables)
    if study.imagenet:
        frame, notes = claims_table(IMAGENET_CLAIMS, study.imagenet)
        written += write_table(frame, CLAIMS_IMAGENET, tables, notes)
    for runs in study.sweeps:
        written += save_sweep(runs, swept_keys(runs), figures, tables)
    stretches, _ = compare_curves(study.begun)
    if stretches:
        written += style.save(agreement(stretches), AGREEMENT, figures)
    stems = (*FIGURES, *TABLES, CLAIMS_IMAGENET, AGREEMENT)
    for path in (*figures.glob("*"), *tables.glob("*")):
        if (path.stem in stems or path.stem.startswith(SWEEP)) and path not in written:
            path.unlink()
    return written
