"""Files fetched by manifest: from the mirror, the cache, a real server; never a wrong file under its final name."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlparse

import pytest
from pydantic import ValidationError

from avrepro import fetch as fetching
from avrepro.fetch import FetchError, RemoteFile, WrongHash, fetch, remote_files, verify

NAME = "weights-0123.bin"
GOOD = b"weights " * 5000
HASH = hashlib.sha256(GOOD).hexdigest()


class Server:
    """A server on the loopback that answers from a list: bytes, or a status for an error."""

    def __init__(self) -> None:
        self.answers: list[bytes | int] = []
        self.asked = 0
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.asked += 1
                answer = server.answers[min(server.asked, len(server.answers)) - 1]
                body = answer if isinstance(answer, bytes) else b"an error"
                self.send_response(200 if isinstance(answer, bytes) else answer)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *words: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.http.server_port}/{NAME}"
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()


@pytest.fixture
def server() -> Iterator[Server]:
    started = Server()
    yield started
    started.http.shutdown()
    started.thread.join()
    started.http.server_close()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AVREPRO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("AVREPRO_MIRROR", raising=False)
    return tmp_path / "home"


@pytest.fixture
def manifest(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Write a manifest with one file; returns where that file is kept."""

    def write(address: str, sha256: str = HASH) -> Path:
        known = f"sha256: '{sha256}'" if sha256 else "unverifiable: nobody says"
        lines = [f"{NAME}:", "  what: a test", f"  address: {address}", "  licence: none", f"  {known}", ""]
        (tmp_path / "manifest.yaml").write_text("\n".join(lines))
        return home / "downloads" / NAME

    monkeypatch.setattr(fetching, "manifest_path", lambda name: tmp_path / name)
    return write


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def left(kept: Path) -> list[str]:
    return [path.name for path in kept.parent.iterdir()] if kept.parent.is_dir() else []


def test_the_manifest_of_weights() -> None:
    entries = remote_files()
    assert {"alexnet-owt-7be5be79.pth", "inceptionv4-8e4777a0.pth", "glove.840B.300d.zip"} <= set(entries)
    for name, entry in entries.items():
        parts = urlparse(entry.address)
        assert parts.scheme == "https" and parts.path.endswith(name)
        assert entry.what and entry.licence and bool(entry.sha256) != bool(entry.unverifiable)
        if name.endswith(".pth"):  # torch-hub names carry the first digits
            assert entry.sha256.startswith(name.rsplit("-", 1)[1].removesuffix(".pth"))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"sha256": "XY"}, "sha256"),
        ({"sha256": 12345678}, "sha256"),
        ({"md5": "0"}, "md5"),
        ({"licence": None}, "licence"),
        ({"sha256": ""}, "no hash"),
        ({"unverifiable": "why"}, "no hash"),
    ],
)
def test_a_wrong_entry_is_refused(changes: dict, expected: str) -> None:
    with pytest.raises(ValidationError, match=expected):
        RemoteFile(**{"what": "a", "address": "b", "licence": "c", "sha256": "0a", **changes})


def test_no_such_entry() -> None:
    with pytest.raises(FetchError, match=r"weights.yaml has no file 'x.pth', only alexnet"):
        fetch("x.pth")


def test_from_the_network_once(server: Server, manifest: Callable[..., Path]) -> None:
    server.answers = [GOOD]
    kept = manifest(server.address)
    assert fetch(NAME, "manifest.yaml") == kept and kept.read_bytes() == GOOD
    assert fetch(NAME, "manifest.yaml") == kept and server.asked == 1  # then from the cache
    assert left(kept) == [NAME]


@pytest.mark.parametrize("sha256", [HASH[:8], ""])
def test_a_prefix_of_the_hash_or_none(sha256: str, server: Server, manifest: Callable[..., Path]) -> None:
    server.answers = [GOOD]
    kept = manifest(server.address, sha256)
    assert fetch(NAME, "manifest.yaml").read_bytes() == GOOD and left(kept) == [NAME]


def test_from_the_mirror_first(
    server: Server, manifest: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answers = [GOOD]
    kept = manifest(server.address)
    mirror = tmp_path / "mirror"
    monkeypatch.setenv("AVREPRO_MIRROR", str(mirror))
    assert fetch(NAME, "manifest.yaml") == kept and server.asked == 1  # it is not there
    (mirror / "deep").mkdir(parents=True)
    (mirror / "deep" / NAME).write_bytes(GOOD)
    assert fetch(NAME, "manifest.yaml") == mirror / "deep" / NAME and server.asked == 1
    (mirror / "deep" / NAME).write_bytes(b"other")
    with pytest.raises(WrongHash, match=f"{NAME}: SHA-256 should begin with {HASH}"):
        fetch(NAME, "manifest.yaml")


def test_damaged_once(server: Server, manifest: Callable[..., Path]) -> None:
    server.answers = [GOOD[:-1], GOOD]
    kept = manifest(server.address)
    assert fetch(NAME, "manifest.yaml").read_bytes() == GOOD and server.asked == 2
    assert left(kept) == [NAME]


def test_wrong_twice(server: Server, manifest: Callable[..., Path]) -> None:
    server.answers = [b"first", b"second", GOOD]
    kept = manifest(server.address)
    with pytest.raises(FetchError) as caught:
        fetch(NAME, "manifest.yaml")
    message = str(caught.value)
    assert HASH in message and hashlib.sha256(b"second").hexdigest() in message
    assert server.address in message and str(kept) in message and server.asked == 2
    assert left(kept) == []


@pytest.mark.parametrize("status", [404, 503])
def test_the_server_says_no(status: int, server: Server, manifest: Callable[..., Path]) -> None:
    server.answers = [status]
    kept = manifest(server.address)
    with pytest.raises(FetchError, match=str(status)):
        fetch(NAME, "manifest.yaml")
    assert left(kept) == []


def test_no_network(manifest: Callable[..., Path]) -> None:
    address = f"http://127.0.0.1:{closed_port()}/{NAME}"
    kept = manifest(address)
    with pytest.raises(FetchError) as caught:
        fetch(NAME, "manifest.yaml")
    message = str(caught.value)
    assert f"{address} cannot be fetched" in message and f"put the file at {kept}" in message
    assert "AVREPRO_MIRROR" in message and left(kept) == []


def test_a_kept_file_that_has_changed(server: Server, manifest: Callable[..., Path]) -> None:
    kept = manifest(server.address)
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"changed")
    with pytest.raises(FetchError, match="delete it and fetch again") as caught:
        fetch(NAME, "manifest.yaml")
    assert HASH in str(caught.value) and hashlib.sha256(b"changed").hexdigest() in str(caught.value)
    entry = remote_files("manifest.yaml")[NAME]
    kept.write_bytes(GOOD)
    verify(kept, entry)
