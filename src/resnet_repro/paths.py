"""Locate the repository, the runs and the data, from any working directory."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from resnet_repro.options import ConfigError

REPOSITORY = Path(__file__).resolve().parents[2]
CONF = REPOSITORY / "conf"
GPU_CHECK = REPOSITORY / "results" / "gpu_check.json"  # what works on this GPU, if checked
AUTO = "auto"


def expand(text: str) -> Path:
    """Return the path that a user gave, with ``~`` expanded (ConfigError: no such user)."""
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise ConfigError(f"{text}: {error}") from error


def runs(text: str = AUTO) -> Path:
    """Return the folder of run folders; ``auto``: ``RESNET_REPRO_RUNS``, else the repository's."""
    return _place(text, "RESNET_REPRO_RUNS", "results/runs")


def data(text: str = AUTO) -> Path:
    """Return the folder of the data; ``auto``: ``RESNET_REPRO_DATA``, else the repository's."""
    return _place(text, "RESNET_REPRO_DATA", "data")


def _place(text: str, variable: str, inside: str) -> Path:
    if text != AUTO:
        return expand(text)
    if os.environ.get(variable):
        return expand(os.environ[variable])
    place = REPOSITORY / inside
    return place.relative_to(Path.cwd()) if place.is_relative_to(Path.cwd()) else place


def python_path() -> str:
    """Return ``PYTHONPATH`` for a process of this program: its source, then what was there."""
    return os.pathsep.join([str(REPOSITORY / "src"), *filter(None, [os.environ.get("PYTHONPATH")])])


@contextmanager
def writing(place: object) -> Iterator[None]:
    """Re-raise an OS error inside as a one-line ConfigError that names the place."""
    try:
        yield
    except OSError as error:
        raise ConfigError(f"{place}: cannot be written ({error.strerror or error})") from error


def check_installed() -> None:
    """Raise ConfigError in an installed copy: conf/ and results/paper are not in a wheel."""
    if Path(__file__).resolve().parents[1] != REPOSITORY / "src":
        raise ConfigError(
            "resnet_repro is installed without its repository (conf/, results/paper); "
            "install it from there with: pip install -e ."
        )
