"""Read ``conf/`` without Hydra: its choices, the items of the paper, each experiment.

Hydra composes command lines (:mod:`resnet_repro.compose`); to compare with an experiment, YAML is
enough.
"""

import functools
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from resnet_repro.config import Config
from resnet_repro.options import WHAT, ConfigError, shown
from resnet_repro.paths import CONF
from resnet_repro.same_run import differences, merged

LONGEST = 64  # name of a variant; an evaluation of it appends its own words
# Groups whose computed keys make a run a variant; precision and devices are only noted.
_GROUPS = ("data", "model", "recipe", "evaluation")


@dataclass(frozen=True)
class ItemRuns:
    """One figure or table of the paper and its experiments (``conf/item``)."""

    name: str
    experiments: tuple[str, ...]

    @property
    def drawn(self) -> tuple[str, ...]:
        """Its experiments, and those of its Tiny ImageNet nets on ImageNet, if any."""
        full_size = [name.replace("tiny_", "imagenet_", 1) for name in self.experiments]
        known = {*names("experiment")} - {*self.experiments}
        return (*self.experiments, *(name for name in full_size if name in known))


def names(group: str) -> list[str]:
    """Return the choices of a config group, sorted."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def load_item(name: str) -> ItemRuns:
    """Read ``conf/item/<name>.yaml``; ConfigError: no such item, or it lists no experiments."""
    if name not in names("item"):
        raise ConfigError(f"item={name}: must be one of {', '.join(names('item'))}")
    values = merged(_layers("item", name))
    try:
        listed = values["hydra"]["sweeper"]["params"]["experiment"].split(",")
    except (KeyError, AttributeError):
        lacks = "lists no experiments, separated by commas"
        raise ConfigError(f"{CONF / 'item' / name}.yaml {lacks}") from None
    return ItemRuns(name, tuple(map(str.strip, listed)))


@functools.cache
def protocol(experiment: str, profile: str = "paper") -> Config | None:
    """Return the configuration of an experiment at a profile, seed 0.

    ``None`` where there is no such experiment, or its file uses more of Hydra than other files of
    its group, ``override /GROUP: NAME`` under ``defaults``, and values.
    """
    if experiment not in names("experiment"):
        return None
    chosen = {"data": "cifar10", "logger": "none"}  # an experiment's own profile is not asked for
    try:
        own = list(_layers("experiment", experiment, chosen))
        recipe = chosen.get("recipe", f"{chosen['data']}_{profile}")
        groups = [
            {group: content}
            for group in ("data", "logger")
            for content in _layers(group, chosen[group])
        ]
        values = merged([*groups, *_layers("recipe", recipe), *own])
        values.pop("hydra", None)  # a sweep of its own
        values = {"experiment": experiment, "name": experiment, "profile": profile} | values
        return Config.from_mapping(values)
    except (ConfigError, OSError, yaml.YAMLError):
        return None


def changed_from_experiment(config: Mapping[str, Any]) -> dict[str, tuple[Any, Any]] | None:
    """Return the computed keys in which a run differs from its experiment at the same profile.

    Those of data, model, recipe and evaluation, each with the experiment's value and the run's. A
    run without any stands for the net in the paper's figures, tables and claims; any other is a
    variant. ``None`` where ``conf/`` has no such experiment.
    """
    experiment = protocol(str(config.get("experiment")), str(config.get("profile")))
    return None if experiment is None else changed(experiment, config)


def changed(experiment: Config, config: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the same for a composed experiment."""
    found = differences(experiment.as_mapping(), config, (WHAT,))
    return {key: pair for key, pair in found.items() if key.split(".")[0] in _GROUPS}


def variant_name(experiment: str, changed: Mapping[str, tuple[Any, Any]]) -> str:
    """Return the name of a variant, the same for the same changes: ``cifar10_resnet20-lr0.05``.

    A digest replaces what would make it too long for a folder.
    """
    parts = [experiment, *(_part(key, value) for key, (_, value) in changed.items())]
    name = "-".join(parts)
    if len(name) > LONGEST:
        parts.append(hashlib.sha256(name.encode()).hexdigest()[:8])
        while len(name := "-".join(parts)) > LONGEST:
            del parts[-2]
    return name


def _part(key: str, value: Any) -> str:
    last = "data" if key == "data.name" else key.rpartition(".")[2]
    if isinstance(value, list):
        return f"{last}{'+'.join(map(shown, value))}" if value else f"{last}_none"
    return f"{last}{'' if type(value) in (int, float) else '_'}{shown(value)}"


class _Loader(yaml.SafeLoader):
    """Read YAML as Hydra does: ``1e-4`` is a number."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def _layers(
    group: str, name: str, chosen: dict[str, str] | None = None
) -> Iterator[dict[str, Any]]:
    """Yield the contents of a file after those it is based on; overrides go to ``chosen``."""
    content = yaml.load((CONF / group / f"{name}.yaml").read_text("utf-8"), _Loader) or {}
    if "${" in str(content):
        raise ConfigError(f"{CONF / group / name}.yaml: only Hydra resolves interpolations")
    defaults = content.pop("defaults", [])
    for default in defaults if "_self_" in defaults else [*defaults, "_self_"]:
        if default == "_self_":
            yield content
        elif isinstance(default, str):
            yield from _layers(group, default, chosen)
        else:
            ((key, choice),) = default.items()
            if chosen is None or not key.startswith("override /") or not isinstance(choice, str):
                raise ConfigError(f"{CONF / group / name}.yaml: only Hydra reads {key}")
            chosen[key.removeprefix("override /")] = choice
