"""When two configurations, logged or requested, are the same run. No torch, no Hydra.

Every option of the schema has a role (:mod:`resnet_repro.options`), and every comparison asks for
it: resuming (names and what is computed must agree), averaging over seeds (what is computed),
deviations, the W&B id.
"""

import functools
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from resnet_repro.config import Config
from resnet_repro.options import WHAT, WHO, leaves


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a nested mapping as one level of dotted keys: ``recipe.lr``."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def merged(contents: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Merge nested mappings; the last value of a key counts."""
    values: dict[str, Any] = {}
    for content in contents:
        for key, value in content.items():
            nested = isinstance(value, Mapping)
            values[key] = merged([values.get(key, {}), value]) if nested else value
    return values


_DEFAULTS = Config().as_mapping()


def filled(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a logged configuration with the defaults of keys added after it was written.

    A new key's default is what the code did before there was the key.
    """
    return merged([_DEFAULTS, values])


@functools.cache
def roles() -> dict[str, str]:
    """Return the role of every option by its dotted key."""
    return {key: field.metadata["role"] for key, _, field in leaves(Config)}


def differences(
    old: Mapping[str, Any], new: Mapping[str, Any], roles_compared: Collection[str] = (WHO, WHAT)
) -> dict[str, tuple[Any, Any]]:
    """Return the keys in which two nested configurations differ, with both values.

    By default the keys that make them different runs; with ``(WHAT,)`` those that make different
    numbers, as runs of several seeds must not have. A missing key counts as its default. A key
    that is not in the schema counts as computed.
    """
    before, after = flatten(filled(old)), flatten(filled(new))
    return {
        key: (before.get(key), after.get(key))
        for key in sorted(before.keys() | after.keys())
        if roles().get(key, WHAT) in roles_compared and before.get(key) != after.get(key)
    }


def changes_training(key: str) -> bool:
    """Whether a key changes what is learnt, not how it is counted or done."""
    return key.split(".")[0] in ("data", "model", "recipe") and roles().get(key, WHAT) == WHAT
