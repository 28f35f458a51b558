"""A run's mirror in Weights & Biases, from its first record to the picture of its curves.

``python -m resnet_repro.mirror RUN_DIR ...`` sends runs that were logged without one.

Opening costs the run a process start, a record a write to a pipe; what waits comes after the
run's state is on the disk. Whatever goes wrong costs one line and nothing else.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from resnet_repro.exits import explained
from resnet_repro.runs.folder import RunFolder
from resnet_repro.runs.metrics import MetricsWriter
from resnet_repro.runs.wandb_names import MODES
from resnet_repro.runs.wandb_sink import Mirrored, NullSink, Sink, open_sink, to_stderr

FINAL = ("test", "val", "train_clean")  # kinds of record that a summary has the last of


class Mirror:
    """What the records of one run also go to, as its configuration says.

    Args:
        folder: of the run.
        warn: told at most one line.
    """

    def __init__(self, folder: RunFolder, warn: Callable[[str], None] = to_stderr):
        self._folder, self._warn = folder, once(warn)
        self._sink: Sink = NullSink()

    def beside(self, log: MetricsWriter) -> Mirrored:
        """Open the mirror beside a log, which has cut off what will be logged again."""
        config = self._folder.config()
        asked = config.get("logger", {})
        kind, mode = asked.get("kind", "none"), asked.get("mode", "offline")
        self._sink = open_sink(kind, mode, self._folder, config, self._warn)
        return Mirrored(log, self._sink)

    def close(self) -> None:
        """End it once ``status.json`` says what became of the run.

        A finished run leaves its summary and a picture and waits for a moment; any other, which
        may have been asked to make room, waits for nothing.
        """
        sink, self._sink = self._sink, NullSink()
        try:
            state = str(self._folder.status().get("state"))
            if state == "finished":
                send_the_end(sink, self._folder, self._warn)
            sink.close(state, None if state == "finished" else 0)
        except Exception as error:
            self._warn(f"W&B: {type(error).__name__}: {error}")


def once(warn: Callable[[str], None]) -> Callable[[str], None]:
    """``warn`` for the first time, then silence."""
    said: list[str] = []

    def warn_once(message: str) -> None:
        said.append(message)
        if len(said) == 1:
            warn(message)

    return warn_once


def send_the_end(sink: Sink, folder: RunFolder, warn: Callable[[str], None]) -> None:
    """Send the last numbers and a picture; matplotlib is imported here, after training."""
    sink.summary(final_numbers(folder))
    if not sink.is_open:
        return
    try:
        from resnet_repro.analysis.glance import save_picture

        sink.picture("curves", save_picture(folder.path, folder.path / "wandb"))
    except Exception as error:
        warn(f"W&B: no picture of the curves ({type(error).__name__}: {error})")


def final_numbers(folder: RunFolder) -> dict[str, Any]:
    """The last error of each kind, and what ``meta.json`` says of size, speed and machine."""
    meta, last = folder.meta(), {record["kind"]: record for record in folder.metrics()}
    values = {f"last/{kind}/top1_err": last[kind]["top1_err"] for kind in FINAL if kind in last}
    values |= {key: meta.get(key) for key in ("images_per_second", "wall_time_s", "precision")}
    values |= {key: meta.get("net", {}).get(key) for key in ("params", "multiply_adds")}
    values["hardware"] = meta.get("hardware", {}).get("label")
    return {key: value for key, value in values.items() if value is not None}


def send(folder: RunFolder, mode: str) -> None:
    """Send a run that was logged without a mirror, whole.

    Raises:
        RunFolderError: it cannot be read.
    """
    warn = once(to_stderr)
    sink = open_sink("wandb", mode, folder, folder.config(), warn)
    send_the_end(sink, folder, warn)
    sink.close(str(folder.status().get("state")))


def main(words: Sequence[str] | None = None) -> None:
    """Send the runs that are named."""
    parser = argparse.ArgumentParser(description="Send logged runs to Weights & Biases.")
    parser.add_argument("folders", nargs="+", type=Path, metavar="RUN_DIR")
    parser.add_argument("--mode", choices=[m for m in MODES if m != "disabled"], default="offline")
    asked = parser.parse_args(words)
    with explained():
        for path in asked.folders:
            send(RunFolder(path), asked.mode)
            print(path, file=sys.stderr)


if __name__ == "__main__":
    main()
