"""A run is a folder that anyone can trust: where its files lie, how they are read and written.

``<runs>/<profile>/<name>/seed<k>/``; ``docs/RUN_FOLDER.md`` says what each file holds.
"""

import contextlib
import csv
import hashlib
import io
import json
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from resnet_repro.runs.atomic import is_regular_or_free, write_text_atomic
from resnet_repro.runs.metrics import Record, read_metrics

STATES = ("created", "running", "finished", "preempted", "diverged", "failed")
# What readers of a run rely on, by file.
CONFIG: dict[str, type] = {
    "experiment": str, "name": str, "profile": str, "seed": int, "data.name": str,
    "model.depth": int, "model.shortcut": str, "recipe.batch_size": int, "recipe.max_iters": int,
    "recipe.milestones": list,
}  # fmt: skip
STATUS: dict[str, type] = {"state": str}
META: dict[str, type] = {"net.label": str, "net.params": int}


class RunFolderError(RuntimeError):
    """A run folder that cannot be used as asked; the message says what to do."""


@dataclass(frozen=True)
class RunFolder:
    """One run on disk, complete or not.

    RunFolderError: from every reader: a file cannot be read, is damaged, or lacks what readers rely
    on. A missing configuration is an error; a missing status, meta or table is empty. OSError: from
    every writer.
    """

    path: Path

    @classmethod
    def at(cls, root: Path, config: dict[str, Any]) -> Self:
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
        """Folder of the states to resume from."""
        return self.path / "checkpoints"

    def checkpoint(self, iteration: int) -> Path:
        """The state after so many iterations."""
        return self.checkpoints / f"iter_{iteration:08d}.pt"

    @property
    def resumes_at(self) -> int:
        """Iteration of the newest checkpoint; 0 where there is none."""
        names = [path.stem for path in self.checkpoints.glob("iter_*.pt")]
        return int(max(names).removeprefix("iter_")) if names else 0

    @property
    def is_finished(self) -> bool:
        """Whether the run was trained to its end."""
        return bool(self.status().get("state") == "finished")

    def config(self) -> dict[str, Any]:
        """Read the resolved configuration."""
        return self._read("config.yaml", _parse_yaml, CONFIG)

    def write_config(self, config: dict[str, Any]) -> None:
        """Make the folder and write its configuration."""
        self._write("config.yaml", _to_yaml(config))

    def status(self) -> dict[str, Any]:
        """Return where the run stands; an empty mapping where nothing was begun."""
        return self._read("status.json", json.loads, STATUS, missing={})

    def write_status(self, state: str, **changes: Any) -> None:
        """Record a new state and who says so; what is not changed of the run's place stays."""
        if state not in STATES:
            raise ValueError(f"unknown state {state!r}; one of {', '.join(STATES)}")
        before = self.status()
        place = {key: before.get(key, 0) for key in ("iter", "max_iters", "restarts")}
        owner = {"host": socket.gethostname(), "pid": os.getpid(), "updated": now()}
        self._write("status.json", _to_json({"state": state} | place | changes | owner))

    def meta(self, *, trained: bool = False) -> dict[str, Any]:
        """Return the provenance; before the run began an empty mapping, if ``trained`` an error."""
        return self._read("meta.json", json.loads, META if trained else {}, None if trained else {})

    def write_meta(self, meta: dict[str, Any]) -> None:
        """Record provenance."""
        self._write("meta.json", _to_json(meta))

    def metrics(self) -> list[Record]:
        """Return all logged records, in order; none where nothing was logged; or MetricsError."""
        return read_metrics(self.metrics_path)

    def metrics_digest(self, iteration: int) -> str:
        """SHA-256 of the metrics up to an iteration, which no two trainings of a net share."""
        try:
            lines = self.metrics_path.read_bytes().splitlines(keepends=True)
            whole = [line for line in lines if line.endswith(b"\n")]
            first = [line for line in whole if json.loads(line)["iter"] <= iteration]
            return hashlib.sha256(b"".join(first)).hexdigest()
        except OSError as error:
            raise RunFolderError(_unreadable(self.metrics_path, error.strerror)) from error
        except (ValueError, KeyError, TypeError) as error:
            raise RunFolderError(f"{self.metrics_path}: not a log of records ({error})") from error

    def table(self, name: str) -> list[dict[str, str]]:
        """Return the rows of ``<name>.csv``; none where it was not written."""
        path = self.path / f"{name}.csv"
        try:
            rows = list(csv.DictReader(io.StringIO(self._text(path.name) or ""), strict=True))
        except csv.Error as error:
            raise RunFolderError(f"{path}: not a table ({error})") from error
        for number, row in enumerate(rows, start=2):
            if None in row or None in row.values():
                raise RunFolderError(f"{path}: line {number} has not the columns of the first")
        return rows

    def write_table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write ``<name>.csv``; a key that a row lacks is left empty there."""
        text = io.StringIO()
        columns = list({key: None for row in rows for key in row})
        writer = csv.DictWriter(text, fieldnames=columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        self._write(f"{name}.csv", text.getvalue())

    def _read(
        self,
        name: str,
        parse: Callable[[str], Any],
        required: Mapping[str, type],
        missing: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        path, text = self.path / name, self._text(name)
        if text is None and missing is not None:
            return missing
        if text is None:
            raise RunFolderError(_unreadable(path, "there is no such file"))
        try:
            return _checked(parse(text), required)
        except (ValueError, RecursionError) as error:
            raise RunFolderError(f"{path}: {error}") from error

    def _text(self, name: str) -> str | None:
        path = self.path / name
        try:
            if not is_regular_or_free(path):
                raise RunFolderError(_unreadable(path, "not a regular file"))
            return path.read_text(encoding="utf-8")
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise RunFolderError(_unreadable(path, error.strerror)) from error
        except UnicodeDecodeError as error:
            raise RunFolderError(_unreadable(path, "not UTF-8")) from error

    def _write(self, name: str, text: str) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        write_text_atomic(self.path / name, text)


def _unreadable(path: Path, reason: str | None) -> str:
    return f"{path}: cannot be read ({reason})"


def _checked(values: Any, required: Mapping[str, type]) -> dict[str, Any]:
    """Return ``values``, a mapping with the required dotted keys, or raise ValueError for a key."""
    if not isinstance(values, dict):
        raise ValueError("not a mapping")
    for key, kind in required.items():
        found: Any = values
        for part in key.split("."):
            if not isinstance(found, Mapping) or part not in found:
                raise ValueError(f"has no {key!r}")
            found = found[part]
        if not isinstance(found, kind) or isinstance(found, bool):
            noun = {str: "text", int: "an integer", list: "a list"}[kind]
            raise ValueError(f"{key}={found!r}: must be {noun}")
    return values


# Every JSON text is YAML: a host with torch and little else still writes and reads config.yaml.


def _parse_yaml(text: str) -> Any:
    """Read JSON or, where PyYAML is installed, YAML; a ValueError says that it is neither."""
    with contextlib.suppress(ValueError):
        return json.loads(text)
    import yaml

    try:
        # libyaml, where PyYAML was built with it, reads ten times as fast.
        return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error


def _to_yaml(values: Mapping[str, Any]) -> str:
    try:
        import yaml
    except ModuleNotFoundError:
        return _to_json(values)
    return str(yaml.safe_dump(dict(values), sort_keys=False))


def _to_json(values: Mapping[str, Any]) -> str:
    return json.dumps(values, indent=2, allow_nan=False) + "\n"


def find_runs(root: Path) -> list[RunFolder]:
    """All run folders below ``root``, sorted by path; a folder without a config is not a run."""
    return [RunFolder(path.parent) for path in sorted(root.glob("*/*/seed*/config.yaml"))]


def now() -> str:
    """The time as UTC, ISO 8601, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
