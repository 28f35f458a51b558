"""Declare configuration fields: default, meaning and check in one place.

The schema (:mod:`resnet_repro.config`) declares fields with :func:`option`; :func:`build` turns a
nested mapping into the typed dataclasses. Documentation is generated from the same declarations.
Pure Python: no Hydra, no torch.
"""

import dataclasses
import difflib
import itertools
import math
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")


class ConfigError(ValueError):
    """A refused configuration; the message is one line naming key, value and allowed."""


@dataclass(frozen=True)
class Check:
    """A test of one value and a text that says what passes, after the type's text or alone."""

    allowed: str
    passes: Callable[[Any], bool]
    alone: bool = False


def one_of(*choices: object) -> Check:
    """Pass any of the named choices."""
    return Check(f"one of {', '.join(map(str, choices))}", lambda v: v in choices, alone=True)


def at_least(low: float) -> Check:
    """Pass numbers from ``low`` up."""
    return Check(f">= {low:g}", lambda v: v >= low)


def above(low: float) -> Check:
    """Pass numbers greater than ``low``."""
    return Check(f"> {low:g}", lambda v: v > low)


def increasing(what: str) -> Check:
    """Pass lists of positive numbers in increasing order."""
    return Check(
        f"increasing positive {what}",
        lambda v: all(a < b for a, b in itertools.pairwise([0, *v])),
        alone=True,
    )


LONGEST_NAME = 100
UNNAMED = "???"  # a value that is not given yet


def named(what: str) -> Check:
    """Pass names usable for a folder."""
    allowed = f"{what} of letters, digits, '.', '_', '+', '-', at most {LONGEST_NAME}"
    usable = re.compile(rf"(?![.-])[\w.+-]{{1,{LONGEST_NAME}}}")
    return Check(allowed, lambda v: usable.fullmatch(v) is not None, alone=True)


# What an option says of a run; computed by default.
WHAT = "what"  # is computed: other numbers
HOW = "how"  # the work is done: the same numbers but for rounding
WHERE = "where"  # the run reads and writes
WHO = "who"  # the run is: its names


def option(default: Any, help: str, check: Check | None = None, *, role: str = WHAT) -> Any:
    """Declare a field of the schema; every comparison of configurations asks for its ``role``."""
    metadata = {"help": help, "check": check or Check("", lambda _: True), "role": role}
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


how = partial(option, role=HOW)
where = partial(option, role=WHERE)
who = partial(option, role=WHO)


def leaves(schema: type, prefix: str = "") -> Iterator[tuple[str, Any, dataclasses.Field[Any]]]:
    """Yield every option of a schema and its groups: dotted key, type, declaration."""
    hints = typing.get_type_hints(schema)
    for field in dataclasses.fields(schema):
        kind, key = hints[field.name], prefix + field.name
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            yield from leaves(kind, f"{key}.")
        else:
            yield key, kind, field


def described(schema: type) -> Iterator[tuple[str, str, str, str, str]]:
    """Yield each option's key, default, allowed values, role and meaning."""
    for key, kind, field in leaves(schema):
        listed, default = field.default_factory, field.default
        text = shown(default if listed is dataclasses.MISSING else listed())
        about = field.metadata
        yield key, text.replace(UNNAMED, ""), allowed(kind, field), about["role"], about["help"]


def help_text(schema: type) -> str:
    """Describe the options for a terminal, one a line."""
    lines = []
    for key, default, values, _, meaning in described(schema):
        shown_default = "" if default in ("", "''", "null", "[]") else f" [{default}]"
        lines.append(f"  {key}{shown_default}  {meaning}; {values}")
    return "\n".join(lines)


def build(schema: type[T], values: Mapping[str, Any], prefix: str = "") -> T:
    """Make a ``schema`` from a nested mapping; missing keys take their defaults.

    ConfigError: unknown key, wrong type or value out of range.
    """
    hints = typing.get_type_hints(schema)
    fields = {field.name: field for field in dataclasses.fields(schema)}  # type: ignore[arg-type]
    arguments: dict[str, Any] = {}
    for name, value in values.items():
        key = f"{prefix}{name}"
        if name not in fields:
            near = closest(key, [prefix + known for known in fields])
            raise ConfigError(f"unknown option '{key}'; {near}")
        kind = hints[name]
        if not dataclasses.is_dataclass(kind):
            arguments[name] = _checked(key, value, kind, fields[name])
        elif isinstance(value, Mapping):
            arguments[name] = build(typing.cast(type, kind), value, f"{key}.")
        else:
            raise ConfigError(f"{key}={shown(value)}: is a group of options, not a value")
    try:
        return schema(**arguments)
    except ConfigError as error:  # the schema's own, of conflicting values
        raise ConfigError(f"{prefix}{error}") from None


def check_fields(instance: Any) -> None:
    """Check every field of a schema made by hand, as :func:`build` does."""
    for name, kind, field in leaves(type(instance)):
        _checked(name, getattr(instance, name), kind, field)


def closest(key: str, names: Sequence[str]) -> str:
    """Suggest the name that a misspelt ``key`` may mean, or list what is allowed there."""
    near = difflib.get_close_matches(key, names, n=1, cutoff=0.6)
    if not near:  # a key given without its group: lr for recipe.lr
        last = {name.rsplit(".", 1)[-1]: name for name in names}
        near = [last[name] for name in difflib.get_close_matches(key, list(last), n=1, cutoff=0.6)]
    if near:
        return f"did you mean '{near[0]}'?"
    group = key.rpartition(".")[0]
    siblings = [name for name in names if name.startswith(f"{group}.")] if group else names
    return f"allowed: {', '.join(siblings or names)}"


def _checked(key: str, value: Any, kind: Any, field: dataclasses.Field[Any]) -> Any:
    converted = _converted(value, kind)
    if converted is _WRONG or not field.metadata["check"].passes(converted):
        raise ConfigError(f"{key}={shown(value)}: must be {allowed(kind, field)}")
    return converted


def allowed(kind: Any, field: dataclasses.Field[Any]) -> str:
    """Describe what a field of this type may hold."""
    check: Check = field.metadata["check"]
    return check.allowed if check.alone else f"{_noun(kind)} {check.allowed}".strip()


_WRONG = object()


def _converted(value: Any, kind: Any) -> Any:
    """``value`` as ``kind``, or ``_WRONG``; only an integer may stand for a float."""
    if isinstance(kind, types.UnionType):  # with None
        return None if value is None else _converted(value, typing.get_args(kind)[0])
    if typing.get_origin(kind) is list:
        if not isinstance(value, list | tuple):
            return _WRONG
        items = [_converted(item, typing.get_args(kind)[0]) for item in value]
        return _WRONG if any(item is _WRONG for item in items) else items
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value) if math.isfinite(value) else _WRONG
    if (kind is int and isinstance(value, bool)) or (kind is str and value == ""):
        return _WRONG
    return value if isinstance(value, kind) else _WRONG


_NOUNS: dict[Any, str] = {
    float: "a finite number", int: "an integer", bool: "true or false", str: "a word",
    list[int]: "a list of integers", list[str]: "a list of words",
}  # fmt: skip


def _noun(kind: Any) -> str:
    """Name a type as messages do."""
    if isinstance(kind, types.UnionType):
        return f"{_noun(typing.get_args(kind)[0])} or null"
    return _NOUNS[kind]


def shown(value: Any) -> str:
    """Format a value as in a configuration."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if value != "" else "''"
