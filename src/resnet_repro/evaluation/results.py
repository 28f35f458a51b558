"""What an evaluation found, as a file beside the runs and as a line of a table. No torch."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from resnet_repro.options import ConfigError
from resnet_repro.runs.atomic import write_text_atomic

SCHEMA = 1
# What makes two results of one name the same evaluation, besides their nets; a rerun replaces the
# older one.
_IDENTITY = ("kind", "protocol", "bn", "data")
_COLUMNS = ("net", "weights", "data", "protocol", "bn", "images", "top-1 err %", "top-5 err %")


def made_name(subjects: list[str], protocol: str, bn: str, split: str) -> str:
    """Name of an evaluation: its weights, and what differs from the usual test."""
    first, others = subjects[0], len(subjects) - 1
    parts = [first if not others else f"ensemble{others + 1}_{first}"]
    usual = ("1-crop", "running", "test")
    parts += [part for part, usually in zip((protocol, bn, split), usual, strict=True)
              if part != usually]  # fmt: skip
    word = "_".join(parts)
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "._+-") else "-" for c in word)
    return kept.lstrip(".-")[:100] or "weights"


def free_name(folder: Path, given: str | None, result: Mapping[str, Any]) -> str:
    """The name under which a result can be kept, before anything is counted.

    It is ``given``, or the one made for ``result``. Where another evaluation has the made one, as
    that of another file called ``model_best.pth.tar``, a digest of what is evaluated is added.

    Raises:
        ConfigError: the file of the given name holds another evaluation, or the folder cannot be
            written.
    """
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise ConfigError(f"results_dir={folder}: cannot be written")
    name = given or str(result["name"])
    if given is None and _holds_another(folder / f"{name}.json", result):
        identity = json.dumps([_nets(result["models"]), *(result[key] for key in _IDENTITY)])
        name = f"{name[:91]}_{hashlib.sha256(identity.encode()).hexdigest()[:8]}"
    _refuse_another(folder / f"{name}.json", result)
    return name


def write(folder: Path, result: Mapping[str, Any]) -> Path:
    """Write ``<folder>/<name>.json``, whole or not at all.

    Raises:
        ConfigError: the file holds another evaluation, or the folder cannot be written.
    """
    path = folder / f"{result['name']}.json"
    text = json.dumps(result, indent=2, allow_nan=False) + "\n"
    try:
        _refuse_another(path, result)
        folder.mkdir(parents=True, exist_ok=True)
        write_text_atomic(path, text)
    except OSError as error:
        raise ConfigError(f"results_dir={folder}: cannot be written ({error.strerror})") from error
    return path


def table(result: Mapping[str, Any]) -> str:
    """Return a Markdown table of one line for a terminal."""
    models = result["models"]
    left_out = f" ({result['left_out']} left out)" if result["left_out"] else ""
    cells = (
        " + ".join(model["net"]["label"] for model in models),
        " + ".join(model.get("file") or model["run"] for model in models),
        f"{result['data']['name']} {result['kind']}",
        result["protocol"],
        result["bn"],
        str(result["num_samples"]) + left_out,
        f"{result['top1_err']:.2f}",
        f"{result['top5_err']:.2f}",
    )
    widths = [max(len(a), len(b)) for a, b in zip(_COLUMNS, cells, strict=True)]
    rows = (_COLUMNS, tuple("-" * width for width in widths), cells)
    return "\n".join(
        "| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |"
        for row in rows
    )


def _refuse_another(path: Path, result: Mapping[str, Any]) -> None:
    if _holds_another(path, result):
        raise ConfigError(
            f"{path} holds another evaluation (other weights, protocol or data); "
            "give this one a name=... of its own, or remove that file"
        )


def _holds_another(path: Path, result: Mapping[str, Any]) -> bool:
    """Whether ``path`` is there and is not an earlier result of the same evaluation."""
    if not path.is_file():
        return path.exists() or path.is_symlink()
    try:
        old = json.loads(path.read_text(encoding="utf-8"))
        same = all(old[key] == result[key] for key in _IDENTITY)
        return not same or _nets(old["models"]) != _nets(result["models"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return True


def _nets(models: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    """Which nets; of ours run and iteration, so that one trained again replaces its result."""
    return [
        [model["run"], model.get("iter")]
        if "run" in model
        else [model.get("sha256"), model.get("weights_key"), model["net"].get("stride_in", "1x1")]
        for model in models
    ]
