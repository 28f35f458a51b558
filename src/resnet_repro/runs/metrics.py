"""``metrics.jsonl``: one flat JSON object per line, explained in ``docs/RUN_FOLDER.md``.

Not-a-number and infinity are written as ``null``, so that any JSON reader can read the file.
"""

import json
import math
import os
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from resnet_repro.runs.atomic import crash_point, fsync, is_regular_or_free, room_for

Record = dict[str, Any]
KINDS = ("train", "test", "val", "train_clean", "event")


class MetricsError(ValueError):
    """A metrics file that is damaged in a way a crash cannot explain."""


def read_metrics(path: Path) -> list[Record]:
    """Read all records but a last line torn by a crash; MetricsError: unreadable or altered."""
    try:
        if not is_regular_or_free(path):
            raise MetricsError(f"{path}: cannot be read (not a regular file)")
        lines = path.read_bytes().split(b"\n")
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise MetricsError(f"{path}: cannot be read ({error.strerror})") from error
    *complete, tail = lines  # a whole record always ends in a newline
    records: list[Record] = []
    for number, line in enumerate(complete, start=1):
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        match record:
            case {"kind": str(), "iter": int()}:
                records.append(record)
            case _ if number < len(complete) or tail:
                raise MetricsError(f"{path}: line {number} is not a record; the file was altered")
    return records


class MetricsWriter(AbstractContextManager["MetricsWriter"]):
    """Append records; each is on its way to the disk when ``write`` returns.

    The file is first cut to ``keep_bytes``, the offset a checkpoint remembers: records made after
    that checkpoint will be made again. DiskFullError: there is no room for a record; none of it is
    left in the file. OSError: the file cannot be written. MetricsError: the file is shorter.
    """

    def __init__(self, path: Path, keep_bytes: int = 0):
        self._path = path
        self._file = path.open("ab", buffering=0)  # a refused record must not come back at close
        if (size := self._file.seek(0, os.SEEK_END)) < keep_bytes:
            self._file.close()
            raise MetricsError(
                f"{path}: {size} bytes, but its checkpoint was made at {keep_bytes}; "
                "the file was cut after the checkpoint"
            )
        self._file.truncate(keep_bytes)
        self._file.seek(keep_bytes)  # truncating does not move the position that sync returns

    def write(self, kind: str, **values: Any) -> None:
        """Append one record."""
        if kind not in KINDS:
            raise ValueError(f"unknown kind of record {kind!r}; one of {', '.join(KINDS)}")
        for key, value in values.items():
            if isinstance(value, float) and not math.isfinite(value):
                values[key] = None
        line = json.dumps({"kind": kind} | values, allow_nan=False).encode() + b"\n"
        begin, half = self._file.tell(), len(line) // 2
        try:
            for part in (line[:half], line[half:]):
                left = memoryview(part)
                while left:  # a disk that fills up takes a part before it refuses
                    with room_for(self._path):
                        left = left[self._file.write(left) :]
                crash_point("mid-line")
        except OSError:
            self._file.truncate(begin)
            raise

    def sync(self) -> int:
        """Force all records to the disk; return the length to remember in a checkpoint."""
        fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __exit__(self, *_: object) -> None:
        self.close()
