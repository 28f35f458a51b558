"""What a configuration field may hold: its default, its meaning and its check in one place.

The schema (:mod:`resnet_repro.config_groups`) declares fields with :func:`option`; :func:`build`
turns a nested mapping into the typed dataclasses or says, in one line, which key, which value and
what is allowed. Documentation is generated from the same declarations. Pure Python: no Hydra, no
torch.
"""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import math
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")


class ConfigError(ValueError):
    """A configuration that is refused; the message is one line naming key, value and allowed."""


@dataclass(frozen=True)
class Check:
    """A test of one value and the words that say what passes it, after the type's or alone."""

    allowed: str
    passes: Callable[[Any], bool]
    alone: bool = False


def one_of(*choices: object) -> Check:
    """Pass any of the named choices."""
    words = "one of " + ", ".join(str(choice) for choice in choices)
    return Check(words, lambda v: v in choices, alone=True)


def at_least(low: float, what: str = "") -> Check:
    """Pass numbers from ``low`` up."""
    return Check(f">= {low:g}" + (f" ({what})" if what else ""), lambda v: v >= low)


def above(low: float) -> Check:
    """Pass numbers greater than ``low``."""
    return Check(f"> {low:g}", lambda v: v > low)


def within(low: float, high: float, *, include_high: bool = False) -> Check:
    """Pass numbers of the interval from ``low`` to ``high``, its upper end left out by default."""
    closing = "]" if include_high else ")"
    return Check(
        f"in [{shown(low)}, {shown(high)}{closing}",
        lambda v: low <= v < high or (include_high and v == high),
    )


def increasing(what: str) -> Check:
    """Pass lists of positive numbers in increasing order."""
    return Check(
        f"increasing positive {what}",
        lambda v: all(x > 0 for x in v) and all(a < b for a, b in itertools.pairwise(v)),
        alone=True,
    )


LONGEST_NAME = 100
UNNAMED = "???"  # stands for a value that is yet to be given


def named(what: str) -> Check:
    """Pass words usable as a folder name."""
    return Check(
        f"{what} of letters, digits, '.', '_', '+', '-', at most {LONGEST_NAME}",
        lambda v: (
            0 < len(v) <= LONGEST_NAME
            and v[0] not in ".-"
            and all(c.isalnum() or c in "._+-" for c in v)
        ),
        alone=True,
    )


def anything() -> Check:
    """Pass every value of the field's type."""
    return Check("", lambda _: True)


# What an option says of a run. A key that its declaration does not place counts as computed.
WHAT = "what"  # is computed: other numbers
HOW = "how"  # the work is done: the same numbers but for rounding
WHERE = "where"  # the run reads and writes
WHO = "who"  # the run is: its names


def option(default: Any, help: str, check: Check | None = None, *, role: str = WHAT) -> Any:
    """Declare a field of the schema; :data:`WHAT` it says of a run is asked by every comparison."""
    metadata = {"help": help, "check": check or anything(), "role": role}
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


how = partial(option, role=HOW)
where = partial(option, role=WHERE)
who = partial(option, role=WHO)


def group(kind: type) -> Any:
    """Declare a field that is a schema of its own."""
    return dataclasses.field(default_factory=kind)


def leaves(schema: type, prefix: str = "") -> Iterator[tuple[str, Any, dataclasses.Field[Any]]]:
    """Yield every option of a schema and its groups: dotted key, type, declaration."""
    hints = typing.get_type_hints(schema)
    for field in dataclasses.fields(schema):
        kind, key = hints[field.name], prefix + field.name
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            yield from leaves(kind, f"{key}.")
        else:
            yield key, kind, field


