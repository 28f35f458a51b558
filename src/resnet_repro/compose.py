"""Compose configurations from ``conf/`` and overrides, with Hydra."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import OmegaConf, open_dict

from resnet_repro.conf import changed, names, protocol, variant_name
from resnet_repro.config import Config
from resnet_repro.hydra_cli import in_one_line, quoted
from resnet_repro.options import UNNAMED, ConfigError, shown
from resnet_repro.paths import CONF, check_installed
from resnet_repro.same_run import flatten
from resnet_repro.training.launch import Job, job_of

# Every key exists with its default before any file is read. A plain mapping, not a typed one:
# types and ranges are checked in one place (Config.from_mapping), with one form of message.
ConfigStore.instance().store(name="schema", node=Config().as_mapping())


def compose_run(*overrides: str) -> Config:
    """Compose and check the configuration of one run.

    A run that computes anything else than its experiment does at this profile is a variant: without
    a given name, its name is derived from what differs. ConfigError: one line naming the key, the
    value and what is allowed.
    """
    with in_one_line(overrides):
        config = _composed(overrides)
        own = protocol(config.experiment, config.profile) or _composed(
            [f"experiment={config.experiment}", f"profile={config.profile}"]
        )
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
    """Compose one run as :func:`compose_run` does, and note how it differs from the paper's."""
    config = compose_run(*overrides)
    name = config.experiment
    paper = protocol(name) or compose_run(f"experiment={name}", "profile=paper")
    return job_of(config, overrides, paper)


def compose_sweep(overrides: Sequence[str]) -> list[Job]:
    """Compose and check every run of a Hydra multirun, before the first one starts.

    As in Hydra, the chosen files may sweep too (``hydra.sweeper.params``, as those of ``conf/item``
    do); the command line wins over them. ConfigError: as :func:`compose_run`, the sweep is empty,
    or two of its runs share a folder.
    """
    with _hydra(), in_one_line(overrides):
        loader = GlobalHydra.instance().config_loader()
        words = [quoted(word) for word in overrides]
        files = loader.load_configuration("config", words, RunMode.MULTIRUN)
        swept = [f"{key}={value}" for key, value in files.hydra.sweeper.params.items()]
        parsed = OverridesParser.create(config_loader=loader).parse_overrides([*swept, *words])
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


def _composed(overrides: Sequence[str]) -> Config:
    with _hydra():
        words = [quoted(word) for word in overrides]
        composed = compose("config", overrides=words, return_hydra_config=True)
    choices = composed.hydra.runtime.choices
    experiment = choices.experiment
    with open_dict(composed):
        composed.pop("hydra")
    values: dict[str, Any] = OmegaConf.to_container(composed, resolve=True)  # type: ignore[assignment]
    if isinstance(values.get("experiment"), dict):
        raise ConfigError(
            f"experiment={experiment}: its file must begin with the line '# @package _global_'"
        )
    values["experiment"] = experiment
    if values["profile"] != choices.profile:
        raise ConfigError(
            f"profile={values['profile']}: this only names it, the recipe is {choices.profile}'s; "
            "in a file write '- override /profile: NAME' under defaults"
        )
    present = flatten(values)
    if values.get("name") == UNNAMED:
        del values["name"]
    config = Config.from_mapping(values)
    if removed := [key for key in flatten(config.as_mapping()) if key not in present]:
        raise ConfigError(f"~{removed[0]}: an option cannot be taken away, only given a value")
    return config


@contextmanager
def _hydra() -> Iterator[None]:
    if GlobalHydra.instance().is_initialized():  # inside a job that Hydra runs
        yield
        return
    check_installed()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


def _collision(first: Config, second: Config) -> str:
    one, other = flatten(first.as_mapping()), flatten(second.as_mapping())
    keys = [key for key in one if one[key] != other[key]]
    values = ", ".join(f"{key}={shown(one[key])} and {shown(other[key])}" for key in keys)
    how = f"'name={first.name}-${{{keys[0]}}}'"
    return f"name={first.name}: two runs of the sweep have it ({values}); name them apart: {how}"
