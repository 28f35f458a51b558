"""Parse command lines, ``key=value`` against a schema; no Hydra, no torch."""

import argparse
import re
import sys
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from resnet_repro.exits import explained
from resnet_repro.options import ConfigError, build, closest, help_text, leaves

T = TypeVar("T")


def run_command(doc: str | None, schema: type[T], work: Callable[[T], None]) -> None:
    """Run a command: parse ``sys.argv`` into ``schema`` and call ``work`` with it.

    Without arguments or with ``--help``, print ``doc`` and the options. An error that a user can
    act on ends the process with one line and the exit code of its kind.
    """
    argv = sys.argv[1:]
    if not argv or {"-h", "--help"} & set(argv):
        print(f"{(doc or '').strip()}\n\nOptions [default]:\n{help_text(schema)}")
        raise SystemExit(0 if argv else 2)
    with explained():
        work(parse(schema, argv))


def parse(schema: type[T], argv: Sequence[str]) -> T:
    r"""Make a ``schema`` (fields made by ``options.option``) from arguments like ``data.root=/d``.

    Lists are separated by commas; a comma within an item is written ``\,``. As in training,
    ``data=imagenet`` stands for ``data.name=imagenet``, and ``null`` for no value. ConfigError: one
    line naming the key, the value and what is allowed.
    """
    kinds = {key: kind for key, kind, _ in leaves(schema)}
    values: dict[str, Any] = {}
    given: set[str] = set()
    for word in argv:
        key, equals, text = word.partition("=")
        if not equals:
            raise ConfigError(f"could not read '{word}': must be key=value; --help lists the keys")
        if key not in kinds and f"{key}.name" in kinds:
            key = f"{key}.name"
        if key in given:
            raise ConfigError(f"{key} is given twice")
        if key not in kinds:
            raise ConfigError(f"unknown option '{key}'; {closest(key, list(kinds))}")
        given.add(key)
        *groups, name = key.split(".")
        target = values
        for group in groups:
            target = target.setdefault(group, {})
        if (value := _value(text, kinds[key])) is not None:
            target[name] = value
    return build(schema, values)


def _value(text: str, kind: Any) -> Any:
    """Convert a text to this type; one that does not fit stays a text."""
    if isinstance(kind, types.UnionType) and text == "null":
        return None
    if typing.get_origin(kind) is list:
        items = re.split(r"(?<!\\),", text) if text else []
        return [item.replace(r"\,", ",") for item in items]
    if kind is int and re.fullmatch(r"-?\d{1,18}", text):
        return int(text)
    return text


def count(text: str) -> int:
    """Read a number of at least 1, as a type for argparse."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be at least 1")
    return value
