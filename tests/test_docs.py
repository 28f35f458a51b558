"""What the documents and the environment files say is true, and their commands work."""

import fnmatch
import functools
import importlib
import importlib.util
import itertools
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from doc_blocks import DOCUMENTS, REPO, blocks, run_shell, shell_lines
from pages.config import as_markdown
from resnet_repro.command import parse
from resnet_repro.compose import compose_run, compose_sweep
from resnet_repro.conf import load_item, names
from resnet_repro.config import PROFILES
from resnet_repro.items import ITEMS
from resnet_repro.same_run import roles


def read(name):
    return (REPO / name).read_text(encoding="utf-8")


README, FIDELITY, MAKEFILE = map(read, ("README.md", "docs/FIDELITY.md", "Makefile"))
PROJECT = tomllib.loads(read("pyproject.toml"))["project"]
EXTRAS = PROJECT["optional-dependencies"]


def test_every_trap_names_a_test_that_exists():
    written = "\n".join(p.read_text(encoding="utf-8") for p in (REPO / "tests").glob("test_*.py"))
    named = re.findall(r"`(test_\w+)`", FIDELITY)
    assert len(named) >= 16
    for name in named:
        assert f"def {name}(" in written, name


@pytest.mark.parametrize("text", [README, FIDELITY], ids=["README", "FIDELITY"])
def test_every_switch_make_target_and_experiment_that_is_named_exists(text):
    """`group.key=value|value` in a document is accepted as an override."""
    groups = "data|model|recipe|evaluation|probes|trainer"
    for switch in set(re.findall(rf"`((?:{groups})\.[^`\s]+)", text)):
        key, _, values = switch.partition("=")
        for value in values.replace("\\", "").split("|") if values else []:
            assert compose_run("experiment=cifar10_resnet56", f"{key}={value}"), switch
        assert values or key in roles(), switch
    targets = set(re.findall(r"^([a-z0-9-]+):", MAKEFILE, flags=re.M))
    assert set(re.findall(r"\bmake ([a-z][a-z0-9-]*)\b", text)) <= targets
    for pattern in re.findall(r"`experiment=(\w+\*)`", text):
        assert first_match(pattern), pattern


def test_every_item_has_a_script_and_a_target():
    listed = dict(re.findall(r"^(ITEMS|DRAWINGS) := (.*)$", MAKEFILE, flags=re.M))
    items, drawings = set(names("item")), set(listed["DRAWINGS"].split())
    assert items == set(ITEMS) == set(listed["ITEMS"].split())
    assert items | drawings == {path.stem for path in (REPO / "experiments").glob("*.py")}
    assert all({*load_item(name).experiments} <= {*names("experiment")} for name in items)


def test_environment_files_agree():
    dependencies = yaml.safe_load(read("environment.yml"))["dependencies"]
    python = next(word for word in dependencies if str(word).startswith("python="))
    assert PROJECT["requires-python"] == ">=" + python.removeprefix("python=")
    (pip,) = [word["pip"] for word in dependencies if isinstance(word, dict)]
    assert pip == ["-c constraints.txt", "-e .[dev]"]
    assert PROJECT["scripts"] == {"resnet-repro": "resnet_repro.train:main"}
    text = read("constraints.txt").lower().replace("_", "-")
    pinned = re.findall(r"^([\w.-]+)==\S+$", text, flags=re.M)
    for requirement in [*PROJECT["dependencies"], *itertools.chain(*EXTRAS.values())]:
        package = re.split(r"[<>=\[ ]", requirement.lower().replace("_", "-"))[0]
        assert package in pinned, f"{package} is not pinned in constraints.txt"
    assert not re.search(r"https?://|@ ", text)
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert len(lines) == len(set(pinned)), "twice, or in another form than name==version"


def test_make_uses_an_environment_that_is_there_already():
    """In conda, and in the image."""
    for target, expected in (
        ("lint", "python -m ruff check"),
        ("fig1", "python experiments/fig1.py"),
    ):
        words = ["make", "-n", "--no-print-directory", target, "VENV=", "PYTHON=python"]
        done = subprocess.run(words, cwd=REPO, capture_output=True, text=True, check=True)
        assert done.stdout.startswith(expected)


def test_the_dockerfile_agrees_with_them():
    """It cannot be built in a test: what it names is compared with the files."""
    text = read("Dockerfile").replace("\\\n", " ")
    (python,) = re.findall(r"^FROM python:([\d.]+)-slim$", text, flags=re.M)
    assert f"python={python}" in yaml.safe_load(read("environment.yml"))["dependencies"]
    ((constraints, extras),) = re.findall(r"pip install .*-c (\S+) -e '\.\[([\w,]+)\]'", text)
    assert (REPO / constraints).is_file()
    assert set(extras.split(",")) <= set(EXTRAS)
    for source in " ".join(re.findall(r"^COPY (.+) \S+$", text, flags=re.M)).split():
        assert (REPO / source).exists(), source
    assert PROJECT["readme"] in text.split("pip install")[0], "setuptools reads it"
    assert re.search(r"apt-get install .*\bg\+\+", text), "Triton compiles with it"
    for line in read(".gitignore").split():
        if line.startswith("/") and "*" not in line:
            assert line.strip("/") in read(".dockerignore").split(), line


