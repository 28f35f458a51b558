"""Every shell command of the documents: run, composed, or known to need hardware or a network."""

import fnmatch
import functools
import importlib
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from doc_blocks import DOCUMENTS, REPO, blocks, shell_lines
from resnet_repro.command import parse
from resnet_repro.compose import compose_run, compose_sweep
from resnet_repro.conf import names
from resnet_repro.config import PROFILES

COMMANDS = [(document.name, line) for document in DOCUMENTS for line in shell_lines(document)]
# What docs/EXTENDING.md makes itself: its own test follows it (test_docs_extending.py).
MADE = {
    Path(block.path).stem
    for block in blocks(REPO / "docs" / "EXTENDING.md")
    if block.path and block.path.startswith(("conf/experiment/", "experiments/"))
}
SBATCH = ("--nodes=", "--gpus-per-node=", "--partition=", "--time=")
LAUNCHERS = ("slurm", "submitit_local")


def train(words: Sequence[str]) -> None:
    """It composes, after Hydra's own words are looked at."""
    if "--help" in words:
        return  # test_docs.py runs it
    ours = [word for word in words if word != "-m" and not word.startswith("hydra")]
    for word in words:
        if word.startswith("hydra/launcher="):
            assert word.partition("=")[2] in LAUNCHERS
        elif word.startswith("hydra"):
            assert word.startswith("hydra.launcher."), word
    if "WORDS" in ours or any(name in word for word in ours for name in MADE):
        return
    ours = [re.sub(r"glob\((.*)\)", lambda found: first_match(found[1]), word) for word in ours]
    assert compose_sweep(ours) if "-m" in words else compose_run(*ours)


def first_match(pattern: str) -> str:
    """One of the experiments that a pattern names; all take minutes to compose."""
    return fnmatch.filter(names("experiment"), pattern)[0]


def with_options(words: Sequence[str], module: str) -> None:
    """``key=value`` words that the options of the command take."""
    schema = f"{module.rpartition('.')[2].title()}Options"
    assert parse(getattr(importlib.import_module(module), schema), words)


@functools.cache
def help_of(module: str) -> str:
    command = [sys.executable, "-m", module, "--help"]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def with_flags(words: Sequence[str], module: str) -> None:
    """Flags that the module's help names."""
    flags = [word for word in words if word.startswith("-")]
    assert all(flag in help_of(module) for flag in flags), flags


def python(words: Sequence[str]) -> None:
    """A module of the project, or a script of ``experiments``."""
    if words[0] != "-m":
        script, *rest = words
        assert (REPO / script).is_file() or Path(script).stem in MADE, script
        assert {word for word in rest if word.startswith("-")} <= {"--profile", "--seeds"}
        assert not {word for word in rest if word.isalpha()} - {*PROFILES}
        return
    module, *rest = words[1:]
    assert importlib.util.find_spec(module), module
    if module == "resnet_repro.train":
        train(rest)
    elif module in ("resnet_repro.evaluate", "resnet_repro.export", "resnet_repro.responses"):
        with_options(rest, module)
    elif rest and rest[0] != ">":
        with_flags(rest, module)


