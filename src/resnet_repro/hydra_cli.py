"""Hydra's command line: quote overrides, check flags, report errors in one line."""

import argparse
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any, NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError

from resnet_repro.conf import names
from resnet_repro.config import Config
from resnet_repro.options import ConfigError, closest, leaves
from resnet_repro.paths import CONF, REPOSITORY
from resnet_repro.same_run import flatten

_GROUPS = {"experiment", "profile"}
_TEXT = {key for key, kind, _ in leaves(Config) if kind is str} - _GROUPS
_PLAIN = re.compile(r"(?!(nan|inf|true|false)$)[a-z_][a-z0-9_./,-]*|null|", re.IGNORECASE)
# An interpolation comes escaped out of a sweep.
_SYNTAX = re.compile(r"['\"\[]|(choice|range|interval|glob|shuffle|sort|tag)\(|.*\$\\?\{")
_OF_HYDRA = (HydraException, OmegaConfBaseException, MarkedYAMLError)


def quoted(word: str) -> str:
    """Quote a value that is text, so that Hydra takes it as typed: a path, a name like 12e4567.

    Plain or quoted text, interpolations and functions of sweeps stay as they are.
    """
    key, equals, value = word.partition("=")
    is_text = equals and key.lstrip("+") in _TEXT
    if not is_text or _PLAIN.fullmatch(value) or _SYNTAX.match(value):
        return word
    return f"{key}={','.join(map(_as_text, value.split(',')))}"


def _as_text(value: str) -> str:
    return "'" + value.replace("'", "\\'") + "'"


def read_flags(argv: Sequence[str]) -> argparse.Namespace:
    """Parse Hydra's flags, anywhere among the overrides; ConfigError: unknown or without effect."""
    parser = get_args_parser()
    parser.error = _refuse  # type: ignore[method-assign]
    args = parser.parse_intermixed_args(list(argv))
    actions = ("run", "multirun", "cfg", "info", "shell_completion")
    chosen = [f"--{name.replace('_', '-')}" for name in actions if getattr(args, name)]
    if len(chosen) > 1:
        _refuse(f"{' and '.join(chosen)}: only one of them at a time")
    for name in ("resolve", "package"):
        if getattr(args, name) and not args.cfg:
            _refuse(f"--{name}: only with --cfg, of which it says what is shown")
    unused = ["hydra.run.dir="]
    if not any(word.startswith("hydra/launcher=s") for word in args.overrides):  # submitit
        unused.append("hydra.sweep.dir=")
    for word in args.overrides:
        if word.startswith(tuple(unused)):
            _refuse(f"{word}: nothing is written there; runs go to runs_dir=...")
    return args


def _refuse(message: str) -> NoReturn:
    raise ConfigError(message)


def run_hydra(args: argparse.Namespace, flags: Sequence[str], job: Callable[..., None]) -> None:
    """Let Hydra do what its flags say, or launch ``job``, whose own errors pass through.

    ConfigError: Hydra's refusal in one line.
    """
    overrides = [quoted(word) for word in args.overrides]
    if args.shell_completion:
        _prepare_completion()
    if args.hydra_help:  # of Hydra alone, which knows none of our options
        overrides = [word for word in overrides if word.startswith("hydra")]
    if args.multirun and not any(word.startswith("hydra.sweep.dir=") for word in overrides):
        sweep_dir = _as_text(str(REPOSITORY / "results" / ".sweep"))
        overrides.append(f"hydra.sweep.dir={sweep_dir}")
    sys.argv[1:] = [*flags, *overrides]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come to us, not to Hydra's printer
    try:
        hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")(job)()
    except _OF_HYDRA as error:
        with in_one_line(overrides):
            raise error


