import hashlib
import http.server
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cnnlab.data import DatasetError
from cnnlab.data.download import RemoteFile, Unreachable, download

CONTENT = bytes(range(256)) * 2000  # 512,000 bytes


class Server(http.server.ThreadingHTTPServer):
    """Serves CONTENT at any path, and can misbehave."""

    daemon_threads = True
    content = CONTENT
    cut_after: int | None = None  # close each connection after so many bytes of body
    cuts = 0  # how many connections to cut
    ranges = True  # honour Range
    status = 200
    announce = True  # send Content-Length

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/file.bin"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server = self.server
        asked = self.headers["Range"]
        server.asked.append(asked)
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and server.ranges else 0
        body = server.content[start:]
        self.send_response(server.status if server.status != 200 else (206 if start else 200))
        if server.announce:
            self.send_header("Content-Length", str(len(body)))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}")
        self.end_headers()
        if server.cuts > 0 and server.cut_after is not None:
            server.cuts -= 1
            body = body[: server.cut_after]
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def remote(server: Server, **changes: Any) -> RemoteFile:
    fields = {"url": server.url, "size": len(CONTENT), "sha256": hashlib.sha256(CONTENT).hexdigest()}
    return RemoteFile(**{**fields, **changes})


def test_a_file_arrives_whole_and_nothing_else_stays(server: Server, tmp_path: Path) -> None:
    path = download(remote(server), tmp_path / "new", progress=False)
    assert path.read_bytes() == CONTENT
    assert [p.name for p in path.parent.iterdir()] == ["file.bin"]


def test_a_file_that_is_there_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    download(remote(server), tmp_path, progress=False)
    download(remote(server), tmp_path, progress=False)
    assert server.asked == [None]


def test_the_progress_bar_goes_to_standard_error(server: Server, tmp_path: Path, capsys) -> None:
    download(remote(server), tmp_path, progress=True)
    assert capsys.readouterr().out == ""


def test_a_cut_connection_is_taken_up_where_it_broke(server: Server, tmp_path: Path) -> None:
    server.cut_after, server.cuts = 200_000, 2
    assert download(remote(server), tmp_path, progress=False).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=200000-", "bytes=400000-"]


def test_a_part_from_an_earlier_try_is_continued(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.bin.part").write_bytes(CONTENT[:1234])
    assert download(remote(server), tmp_path, progress=False).read_bytes() == CONTENT
    assert server.asked == ["bytes=1234-"]


def test_a_server_without_ranges_is_read_from_the_start(server: Server, tmp_path: Path) -> None:
    server.ranges = False
    (tmp_path / "file.bin.part").write_bytes(b"?" * 1234)
    assert download(remote(server), tmp_path, progress=False).read_bytes() == CONTENT


def test_a_part_that_is_complete_needs_no_network(tmp_path: Path) -> None:
    file = RemoteFile("http://127.0.0.1:9/file.bin", len(CONTENT), hashlib.sha256(CONTENT).hexdigest())
    (tmp_path / "file.bin.part").write_bytes(CONTENT)
    assert download(file, tmp_path, progress=False).read_bytes() == CONTENT


def test_a_connection_that_brings_nothing_keeps_the_part_and_says_so(server: Server, tmp_path: Path) -> None:
    server.cut_after, server.cuts = 0, 99
    (tmp_path / "file.bin.part").write_bytes(CONTENT[:1000])
    with pytest.raises(Unreachable, match="after 1,000 of 512,000 bytes, kept: the next try goes on"):
        download(remote(server), tmp_path, progress=False)
    assert (tmp_path / "file.bin.part").read_bytes() == CONTENT[:1000]


@pytest.mark.parametrize("announce", [True, False])
def test_a_longer_file_is_refused(server: Server, tmp_path: Path, announce: bool) -> None:
    server.announce = announce
    server.content = CONTENT + b"more"
    with pytest.raises(DatasetError, match="Expected 512,000 bytes from .*, got (512,004|more than 512,000)"):
        download(remote(server), tmp_path, progress=False)
    assert not (tmp_path / "file.bin").exists()


def test_a_page_of_a_proxy_is_refused(server: Server, tmp_path: Path) -> None:
    server.content = b"<html>please log in</html>"
    with pytest.raises(DatasetError, match="got 26; do check for a proxy"):
        download(remote(server), tmp_path, progress=False)
    assert not (tmp_path / "file.bin").exists()


def test_a_wrong_checksum_is_refused_and_removed(server: Server, tmp_path: Path) -> None:
    server.content = b"!" + CONTENT[1:]
    with pytest.raises(DatasetError, match=f"Expected file.bin with SHA-256 {remote(server).sha256}, got "):
        download(remote(server), tmp_path, progress=False)
    assert list(tmp_path.glob("file*")) == []


def test_an_error_of_the_server_is_named(server: Server, tmp_path: Path) -> None:
    server.status = 404
    with pytest.raises(Unreachable, match="got 'HTTP 404 Not Found'; do check the network"):
        download(remote(server), tmp_path, progress=False)


def test_a_refused_connection_is_an_error_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # bound, but not listening
        url = f"http://127.0.0.1:{free.getsockname()[1]}/file.bin"
        with pytest.raises(Unreachable, match="Connection refused"):
            download(RemoteFile(url, 1, ""), tmp_path, progress=False)


def test_a_silent_server_is_given_up_after_the_timeout(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/file.bin"
        started = time.monotonic()
        with pytest.raises(Unreachable, match="timed out"):
            download(RemoteFile(url, 1, ""), tmp_path, progress=False, timeout=0.3)
        assert time.monotonic() - started < 5


def test_a_folder_that_cannot_be_made_is_an_error(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DatasetError, match="Expected to write .*; do make room there or choose another folder"):
        download(remote(server), tmp_path / "file" / "folder", progress=False)
