"""How W&B calls a run and its numbers. Needs neither torch nor wandb."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from resnet_repro.config_groups import KINDS as KINDS
from resnet_repro.config_groups import MODES as MODES
from resnet_repro.config_groups import PROJECT
from resnet_repro.runs.metrics import Record
from resnet_repro.same_run import identifying


def as_metrics(record: Record) -> dict[str, Any]:
    """A record under the names W&B shows: ``iter``, ``epoch``, ``train/loss``, ``test/top1_err``.

    Views other than the single one with running statistics are named: ``test/10-crop/loss``.
    """
    kind = str(record["kind"])
    common = {key: record[key] for key in ("iter", "epoch") if record.get(key) is not None}
    if kind == "event":
        return common | {f"event/{record['event']}": record.get("value", 1)}
    usual = {"protocol": "1-crop", "bn": "running"}
    view = [str(record[key]) for key, normal in usual.items() if record.get(key, normal) != normal]
    prefix = "/".join([kind, *view])
    return common | {
        f"{prefix}/{key}": value
        for key, value in record.items()
        if isinstance(value, int | float) and key not in ("iter", "epoch")
    }


def run_id(config: Mapping[str, Any]) -> str:
    """The W&B run id of a configuration: the same whenever and wherever it is run."""
    text = json.dumps(identifying(config), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def kept_id(folder: Path, config: Mapping[str, Any]) -> str:
    """The id this run folder was given first."""
    path = folder / "run_id"
    try:
        kept = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        kept = ""
    if not kept:
        kept = run_id(config)
        path.write_text(kept + "\n", encoding="utf-8")
    return kept


def init_arguments(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """What ``wandb.init`` is asked for a run whose W&B files go to ``folder``.

    Raises:
        OSError: the id cannot be kept there.
    """
    model = config["model"]
    plain = model["shortcut"] == "none"
    return {
        "project": config.get("logger", {}).get("project", PROJECT),
        "id": kept_id(folder, config),
        "resume": "allow",
        "name": f"{config['name']} {config['profile']} seed{config['seed']}",
        "group": config["experiment"],
        "tags": [
            config["profile"],
            model["family"],
            "plain" if plain else f"shortcut {model['shortcut']}",
        ],
        "dir": str(folder.parent.resolve()),  # wandb makes its own wandb/ there
        "config": dict(config),
    }
