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

import base64
import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnet_repro import paths
from resnet_repro.command import run_command
from resnet_repro.config import DataConfig
from resnet_repro.data import Arrays, DataError
from resnet_repro.evaluation import as_in
from resnet_repro.exits import notify
from resnet_repro.options import ConfigError, one_of, option
from resnet_repro.runs.atomic import is_regular_or_free, write_atomic, write_text_atomic
from resnet_repro.runs.folder import RunFolder, RunFolderError

if TYPE_CHECKING:  # loads torch, for which a misspelt word must not wait
    from resnet_repro.evaluation.subjects import Subject

TITLE = "# Final weights of finished runs"  # of the table in a folder
SUFFIXES = {"state_dict": ".pt", "safetensors": ".safetensors", "torchvision": ".pth"}
CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


@dataclass(frozen=True)
class ExportDataOptions:
    """The training images, for their mean."""

    root: str = as_in(DataConfig, "root")


@dataclass(frozen=True)
class ExportOptions:
    """Options of ``resnet_repro.export``."""

    run: list[str] = option([], "folders of finished runs")
    out: str = option(
        "", "file to write, or an existing folder for one file a run; older ones are replaced"
    )
    format: str = option("state_dict", "of the file", one_of(*SUFFIXES))
    data: ExportDataOptions = ExportDataOptions()


def files_of(options: ExportOptions) -> dict[Path, Path]:
    """Return the file of each run; ConfigError: what can be refused without torch."""
    if not (options.run and options.out):
        raise ConfigError(f"{'out' if options.run else 'run'} is not set; see --help")
    runs, out = [paths.expand(run) for run in options.run], paths.expand(options.out)
    for run in runs:
        if not run.is_dir():
            raise ConfigError(f"run={run}: must be an existing folder")
    if len(runs) > 1 and not out.is_dir():
        raise ConfigError(f"out={out}: must be an existing folder where there are several runs")
    suffix = SUFFIXES[options.format]
    files = {run: out / f"{name_of(run)}{suffix}" if out.is_dir() else out for run in runs}
    if len(set(files.values())) < len(runs):
        raise ConfigError(f"run={','.join(options.run)}: two runs of the same name")
    for file in files.values():
        if not file.parent.is_dir() or not is_regular_or_free(file):
            raise ConfigError(f"out={file}: must be a file in an existing folder")
        if (options.format == "safetensors") != (file.suffix == ".safetensors"):
            raise ConfigError(f"out={file}: must end in .safetensors exactly if format=safetensors")
    readme = out / "README.md"
    if readme.is_file() and not readme.read_text("utf-8", errors="replace").startswith(TITLE):
        raise ConfigError(
            f"out={out}: its README.md is not a table of weights and would be replaced; "
            "name a file, or another folder"
        )
    return files


def name_of(run: Path) -> str:
    """Name a run by the end of its path: ``<name>_<profile>_seed<k>``."""
    profile, name, seed = ("", "", "", *run.resolve().parts[1:])[-3:]
    return "_".join(filter(None, (name, profile, seed)))


def export(options: ExportOptions) -> None:
    """Write the files, print their digests, and in a folder list them in a table."""
    for run, out in files_of(options).items():
        print(f"{out}  sha256 {write(run, out, options.format, options.data.root)}")
    if (folder := paths.expand(options.out)).is_dir():
        print(write_table(folder))


def write(run: Path, out: Path, form: str, root: str) -> str:
    """Write the final weights of a run to ``out``; return the SHA-256 of the file.

    RunFolderError: no run there, or it is not finished. WeightsError: its final checkpoint is
    missing or damaged. ConfigError: the net has no such format, or the file cannot be written.
    """
    from resnet_repro.evaluation.subjects import about_run, from_run
    from resnet_repro.evaluation.weights import packed, tensors_digest
    from resnet_repro.models.formats import to_torchvision

    subject, folder = from_run(run), RunFolder(run)
    state: Mapping[str, Any] = subject.net.state_dict()
    try:
        state = to_torchvision(state, subject.spec) if form == "torchvision" else state
    except ValueError as error:
        raise ConfigError(f"format=torchvision: {error}") from error
    config = subject.config
    assert config is not None
    about = about_run(config, folder, config.recipe.max_iters)
    about |= {"keys": "torchvision" if form == "torchvision" else "ours", "test": _test_of(folder)}
    try:
        about["input"] = _input_of(subject, root)
    except (DataError, ConfigError) as error:
        notify(
            f"{out}: without the mean of the training images, which only resnet_repro.api.load_net "
            f"needs ({error})"
        )
    data = packed(state, about | {"weights_sha256": tensors_digest(state)}, form)
    with paths.writing(f"out={out}"):
        write_atomic(out, lambda file: file.write(data))
    return hashlib.sha256(data).hexdigest()


def _test_of(folder: RunFolder) -> dict[str, Any]:
    """Return the logged errors of a run's final net on the test images."""
    records = [record for record in folder.metrics() if record.get("kind") == "test"]
    keys = ("iter", "top1_err", "top5_err", "num_samples")
    if not records or not all(key in records[-1] for key in keys):
        raise RunFolderError(f"{folder.metrics_path}: no errors on the test images were logged")
    return {key: records[-1][key] for key in keys}


def _input_of(subject: "Subject", root: str) -> dict[str, Any]:
    """Return the mean image to subtract, and the names of the classes."""
    from resnet_repro.evaluation.images import training_mean
    from resnet_repro.evaluation.session import check_training_data
    from resnet_repro.training.build import load_images

    config = subject.config
    assert config is not None
    # Existing data only: a download for this would surprise.
    choice = dataclasses.replace(config.data, root=root, source="folder")
    found = load_images(dataclasses.replace(config, data=choice))
    check_training_data(subject, found.digests)
    small = CIFAR10 if choice.name == "cifar10" else []
    classes = small if isinstance(found, Arrays) else found.train.classes
    mean = training_mean(found, choice)
    text = base64.b64encode(mean.astype("<f4").tobytes()).decode("ascii")
    return {"shape": list(mean.shape), "mean": text, "classes": list(classes)}


def write_table(folder: Path) -> Path:
    """List the exported files of a folder in its ``README.md``; ConfigError: it is read-only."""
    import pandas as pd

    from resnet_repro.evaluation.subjects import from_export
    from resnet_repro.evaluation.weights import WeightsError

    rows = []
    for path in sorted(folder.iterdir()):
        if path.suffix not in SUFFIXES.values() or not path.is_file():
            continue
        try:
            subject, about = from_export(path)
        except WeightsError as error:  # other people's files may lie here too
            notify(f"not in the table: {error}")
            continue
        if test := about.get("test"):
            row = {"net": subject.spec.label, "data": about["data"]["name"], "seed": about["seed"]}
            row |= {
                "test error %": f"{test['top1_err']:.2f}",
                "of images": f"{test['num_samples']:,}",
            }
            row |= {"file": path.name, "SHA-256": subject.source["sha256"]}
            rows.append(row | {"run": f"results/runs/{subject.source['run']}"})
    table = pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True)
    text = (
        f"{TITLE}\n\nGenerated by `python -m resnet_repro.export "
        "run=RUN_DIR,... out=FOLDER`. The error is the one the run logged. Another processor or "
        "precision rounds differently and may count a few images more or fewer.\n\n"
        f"{table}\n"
    )
    with paths.writing(f"out={folder}"):
        write_text_atomic(folder / "README.md", text)
    return folder / "README.md"


def main() -> None:
    """Run the command line."""
    run_command(__doc__, ExportOptions, export)


if __name__ == "__main__":
    main()
