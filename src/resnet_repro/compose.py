"""The one place that sees Hydra: from ``conf/`` and command-line words to configurations."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError

from resnet_repro.config import Config
from resnet_repro.options import ConfigError, closest
from resnet_repro.runs.keys import flatten
from resnet_repro.same_run import differences
from resnet_repro.training.launch import Job

CONF = Path(__file__).resolve().parents[2] / "conf"

# Every key exists with its default before any file is read. A plain mapping, not a typed one:
# types and ranges are checked in one place (Config.from_mapping), with one form of message.
ConfigStore.instance().store(name="schema", node=Config().as_mapping())


@dataclass(frozen=True)
class Item:
    """One figure or table of the paper and the runs it is made of (``conf/item``)."""

    name: str
    experiments: tuple[str, ...]

    @property
    def drawn(self) -> tuple[str, ...]:
        """What its logged runs are of: also its Tiny ImageNet nets on ImageNet, never trained here.

        Those take weeks; where they were trained, they are shown beside the others.
        """
        full_size = [name.replace("tiny_", "imagenet_", 1) for name in self.experiments]
        known = {*names("experiment")} - {*self.experiments}
        return (*self.experiments, *(name for name in full_size if name in known))


def compose_run(*overrides: str) -> Config:
    """Compose and check the configuration of one run.

    Raises:
        ConfigError: one line naming the key, the value and what is allowed.
    """
    with _hydra(), _one_line(overrides):
        return _checked(compose("config", overrides=list(overrides), return_hydra_config=True))


def make_job(*overrides: str) -> Job:
    """Compose one run and note how its protocol differs from the paper's.

    Raises:
        ConfigError: as :func:`compose_run`.
    """
    config = compose_run(*overrides)
    paper = compose_run(f"experiment={config.experiment}", f"seed={config.seed}")
    changed = differences(paper.as_mapping(), config.as_mapping())
    return Job(config, tuple(overrides), {key: list(pair) for key, pair in changed.items()})


def _checked(composed: DictConfig) -> Config:
    """Make what Hydra composed (with its ``hydra`` node) ours."""
    experiment = composed.hydra.runtime.choices.experiment
    with open_dict(composed):
        composed.pop("hydra")
    values: dict[str, Any] = OmegaConf.to_container(composed, resolve=True)  # type: ignore[assignment]
    if experiment is None:
        raise ConfigError(f"experiment is not set; one of {', '.join(names('experiment'))}")
    if isinstance(values.get("experiment"), dict):
        raise ConfigError(
            f"experiment={experiment}: its file must begin with the line '# @package _global_'"
        )
    values["experiment"] = experiment
    if values.get("name") == "???":
        values["name"] = experiment
    config = Config.from_mapping(values)
    given = flatten(values)
    if gone := [key for key in flatten(config.as_mapping()) if key not in given]:
        raise ConfigError(f"~{gone[0]}: an option cannot be taken away, only given a value")
    return config


def compose_sweep(overrides: Sequence[str]) -> list[Job]:
    """Compose and check every run of a Hydra multirun, before the first one starts.

    Raises:
        ConfigError: as :func:`compose_run`, or the sweep is empty.
    """
    with _hydra(), _one_line(overrides):
        loader = GlobalHydra.instance().config_loader()
        words = [*_item_words(overrides), *overrides]
        parsed = OverridesParser.create(config_loader=loader).parse_overrides(words)
        jobs = [job for batch in BasicSweeper.split_arguments(parsed, None) for job in batch]
    if not jobs:
        raise ConfigError("the sweep is empty: no experiment matches")
    return [make_job(*job) for job in jobs]


def _item_words(overrides: Sequence[str]) -> list[str]:
    """Return the sweep an ``item=`` word stands for; the command line wins over it."""
    chosen = [word.removeprefix("item=") for word in overrides if word.startswith("item=")]
    given = {word.split("=")[0] for word in overrides}
    if not chosen or chosen[-1] == "null":
        return []
    params = {"experiment": ",".join(load_item(chosen[-1]).experiments)}
    return [f"{key}={value}" for key, value in params.items() if key not in given]


def load_item(name: str) -> Item:
    """Read ``conf/item/<name>.yaml``.

    Raises:
        ConfigError: there is no such item.
    """
    if name not in names("item"):
        raise ConfigError(f"item={name}: must be one of {', '.join(names('item'))}")
    words = [f"item={name}", f"experiment={names('experiment')[0]}"]  # any: only the sweep is read
    with _hydra(), _one_line(words):
        composed = compose("config", overrides=words, return_hydra_config=True)
    listed = composed.hydra.sweeper.params.experiment
    return Item(name, tuple(word.strip() for word in listed.split(",")))


def names(group: str) -> list[str]:
    """Return the choices of a config group, sorted."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


@contextmanager
def _hydra() -> Iterator[None]:
    if GlobalHydra.instance().is_initialized():  # inside a job that Hydra runs
        yield
        return
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


@contextmanager
def _one_line(overrides: Sequence[str]) -> Iterator[None]:
    """Turn what Hydra and OmegaConf raise into one line in the project's words."""
    try:
        yield
    except ConfigError:
        raise
    except MarkedYAMLError as error:
        raise ConfigError(_where(error)) from error
    except (HydraException, OmegaConfBaseException, ValueError, TypeError, KeyError) as error:
        raise ConfigError(_explain(str(error), overrides)) from error


@contextmanager
def hydra_in_one_line(overrides: Sequence[str]) -> Iterator[None]:
    """The same around a job that Hydra runs: an error of the job's own stays what it is."""
    try:
        yield
    except (HydraException, OmegaConfBaseException, MarkedYAMLError) as error:
        with _one_line(overrides):
            raise error


def _where(error: MarkedYAMLError) -> str:
    """Say in one line where a file is not YAML."""
    mark = error.problem_mark or error.context_mark
    place = f"{mark.name}:{mark.line + 1}:{mark.column + 1}: " if mark else ""
    return f"{place}not YAML ({error.problem})"


def _explain(message: str, overrides: Sequence[str]) -> str:
    """Say in one line what is wrong with the words of the command line."""
    if match := re.search(r"Could not override '([^']+)'", message):
        keys = list(flatten(Config().as_mapping()))
        return f"unknown option '{match[1]}'; {closest(match[1], keys)}"
    if match := re.search(r"Could not find '([\w/]+)/([^'/]+)'", message):
        group, value = match[1], match[2]
        if group == "recipe":
            return (
                f"{value.replace('_', ' with profile ')}: there is no recipe for it; "
                f"one of {', '.join(names('recipe'))}"
            )
        known = re.findall(r"^\t(\S+)$", message, re.M) if "/" in group else names(group)
        return f"{group}={value}: must be one of {', '.join(known)}"
    if "hydra/launcher/submitit" in message:
        return "hydra/launcher: submitit is not installed; pip install '.[slurm]'"
    if "You must specify 'experiment'" in message:
        if any(word.startswith("item=") for word in overrides):
            return "item names several runs; add -m to sweep over them"
        return f"experiment is not set; one of {', '.join(names('experiment'))}"
    if match := re.search(r"Ambiguous value for argument '([^']+)'", message):
        return f"{match[1]}: several values for one run; add -m to sweep over them"
    first, *rest = message.strip().splitlines()
    if "interpolation" in message.lower():
        key = next((line.split(": ")[1] for line in rest if "full_key" in line), "a value")
        return f"{key}: cannot be resolved: {first}"
    if re.search(r"viable ?alt|token recognition|mismatched input|extraneous", message, re.I):
        return f"could not read {' '.join(overrides)!r}: {first}"
    return first
