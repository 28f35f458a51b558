"""``python -m resnet_repro.evaluate``: count the errors of weights or finished runs.

    weights=FILE format=akamaster|torchvision|ours     a weights file, ours or other people's
    run=RUN_DIR                                        the final net of a finished run
    data=imagenet|folder data.root=FOLDER              on the pictures FOLDER/val/<class>/*

Several, separated by commas, are tested as an ensemble. Nothing but numbers is ever taken from a
weights file. The result is printed and written to results/evaluations/<name>.json.

Exit codes: 0 done, 1 a defect of this program, 2 bad options, 3 bad data, 4 weights refused.
"""

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from resnet_repro.command import run_command
from resnet_repro.evaluation import EvaluateOptions, check
from resnet_repro.options import ConfigError
from resnet_repro.paths import writing
from resnet_repro.runs.atomic import write_text_atomic


def main() -> None:
    """Run the command line."""
    run_command(__doc__, EvaluateOptions, evaluate)


def evaluate(options: EvaluateOptions) -> None:
    """Count, print the table, write the file: the number is shown even if it cannot be written."""
    result = count(options)
    print(table(result), flush=True)
    for note in result["notes"]:
        print(f"note: {note}", file=sys.stderr)
    print(f"written to {write(options.results_folder, result)}", file=sys.stderr)


def count(options: EvaluateOptions) -> dict[str, Any]:
    """Count errors as ``options`` say; return the result as plain Python.

    Raises:
        ConfigError: before anything is counted: nets, data and options do not fit together, or the
            result cannot be written under its name.
        WeightsError: weights are refused, or give scores that are not finite.
        RunFolderError: a run is missing or not finished.
        DataError: the data are missing or wrong.
    """
    check(options)
    from resnet_repro.evaluation.session import Session

    session = Session.open(options)
    described = session.describe()
    name = free_name(options.results_folder, options.name, described)
    return session.count(described | {"name": name})


def free_name(folder: Path, requested: str | None, result: Mapping[str, Any]) -> str:
    """Return the name of a result: ``requested``, or a generated one.

    Where another evaluation has the generated name (of another ``model_best.pth.tar``, say), a
    digest is added. ConfigError: another has the requested one, or the folder is read-only.
    """
    existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise ConfigError(f"results_dir={folder}: cannot be written")
    name = requested or str(result["name"])
    if requested is None and _holds_another(folder / f"{name}.json", result):
        digest = hashlib.sha256(json.dumps(_identity(result)).encode()).hexdigest()
        name = f"{name[:91]}_{digest[:8]}"
    path = folder / f"{name}.json"
    if _holds_another(path, result):
        raise ConfigError(
            f"{path} holds another evaluation (other weights, protocol or data); "
            "give this one a name=... of its own, or remove that file"
        )
    return name


def write(folder: Path, result: Mapping[str, Any]) -> Path:
    """Write ``<folder>/<name>.json`` atomically; ConfigError: it cannot be written."""
    path = folder / f"{result['name']}.json"
    text = json.dumps(result, indent=2, allow_nan=False) + "\n"
    with writing(f"results_dir={folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        write_text_atomic(path, text)
    return path


def table(result: Mapping[str, Any]) -> str:
    """Return a Markdown table of one line for a terminal."""
    import pandas as pd

    models, left_out = result["models"], result["left_out"]
    cells = {
        "net": " + ".join(model["net"]["label"] for model in models),
        "weights": " + ".join(model.get("file") or model["run"] for model in models),
        "data": f"{result['data']['name']} {result['kind']}",
        "protocol": result["protocol"],
        "bn": result["bn"],
        "images": str(result["num_samples"]) + (f" ({left_out} left out)" if left_out else ""),
        "top-1 err %": f"{result['top1_err']:.2f}",
        "top-5 err %": f"{result['top5_err']:.2f}",
    }
    return pd.DataFrame([cells]).to_markdown(index=False, disable_numparse=True)


def _holds_another(path: Path, result: Mapping[str, Any]) -> bool:
    """Whether ``path`` exists and is not an earlier result of the same evaluation."""
    if not path.is_file():
        return path.exists() or path.is_symlink()
    try:
        return _identity(json.loads(path.read_text(encoding="utf-8"))) != _identity(result)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return True


def _identity(result: Mapping[str, Any]) -> list[Any]:
    """Return what identifies an evaluation; a rerun replaces its older result.

    For our nets run and iteration, so that a retrained net replaces its result.
    """
    nets = [
        [model["run"], model.get("iter")]
        if "run" in model
        else [model.get("sha256"), model.get("weights_key"), model["net"].get("stride_in", "1x1")]
        for model in result["models"]
    ]
    return [nets, *(result[key] for key in ("kind", "protocol", "bn", "data"))]


if __name__ == "__main__":
    main()