def _prepare_completion() -> None:
    """Make Hydra able to compose the line to complete: add an experiment, drop flags."""
    if sys.argv[0].endswith(".py"):  # Hydra would complete every ``python``
        _refuse('-sc: only of the installed command: eval "$(resnet-repro -sc install=bash)"')
    command, *words = os.environ.get("COMP_LINE", "").split(" ")
    words = [word for word in words if not word.startswith("-")]
    if not any(word.startswith("experiment=") for word in words[:-1]):
        words.insert(0, f"experiment={names('experiment')[0]}")
    os.environ["COMP_LINE"] = " ".join([command, *words])


@contextmanager
def in_one_line(overrides: Sequence[str]) -> Iterator[None]:
    """Re-raise errors of Hydra and OmegaConf as a one-line ConfigError."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(_as_typed(str(error), overrides)) from error
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        position = f"{mark.name}:{mark.line + 1}:{mark.column + 1}: " if mark else ""
        raise ConfigError(f"{position}not YAML ({error.problem})") from error
    except (*_OF_HYDRA, ValueError, TypeError, KeyError) as error:
        raise ConfigError(_explain(str(error), overrides)) from error


def _as_typed(message: str, overrides: Sequence[str]) -> str:
    """Show a refused value as typed on the command line, not as parsed."""
    # The last of several values for one key is the one that counts.
    for key, _, typed in (word.lstrip("+").partition("=") for word in reversed(overrides)):
        if typed and (found := re.fullmatch(rf"{re.escape(key)}=.*?(: must be .*)", message)):
            return f"{key}={typed}{found[1]}"
    return message


def _explain(message: str, overrides: Sequence[str]) -> str:
    """Explain in one line what is wrong with the command line."""
    if match := re.search(r"Could not override '([^']+)'", message):
        keys = list(flatten(Config().as_mapping()))
        return f"unknown option '{match[1]}'; {closest(match[1], keys)}"
    if "hydra/launcher/submitit" in message:
        return "hydra/launcher: submitit is not installed; pip install '.[slurm]'"
    if match := re.search(r"Could not find '([\w/]+)/([^'/]+)'", message):
        return _unknown_choice(match[1], match[2], message)
    if "You must specify 'experiment'" in message:
        if any(word.startswith("item=") for word in overrides):
            return "item names several runs: add -m to sweep over them, one item at a time"
        return f"experiment is not set; one of {', '.join(names('experiment'))}"
    if match := re.search(r"Ambiguous value for argument '([^=]+)", message):
        typed = next(word for word in overrides if word.partition("=")[0] == match[1])
        return (
            f"{typed}: several values for one run; add -m to sweep over them, or quote a value "
            "with a comma twice: \"key='a,b'\""
        )
    first, *rest = message.strip().splitlines()
    if "interpolation" in message.lower():
        key = next((line.split(": ")[1] for line in rest if "full_key" in line), "a value")
        return f"{key}: cannot be resolved: {first}"
    if re.search(r"viable ?alt|token recognition|mismatched input|extraneous", message, re.I):
        return _unreadable(overrides, first)
    return first


def _unknown_choice(group: str, value: str, message: str) -> str:
    if group == "recipe":
        return (
            f"{value.replace('_', ' with profile ')}: there is no recipe for it; "
            f"one of {', '.join(names('recipe'))}"
        )
    known = re.findall(r"^\t(\S+)$", message, re.M) if "/" in group else names(group)
    if near := get_close_matches(value, known, n=1):
        return f"{group}={value}: did you mean {near[0]}?"
    return f"{group}={value}: must be one of {', '.join(known)}"


def _unreadable(overrides: Sequence[str], reason: str) -> str:
    """Name the override that Hydra cannot parse, and how to quote text."""
    parser: Any = OverridesParser.create()
    for word in overrides:
        try:
            parser.parse_override(quoted(word))
        except HydraException:
            key, _, value = word.partition("=")
            text = shlex.quote(f"{key}='{value}'")
            return f"{word}: cannot be read ({reason}); if it is text, quote it twice: {text}"
    return f"{' '.join(overrides)}: cannot be read ({reason})"
