"""Every key of the configuration with its meaning, default and allowed values, from the schema.

``python -m resnet_repro.reference`` prints ``docs/CONFIG.md``.
"""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Iterator
from dataclasses import dataclass

from resnet_repro.config import Config
from resnet_repro.options import UNNAMED, noun, shown


@dataclass(frozen=True)
class Entry:
    """One key, as documents and ``--help`` show it."""

    key: str
    default: str
    allowed: str
    role: str
    meaning: str


def groups() -> Iterator[tuple[str, str, list[Entry]]]:
    """Name, description and entries of each group of the schema; the top level first, unnamed."""
    yield "", _first_line(Config), list(_entries(Config, ""))
    hints = typing.get_type_hints(Config)
    for field in dataclasses.fields(Config):
        kind = hints[field.name]
        if dataclasses.is_dataclass(kind):
            assert isinstance(kind, type)
            yield field.name, _first_line(kind), list(_entries(kind, f"{field.name}."))


def _entries(schema: type, prefix: str) -> Iterator[Entry]:
    hints = typing.get_type_hints(schema)
    defaults = schema()
    for field in dataclasses.fields(schema):
        if dataclasses.is_dataclass(hints[field.name]):
            continue
        check, kind = field.metadata["check"], hints[field.name]
        allowed = check.allowed if check.alone else f"{noun(kind)} {check.allowed}".strip()
        default = shown(getattr(defaults, field.name))
        default = "" if default == UNNAMED else default
        yield Entry(
            prefix + field.name, default, allowed, field.metadata["role"], field.metadata["help"]
        )


def _first_line(schema: type) -> str:
    return (inspect.getdoc(schema) or "").splitlines()[0]


_ABOUT = """
Generated from the schema (`config.py`, `config_groups.py`, `models/spec.py`) by
`python -m resnet_repro.reference`. Defaults are the paper's protocol for CIFAR-10; an experiment, a
recipe and a profile in `conf/` change what differs; the command line wins over all:
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

Text is taken as typed (`runs_dir=~/runs`, `name=12e4567`). A comma stands between values of a
sweep; within a value it needs quotes twice: `"runs_dir='/a,b'"`. Runs and data lie in the
repository, wherever a command is called from, unless `runs_dir` or `RESNET_REPRO_RUNS`, `data.root`
or `RESNET_REPRO_DATA` name another place.
"""


def as_markdown() -> str:
    """``docs/CONFIG.md``: one table per group."""
    lines = ["# Configuration", "", *_ABOUT.strip().splitlines()]
    for name, description, entries in groups():
        lines += ["", f"## {name or 'the run'}", "", description, ""]
        lines += ["| key | default | allowed | says | meaning |", "|---|---|---|---|---|"]
        for entry in entries:
            cells = (f"`{entry.key}`", entry.default, entry.allowed, entry.role, entry.meaning)
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def as_help() -> str:
    """The same for a terminal."""
    lines = []
    for name, description, entries in groups():
        lines += ["", f"{name or 'the run'}: {description}"]
        for entry in entries:
            default = f" [{entry.default}]" if entry.default else ""
            lines.append(f"  {entry.key}{default}  {entry.meaning}; {entry.allowed}")
    return "\n".join(lines)


if __name__ == "__main__":
    print(as_markdown(), end="")
