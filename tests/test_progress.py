"""What a person sees while it trains: one redrawn line on a terminal, few lines elsewhere."""

import contextlib
import fcntl
import io
import os
import pty
import re
import shlex
import struct
import subprocess
import sys
import termios
import threading
from pathlib import Path

import pytest

from ranks import BRIEF, SMALL
from resnet_repro import progress
from resnet_repro.exits import SafeStream
from resnet_repro.progress import Progress, duration, written

ESCAPE = "\x1b"


class Clock:
    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(progress, "time", made)
    return made


class Terminal:
    def __init__(self, columns):
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.stream = os.fdopen(theirs, "w")
        self._said = []
        self._reader = threading.Thread(target=self._read, args=(ours,))
        self._reader.start()

    def _read(self, end):
        with contextlib.suppress(OSError):  # all has been read
            while part := os.read(end, 4096):
                self._said.append(part)
        os.close(end)

    def lines(self):
        self.stream.close()
        self._reader.join()
        text = b"".join(self._said).decode().rstrip("\r\n").replace("\r\n", "\n")
        return [line for line in text.split("\r") if line.strip()]


@pytest.fixture(autouse=True)
def no_dumb_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")


def training(shown, label, iterations):
    run = shown.begin(label, iterations)
    run.enter("train", 0)
    return run


def update(run, clock, seconds, iterations, error=None, evaluation=(1_000_000, 0.0)):
    """Iterations that take some seconds each; ``evaluation``: after how many, and its seconds."""
    for it in iterations:
        clock.now += seconds
        if it % evaluation[0] == 0:
            run.enter("evaluate", it)
            clock.now += evaluation[1]
            run.enter("train", it)
        run.update(it, error, 0.1)


def train(run, clock):
    clock.now += 300  # of downloading
    run.enter("train", 0)
    update(run, clock, 0.05, range(1, 3201), 45.2, (1000, 20))
    run.enter("end", 3200)


LABELS = ("cifar10_resnet56 short seed 0", "cifar10_resnet20-lr0.05-batch_size256 short seed 12")


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("columns", [60, 80, 110, 140, 200])
def test_on_a_terminal_one_line_is_redrawn_and_nothing_is_cut(clock, columns, label):
    terminal = Terminal(columns)
    shown = Progress([100.0, 300.0], terminal.stream)
    run = shown.begin(label, 3200)
    train(run, clock)
    shown.end(run)
    lines = terminal.lines()
    assert all("\n" not in line for line in lines)
    assert all(len(line) < columns for line in lines)
    middle = [line for line in lines if re.search(r" (3|50)%", line)]
    for line in middle:
        assert re.search(r"[\d. to]+ (s|min|h) for all runs", line)
        assert line.startswith("[1/2] cif")
        assert line.count("|") == 2
        if columns >= 80:
            assert "err 45.2 %" in line
            assert re.search(r"\d+\.\d it/s|evaluating", line)
        if columns >= 140:
            assert "seed" in line
    assert middle
    assert len(middle[0]) > columns - 3 or columns > 140
    assert "100%" in lines[-1]
    assert not any("-" in re.sub(r"cifar\S+", "", line) for line in lines)  # nothing negative
    assert not any(ESCAPE in line for line in lines)


