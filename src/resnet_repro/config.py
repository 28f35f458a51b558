"""The whole configuration of a run, and what its values must be together. No torch, no Hydra."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from resnet_repro.config_groups import (
    PICTURE_SETS,
    PROFILES,
    DataConfig,
    EvaluationConfig,
    LoggerConfig,
    ProbesConfig,
    RecipeConfig,
    TrainerConfig,
)
from resnet_repro.models.spec import NetSpec
from resnet_repro.options import (
    UNNAMED,
    ConfigError,
    build,
    group,
    named,
    one_of,
    where,
    who,
    within,
)


@dataclass(frozen=True)
class Config:
    """One run: what is trained, on what, how, and where it is written."""

    experiment: str = who(UNNAMED, "a file of conf/experiment", named("a file of conf/experiment"))
    name: str = who(
        UNNAMED, "folder of the run; the experiment unless it is a variant", named("a name")
    )
    profile: str = who("paper", "length of the schedule", one_of(*PROFILES))
    seed: int = who(0, "of the weights, the order and the augmentation", within(0, 2**63))
    runs_dir: str = where(
        "auto", "where run folders are kept; auto: $RESNET_REPRO_RUNS if set, else results/runs"
    )
    data: DataConfig = group(DataConfig)
    model: NetSpec = group(NetSpec)
    recipe: RecipeConfig = group(RecipeConfig)
    evaluation: EvaluationConfig = group(EvaluationConfig)
    probes: ProbesConfig = group(ProbesConfig)
    trainer: TrainerConfig = group(TrainerConfig)
    logger: LoggerConfig = group(LoggerConfig)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Config:
        """Check a nested mapping and make the configuration.

        Raises:
            ConfigError: one line naming the key, the value and what is allowed.
        """
        config = build(cls, values)
        _check_together(config)
        return config

    @property
    def identity(self) -> dict[str, Any]:
        """What tells a run from all others, as its records say it."""
        return {key: getattr(self, key) for key in ("experiment", "name", "profile", "seed")}

    def as_mapping(self) -> dict[str, Any]:
        """The configuration as nested plain Python, what ``config.yaml`` holds."""
        return dataclasses.asdict(self)


def _check_together(config: Config) -> None:
    """Refuse values that are fine one by one and impossible together."""
    recipe = config.recipe
    if recipe.milestones and recipe.milestones[-1] >= recipe.max_iters:
        raise ConfigError(
            f"recipe.milestones={recipe.milestones}: must all be below "
            f"recipe.max_iters={recipe.max_iters}"
        )
    if recipe.schedule == "plateau" and not recipe.milestones:
        raise ConfigError(
            "recipe.schedule=plateau: needs recipe.milestones, whose number is that of the drops; "
            "it is []"
        )
    if recipe.nesterov and recipe.momentum == 0:
        raise ConfigError("recipe.nesterov=true: needs recipe.momentum > 0, which is 0")
    _check_devices(config)
    if config.data.name != "cifar10" and config.data.train_split == "45k":
        raise ConfigError(
            f"data.train_split=45k: only for data.name=cifar10, which is {config.data.name}"
        )
    _check_pictures(config)
    _check_engine(config)


def _check_engine(config: Config) -> None:
    trainer, data = config.trainer, config.data.name
    if trainer.concurrent > 1 and trainer.devices > 1:
        raise ConfigError(
            f"trainer.concurrent={trainer.concurrent}: only with trainer.devices=1, which is "
            f"{trainer.devices}"
        )
    asked = [key for key in ("graph", "compile") if getattr(trainer, key) == "always"]
    if asked and trainer.devices > 1:
        raise ConfigError(f"trainer.{asked[0]}=always: only with trainer.devices=1")
    if asked and data in PICTURE_SETS:
        raise ConfigError(f"trainer.{asked[0]}=always: not with data.name={data}")


def _check_pictures(config: Config) -> None:
    data, family = config.data, config.model.family
    if data.name in ("tiny_imagenet", *PICTURE_SETS) and family != "imagenet":
        raise ConfigError(f"model.family={family}: data.name={data.name} needs the imagenet family")
    if data.name in PICTURE_SETS and data.pad != "mean":
        raise ConfigError(
            f"data.pad={data.pad}: crops of data.name={data.name} lie within the picture; there is "
            "no border"
        )


def _check_devices(config: Config) -> None:
    devices, batch, group = config.trainer.devices, config.recipe.batch_size, config.model.bn_group
    if devices > batch:
        raise ConfigError(
            f"trainer.devices={devices}: must be at most recipe.batch_size={batch}; each device "
            "takes a share of the mini-batch"
        )
    if group and config.trainer.sync_bn:
        raise ConfigError(
            f"trainer.sync_bn=true: cannot be had with model.bn_group={group}; "
            "one spreads batch-norm over the devices, the other splits it"
        )
    if group and batch % (devices * group):
        times = f" x trainer.devices={devices}" if devices > 1 else ""
        raise ConfigError(f"model.bn_group={group}{times}: must divide recipe.batch_size={batch}")
