"""What a part of the programme found: one JSON file, one line per trial. Needs no torch."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from resnet_repro.runs.atomic import write_text_atomic
from resnet_repro.runs.folder import now
from resnet_repro.runs.provenance import git_state, hardware, usable_cores, versions

SCHEMA = 1
Outcome = dict[str, Any]


@dataclass
class Record:
    """Trials of one part, and on what code and machine each of them was made.

    ``sessions`` holds dates, revision, versions and hardware; a trial names its session by number.
    A trial has a ``key`` of its own, whether it is ``ok``, how many ``seconds`` it took, and what
    else its part tells.
    """

    path: Path
    sessions: list[dict[str, Any]] = field(default_factory=list)
    trials: list[Outcome] = field(default_factory=list)

    @classmethod
    def at(cls, path: Path) -> Record:
        """Read the record of a part, empty where nothing was tried; ValueError: it is not one."""
        if not path.exists():
            return cls(path)
        loaded = json.loads(path.read_text(encoding="utf-8"))
        if loaded.get("schema") != SCHEMA:
            raise ValueError(f"{path}: schema {loaded.get('schema')}, this version reads {SCHEMA}")
        return cls(path, loaded["sessions"], loaded["trials"])

    @property
    def part(self) -> str:
        return self.path.stem

    def begin(self) -> None:
        """Note code, versions and machine, unless they are those of the last session."""
        here = {
            "git": git_state(),
            "versions": versions(),
            "hardware": hardware(None, 0, usable_cores()),
        }
        last = self.sessions[-1] if self.sessions else {}
        if {key: last.get(key) for key in here} != here:
            self.sessions.append({"first": now(), "last": now()} | here)

    def add(self, key: str, outcome: Outcome) -> None:
        self.sessions[-1]["last"] = now()
        self.trials.append({"key": key, "session": len(self.sessions) - 1} | outcome)
        head = json.dumps({"schema": SCHEMA, "part": self.part, "sessions": self.sessions})
        lines = ",\n".join(json.dumps(trial) for trial in self.trials)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_text_atomic(self.path, f'{head[:-1]},\n"trials": [\n{lines}\n]}}\n')

    def tried(self, key: str) -> bool:
        return any(trial["key"] == key for trial in self.trials)

    def total(self, name: str) -> int:
        """Sum of a count over all trials; a list counts its items."""
        found = [trial.get(name) or 0 for trial in self.trials]
        return sum(len(value) if isinstance(value, list) else int(value) for value in found)

    def most(self, name: str) -> float:
        """The largest of a number over all trials; 0 where none was measured."""
        return max((float(trial.get(name) or 0) for trial in self.trials), default=0.0)

    def failed(self) -> list[Outcome]:
        return [trial for trial in self.trials if not trial["ok"]]
