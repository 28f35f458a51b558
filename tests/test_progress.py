"""What a person sees while it trains: one redrawn line on a terminal, few lines elsewhere."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import struct
import subprocess
import sys
import termios

import pytest

from resnet_repro import progress
from resnet_repro.progress import JobProgress, duration

ESCAPE = "\x1b"
SHOW = """
import time
from resnet_repro import progress
moment = [0.0]
progress.time.monotonic = lambda: moment[0]
job = progress.JobProgress([100.0, 300.0])
run = job.begin("cifar10_resnet56 short seed 0", 0, 3200)
for i in range(1, 321):
    moment[0] += 0.5
    run.update(10 * i, 45.2, 0.1)
job.end()
"""


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(progress, "time", made)
    return made


def on_a_terminal(columns: int, **more: str) -> str:
    """What the terminal gets of a run that is shown there."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    env = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "TERM")} | {"TERM": "xterm"}
    process = subprocess.Popen(
        [sys.executable, "-c", SHOW], stdin=theirs, stdout=theirs, stderr=theirs, env=env | more
    )
    os.close(theirs)
    said = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:
            break
        if not part:
            break
        said += part
    os.close(ours)
    assert process.wait() == 0, said.decode()
    return said.decode()


@pytest.mark.parametrize("columns", [60, 80, 100, 160])
def test_on_a_terminal_one_line_is_redrawn_and_never_wraps(columns: int) -> None:
    lines = on_a_terminal(columns).rstrip("\r\n").replace("\r\n", "\n").split("\r")
    shown = [line for line in lines if line.strip()]
    assert all("\n" not in line for line in shown)
    assert all(len(line) <= columns for line in shown)
    assert shown[-1].startswith("[1/2] cifar10_resnet56 short seed 0 100%")
    assert ("0 s left" in shown[-1]) == (columns >= 80)
    assert ("it/s" in shown[-1]) == (columns >= 160)
    assert ("|" in shown[-1]) == (columns >= 160)


@pytest.mark.parametrize("more", [{}, {"NO_COLOR": "1"}, {"FORCE_COLOR": "1"}])
def test_there_is_never_a_colour(more: dict[str, str]) -> None:
    assert ESCAPE not in on_a_terminal(160, **more)


def test_a_terminal_that_cannot_redraw_gets_lines() -> None:
    said = on_a_terminal(80, TERM="dumb")
    assert "\r" not in said.replace("\r\n", "")
    assert said.count("\n") > 3


def test_elsewhere_a_line_is_printed_now_and_then(clock: Clock) -> None:
    stream = io.StringIO()
    run = JobProgress([1.0], stream).begin("plain-20 quick seed 0", 0, 400)
    for it in range(1, 401):
        clock.now += 0.25
        run.update(it, 50.0, 0.1)
    lines = stream.getvalue().splitlines()
    assert (
        lines[0]
        == "plain-20 quick seed 0 40/400, 1 min 30 s left, train err 50.0 %, lr 0.1, 4.0 it/s"
    )
    assert len(lines) == 10
    assert lines[-1].startswith("plain-20 quick seed 0 400/400, 0 s left")
    assert not {ESCAPE, "\r"} & set(stream.getvalue())


def test_a_long_run_does_not_fill_a_log(clock: Clock) -> None:
    stream = io.StringIO()
    run = JobProgress([1.0], stream).begin("ResNet-110 paper seed 0", 0, 64_000)
    for it in range(1, 64_001):
        clock.now += 4.0  # three days
        run.update(it, None, 0.1)
    assert 200 < len(stream.getvalue().splitlines()) < 700


def test_remaining_time_of_all_runs_learns_from_those_that_are_over(clock: Clock) -> None:
    stream = io.StringIO()
    job = JobProgress([100.0, 100.0, 200.0], stream)
    first = job.begin("a", 0, 10)
    clock.now += 200.0  # twice as slow as was thought
    first.update(10, None, 0.1)
    second = job.begin("b", 5, 10)
    clock.now += 20.0
    second.update(6, None, 0.1)
    said = stream.getvalue().splitlines()
    assert said[0] == "[1/3] a 10/10, 0 s left, all runs: 10 min 00 s, lr 0.1, 0.1 it/s"
    assert said[1].startswith("[2/3] b 6/10, 1 min 20 s left, all runs: ")
    done, later = 200.0, 200.0
    left = 80.0 + later * (200.0 + 20.0 + 80.0) / done
    assert f"all runs: {duration(left)}," in said[1]


def test_durations_are_said_as_people_say_them() -> None:
    assert [duration(s) for s in (0.4, 45, 59.6, 200, 7500)] == [
        "0 s",
        "45 s",
        "1 min 00 s",
        "3 min 20 s",
        "2 h 05 min",
    ]
