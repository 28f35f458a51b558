"""The command line of items that need no runs: they are drawn from counted nets alone."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path


def main(item: str, draw: Callable[[Path], list[Path]], out: str = "results/figures") -> None:
    """Draw the item into ``--out`` and print what was written."""
    parser = argparse.ArgumentParser(description=f"Draw {item}; it needs no runs.")
    parser.add_argument("--out", type=Path, default=Path(out), help="folder of what is drawn")
    for path in draw(parser.parse_args().out):
        print(os.path.relpath(path))
