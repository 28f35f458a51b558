"""Counting errors on held-out images; here its options and what is refused without torch."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resnet_repro import paths
from resnet_repro.config import DATA_SETS, DataConfig, TrainerConfig
from resnet_repro.options import ConfigError, at_least, named, one_of, option

FORMATS = ("ours", "akamaster", "torchvision")


def as_in(schema: type, name: str) -> Any:
    """Declare the field of this name of another schema again."""
    (field,) = (field for field in dataclasses.fields(schema) if field.name == name)
    return dataclasses.field(default=field.default, metadata=field.metadata)


@dataclass(frozen=True)
class DataOptions:
    """The pictures."""

    name: str = option(
        "auto", "data set; auto: the one of the run, else cifar10", one_of("auto", *DATA_SETS)
    )
    root: str = as_in(DataConfig, "root")
    source: str = as_in(DataConfig, "source")
    on_corrupt: str = as_in(DataConfig, "on_corrupt")


@dataclass(frozen=True)
class TrainerOptions:
    """Device, precision and threads; names are those of training."""

    device: str = as_in(TrainerConfig, "device")
    precision: str = option(
        "auto",
        "auto: the run's own where the device has it; else, and for other people's weights, fp32",
        one_of("auto", "fp32", "tf32", "bf16"),
    )
    threads: int = as_in(TrainerConfig, "threads")
    loader_workers: int = as_in(TrainerConfig, "loader_workers")


@dataclass(frozen=True)
class EvaluateOptions:
    """Options of ``resnet_repro.evaluate``."""

    weights: list[str] = option([], r"weights files; a comma in a path is written \,")
    format: str | None = option(None, "format of the weights files", one_of(*FORMATS))
    weights_key: str | None = option(
        None, "which state dict of a file that holds several, as state_dict_ema or model.net"
    )
    stride_in: str | None = option(
        None,
        "conv of a bottleneck that has the stride in format=torchvision; unset: 3x3, as "
        "torchvision's; the keys do not tell",
        one_of("1x1", "3x3"),
    )
    run: list[str] = option([], "folders of finished runs, results/runs/<profile>/<name>/seed<k>")
    protocol: str = option(
        "1-crop",
        "how images are shown; the last two for nets of the ImageNet family only",
        one_of("1-crop", "10-crop", "multi-scale"),
    )
    bn: str = option(
        "running",
        "batch-norm statistics; precise: averaged over the epoch of training batches that follows "
        "(run=..., or a checkpoint in its run folder)",
        one_of("running", "precise"),
    )
    split: str = option(
        "test", "images to count; val: those a 45k run was not trained on",
        one_of("test", "val", "train"),
    )  # fmt: skip
    batch_size: int = option(
        0, "images of a batch, 0: chosen by their size; does not change the result", at_least(0)
    )
    name: str | None = option(
        None, "name of the result, else made from the weights'", named("a name")
    )
    results_dir: str = option("auto", "folder of the results; auto: evaluations/ beside the runs")
    data: DataOptions = DataOptions()
    trainer: TrainerOptions = TrainerOptions()

    @property
    def results_folder(self) -> Path:
        """By default where tables look for the results of the runs."""
        if self.results_dir == paths.AUTO:
            return paths.runs().parent / "evaluations"
        return paths.expand(self.results_dir)


def check(options: EvaluateOptions) -> None:
    """Refuse what can be refused without torch: ConfigError names key, value, what is allowed."""
    fmt = options.format
    if bool(options.weights) == bool(options.run):
        raise ConfigError("give either weights=FILE with format=..., or run=RUN_DIR; see --help")
    if options.weights and fmt is None:
        raise ConfigError(f"format is not set; must be one of {', '.join(FORMATS)}")
    if options.run and fmt is not None:
        raise ConfigError(f"format={fmt}: only with weights=...")
    if options.weights_key is not None and fmt not in ("akamaster", "torchvision"):
        key = options.weights_key
        raise ConfigError(f"weights_key={key}: only with format=akamaster or torchvision")
    if options.stride_in is not None and fmt != "torchvision":
        raise ConfigError(f"stride_in={options.stride_in}: only with format=torchvision")
    key, texts = ("weights", options.weights) if options.weights else ("run", options.run)
    for text in texts:
        path = paths.expand(text)
        if not (path.is_file() if options.weights else path.is_dir()):
            split = len(texts) > 1 and paths.expand(",".join(texts)).exists()
            comma = r"; a comma in a path is written \," if split else ""
            noun = "file" if options.weights else "folder"
            raise ConfigError(f"{key}={text}: must be an existing {noun}{comma}")
    if len(set(texts)) < len(texts):
        raise ConfigError(f"{key}={','.join(texts)}: names one {key} twice")