def test_config_reference_is_up_to_date():
    assert read("docs/CONFIG.md") == as_markdown(), "python -m pages.config > docs/CONFIG.md"


COMMANDS = [(document.name, line) for document in DOCUMENTS for line in shell_lines(document)]
# What docs/EXTENDING.md makes itself: its own test follows it (test_docs_extending.py).
MADE = {
    Path(block.path).stem
    for block in blocks(REPO / "docs" / "EXTENDING.md")
    if block.path and block.path.startswith(("conf/experiment/", "experiments/"))
} | {"schedule=milestones,cosine"}
SBATCH = ("--nodes=", "--gpus-per-node=", "--partition=", "--time=")
LAUNCHERS = {path.stem for path in (REPO / "conf" / "hydra" / "launcher").glob("*.yaml")}


def train(args):
    if "--help" in args:
        return  # test_docs.py runs it
    ours = [word for word in args if word != "-m" and not word.startswith("hydra")]
    for word in args:
        if word.startswith("hydra/launcher="):
            assert word.partition("=")[2] in LAUNCHERS | {"submitit_local"}
        elif word.startswith("hydra"):
            assert word.startswith("hydra.launcher."), word
    if "WORDS" in ours or any(name in word for word in ours for name in MADE):
        return
    ours = [re.sub(r"glob\((.*)\)", lambda found: first_match(found[1]), word) for word in ours]
    assert compose_sweep(ours) if "-m" in args else compose_run(*ours)


def first_match(pattern):
    """One of the experiments that a pattern names; all take minutes to compose."""
    return fnmatch.filter(names("experiment"), pattern)[0]


@functools.cache
def help_of(module):
    command = [sys.executable, "-m", module, "--help"]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def python(args):
    if args[0] != "-m":
        script, *rest = args
        assert (REPO / script).is_file() or Path(script).stem in MADE, script
        assert {word for word in rest if word.startswith("-")} <= {"--profile", "--seeds"}
        assert not {word for word in rest if word.isalpha()} - {*PROFILES}
        return
    module, *rest = args[1:]
    assert importlib.util.find_spec(module), module
    if module == "resnet_repro.train":
        train(rest)
    elif module in ("resnet_repro.evaluate", "resnet_repro.export", "resnet_repro.responses"):
        schema = f"{module.rpartition('.')[2].title()}Options"
        assert parse(getattr(importlib.import_module(module), schema), rest)
    elif flags := [word for word in rest if word.startswith("-")]:
        assert all(flag in help_of(module) for flag in flags), flags


def make(args):
    done = subprocess.run(["make", "-n", *args], cwd=REPO, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for word in args[1:]:
        assert f"$({word.partition('=')[0]})" in MAKEFILE, word


def pip(args):
    for word in args:
        if extras := re.search(r"\[(.*)\]", word):
            assert set(extras[1].split(",")) <= set(EXTRAS), word
        if word.endswith(".txt"):
            assert (REPO / word).is_file(), word


def sbatch(args):
    """Needs SLURM: the script is there and takes a run's words."""
    script = next(word for word in args if not word.startswith("-"))
    before, after = args[: args.index(script)], args[args.index(script) + 1 :]
    assert (REPO / script).is_file()
    assert all(word.startswith(SBATCH) for word in before), before
    train(after)


def torchrun(args):
    """Needs several machines: it starts our worker on a run folder."""
    assert list(args[-3:]) == ["-m", "resnet_repro.worker", "$FOLDER"]
    assert all(word.startswith("--") for word in args[:-3])


def wandb(args):
    """Needs an account: what it is to send is where the mirror puts it (test_wandb.py)."""
    assert args[0] == "sync"
    assert args[1].endswith("/wandb/latest-run")


CHECKS = {check.__name__: check for check in (python, make, pip, sbatch, torchrun, wandb)}
# Steps of worked examples that tests follow word by word.
FOLLOWED = {"EXTENDING.md": ("sed", "for"), "CONTRIBUTING.md": ("cd",)}


@pytest.mark.parametrize(("document", "line"), COMMANDS, ids=[f"{d}:{c}"[:90] for d, c in COMMANDS])
def test_command(document, line):
    if inner := re.fullmatch(r"\w+=\$\((.*)\)", line):
        line = inner[1]
    if line == ". .venv/bin/activate":
        return
    line = re.sub(r"^CUDA_VISIBLE_DEVICES=\d |&$", "", line)
    first = line.split()[0]
    if first in FOLLOWED.get(document, ()):
        return
    assert first in CHECKS, f"{document}: say here how `{line}` is checked"
    CHECKS[first](shlex.split(line)[1:])


def test_commands_are_found():
    assert len(COMMANDS) > 50
    assert {document for document, _ in COMMANDS} >= {"README.md", "CLUSTER.md", "EXTENDING.md"}


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
                place = document.parent / target.partition("#")[0]
                assert place.exists(), f"{document.name}: {target}"


def say(line, cwd):
    return run_shell(line, cwd, RESNET_REPRO_RUNS=str(cwd / "results" / "runs"))


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
