"""The reliability programme: some trials of each part, its records, its page, its judge."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ranks import small_job
from reliability import __main__ as programme
from reliability import crashes, defects, disk, kills
from reliability.__main__ import PARTS, Part, do_part
from reliability.page import DOCUMENT, current, load_parts, section
from reliability.record import Record
from reliability.runs import VARIANTS, Marks, Trial, Workshop, judged_from_outside
from resnet_repro.paths import REPOSITORY as REPO
from resnet_repro.runs.folder import RunFolder
from resnet_repro.runs.metrics import MetricsWriter

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs Linux")
NO_SHOP = Workshop(Path(), 0, Record(Path()))


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A place with undisturbed runs, made once for all parts."""
    return replace(NO_SHOP, scratch=tmp_path_factory.mktemp("shop"))


@pytest.fixture
def done(shared, tmp_path):
    """Do trials of a part, all by default; none may fail. Returns the record."""

    def do(name: str, *keys: str, count: int = 0) -> Record:
        shop = replace(shared, count=count, record=Record(tmp_path / "part.json"))

        def trials(shop: Workshop) -> Iterator[Trial]:
            return (t for t in PARTS[name].trials(shop) if not keys or t.key in keys)

        do_part(replace(PARTS[name], trials=trials), shop)
        assert shop.record.failed() == []
        assert not keys or len(shop.record.trials) == len(keys)
        return shop.record

    return do


def test_named_places_are_those_of_the_code():
    """Each is in the source, and each name that the source passes by is in the list."""
    written = "".join(
        path.read_text(encoding="utf-8")
        for path in (REPO / "src" / "resnet_repro").rglob("*.py")
        if path.parent.name in ("runs", "training")
    )
    named = {point.partition(":")[0] for point in crashes.points()}
    assert len(named) > 20
    plain = {name for name in named if f'crash_point("{name}")' in written}
    assert named - plain == {
        f"{place}{ending}"
        for place in ("before-tmp", "after-write", "after-fsync", "after-replace")
        for ending in crashes.WRITTEN
    }
    assert written.count("crash_point(") - 1 == len(plain) + 4


POINTS = ("mid-write.pt", "after-digest.pt:3", "before-prune:3", "mid-load", "mid-line:3",
          "after-fsync.json:3")  # fmt: skip
SOME = [  # part, trials, count, totals
    ("kills", (), 1, {}),
    ("crashes", POINTS, 0, {}),
    ("syscalls", ("rename 3",), 0, {"hit": 1}),
    ("checkpoints", ("a pipe", "of another net", "all generations damaged"), 1,
     {"silent": 0, "refused": 2, "identical_runs": 1}),
    ("stops", ("SIGTERM to group in load", "SIGUSR1 twice"), 0, {}),
    ("rivals", (), 1, {"named": 1}),
    ("disk", ("files of 200 KiB at most",), 0, {"full": 1}),
    ("disk", ("16 KiB",), 0, {"full": 1}),  # no room for the owner's name in the lock
    ("leaks", (), 2, {"cycles": 4, "orphans": 0}),
    pytest.param(
        "workers", ("2 workers: rank 0 killed", "2 workers: SIGUSR1 to workers"), 2,
        {"orphans": 0}, marks=pytest.mark.slow,
    ),
]  # fmt: skip


@pytest.mark.parametrize(("part", "keys", "count", "totals"), SOME)
def test_some_trials_of_a_part_come_out_as_they_should(
    done, part, keys, count, totals, monkeypatch, tmp_path
):
    if part == "syscalls" and shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    if keys == ("16 KiB",) and not disk.may_mount(tmp_path):
        pytest.skip("may not mount")
    monkeypatch.setattr(kills, "SHARE", 0.0)  # the real command: tests/test_commands.py
    record = done(part, *keys, count=count)
    assert record.trials
    assert {name: record.total(name) for name in totals} == totals