def test_a_terminal_that_cannot_redraw_gets_lines(clock, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    terminal = Terminal(80)
    shown = Progress([1.0], terminal.stream)
    train(shown.begin("a", 3200), clock)
    (output,) = terminal.lines()
    assert output.count("\n") > 3


def test_elsewhere_a_line_is_printed_now_and_then(clock):
    stream = io.StringIO()
    run = Progress(stream=stream).begin("plain-20 quick seed 0", 400)
    clock.now += 3600.0  # of downloading: it does not count
    run.enter("train", 0)
    update(run, clock, 0.25, range(1, 401), 50.0)
    lines = stream.getvalue().splitlines()
    assert lines[0] == (
        "plain-20 quick seed 0, 1 to 2 min left, err 50.0 %, 4.0 it/s, lr 0.1, 40/400"
    )
    assert 8 <= len(lines) <= 12
    assert lines[-1].startswith("plain-20 quick seed 0, 0 s left, ")
    assert not {ESCAPE, "\r"} & set(stream.getvalue())


def test_a_long_run_does_not_fill_a_log(clock):
    stream = io.StringIO()
    run = training(Progress(stream=stream), "ResNet-110 paper seed 0", 64_000)
    update(run, clock, 4.0, range(1, 64_001))  # three days
    assert 200 < len(stream.getvalue().splitlines()) < 700
    assert ", 4.0 s/it, " in stream.getvalue()


def test_evaluation_counts_and_a_slower_machine_is_noticed(clock):
    """32,000 iterations: half of them at 20 a second, half at 10, with an evaluation each 100."""
    run = training(Progress(stream=io.StringIO()), "a", 32_000)
    update(run, clock, 0.05, range(1, 16_001), evaluation=(100, 1.0))
    assert run.left == pytest.approx(16_000 * 0.06, rel=0.02)
    update(run, clock, 0.1, range(16_001, 24_001), evaluation=(100, 1.0))
    assert run.left == pytest.approx(8_000 * 0.11, rel=0.1)
    update(run, clock, 0.1, range(24_001, 32_001), evaluation=(100, 1.0))
    assert run.left == 0


def test_a_resumed_run_counts_from_where_it_stands(clock):
    """Also where that is before what was logged: there is no negative time or rate."""
    stream = io.StringIO()
    run = Progress(stream=stream).begin("a", 1000)
    run.enter("load", 0)
    run.enter("train", 900)
    update(run, clock, 1, range(901, 1001))
    lines = stream.getvalue().splitlines()
    assert lines[0] == "a, 1 to 2 min left, 1.0 it/s, lr 0.1, 910/1000"
    assert "-" not in stream.getvalue()


def test_time_of_all_runs_learns_from_those_that_are_over(clock):
    stream = io.StringIO()
    shown = Progress([100.0, 100.0, 200.0], stream)
    first = training(shown, "a", 105)
    update(first, clock, 2, range(1, 106))  # twice as slow as was thought
    shown.end(first)
    second = training(shown, "b", 105)
    update(second, clock, 2, range(1, 56))
    output = stream.getvalue().splitlines()
    assert re.match(r"\[1/3\] a, [\d. to]+ min for all runs, ", output[1])
    assert " 10 min for all runs, " in next(line for line in output if "105/105" in line)
    assert output[-1] == (
        "[2/3] b, 8 min 20 s for all runs, 2.0 s/it, 1 min 40 s for this run, lr 0.1, 55/105"
    )


def test_runs_at_the_same_time_share_a_line(clock):
    stream = io.StringIO()
    shown = Progress([60.0, 60.0, 60.0], stream)
    runs = [training(shown, name, 100) for name in "ab"]
    for it in range(1, 56):
        clock.now += 2
        for run in runs:
            run.update(it, 50.0, 0.1)
    # Each of the two needs 90 s more, the third 190 s as they did; two are trained at a time.
    assert stream.getvalue().splitlines()[-1] == (
        "0 of 3 runs done, 3 min 06 s for all runs, 1.0 it/s, a 55/100, b 54/100"
    )
    shown.end(runs[1])
    runs[0].update(100, 50.0, 0.1)
    assert stream.getvalue().splitlines()[-1].startswith("[2/3] a, ")


def test_durations_are_written_as_people_say_them():
    assert [duration(s) for s in (-3, 0.4, 45, 59.6, 200, 7500, 3599)] == [
        "0 s", "0 s", "45 s", "1 min 00 s", "3 min 20 s", "2 h 05 min", "1 h 00 min",
    ]  # fmt: skip
    assert [written(s, young=True) for s in (1, 30, 600, 7200, 90_000)] == [
        "1 s", "24 to 48 s", "8 to 16 min", "1.6 to 3.2 h", "20 to 40 h",
    ]  # fmt: skip


@pytest.mark.parametrize("ending", [">&- 2>/dev/full", "2>&1 | head -1"])
def test_a_run_does_not_depend_on_who_reads_what_it_says(tmp_path, ending):
    arguments = [*SMALL, *BRIEF, "name=a", f"runs_dir={tmp_path}"]
    command = shlex.join([sys.executable, "-m", "resnet_repro.train", *arguments])
    done = subprocess.run(["bash", "-o", "pipefail", "-c", f"{command} {ending}"])
    assert done.returncode == 0
    assert '"finished"' in (tmp_path / "smoke/a/seed0/status.json").read_text()


def test_output_that_fails_once_is_dropped_from_then_on(tmp_path):
    reader, writer = os.pipe()
    stream = SafeStream(os.fdopen(writer, "w"), BrokenPipeError)
    print("read", file=stream, flush=True)
    assert os.read(reader, 10) == b"read\n"
    os.close(reader)
    for _ in range(2):
        print("not read", file=stream, flush=True)
    stream.close()  # nothing is left in its buffer that would fail now
    with pytest.raises(OSError, match="No space"), Path("/dev/full").open("w") as full:
        print("a result", file=SafeStream(full, BrokenPipeError), flush=True)
