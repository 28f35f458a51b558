"""Code blocks of the documents, with where they stand."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from resnet_repro.paths import REPOSITORY as REPO

DOCUMENTS = (REPO / "README.md", REPO / "CONTRIBUTING.md", *sorted((REPO / "docs").glob("*.md")))
BLOCK = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)\n(?P<body>.*?)^(?P=indent)```$", re.M | re.S
)


@dataclass(frozen=True)
class Block:
    """A code block; ``before`` is the text from the block before it."""

    document: str
    language: str
    body: str
    before: str

    @property
    def path(self) -> str | None:
        """The file that the text before the block says it is, in backticks at a line's begin."""
        named = re.findall(r"^`([\w./-]+)`:\s*$", self.before, flags=re.M)
        return named[-1] if named else None


def blocks(document: Path) -> list[Block]:
    text, found, end = document.read_text(encoding="utf-8"), [], 0
    for match in BLOCK.finditer(text):
        indent = len(match["indent"])
        body = "".join(line[indent:] or "\n" for line in match["body"].splitlines(keepends=True))
        found.append(Block(document.name, match["language"], body, text[end : match.start()]))
        end = match.end()
    return found


def shell_lines(document: Path) -> list[str]:
    """Every command of the shell blocks of a document, without comments."""
    shell = [block.body for block in blocks(document) if block.language in ("sh", "bash")]
    lines = "".join(shell).replace("\\\n", " ").splitlines()
    return [command for line in lines if (command := re.sub(r"(^|\s)#\s.*$", "", line).strip())]


def run_shell(line: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a line of a document in ``cwd`` with bash; ``python`` is this one."""
    shim = cwd / "bin" / "python"
    if not shim.exists():
        shim.parent.mkdir()
        shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n', encoding="utf-8")
        shim.chmod(0o755)
    env = os.environ | {"PATH": f"{shim.parent}:{os.environ['PATH']}"} | env
    return subprocess.run(["bash", "-ec", line], cwd=cwd, env=env, capture_output=True, text=True)