@pytest.mark.reliability
@pytest.mark.parametrize("name", PARTS)
def test_a_part_as_a_whole(done, name):
    """As ``make reliability`` does it, a tenth as long where the length is free."""
    done(name, count=PARTS[name].count // 10)


def test_every_defect_finds_the_text_it_replaces():
    """The code has moved on where this fails: the defect must move with it."""
    assert len({defect.name for defect in defects.DEFECTS}) == len(defects.DEFECTS) >= 14
    for defect in defects.DEFECTS:
        path = REPO / "src" / "resnet_repro" / defect.file
        assert defects.with_defect(path.read_text(encoding="utf-8"), defect)
        for test in defect.tests:
            file, _, name = test.partition("::")
            text = (REPO / "tests" / file).read_text(encoding="utf-8")
            assert f"def {name.partition('[')[0]}(" in text or not name, test
    for text in ("", f"{defect.before}\n{defect.before}\n"):
        with pytest.raises(ValueError, match="not once"):
            defects.with_defect(text, defect)


@pytest.mark.slow
def test_a_planted_defect_is_caught(tmp_path, monkeypatch):
    shop = replace(NO_SHOP, scratch=tmp_path)
    defect = next(d for d in defects.DEFECTS if d.name == "records made after the checkpoint stay")
    quick = defect._replace(tests=defect.tests[1:])
    assert defects.planted(shop, quick, tmp_path)["caught"]
    monkeypatch.setattr(defects, "tested", lambda *_: (defects.PASSED, ""))
    assert not defects.planted(shop, quick, tmp_path)["caught"]


def test_a_difference_is_seen(shared, tmp_path):
    """The judge: another seed's run, a left-over file and a lost record are not the same."""
    reference = shared.variant("residual")
    path = shared.scratch / "undisturbed"
    made = next(p for p in path.rglob("seed0") if reference.verdict(RunFolder(p))["ok"])
    folder = RunFolder(tmp_path / "copy")
    shutil.copytree(made, folder.path)
    assert reference.verdict(folder) == {"ok": True, "identical": True}
    (folder.checkpoints / ".x.1.tmp").touch()
    assert reference.verdict(folder)["left"] == [".x.1.tmp"]
    (folder.checkpoints / ".x.1.tmp").unlink()
    lines = folder.metrics_path.read_text().splitlines(keepends=True)
    folder.metrics_path.write_text("".join(lines[:-1]))
    assert reference.verdict(folder)["differs"] == ["metrics"]
    other = replace(reference, computed=reference.computed | {"window": "0"})
    assert "window" in other.verdict(folder)["differs"]


def part_of(outcome: dict[str, object] | BaseException) -> Part:
    def work(_: Path) -> dict[str, object]:
        if isinstance(outcome, BaseException):
            raise outcome
        return dict(outcome)

    return Part("for tests", lambda shop: (Trial(f"t{i}", work) for i in range(shop.count)))


def test_a_part_continues_where_it_was_and_tells_failures(tmp_path):
    path = tmp_path / "some.json"
    shop = Workshop(tmp_path, 2, Record.at(path))
    do_part(part_of({"ok": True, "orphans": 1}), shop)
    again = replace(shop, count=3, record=Record.at(path))
    assert [trial["key"] for trial in again.record.trials] == ["t0", "t1"]
    do_part(part_of(ValueError("no")), again)
    read = Record.at(path)
    assert [trial["ok"] for trial in read.trials] == [True, True, False]
    assert read.failed()[0]["error"] == "ValueError: no"
    assert read.total("orphans") == 2
    assert len(read.sessions) == 1
    assert set(read.sessions[0]) == {"first", "last", "git", "versions", "hardware"}
    do_part(part_of({"ok": True}), replace(shop, count=9, record=read), -1)  # no time left
    with pytest.raises(SystemExit):  # no undisturbed run: nothing is judged
        do_part(part_of(SystemExit("x")), replace(shop, count=4, record=read))
    assert len(read.trials) == 3
    path.write_text('{"schema": 99}')
    with pytest.raises(ValueError, match="schema 99, this version reads 1"):
        Record.at(path)


def test_the_command_does_parts_and_its_code_tells(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(PARTS, "good", part_of({"ok": True}))
    monkeypatch.setitem(PARTS, "bad", part_of({"ok": False}))
    args = ["--out", str(tmp_path), "--scratch", str(tmp_path), "--count", "2"]
    assert programme.main(["--part", "good", *args]) == 0
    assert programme.main(["--part", "good", "--part", "bad", *args]) == 1
    assert "bad: 2 trials, 2 failed" in capsys.readouterr().out
    assert json.loads((tmp_path / "good.json").read_text())["part"] == "good"
    with pytest.raises(SystemExit):
        programme.main(["--part", "nope"])


def test_phases_are_judged_from_what_a_killed_command_left(tmp_path):
    job = small_job(tmp_path, *VARIANTS["residual"])
    folder = job.folder
    judged = partial(judged_from_outside, folder)
    folder.write_config(job.config.as_mapping())
    assert judged(1) == "start-up"
    folder.write_status("running", iter=0)
    me = folder.status()["pid"]
    assert judged(me + 1) == "start-up"  # the process before it wrote that
    assert judged(me) == "train"
    folder.checkpoints.mkdir()
    with MetricsWriter(folder.metrics_path) as log:
        log.write("train", iter=2)
        assert judged(me) == "train"
        log.write("train", iter=4)
        assert judged(me) == "evaluate"  # as it does every four iterations
        log.write("test", iter=4)
        assert judged(me) == "save"
        (folder.checkpoints / "iter_00000004.pt").touch()
        folder.write_status("running", iter=4)
        assert judged(me) == "train"
        (folder.checkpoints / ".iter_00000008.pt.1.tmp").touch()
        assert judged(me) == "save"
    Marks(tmp_path / "marks").note("save")
    assert Marks(tmp_path / "marks").phase == "save"  # marks outlive their process


def write(folder: Path, part: str, *trials: dict[str, Any]) -> None:
    record = Record(folder / f"{part}.json", [{
        "first": "2026-01-02T00:00:00Z",
        "git": {"revision": "a" * 40, "dirty": False},
        "versions": {"torch": "2.15.0", "python": "3.11.7"},
        "hardware": {"label": "2 CPU cores, X"},
    }])  # fmt: skip
    for number, trial in enumerate(trials):
        record.add(str(number), {"ok": True} | trial)


def test_the_committed_document_says_what_the_committed_records_say():
    assert (REPO / DOCUMENT).read_text(encoding="utf-8") == current(), "python -m reliability.page"


def test_counts_of_the_page(tmp_path):
    assert "make reliability" in section(load_parts(tmp_path))  # nothing was measured
    for part in PARTS:
        write(tmp_path, part, {})
    rows = [line for line in section(load_parts(tmp_path)).splitlines() if line.startswith("| ")]
    assert len(rows) == 1 + len(PARTS)
    write(
        tmp_path, "kills",
        {"phases": ["save", "train"], "identical": True, "variant": "command"},
        {"phases": ["save"], "identical": False, "ok": False, "variant": "plain"},
    )  # fmt: skip
    write(tmp_path, "workers", {"workers": 2, "orphans": 1, "to_exit_s": 7.25})
    write(tmp_path, "defects", {}, {"caught": True}, {"caught": False, "ok": False})
    text = section(load_parts(tmp_path))
    assert "Silent corruptions: **1**" in text
    assert f"come out as they should: **2** of {3 + 1 + 2 + len(PARTS) - 3}" in text
    assert "Processes left behind: **1**" in text
    assert "end of the last process: **7.2 s**" in text
    assert "(2 to the real command) | 3 | 2 survived: 1 runs with identical bits |" in text
    assert "| a defect planted in the source | 2 | 1 fail a test |" in text
    assert "interrupted: 2 in save, 1 in train." in text
    assert "; revision aaaaaaaaaaaa." in text