def make(words: Sequence[str]) -> None:
    """The target is there and all its variables are known."""
    done = subprocess.run(["make", "-n", *words], cwd=REPO, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    makefile = (REPO / "Makefile").read_text(encoding="utf-8")
    for word in words[1:]:
        assert f"$({word.partition('=')[0]})" in makefile, word


def pip(words: Sequence[str]) -> None:
    """The extras exist, and the files."""
    project = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for word in words:
        if extras := re.search(r"\[(.*)\]", word):
            assert set(extras[1].split(",")) <= set(project["optional-dependencies"]), word
        if word.endswith(".txt"):
            assert (REPO / word).is_file(), word


def sbatch(words: Sequence[str]) -> None:
    """Needs SLURM: the script is there and takes a run's words."""
    script = next(word for word in words if not word.startswith("-"))
    before, after = words[: words.index(script)], words[words.index(script) + 1 :]
    assert (REPO / script).is_file()
    assert all(word.startswith(SBATCH) for word in before), before
    train(after)


def torchrun(words: Sequence[str]) -> None:
    """Needs several machines: it starts our worker on a run folder."""
    assert list(words[-3:]) == ["-m", "resnet_repro.worker", "$FOLDER"]
    assert all(word.startswith("--") for word in words[:-3])


def wandb(words: Sequence[str]) -> None:
    """Needs an account: what it is to send is where the mirror puts it (test_wandb_runs.py)."""
    assert words[0] == "sync"
    assert words[1].endswith("/wandb/latest-run")


CHECKS: dict[str, Callable[[Sequence[str]], None]] = {
    "python": python,
    "make": make,
    "pip": pip,
    "sbatch": sbatch,
    "torchrun": torchrun,
    "wandb": wandb,
}
# Steps of worked examples that tests follow word by word.
FOLLOWED = {"EXTENDING.md": ("sed", "for"), "CONTRIBUTING.md": ("cd",)}


@pytest.mark.parametrize(("document", "line"), COMMANDS, ids=[f"{d}:{c}"[:90] for d, c in COMMANDS])
def test_command(document, line):
    if inner := re.fullmatch(r"\w+=\$\((.*)\)", line):
        line = inner[1]
    if line == ". .venv/bin/activate":
        return
    first = line.split()[0]
    if first in FOLLOWED.get(document, ()):
        return
    assert first in CHECKS, f"{document}: say here how `{line}` is checked"
    CHECKS[first](shlex.split(line)[1:])


def test_commands_were_found():
    assert len(COMMANDS) > 50
    assert {document for document, _ in COMMANDS} >= {"README.md", "CLUSTER.md", "EXTENDING.md"}


def test_a_wrong_command_is_found_out():
    for check, words in (
        (python, ["-m", "resnet_repro.train", "experiment=cifar10_resnet57"]),
        (python, ["-m", "resnet_repro.nothing"]),
        (python, ["-m", "resnet_repro.export", "runs=x"]),
        (python, ["-m", "resnet_repro.mirror", "--nothing"]),
        (make, ["fig9"]),
        (make, ["fig1", "PROFILES=quick"]),
        (pip, ["-e", ".[nothing]"]),
        (sbatch, ["docs/slurm/train.sbatch", "experiment=cifar10_resnet57"]),
    ):
        with pytest.raises((AssertionError, ValueError)):
            check(words)


def test_every_link_of_the_documents_leads_somewhere():
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        titles = re.findall(r"^#+ (.*)$", text, flags=re.M)
        anchors = {
            re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-") for title in titles
        }
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if target.startswith("#"):
                assert target[1:] in anchors, f"{document.name}: {target}"
            elif not target.startswith(("http:", "https:")):
                assert (document.parent / target.partition("#")[0]).exists(), (
                    f"{document.name}: {target}"
                )


def test_experiments_that_are_named_in_the_readme_exist():
    text = (REPO / "README.md").read_text(encoding="utf-8")
    known = names("experiment")
    for pattern in re.findall(r"`experiment=(\w+)\*`", text):
        assert any(name.startswith(pattern) for name in known), pattern


def say(line: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Say a command line in bash with this Python as ``python``."""
    (cwd / "bin").mkdir(exist_ok=True)
    link = cwd / "bin" / "python"
    if not link.exists():
        link.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
        link.chmod(0o755)
    env = os.environ | {"PATH": f"{cwd / 'bin'}:{os.environ['PATH']}"}
    env["RESNET_REPRO_RUNS"] = str(cwd / "results" / "runs")
    return subprocess.run(["bash", "-ec", line], cwd=cwd, env=env, capture_output=True, text=True)


@pytest.mark.slow
def test_a_refactor_changes_nothing_as_contributing_says(tmp_path):
    (block,) = [b for b in blocks(REPO / "CONTRIBUTING.md") if b.language == "bash"]
    small = "model.depth=8 recipe.batch_size=16 evaluation.clean_train_images=100 trainer.threads=1"
    done = say(block.body.replace("trainer.threads=1", small), tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert len(list(tmp_path.glob("results/runs/smoke/*/seed0/metrics.jsonl"))) == 2


@pytest.mark.slow
def test_what_the_readme_does_with_one_net(tmp_path):
    """The run it names is made tiny; the commands are the README's."""
    tiny = "data=synthetic model.depth=8 recipe.batch_size=16 evaluation.clean_train_images=100"
    made = "python -m resnet_repro.train experiment=cifar10_plain20 profile=quick "
    made += f"{tiny} recipe.max_iters=4 recipe.milestones=[] trainer.threads=1"
    assert say(made, tmp_path).returncode == 0
    (variant,) = (tmp_path / "results" / "runs" / "quick").iterdir()
    variant.rename(variant.with_name("cifar10_plain20"))
    lines = [line for line in shell_lines(REPO / "README.md") if "run=results/runs/quick" in line]
    assert len(lines) == 3
    for line in lines:
        done = say(line, tmp_path)
        assert done.returncode == 0, (line, done.stderr)
    assert (tmp_path / "plain20.pt").stat().st_size > 1000
    assert list((tmp_path / "results" / "evaluations").glob("*.json"))
    shutil.rmtree(tmp_path / "results")
