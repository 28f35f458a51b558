"""The reliability programme: some trials of each part, its records, and that failures are seen."""

from __future__ import annotations

import dataclasses
import json
import random
import shutil
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from reliability import (
    __main__ as command,
)
from reliability import (
    crashes,
    damage,
    defects,
    disk,
    inputs,
    kills,
    leaks,
    teams,
)
from reliability.parts import PARTS, Part
from reliability.phases import PHASES, Marks, judged_from_outside
from reliability.processes import say
from reliability.record import Record
from reliability.subject import VARIANTS, small_job
from reliability.workshop import NothingToCompareError, Trial, Workshop
from resnet_repro.runs.folder import RunFolder
from resnet_repro.runs.metrics import MetricsWriter

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs Linux")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Undisturbed runs, made once for all parts."""
    return tmp_path_factory.mktemp("bench")


@pytest.fixture(scope="module")
def shared(bench: Path) -> Workshop:
    return Workshop(bench, 0, Record(bench / "none.json"))


def shop_of(shared: Workshop, tmp_path: Path, count: int) -> Workshop:
    return dataclasses.replace(shared, count=count, record=Record(tmp_path / "part.json"))


def do(shop: Workshop, part: Part) -> Record:
    command.do_part(part, shop, float("inf"))
    assert shop.record.failed() == []
    return shop.record


def test_random_kills_cost_no_bit(
    shared: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kills, "SHARE", 0.0)  # the real command: tests/test_commands.py
    record = do(shop_of(shared, tmp_path, 2), PARTS["kills"])
    assert record.total("phases") >= 2
    assert all(phase in PHASES for trial in record.trials for phase in trial["phases"])


def some(trials: Iterator[Trial], *keys: str) -> list[Trial]:
    found = [trial for trial in trials if trial.key in keys]
    assert len(found) == len(keys)
    return found


def only(part: Part, *keys: str) -> Part:
    return dataclasses.replace(part, trials=lambda shop: iter(some(part.trials(shop), *keys)))


