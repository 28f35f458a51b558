"""``docs/EXTENDING.md`` followed word by word: its blocks are applied to a copy of the project."""

import ast
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from doc_blocks import REPO, blocks, run_shell
from resnet_repro.runs.folder import RunFolder

EXTENDING = REPO / "docs" / "EXTENDING.md"
BLOCKS = [block for block in blocks(EXTENDING) if block.language not in ("sh", "bash")]
COPIED = (
    "src", "conf", "experiments", "pages", "benchmarks", "tests", "docs", "Makefile",
    "pyproject.toml", "README.md", "CONTRIBUTING.md",
)  # fmt: skip
# A run of the document takes minutes on real pictures; here it is shown that it can be done.
# What its runs are made small by: as overrides, they would be variants and drawn in no figure.
SMALL = {
    "conf/data/cifar10.yaml": "# @package data\nname: synthetic\n",
    "conf/recipe/cifar10_quick.yaml": """# @package _global_
recipe: {batch_size: 16, max_iters: 4, milestones: []}
evaluation: {every_iters: 100, clean_train_images: 64}
probes: {response_images: 64}
trainer: {log_every_iters: 20, threads: 1}
""",
}


def before_and_after(diff):
    lines = [line or " " for line in diff.splitlines()]
    before = "".join(f"{line[1:]}\n" for line in lines if line[0] in " -")
    after = "".join(f"{line[1:]}\n" for line in lines if line[0] in " +")
    return before, after


def is_done(block):
    path = REPO / str(block.path)
    if block.language == "diff":
        return before_and_after(block.body)[1] in path.read_text(encoding="utf-8")
    return path.exists() and path.read_text(encoding="utf-8") == block.body


def applied(block, root):
    """The place and the text of the file that a block makes or changes in a tree without it."""
    assert block.path, f"no file is named before\n{block.body}"
    path = root / block.path
    if block.language == "diff":
        before, after = before_and_after(block.body)
        text = path.read_text(encoding="utf-8")
        assert text.count(before) == 1, f"{block.path} has {text.count(before)} times:\n{before}"
        return path, text.replace(before, after)
    assert not path.exists(), f"another file has the name {block.path}"
    return path, block.body


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: str(block.path))
def test_what_a_block_starts_from_is_there(block):
    if is_done(block):
        return
    path, text = applied(block, REPO)
    assert path.parent.is_dir()
    if path.suffix == ".py":
        ast.parse(text)
    else:
        assert path.suffix == ".yaml"
        assert yaml.safe_load(text)


def copy_project(root):
    for name in (*COPIED, "results/paper", "results/architecture"):
        if (REPO / name).is_dir():
            no_cache = shutil.ignore_patterns("__pycache__")
            shutil.copytree(REPO / name, root / name, ignore=no_cache)
        else:
            shutil.copy(REPO / name, root / name)
    for name, text in SMALL.items():
        (root / name).write_text(text, encoding="utf-8")


def write_my_pictures(root):
    random = np.random.default_rng(0)
    parts = {}
    for part, count in (("train", 96), ("test", 48)):
        parts[f"{part}_images"] = random.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        parts[f"{part}_labels"] = np.arange(count, dtype=np.uint8) % 3
    (root / "data").mkdir()
    np.savez(root / "data" / "mine.npz", **parts)


@pytest.mark.slow
def test_the_document_followed_from_top_to_bottom(tmp_path):
    if any(is_done(block) for block in BLOCKS):
        pytest.skip("the examples are in this tree")
    root = tmp_path / "project"
    results = root / "results"

    def say(line):
        done = run_shell(line, root, PYTHONPATH=str(root / "src"), RESNET_REPRO_RUNS="")
        assert done.returncode == 0, f"{line}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"

    copy_project(root)
    write_my_pictures(root)
    for block in blocks(EXTENDING):
        if block.language not in ("sh", "bash"):
            path, text = applied(block, root)
            path.write_text(text, encoding="utf-8")
            continue
        for line in block.body.splitlines():
            if line != "make test":  # with two seeds where it has three
                say(line.replace("seed=0,1,2", "seed=0,1").replace("--seeds 3", "--seeds 2"))
    runs = {path.name for path in (results / "runs" / "quick").iterdir()}
    assert runs >= {"cifar10_resnet26", "cifar10_resnet20_half", "mine_resnet20", "half_the_rate"}
    mine = RunFolder(results / "runs" / "quick" / "mine_resnet20" / "seed0")
    assert mine.is_finished
    assert mine.config()["data"]["name"] == "mine"
    figures = {path.name for path in (results / "figures").glob("*.svg")}
    assert figures == {"scaling.svg", "compare_schedule.svg", "losses.svg"}
    table = (results / "tables" / "scaling.md").read_text(encoding="utf-8")
    assert "half" in table
    page = (results / "report" / "index.html").read_text(encoding="utf-8")
    for title in ("Half against whole identities", "Loss on the test images over the iterations"):
        assert title in page
    say("python -m pytest -q -p no:cacheprovider tests/test_half_shortcut.py")
    say("python -m pytest -q -p no:cacheprovider tests/test_docs.py -k 'every_item or reference'")
    say("make help | grep scaling && make help | grep losses")
    made = " ".join(str(block.path) for block in BLOCKS if str(block.path).endswith(".py"))
    if shutil.which("ruff") or (Path(sys.executable).parent / "ruff").exists():
        say(f"python -m ruff check {made} && python -m ruff format --check {made}")
