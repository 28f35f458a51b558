"""Files of ``results/bench``: what was measured, on what, when; and tables of them in Markdown."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resnet_repro.options import ConfigError

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Measured:
    """One file: a part of the measurements on one kind of device, ``cpu`` or ``cuda``."""

    part: str
    device: str
    content: Mapping[str, Any]

    @property
    def rows(self) -> list[Row]:
        """What was measured, one mapping of plain values for each thing."""
        return list(self.content.get("rows", []))

    @property
    def hardware(self) -> str:
        """The name of the device."""
        return str(self.content.get("hardware", {}).get("label", "unknown hardware"))

    @property
    def where(self) -> str:
        """Device and precision."""
        return f"{self.hardware}, {self.content.get('precision')}"


def load(folder: Path) -> list[Measured]:
    """All measurements in a folder, other files skipped; ConfigError names what is no JSON."""
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ConfigError(f"{path}: not JSON ({error})") from error
        if isinstance(content, dict) and {"part", "device"} <= content.keys():
            found.append(Measured(str(content["part"]), str(content["device"]), content))
    return found


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Format a table in Markdown, with an empty line after it."""
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return [*lines, ""]


def significant(value: float, figures: int = 2) -> str:
    """Format a number with so many figures, never in powers of ten: ``0.012``, ``3.4``."""
    if value == 0:
        return "0"
    rounded = float(f"{value:.{figures - 1}e}")
    places = max(0, figures - 1 - math.floor(math.log10(abs(rounded))))
    return f"{rounded:,.{places}f}"


def three(value: float) -> str:
    """Format a number with three figures."""
    return significant(value, 3)


def percent(share: float) -> str:
    """Format a share in percent, two figures."""
    return f"{significant(100 * share)} %"


def times(value: float) -> str:
    """Format a ratio: ``2.3 times``."""
    return f"{significant(value)} times"


def seconds(value: float) -> str:
    """Format a time: ``3.2 ms``, ``1.4 s``, ``2 min 05 s``, ``3 h 10 min``."""
    for limit, factor, unit in ((1e-3, 1e6, "us"), (1, 1e3, "ms"), (60, 1, "s")):
        if value < limit:
            return f"{significant(factor * value)} {unit}"
    total = round(value)
    if total < 3600:
        return f"{total // 60} min {total % 60:02d} s"
    return f"{total // 3600:,} h {total % 3600 // 60:02d} min"


def amount(value: float, unit: str = "B") -> str:
    """Format a large number with a prefix, one to three digits before it: ``43 GB``."""
    for prefix, size in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{significant(value / size)} {prefix}{unit}"
    return f"{significant(value)} {unit}"


def plain(value: object) -> str:
    """Format any value: numbers with three figures, ``-`` for nothing."""
    if isinstance(value, float):
        return three(value) if abs(value) >= 1e-3 or value == 0 else f"{value:.2e}"
    return "-" if value is None else str(value)
