"""What the documents and the environment files say is true."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from resnet_repro.compose import compose_run
from resnet_repro.conf import names
from resnet_repro.reference import as_markdown

REPO = Path(__file__).resolve().parents[1]
README = (REPO / "README.md").read_text(encoding="utf-8")
FIDELITY = (REPO / "docs" / "FIDELITY.md").read_text(encoding="utf-8")


def test_every_trap_names_a_test_that_exists():
    written = "\n".join(p.read_text(encoding="utf-8") for p in (REPO / "tests").glob("test_*.py"))
    named = re.findall(r"`(test_trap\w+)`", FIDELITY)
    assert len(named) >= 16
    for name in named:
        assert f"def {name}(" in written, name


@pytest.mark.parametrize("text", [README, FIDELITY], ids=["README", "FIDELITY"])
def test_every_switch_that_is_named_exists(text):
    """`group.key=value|value` in a document is accepted as an override."""
    groups = "data|model|recipe|evaluation|probes|trainer"
    for switch in set(re.findall(rf"`((?:{groups})\.[^`\s]+)", text)):
        key, _, values = switch.partition("=")
        for value in values.replace("\\", "").split("|") if values else []:
            assert compose_run("experiment=cifar10_resnet56", f"{key}={value}"), switch
        if not values:
            group, name = key.split(".")
            assert name in compose_run("experiment=cifar10_resnet56").as_mapping()[group], switch


def test_every_make_target_that_is_named_exists():
    makefile = (REPO / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z0-9-]+):", makefile, flags=re.M))
    for text in (README, FIDELITY):
        assert set(re.findall(r"\bmake ([a-z][a-z0-9-]*)\b", text)) <= targets


def test_every_item_has_a_script_and_a_target():
    makefile = (REPO / "Makefile").read_text(encoding="utf-8")
    listed = dict(re.findall(r"^(ITEMS|DRAWINGS) := (.*)$", makefile, flags=re.M))
    items, drawings = set(names("item")), set(listed["DRAWINGS"].split())
    assert items == set(listed["ITEMS"].split())
    assert items | drawings == {path.stem for path in (REPO / "experiments").glob("*.py")}


def pinned() -> dict[str, str]:
    text = (REPO / "constraints.txt").read_text(encoding="utf-8")
    return dict(re.findall(r"^([\w.-]+)==(\S+)$", text.lower().replace("_", "-"), flags=re.M))


def test_environment_files_agree():
    project = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    environment = yaml.safe_load((REPO / "environment.yml").read_text(encoding="utf-8"))
    python = next(str(d) for d in environment["dependencies"] if str(d).startswith("python="))
    assert project["requires-python"] == ">=" + python.removeprefix("python=")
    (pip,) = [d["pip"] for d in environment["dependencies"] if isinstance(d, dict)]
    assert pip == ["-c constraints.txt", "-e .[dev]"]
    extras = project["optional-dependencies"]
    for requirement in [*project["dependencies"], *(r for group in extras.values() for r in group)]:
        package = re.split(r"[<>=\[ ]", requirement.lower().replace("_", "-"))[0]
        assert package in pinned(), f"{package} is not pinned in constraints.txt"
    text = (REPO / "constraints.txt").read_text(encoding="utf-8")
    assert not re.search(r"https?://|@ ", text)
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert len(lines) == len(pinned()), "twice, or in another form than name==version"


def test_the_dockerfile_agrees_with_them():
    """It cannot be built in a test: what it names is compared with the files."""
    text = (REPO / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    environment = yaml.safe_load((REPO / "environment.yml").read_text(encoding="utf-8"))
    (python,) = re.findall(r"^FROM python:([\d.]+)-slim$", text, flags=re.M)
    assert f"python={python}" in environment["dependencies"]
    project = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    ((constraints, extras),) = re.findall(r"pip install .*-c (\S+) -e '\.\[([\w,]+)\]'", text)
    assert (REPO / constraints).is_file()
    assert set(extras.split(",")) <= set(project["optional-dependencies"])
    for sources in re.findall(r"^COPY (.+) \S+$", text, flags=re.M):
        for source in sources.split():
            assert (REPO / source).exists(), source
    assert project["readme"] in text.split("pip install")[0], "setuptools reads it"
    for line in (REPO / ".gitignore").read_text(encoding="utf-8").split():
        folder = line.strip("/")
        if line.startswith("/") and "*" not in line:
            assert folder in (REPO / ".dockerignore").read_text(encoding="utf-8").split(), line


def test_config_reference_is_up_to_date():
    written = (REPO / "docs" / "CONFIG.md").read_text(encoding="utf-8")
    assert written == as_markdown(), "python -m resnet_repro.reference > docs/CONFIG.md"
