"""``python -m resnet_repro.export run=RUN_DIR out=FILE``: the final weights of finished runs.

    run=RUN_DIR out=net.pt                             a plain state dict
    run=RUN_DIR out=net.safetensors format=safetensors
    run=RUN_DIR out=resnet50.pth format=torchvision    for torchvision's resnet18 to resnet152
    run=RUN_DIR,RUN_DIR,... out=FOLDER format=...      one file a run, and a table in README.md

The file also records its net and how its images were prepared, so that ``resnet_repro.evaluate
weights=FILE format=ours`` needs nothing else. With the mean of the training images, taken from the
data, ``resnet_repro.api.load_net`` classifies pictures with it.

Exit codes: 0 done, 1 a defect of this program, 2 bad options, 4 no good final checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from resnet_repro import paths
from resnet_repro.evaluation.command import run_command
from resnet_repro.options import ConfigError, group, one_of, option
from resnet_repro.runs.atomic import is_regular_or_free

SUFFIXES = {"state_dict": ".pt", "safetensors": ".safetensors", "torchvision": ".pth"}


@dataclass(frozen=True)
class DataOptions:
    """The training images, for their mean."""

    root: str = option("auto", "folder of the data; auto: $RESNET_REPRO_DATA if set, else data/")


@dataclass(frozen=True)
class Options:
    """Options of ``resnet_repro.export``."""

    run: list[str] = option([], "folders of finished runs")
    out: str | None = option(
        None, "file to write, or an existing folder for one file a run; older ones are replaced"
    )
    format: str = option("state_dict", "of the file", one_of(*SUFFIXES))
    data: DataOptions = group(DataOptions)


def check(options: Options) -> dict[Path, Path]:
    """Refuse what can be refused without torch; return the file of each run.

    Raises:
        ConfigError: one line naming the key, the value and what is allowed.
    """
    if not options.run or options.out is None:
        raise ConfigError(f"{'out' if options.run else 'run'} is not set; see --help")
    runs, out = [paths.given(run) for run in options.run], paths.given(options.out)
    for run in runs:
        if not run.is_dir():
            raise ConfigError(f"run={run}: must be an existing folder")
    suffix, safe = SUFFIXES[options.format], options.format == "safetensors"
    if out.is_dir():
        names = ["_".join(run.absolute().parts[i] for i in (-2, -3, -1)) for run in runs]
        files = {run: out / f"{name}{suffix}" for run, name in zip(runs, names, strict=True)}
    elif len(runs) > 1:
        raise ConfigError(f"out={out}: must be an existing folder where there are several runs")
    else:
        files = {runs[0]: out}
    if len(set(files.values())) < len(runs):
        raise ConfigError(f"run={','.join(options.run)}: two runs of the same name")
    for file in files.values():
        if not file.parent.is_dir() or not is_regular_or_free(file):
            raise ConfigError(f"out={file}: must be a file in an existing folder")
        if safe != (file.suffix == ".safetensors"):
            raise ConfigError(f"out={file}: must end in .safetensors exactly if format=safetensors")
    return files


def export(options: Options) -> None:
    """Write the files, print their digests, and in a folder list them in a table."""
    files = check(options)
    from resnet_repro.evaluation import exports

    for run, out in files.items():
        print(f"{out}  sha256 {exports.write(run, out, options.format, options.data.root)}")
    if options.out is not None and paths.given(options.out).is_dir():
        print(exports.write_table(paths.given(options.out)))


def main() -> None:
    """Run the command line."""
    run_command(__doc__, Options, export)


if __name__ == "__main__":
    main()
