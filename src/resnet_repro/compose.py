"""The one place that sees Hydra: from ``conf/`` and command-line words to configurations."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError

from resnet_repro.conf import changed, load_item, names, protocol, variant_name
from resnet_repro.config import Config
from resnet_repro.options import UNNAMED, ConfigError, closest, leaves, shown
from resnet_repro.paths import CONF, check_installed
from resnet_repro.same_run import flatten
from resnet_repro.training.launch import Job, job_of

# Every key exists with its default before any file is read. A plain mapping, not a typed one:
# types and ranges are checked in one place (Config.from_mapping), with one form of message.
ConfigStore.instance().store(name="schema", node=Config().as_mapping())


def compose_run(*overrides: str) -> Config:
    """Compose and check the configuration of one run.

    A run that computes anything else than its experiment does at this profile is a variant: unless
    it is given a name, its name is derived from what differs.

    Raises:
        ConfigError: one line naming the key, the value and what is allowed.
    """
    with _one_line(overrides):
        config = _composed(overrides)
        own = protocol(config.experiment, config.profile) or _experiment_alone(config)
        differing = changed(own, config.as_mapping())
        if config.name == UNNAMED:
            return replace(config, name=variant_name(config.experiment, differing))
        if config.name in names("experiment") and (config.name != own.experiment or differing):
            what = ", ".join(differing) or "experiment"
            raise ConfigError(
                f"name={config.name}: is the name of an experiment, from which this run differs "
                f"({what}); leave name out or choose another"
            )
        return config


def make_job(*overrides: str) -> Job:
    """Compose one run and note how its protocol differs from the paper's.

    Raises:
        ConfigError: as :func:`compose_run`.
    """
    config = compose_run(*overrides)
    paper = protocol(config.experiment) or compose_run(f"experiment={config.experiment}")
    return job_of(config, overrides, paper)


def _experiment_alone(config: Config) -> Config:
    return _composed([f"experiment={config.experiment}", f"profile={config.profile}"])


def _composed(overrides: Sequence[str]) -> Config:
    words = [quoted(word) for word in overrides]
    with _hydra():
        composed = compose("config", overrides=words, return_hydra_config=True)
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
    given = flatten(values)
    if values.get("name") == UNNAMED:
        del values["name"]
    config = Config.from_mapping(values)
    if gone := [key for key in flatten(config.as_mapping()) if key not in given]:
        raise ConfigError(f"~{gone[0]}: an option cannot be taken away, only given a value")
    return config


def compose_sweep(overrides: Sequence[str]) -> list[Job]:
    """Compose and check every run of a Hydra multirun, before the first one starts.

    Raises:
        ConfigError: as :func:`compose_run`, the sweep is empty, or two of its runs have one folder.
    """
    with _hydra(), _one_line(overrides):
        loader = GlobalHydra.instance().config_loader()
        words = [quoted(word) for word in (*_item_words(overrides), *overrides)]
        parsed = OverridesParser.create(config_loader=loader).parse_overrides(words)
        batches = [job for batch in BasicSweeper.split_arguments(parsed, None) for job in batch]
    if not batches:
        raise ConfigError("the sweep is empty: no experiment matches")
    jobs: dict[Path, Job] = {}
    for batch in batches:
        job = make_job(*batch)
        other = jobs.setdefault(job.folder.path, job)
        if other.config != job.config:
            raise ConfigError(_collision(other.config, job.config))
    return list(jobs.values())


def _collision(first: Config, second: Config) -> str:
    one, other = flatten(first.as_mapping()), flatten(second.as_mapping())
    keys = [key for key in one if one[key] != other[key]]
    values = ", ".join(f"{key}={shown(one[key])} and {shown(other[key])}" for key in keys)
    how = f"'name={first.name}-${{{keys[0]}}}'"
    return f"name={first.name}: two runs of the sweep have it ({values}); name them apart: {how}"


def _item_words(overrides: Sequence[str]) -> list[str]:
    """Return the sweep an ``item=`` word stands for; the command line wins over it."""
    chosen = [word.removeprefix("item=") for word in overrides if word.startswith("item=")]
    given = {word.split("=")[0] for word in overrides}
    if not chosen or chosen[-1] == "null" or "experiment" in given:
        return []
    return [f"experiment={','.join(load_item(chosen[-1]).experiments)}"]


_TEXT = {
    f"{prefix}{key}"
    for key, kind, _ in leaves(Config)
    if kind is str and key not in ("experiment", "profile")  # config groups
    for prefix in ("", "+", "++")
}
_PLAIN = re.compile(r"(?!(nan|inf|true|false)$)[a-z_][a-z0-9_./,-]*|null|", re.IGNORECASE)
# An interpolation comes escaped out of a sweep.
_SYNTAX = re.compile(r"['\"\[]|(choice|range|interval|glob|shuffle|sort|tag)\(|.*\$\\?\{")


def quoted(word: str) -> str:
    """Quote a value that is text, so that Hydra takes it as typed: a path, a name like 12e4567.

    What is plain, quoted already, an interpolation or a sweep's function stays as it is.
    """
    key, equals, value = word.partition("=")
    if not equals or key not in _TEXT or _PLAIN.fullmatch(value) or _SYNTAX.match(value):
        return word
    parts = ["'" + part.replace("'", "\\'") + "'" for part in value.split(",")]
    return f"{key}={','.join(parts)}"


@contextmanager
def _hydra() -> Iterator[None]:
    if GlobalHydra.instance().is_initialized():  # inside a job that Hydra runs
        yield
        return
    check_installed()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


@contextmanager
def _one_line(overrides: Sequence[str]) -> Iterator[None]:
    """Turn what Hydra and OmegaConf raise into one line in the project's words."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(_as_typed(str(error), overrides)) from error
    except MarkedYAMLError as error:
        raise ConfigError(_where(error)) from error
    except (HydraException, OmegaConfBaseException, ValueError, TypeError, KeyError) as error:
        raise ConfigError(_explain(str(error), overrides)) from error