def build(schema: type[T], values: Mapping[str, Any], prefix: str = "") -> T:
    """Make a ``schema`` from a nested mapping.

    Missing keys take their defaults.

    Raises:
        ConfigError: unknown key, wrong type or value out of range.
    """
    hints = typing.get_type_hints(schema)
    fields = {field.name: field for field in dataclasses.fields(schema)}  # type: ignore[arg-type]
    for key in values:
        if key not in fields:
            raise unknown_key(prefix + str(key), schema, prefix)
    made: dict[str, Any] = {}
    for name, field in fields.items():
        if name not in values:
            continue
        key, value, kind = prefix + name, values[name], hints[name]
        if dataclasses.is_dataclass(kind):
            if not isinstance(value, Mapping):
                raise ConfigError(f"{key}={shown(value)}: is a group of options, not a value")
            made[name] = build(typing.cast(type, kind), value, f"{key}.")
        else:
            made[name] = _checked(key, value, kind, field.metadata["check"])
    try:
        return schema(**made)
    except ConfigError as error:  # the schema's own, of values that are impossible together
        raise ConfigError(f"{prefix}{error}") from None


def check_fields(made: Any) -> None:
    """Check every field of a schema made by hand, as :func:`build` does.

    Raises:
        ConfigError: wrong type or value out of range.
    """
    hints = typing.get_type_hints(type(made))
    for field in dataclasses.fields(made):
        name = field.name
        _checked(name, getattr(made, name), hints[name], field.metadata["check"])


def unknown_key(key: str, schema: type, prefix: str = "") -> ConfigError:
    """Return the refusal of a key that is not in the schema, with the nearest that is."""
    names = [prefix + field.name for field in dataclasses.fields(schema)]
    return ConfigError(f"unknown option '{key}'; {closest(key, names)}")


def closest(key: str, names: Sequence[str]) -> str:
    """Say which of ``names`` a misspelt ``key`` may have meant, or list what is allowed there."""
    near = difflib.get_close_matches(key, names, n=1, cutoff=0.6)
    if not near:  # a key given without its group: lr for recipe.lr
        last = {name.rsplit(".", 1)[-1]: name for name in names}
        near = [last[word] for word in difflib.get_close_matches(key, list(last), n=1, cutoff=0.6)]
    if near:
        return f"did you mean '{near[0]}'?"
    group = key.rpartition(".")[0]
    here = [name for name in names if name.startswith(f"{group}.")] if group else names
    return f"allowed: {', '.join(here or names)}"


def _checked(key: str, value: Any, kind: Any, check: Check) -> Any:
    converted = _converted(value, kind)
    if converted is _WRONG or not check.passes(converted):
        what = noun(kind)
        wanted = check.allowed if check.alone else (f"{what} {check.allowed}".strip())
        raise ConfigError(f"{key}={shown(value)}: must be {wanted}")
    return converted


_WRONG = object()


def _converted(value: Any, kind: Any) -> Any:
    """``value`` as ``kind``, or ``_WRONG``; only an integer may stand for a float."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        if value is None:
            return None
        (kind,) = (part for part in typing.get_args(kind) if part is not type(None))
    if typing.get_origin(kind) is list:
        (inner,) = typing.get_args(kind)
        items = (
            [_converted(v, inner) for v in value] if isinstance(value, list | tuple) else [_WRONG]
        )
        return _WRONG if any(item is _WRONG for item in items) else items
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value) if math.isfinite(value) else _WRONG
    if kind is int and isinstance(value, bool):
        return _WRONG
    if kind is str and value == "":
        return _WRONG
    return value if isinstance(value, kind) else _WRONG


def noun(kind: Any) -> str:
    """Name a type as messages do."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return noun(typing.get_args(kind)[0]) + " or null"
    if typing.get_origin(kind) is list:
        return (
            "a list of "
            + noun(typing.get_args(kind)[0]).removeprefix("a ").removeprefix("an ")
            + "s"
        )
    nouns = {float: "a finite number", int: "an integer", bool: "true or false", str: "a word"}
    return nouns[kind]


def shown(value: Any) -> str:
    """Show a value as one writes it in a configuration."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if value == 2**63:
        return "2^63"
    return str(value) if value != "" else "''"