def test_named_places_are_those_of_the_code() -> None:
    """Each is in the source, and each name that the source passes by is in the list."""
    written = "".join(
        path.read_text(encoding="utf-8")
        for path in (defects.REPO / "src" / "resnet_repro").rglob("*.py")
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


def test_system_calls_are_hit(shared: Workshop, tmp_path: Path) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    part = only(PARTS["syscalls"], "rename 3")
    record = do(shop_of(shared, tmp_path, 0), part)
    assert record.total("hit") == 1


def test_damaged_and_foreign_checkpoints_are_never_loaded(shared: Workshop, tmp_path: Path) -> None:
    kinds = (
        "a link to itself",
        "a pipe",
        "without its digest",
        "of another net",
        "all generations damaged",
    )
    record = do(shop_of(shared, tmp_path, 2), only(PARTS["checkpoints"], *kinds))
    assert record.total("silent") == 0
    assert record.total("refused") == 2
    assert record.total("identical_runs") == 3


@pytest.mark.parametrize("kind", damage.KINDS)
def test_damage_changes_the_file(tmp_path: Path, kind: str) -> None:
    """A trial that damages nothing proves nothing."""
    path = tmp_path / "iter_00000008.pt"
    content = random.Random(0).randbytes(20_000)
    path.write_bytes(content)
    path.with_name(path.name + ".sha256").write_text("x")
    damage.KINDS[kind][0](path, random.Random(1))
    if "digest" in kind:
        assert not path.with_name(path.name + ".sha256").exists() or (
            path.with_name(path.name + ".sha256").read_text() != "x"
        )
    else:
        assert not path.is_file() or path.read_bytes() != content


def test_stops_in_each_phase_save_within_an_iteration(shared: Workshop, tmp_path: Path) -> None:
    keys = ("SIGTERM to group in load", "SIGTERM to process in evaluate", "SIGUSR1 twice")
    record = do(shop_of(shared, tmp_path, 0), only(PARTS["stops"], *keys))
    assert {trial["codes"][0] for trial in record.trials} == {75, 128 + signal.SIGUSR1}


def test_two_at_once_one_proceeds(shared: Workshop, tmp_path: Path) -> None:
    record = do(shop_of(shared, tmp_path, 1), PARTS["rivals"])
    assert record.total("named") == 1


def test_a_full_disk_is_named_and_costs_no_bit(shared: Workshop, tmp_path: Path) -> None:
    keys = ["files of 200 KiB at most"]
    if disk.may_mount(tmp_path):
        keys += ["16 KiB"]  # no room for the owner's name in the lock
    record = do(shop_of(shared, tmp_path, 0), only(PARTS["disk"], *keys))
    assert record.total("full") == len(keys)


def test_nothing_piles_up(shared: Workshop, tmp_path: Path) -> None:
    record = do(shop_of(shared, tmp_path, 2), PARTS["leaks"])
    assert record.total("cycles") == 4
    assert record.total("orphans") == 0


def test_slope() -> None:
    assert leaks.slope([1.0, 1.5, 2.0, 2.5]) == pytest.approx(0.5)
    assert leaks.slope([3.0]) == 0.0


@pytest.mark.slow
def test_workers_killed_and_hung_leave_nobody(shared: Workshop, tmp_path: Path) -> None:
    keys = ("2 workers: rank 0 killed", "2 workers: SIGUSR1 to launcher")
    assert do(shop_of(shared, tmp_path, 2), only(PARTS["workers"], *keys)).total("orphans") == 0


@pytest.mark.reliability
@pytest.mark.parametrize("name", PARTS)
def test_a_part_as_a_whole(shared: Workshop, tmp_path: Path, name: str) -> None:
    """As ``make reliability`` does it, a tenth as long where the length is free."""
    do(shop_of(shared, tmp_path, PARTS[name].count // 10), PARTS[name])


def test_faults_of_workers_are_asked_of_every_size() -> None:
    keys = [trial.key for trial in teams.trials(Workshop(Path(), 0, Record(Path())))]
    assert sum(key.startswith("4 workers") for key in keys) == len(teams.FAULTS)
    assert len(set(keys)) == len(keys) == 3 * len(teams.FAULTS) + 9


# Some rows of each kind; `make reliability` says them all.
ROWS = ("recipe.lrr=0.3", "~model.depth", "hydra/launcher=nope", "experiment=tab",
        "experiment=bare", "recipe.batch_size=2001", "TORCHELASTIC")  # fmt: skip


@pytest.mark.parametrize("part_of_row", ROWS)
def test_bad_words_are_refused(tmp_path: Path, part_of_row: str) -> None:
    shop = Workshop(tmp_path, 0, Record(tmp_path / "none.json"))
    trial = next(trial for trial in inputs.trials(shop) if part_of_row in trial.key)
    (tmp_path / "trial").mkdir()
    found = trial.do(tmp_path / "trial")
    assert found["ok"], found


def test_what_stops_a_run_is_told_in_one_line(tmp_path: Path) -> None:
    """Not after one of Hydra's."""
    done = say(*small_job(tmp_path, "recipe.lr=1e30").words)
    assert done.returncode == 5
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error")]
    assert line.startswith("error: the loss is not finite at iteration")


def test_rows_are_many_and_differ() -> None:
    keys = [trial.key for trial in inputs.trials(Workshop(Path(), 0, Record(Path())))]
    assert len(set(keys)) == len(keys) >= 70


def test_every_defect_finds_the_text_it_replaces() -> None:
    """The code has moved on where this fails: the defect must move with it."""
    assert len({defect.name for defect in defects.DEFECTS}) == len(defects.DEFECTS) >= 14
    for defect in defects.DEFECTS:
        path = defects.REPO / "src" / "resnet_repro" / defect.file
        assert defects.with_defect(path.read_text(encoding="utf-8"), defect)
        for test in defect.tests:
            file, _, name = test.partition("::")
            text = (defects.REPO / "tests" / file).read_text(encoding="utf-8")
            assert f"def {name.partition('[')[0]}(" in text or not name, test


def test_text_that_is_not_there_once_is_an_error() -> None:
    defect = dataclasses.replace(defects.DEFECTS[0], before="x = 1", after="x = 2")
    for text in ("", "x = 1\nx = 1\n"):
        with pytest.raises(ValueError, match="not once: 'x = 1'"):
            defects.with_defect(text, defect)


def test_a_planted_defect_is_caught(tmp_path: Path) -> None:
    shop = Workshop(tmp_path, 0, Record(tmp_path / "none.json"))
    defect = next(d for d in defects.DEFECTS if d.name == "records made after the checkpoint stay")
    quick = dataclasses.replace(defect, tests=defect.tests[1:])
    assert defects.planted(shop, quick, tmp_path)["caught"]
    harmless = dataclasses.replace(quick, after=quick.before)
    assert not defects.planted(shop, harmless, tmp_path)["caught"]


def test_a_difference_is_seen(shared: Workshop, tmp_path: Path) -> None:
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
    other = shared.variant("grouped")
    assert "weights" in other.verdict(folder)["differs"]


def trial_that(outcome: dict[str, object] | Exception) -> Part:
    def work(_: Path) -> dict[str, object]:
        if isinstance(outcome, Exception):
            raise outcome
        return dict(outcome)

    return Part("for tests", lambda shop: (Trial(f"t{i}", work) for i in range(shop.count)))


def test_a_part_goes_on_where_it_was_and_tells_failures(tmp_path: Path) -> None:
    record = Record.at(tmp_path, "some")
    command.do_part(trial_that({"ok": True, "orphans": 1}), Workshop(tmp_path, 2, record), 60)
    again = Record.at(tmp_path, "some")
    assert [trial["key"] for trial in again.trials] == ["t0", "t1"]
    command.do_part(trial_that(ValueError("no")), Workshop(tmp_path, 3, again), 60)
    read = Record.at(tmp_path, "some")
    assert [trial["ok"] for trial in read.trials] == [True, True, False]
    assert read.failed()[0]["error"] == "ValueError: no"
    assert read.total("orphans") == 2
    assert len(read.sessions) == 1
    assert set(read.sessions[0]) == {"first", "last", "git", "versions", "hardware"}
    command.do_part(trial_that({"ok": True}), Workshop(tmp_path, 9, read), -1)  # no time left
    assert len(read.trials) == 3


def test_without_an_undisturbed_run_nothing_is_judged(tmp_path: Path) -> None:
    record = Record.at(tmp_path, "some")
    with pytest.raises(NothingToCompareError):
        command.do_part(trial_that(NothingToCompareError("x")), Workshop(tmp_path, 1, record), 60)
    assert record.trials == []


def test_another_schema_of_records_is_refused(tmp_path: Path) -> None:
    (tmp_path / "some.json").write_text('{"schema": 99}')
    with pytest.raises(ValueError, match="schema 99, this version reads 1"):
        Record.at(tmp_path, "some")


def test_the_command_does_parts_and_its_code_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(PARTS, "good", trial_that({"ok": True}))
    monkeypatch.setitem(PARTS, "bad", trial_that({"ok": False}))
    words = ["--out", str(tmp_path), "--scratch", str(tmp_path), "--count", "2"]
    assert command.main(["--part", "good", *words]) == 0
    assert command.main(["--part", "good", "--part", "bad", *words]) == 1
    assert "bad: 2 trials, 2 failed" in capsys.readouterr().out
    assert json.loads((tmp_path / "good.json").read_text())["part"] == "good"
    with pytest.raises(SystemExit):
        command.main(["--part", "nope"])


def test_phases_are_judged_from_what_a_killed_command_left(tmp_path: Path) -> None:
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


def test_marks_outlive_their_process(tmp_path: Path) -> None:
    Marks(tmp_path / "marks").phase = "save"
    assert Marks(tmp_path / "marks").phase == "save"
