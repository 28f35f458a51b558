"""Print docs/CONFIG.md: every key of the configuration, its meaning, default and allowed values."""

import inspect
import typing
from itertools import groupby

from resnet_repro.config import Config
from resnet_repro.options import described

_ABOUT = """
Generated from the schema (`config.py`, `models/spec.py`) by `python -m pages.config`. Defaults are
the paper's protocol for CIFAR-10; an experiment, a recipe and a profile in `conf/` change what
differs; the command line wins over all:
`python -m resnet_repro.train experiment=... recipe.lr=0.05`.

Each key says one thing of a run: *who* it is (its names), *what* is computed, *how* the work is
done, or *where* it reads and writes. A run whose names or *what* keys differ is another run; only
runs that agree in all *what* keys are averaged over seeds.

A run that differs from its experiment in a *what* key of data, model, recipe or evaluation is a
variant. Unless `name=` is given, its folder is named by what differs:
`experiment=cifar10_resnet20 recipe.lr=0.05` is `cifar10_resnet20-lr0.05`. A sweep may run over any
keys: `-m experiment=cifar10_resnet20 recipe.lr=0.05,0.1,0.2 'seed=range(0,3)'`. Two of its runs
with one name are refused before the first begins; `'name=mine-${recipe.lr}'` names them apart. A
rerun of the command does what is missing. `make fig6 ARGS='recipe.lr=0.05'` draws the variants.

Text is taken as typed (`runs_dir=~/runs`, `name=12e4567`); digits of a number may be grouped
(`recipe.max_iters=64_000`). A comma stands between values of a sweep; within a value it needs
quotes twice: `"runs_dir='/a,b'"`. Runs and data lie in the repository, wherever a command is called
from, unless `runs_dir` or `RESNET_REPRO_RUNS`, `data.root` or `RESNET_REPRO_DATA` name another
place.
"""


def as_markdown() -> str:
    """Return the page: one table per group of keys."""
    lines = ["# Configuration", "", *_ABOUT.strip().splitlines()]
    schemas = typing.get_type_hints(Config) | {"": Config}
    for name, rows in groupby(described(Config), key=lambda row: row[0].rpartition(".")[0]):
        description = (inspect.getdoc(schemas[name]) or "").splitlines()[0]
        lines += ["", f"## {name or 'the run'}", "", description, ""]
        lines += ["| key | default | allowed | says | meaning |", "|---|---|---|---|---|"]
        for key, *cells in rows:
            escaped = (cell.replace("|", "\\|") for cell in (f"`{key}`", *cells))
            lines.append(f"| {' | '.join(escaped)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(as_markdown(), end="")
