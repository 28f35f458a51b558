"""Compare runs: final error against the keys in which they differ, curves, and a table.

python -m resnet_repro.compare recipe.lr                    every sweep of a key that is logged
python -m resnet_repro.compare results/runs/quick/cifar10_resnet20*      these runs
python -m resnet_repro.compare recipe.lr model.depth --profile quick
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from resnet_repro import paths
from resnet_repro.analysis.load import Logged, Run, tell
from resnet_repro.analysis.sweeps import find_sweeps, save_sweep, swept_keys
from resnet_repro.config import PROFILES
from resnet_repro.exits import explained
from resnet_repro.items import FIGURES, TABLES
from resnet_repro.options import WHAT, ConfigError, closest
from resnet_repro.same_run import roles


def main(words: Sequence[str] | None = None) -> int:
    """Draw the comparison, write its table, and print it."""
    asked = _arguments(words)
    with explained():
        places = [paths.given(word) for word in asked.words if _is_place(word)]
        keys = [word for word in asked.words if not _is_place(word)]
        for key in keys:
            check_key(key)
        runs = read(places or [paths.runs()], asked.profile)
        if not places:
            runs = [run for run in runs if any(run in find_sweeps(runs, key) for key in keys)]
        keys = keys or swept_keys(runs[:1] + runs)
        if len(runs) < 2 or not keys:
            raise ConfigError(_nothing(runs, keys))
        written = save_sweep(runs, keys, asked.figures, asked.tables)
        print(next(path for path in written if path.suffix == ".md").read_text(encoding="utf-8"))
        for path in written:
            print(os.path.relpath(path))
    return 0


def read(places: Sequence[Path], profile: str | None) -> list[Run]:
    """Return the finished runs in or below some folders; what cannot be read is named."""
    runs: dict[Path, Run] = {}
    for place in places:
        for depth in ("", "seed*", "*/seed*", "*/*/seed*"):
            found = [place] if not depth else place.glob(depth)
            folders = [path for path in sorted(found) if (path / "config.yaml").exists()]
            logged = Logged.of_folders(folders, in_place=False)
            for line in logged.problems:
                tell(line)
            runs |= {run.path: run for run in logged.runs if run.is_finished}
    return [run for run in runs.values() if profile in (None, run.profile)]


def check_key(key: str) -> None:
    """Refuse what is neither a folder nor a key of what is computed.

    Raises:
        ConfigError: in one line, with the nearest key.
    """
    known = [name for name, role in roles().items() if role == WHAT]
    if key not in known:
        raise ConfigError(f"{key}: no folder and no key to compare; {closest(key, known)}")


def _is_place(word: str) -> bool:
    return "/" in word or paths.given(word).exists()


def _nothing(runs: Sequence[Run], keys: Sequence[str]) -> str:
    if keys:
        return (
            f"no finished runs of one experiment differ in {' or '.join(keys)} alone; "
            f"python -m resnet_repro.train -m experiment=cifar10_resnet20 {keys[0]}=A,B seed=0,1,2"
        )
    return f"{len(runs)} finished runs, which differ in nothing but the seed"


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("words", nargs="+", metavar="KEY|FOLDER", help="keys, folders of runs")
    parser.add_argument("--profile", choices=PROFILES, help="only runs of this profile")
    parser.add_argument("--figures", type=paths.given, default=FIGURES, help="folder of the figure")
    parser.add_argument("--tables", type=paths.given, default=TABLES, help="folder of the tables")
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(main())
