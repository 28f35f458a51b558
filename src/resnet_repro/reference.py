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
        yield Entry(prefix + field.name, default, allowed, field.metadata["help"])


def _first_line(schema: type) -> str:
    return (inspect.getdoc(schema) or "").splitlines()[0]


def as_markdown() -> str:
    """``docs/CONFIG.md``: one table per group."""
    lines = [
        "# Configuration",
        "",
        "Generated from `src/resnet_repro/config_groups.py` by `python -m resnet_repro.reference`.",
        "Defaults are the paper's protocol for CIFAR-10; an experiment, a recipe and a profile in",
        "`conf/` change what differs; the command line wins over all:",
        "`python -m resnet_repro.train experiment=... recipe.lr=0.05`.",
    ]
    for name, description, entries in groups():
        lines += ["", f"## {name or 'the run'}", "", description, ""]
        lines += ["| key | default | allowed | meaning |", "|---|---|---|---|"]
        for entry in entries:
            cells = (f"`{entry.key}`", entry.default, entry.allowed, entry.meaning)
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
