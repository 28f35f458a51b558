"""W&B beside the run folder: an optional mirror of ``metrics.jsonl`` that is never in the way.

The run folder stays the source of every figure. A sink sees each record after it was written
there. W&B works in a process of its own (:mod:`resnet_repro.runs.wandb_process`), records go to
it through a pipe that is never waited for, and whatever goes wrong costs one line on standard
error: not installed, no key, no network, a crash, a full disk, a folder that cannot be written.

Each part of a run that was stopped and resumed sends the earlier records again, from
``metrics.jsonl``: the newest folder below ``wandb/`` is the whole run, under the same run id.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from resnet_repro.runs.folder import RunFolder
from resnet_repro.runs.metrics import MetricsWriter, Record
from resnet_repro.runs.wandb_names import KINDS, MODES
from resnet_repro.runs.wandb_pipe import WandbSink


class Sink(Protocol):
    """Whoever gets a copy of a run's records. No method raises; only ``close`` waits."""

    @property
    def is_open(self) -> bool:
        """Whether anything still arrives."""

    def record(self, record: Record) -> None:
        """Take one record of ``metrics.jsonl``."""

    def summary(self, values: Mapping[str, Any]) -> None:
        """Take final numbers by name."""

    def picture(self, name: str, path: Path) -> None:
        """Take a PNG that stays where it is until the sink is closed."""

    def close(self, state: str, seconds: float | None = None) -> None:
        """Come to an end with the run in this state, in so many seconds at most.

        With 0 nothing is waited for; ``None`` is the sink's own patience.
        """


class NullSink:
    """No mirror."""

    is_open = False

    def record(self, record: Record) -> None:
        """Pass over it."""

    def summary(self, values: Mapping[str, Any]) -> None:
        """Pass over them."""

    def picture(self, name: str, path: Path) -> None:
        """Pass over it."""

    def close(self, state: str, seconds: float | None = None) -> None:
        """Nothing to end."""


def to_stderr(message: str) -> None:
    """Tell the person at the terminal."""
    print(message, file=sys.stderr, flush=True)


def open_sink(
    kind: str,
    mode: str,
    folder: RunFolder,
    config: Mapping[str, Any],
    warn: Callable[[str], None] = to_stderr,
) -> Sink:
    """Open the mirror of a run, on rank 0; elsewhere there is none.

    Open it after the :class:`MetricsWriter`, which cuts off records that will be made again.

    Args:
        kind: ``none`` or ``wandb``.
        mode: ``offline`` (files in the run folder, for ``wandb sync``), ``online`` (offline where
            that cannot be had) or ``disabled``.
        folder: of the run; W&B's files go to ``wandb/`` in it.
        config: as in ``config.yaml``.
        warn: told at most one line in the life of the sink.

    Raises:
        ValueError: unknown kind or mode.
    """
    for name, value, allowed in (("kind", kind, KINDS), ("mode", mode, MODES)):
        if value not in allowed:
            raise ValueError(f"{name}={value!r}: must be one of {', '.join(allowed)}")
    if kind == "none" or mode == "disabled" or os.environ.get("RANK", "0") != "0":
        return NullSink()
    return WandbSink(mode, folder, config, warn)


class Mirrored:
    """A metrics writer whose records also go to a sink."""

    def __init__(self, log: MetricsWriter, sink: Sink):
        self._log, self._sink = log, sink

    def write(self, kind: str, **values: Any) -> Record:
        """Append one record; the file comes first."""
        record = self._log.write(kind, **values)
        self._sink.record(record)
        return record
