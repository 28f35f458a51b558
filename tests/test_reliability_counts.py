"""The document's counts come from the records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from reliability.page import DOCUMENT, RECORDS, current, load_parts, section
from reliability.parts import PARTS
from resnet_repro.paths import REPOSITORY as REPO

SESSION = {
    "first": "2026-01-02T00:00:00Z",
    "last": "2026-01-03T00:00:00Z",
    "git": {"revision": "a" * 40, "dirty": False},
    "versions": {"torch": "2.15.0", "python": "3.11.7"},
    "hardware": {"label": "2 CPU cores, X"},
}


def record(folder: Path, part: str, *trials: dict[str, Any]) -> None:
    made = [{"key": str(i), "session": 0, "ok": True} | t for i, t in enumerate(trials)]
    content = {"schema": 1, "part": part, "sessions": [SESSION], "trials": made}
    (folder / f"{part}.json").write_text(json.dumps(content))


def test_the_committed_document_says_what_the_committed_records_say() -> None:
    assert (REPO / DOCUMENT).read_text(encoding="utf-8") == current(), "python -m reliability.page"


def test_every_part_of_the_programme_has_a_row(tmp_path: Path) -> None:
    for part in PARTS:
        record(tmp_path, part, {})
    rows = [line for line in section(load_parts(tmp_path)).splitlines() if line.startswith("| ")]
    assert len(rows) == 1 + len(PARTS)


def test_counts(tmp_path: Path) -> None:
    record(
        tmp_path, "kills",
        {"phases": ["save", "train"], "identical": True, "variant": "command"},
        {"phases": ["save"], "identical": False, "ok": False, "variant": "plain"},
    )  # fmt: skip
    record(tmp_path, "workers", {"workers": 2, "orphans": 1, "to_exit_s": 7.25})
    record(tmp_path, "defects", {}, {"caught": True}, {"caught": False, "ok": False})
    text = section(load_parts(tmp_path))
    assert "Silent corruptions: **1**" in text
    assert "come out as they should: **2** of 6" in text
    assert "Processes left behind: **1**" in text
    assert "end of the last process: **7.2 s**" in text
    assert "(2 to the real command) | 3 | 2 survived: 1 runs with identical bits |" in text
    assert "| a defect planted in the source | 2 | 1 fail a test |" in text
    assert "interrupted: 2 in save, 1 in train." in text
    assert "2026-01-02 to 2026-01-03; revision aaaaaaaaaaaa." in text


def test_where_nothing_was_measured_the_document_says_how(tmp_path: Path) -> None:
    assert "make reliability" in section(load_parts(tmp_path))


def test_no_record_names_the_folder_it_was_made_in() -> None:
    """Records are committed."""
    if not (REPO / RECORDS).is_dir():
        pytest.skip("nothing was measured")
    for path in (REPO / RECORDS).glob("*.json"):
        text = path.read_text(encoding="utf-8")
        assert "/tmp/" not in text, path
        assert str(REPO) not in text, path
