"""A run is a folder that anyone can trust: where its files lie, how they are read and written.

Layout, ``<runs>/<profile>/<name>/seed<k>/``:

====================  ==============================================================================
``config.yaml``       the resolved configuration, written once before anything else
``status.json``       where the run stands (:data:`STATES`), iteration, owner; rewritten atomically
``meta.json``         provenance: command, git, versions, hardware, data digests, counts, speed
``metrics.jsonl``     the source of truth of every figure (:mod:`resnet_repro.runs.metrics`)
``responses.csv``     layer responses (Fig. 7)
``gradients.csv``     gradient norms; ``signal.csv`` the forward signal at initialisation
``gradient_precision.csv``  the first gradients compared with float64
``checkpoints/``      to go on from; not kept in version control
====================  ==============================================================================
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resnet_repro.runs.atomic import write_text_atomic
from resnet_repro.runs.metrics import Record, read_metrics

STATES = ("created", "running", "finished", "preempted", "diverged", "failed")


class RunFolderError(RuntimeError):
    """A run folder that cannot be used as asked; the message says what to do."""


@dataclass(frozen=True)
class RunFolder:
    """One run on disk, complete or not."""

    path: Path

    @classmethod
    def at(cls, root: Path, config: dict[str, Any]) -> RunFolder:
        """Return the folder of a configuration; it depends on the config, never on the clock."""
        return cls(root / config["profile"] / config["name"] / f"seed{config['seed']}")

    @property
    def config_path(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.yaml"

    @property
    def metrics_path(self) -> Path:
        """The logged numbers."""
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        """Folder of the states to go on from."""
        return self.path / "checkpoints"

    @property
    def resumes_at(self) -> int:
        """Iteration of the newest checkpoint; 0 where there is none."""
        names = [path.stem for path in self.checkpoints.glob("iter_*.pt")]
        return int(max(names).removeprefix("iter_")) if names else 0

    def config(self) -> dict[str, Any]:
        """Read the resolved configuration.

        Raises:
            RunFolderError: the file is missing or is not a mapping.
        """
        try:
            loaded = _parse_yaml(self.config_path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RunFolderError(f"{self.config_path}: cannot be read ({error})") from error
        if not isinstance(loaded, dict):
            raise RunFolderError(f"{self.config_path}: not a configuration")
        return loaded

    def write_config(self, config: dict[str, Any]) -> None:
        """Make the folder and write its configuration."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_text_atomic(self.config_path, _to_yaml(config))

    def status(self) -> dict[str, Any]:
        """Where the run stands; an empty mapping where nothing was begun."""
        return self._json("status.json")

    def write_status(self, state: str, **values: Any) -> None:
        """Record where the run stands and who says so."""
        if state not in STATES:
            raise ValueError(f"unknown state {state!r}; one of {', '.join(STATES)}")
        owner = {"host": socket.gethostname(), "pid": os.getpid(), "updated": now()}
        self._write_json("status.json", {"state": state} | values | owner)

    def update_status(self, state: str, **changes: Any) -> None:
        """Record a new state; what is not changed of the run's place stays."""
        before = self.status()
        kept = {key: before.get(key, 0) for key in ("iter", "max_iters", "restarts")}
        self.write_status(state, **kept | changes)

    def meta(self) -> dict[str, Any]:
        """Provenance; an empty mapping before the run began."""
        return self._json("meta.json")

    def write_meta(self, meta: dict[str, Any]) -> None:
        """Record provenance."""
        self._write_json("meta.json", meta)

    def metrics(self) -> list[Record]:
        """All logged records, in order."""
        return read_metrics(self.metrics_path)

    @property
    def is_finished(self) -> bool:
        """Whether the run was trained to its end."""
        return bool(self.status().get("state") == "finished")

    def table(self, name: str) -> list[dict[str, str]]:
        """Rows of ``<name>.csv``; empty where it was not written."""
        try:
            text = (self.path / f"{name}.csv").read_text(encoding="utf-8")
        except FileNotFoundError:
            return []
        return list(csv.DictReader(io.StringIO(text)))

    def write_table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write ``<name>.csv``; a key that a row lacks is left empty there."""
        text = io.StringIO()
        writer = csv.DictWriter(
            text, fieldnames=list({key: None for row in rows for key in row}), lineterminator="\n"
        )
        writer.writeheader()
        writer.writerows(rows)
        write_text_atomic(self.path / f"{name}.csv", text.getvalue())

    def _json(self, name: str) -> dict[str, Any]:
        path = self.path / name
        try:
            loaded = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except OSError as error:
            raise RunFolderError(f"{path}: cannot be read ({error.strerror})") from error
        except ValueError as error:
            raise RunFolderError(f"{path}: not JSON ({error})") from error
        if not isinstance(loaded, dict):
            raise RunFolderError(f"{path}: not a JSON object")
        return loaded

    def _write_json(self, name: str, values: dict[str, Any]) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        write_text_atomic(self.path / name, json.dumps(values, indent=2, allow_nan=False) + "\n")


# Every JSON text is YAML: a host with torch and little else still writes and reads config.yaml.


def _parse_yaml(text: str) -> Any:
    """Read YAML.

    Raises:
        ValueError: it is neither JSON nor (where PyYAML is installed) YAML.
    """
    with contextlib.suppress(ValueError):
        return json.loads(text)
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error


def _to_yaml(values: Mapping[str, Any]) -> str:
    try:
        import yaml
    except ModuleNotFoundError:
        return json.dumps(values, indent=2) + "\n"
    return str(yaml.safe_dump(dict(values), sort_keys=False))


def find_runs(root: Path) -> list[RunFolder]:
    """All run folders below ``root``, sorted by path; a folder without a config is not a run."""
    return [RunFolder(path.parent) for path in sorted(root.glob("*/*/seed*/config.yaml"))]


def now() -> str:
    """The time as UTC, ISO 8601, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