def _as_typed(message: str, overrides: Sequence[str]) -> str:
    """Show a refused value as it stands on the command line, not as it was read."""
    # The last of several values for one key is the one that counts.
    for key, _, typed in (word.lstrip("+").partition("=") for word in reversed(overrides)):
        if typed and (found := re.fullmatch(rf"{re.escape(key)}=.*?(: must be .*)", message)):
            return f"{key}={typed}{found[1]}"
    return message


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
    if "hydra/launcher/submitit" in message:
        return "hydra/launcher: submitit is not installed; pip install '.[slurm]'"
    if match := re.search(r"Could not find '([\w/]+)/([^'/]+)'", message):
        group, value = match[1], match[2]
        if group == "recipe":
            return (
                f"{value.replace('_', ' with profile ')}: there is no recipe for it; "
                f"one of {', '.join(names('recipe'))}"
            )
        known = re.findall(r"^\t(\S+)$", message, re.M) if "/" in group else names(group)
        if near := get_close_matches(value, known, n=1):
            return f"{group}={value}: did you mean {near[0]}?"
        return f"{group}={value}: must be one of {', '.join(known)}"
    if "You must specify 'experiment'" in message:
        if any(word.startswith("item=") for word in overrides):
            return "item names several runs; add -m to sweep over them"
        return f"experiment is not set; one of {', '.join(names('experiment'))}"
    if match := re.search(r"Ambiguous value for argument '([^=]+)", message):
        typed = next(word for word in overrides if word.partition("=")[0] == match[1])
        return (
            f"{typed}: several values for one run; add -m to sweep over them, or quote a value "
            "with a comma twice: \"key='a,b'\""
        )
    first, *rest = message.strip().splitlines()
    if "interpolation" in message.lower():
        key = next((line.split(": ")[1] for line in rest if "full_key" in line), "a value")
        return f"{key}: cannot be resolved: {first}"
    if re.search(r"viable ?alt|token recognition|mismatched input|extraneous", message, re.I):
        return _unreadable(overrides, first)
    return first


def _unreadable(overrides: Sequence[str], reason: str) -> str:
    """Name the word that Hydra's grammar does not read, and how text is given."""
    parser = OverridesParser.create()
    for word in overrides:
        try:
            parser.parse_override(quoted(word))
        except HydraException:
            key, _, value = word.partition("=")
            text = shlex.quote(f"{key}='{value}'")
            return f"{word}: cannot be read ({reason}); if it is text, quote it twice: {text}"
    return f"{' '.join(overrides)}: cannot be read ({reason})"
