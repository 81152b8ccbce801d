"""Files fetched by manifest: from the mirror, the cache, a real server; never a wrong file under its final name."""

from __future__ import annotations

import hashlib
import io
import shutil
import socket
import subprocess
import sys
import threading
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from avrepro import manifests
from avrepro.fetch import FetchError, WrongHash, at_hand, check, fetch, fetch_all, find, whereabouts
from avrepro.manifests import ManifestError

NAME = "weights-0123.bin"
GOOD = bytes(range(256)) * 200  # 51,200 bytes
SHA256 = hashlib.sha256(GOOD).hexdigest()


class Server:
    """A server on the loopback. A path answers from its list: bytes, an error's status, or half of the bytes."""

    def __init__(self) -> None:
        self.answers: dict[str, list[bytes | int | tuple[bytes]]] = {}
        self.asked: Counter[str] = Counter()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name = self.path[1:]
                answers = server.answers.get(name, [404])
                answer = answers[min(server.asked[name], len(answers) - 1)]
                server.asked[name] += 1
                if isinstance(answer, int):
                    self.send_error(answer)
                    return
                body = answer[0] if isinstance(answer, tuple) else answer
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: len(body) // 2] if isinstance(answer, tuple) else body)

            def log_message(self, *words: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.root = f"http://127.0.0.1:{self.http.server_port}"
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
    """Write the manifest of source ``made``; returns where its (first) file is target."""
    (tmp_path / "data_manifests").mkdir()
    monkeypatch.setattr(manifests, "FOLDER", tmp_path / "data_manifests")

    def write(*files: dict[str, Any], **more: Any) -> Path:
        entries = {"what": "made", "page": "https://a.org", "licence": "none", "bibtex": "@misc{a, title = {A}}"}
        (tmp_path / "data_manifests" / "made.yaml").write_text(yaml.safe_dump({**entries, "files": [*files], **more}))
        return home / "downloads" / "made" / files[0]["name"]

    return write


def one(*addresses: Any, **changes: Any) -> dict[str, Any]:
    return {"name": NAME, "addresses": [*addresses], "size": len(GOOD), "sha256": SHA256} | changes


def left(target: Path) -> list[str]:
    return sorted(path.name for path in target.parent.iterdir()) if target.parent.is_dir() else []


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_from_the_network_once_and_then_from_the_cache(server: Server, manifest: Callable[..., Path]) -> None:
    server.answers["a"] = [GOOD]
    target = manifest(one(f"{server.root}/a"))
    assert find("made") is None and not at_hand("made") and whereabouts("made") == "no"
    assert fetch("made") == target and target.read_bytes() == GOOD and left(target) == [NAME]
    assert fetch("made", NAME) == find("made", NAME) == target and server.asked["a"] == 1
    assert at_hand("made") and whereabouts("made") == "cache"


@pytest.mark.parametrize(
    "known",
    [
        {"sha256_prefix": SHA256[:8]},
        {"sha1": hashlib.sha1(GOOD).hexdigest()},
        {"unverifiable": "nobody says"},
        {"unverifiable": "nobody says", "size": None},
    ],
)
def test_other_ways_to_check(known: dict[str, Any], server: Server, manifest: Callable[..., Path]) -> None:
    server.answers["a"] = [GOOD]
    target = manifest(one(f"{server.root}/a", **{"sha256": "", **known}))
    assert fetch("made").read_bytes() == GOOD and left(target) == [NAME]
    server.answers["a"] = [bad := GOOD[:-1]]
    target.unlink()
    if known.get("size", 0) is None:
        assert fetch("made").read_bytes() == bad  # nothing is known that could tell
    else:
        with pytest.raises(FetchError, match="wrong both times"):
            fetch("made")
        assert left(target) == []


def test_from_the_mirror_first(
    server: Server, manifest: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answers["a"] = [GOOD]
    target = manifest(one(f"{server.root}/a"))
    folder = tmp_path / "mirror" / "made"
    monkeypatch.setenv("AVREPRO_MIRROR", str(folder.parent))
    assert fetch("made") == target and server.asked["a"] == 1  # it is not in the mirror
    folder.mkdir(parents=True)
    (folder / NAME).write_bytes(GOOD)
    assert fetch("made") == find("made") == folder / NAME
    target.unlink()
    assert fetch("made") == folder / NAME and server.asked["a"] == 1 and whereabouts("made") == "mirror"
    (folder / NAME).write_bytes(b"other")
    with pytest.raises(WrongHash, match=f"{NAME}: expected SHA-256 {SHA256}, found .* delete it and fetch again"):
        fetch("made")
    assert server.asked["a"] == 1


def test_a_mirror_may_hold_a_source_under_another_name(
    manifest: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest(one("http://a.org/a", name="deep/a.bin"), mirror="other/place")
    path = tmp_path / "other" / "place" / "deep" / "a.bin"
    path.parent.mkdir(parents=True)
    path.write_bytes(GOOD)
    monkeypatch.setenv("AVREPRO_MIRROR", str(tmp_path))
    assert fetch("made") == path and check("made").good == ["deep/a.bin"]


def test_wrong_is_fetched_exactly_twice(server: Server, manifest: Callable[..., Path]) -> None:
    server.answers |= {"once": [b"X" + GOOD[1:], GOOD], "twice": [b"first", b"second", GOOD]}
    target = manifest(one(f"{server.root}/once"))
    assert fetch("made").read_bytes() == GOOD and server.asked["once"] == 2 and left(target) == [NAME]
    target.unlink()
    manifests._read.cache_clear()
    manifest(one(f"{server.root}/twice"))
    with pytest.raises(FetchError) as caught:
        fetch("made")
    message = str(caught.value)
    assert SHA256 in message and hashlib.sha256(b"second").hexdigest() in message and "twice" in message
    assert server.root in message and str(target) in message
    assert server.asked["twice"] == 2 and left(target) == []


@pytest.mark.parametrize(
    ("answer", "message"), [((GOOD,), f"{len(GOOD) // 2} bytes read"), (404, "404"), (503, "503")], ids=str
)
def test_no_file_comes(answer: Any, message: str, server: Server, manifest: Callable[..., Path]) -> None:
    server.answers["a"] = [answer]
    target = manifest(one(f"{server.root}/a"))
    with pytest.raises(FetchError, match=message):
        fetch("made")
    assert left(target) == [] and find("made") is None


def test_addresses_are_tried_in_order(server: Server, manifest: Callable[..., Path]) -> None:
    server.answers |= {"wrong": [b"wrong"], "good": [GOOD], "never": [GOOD]}
    names = ("gone", "wrong", "good", "never")
    target = manifest(one(f"http://127.0.0.1:{closed_port()}/x", *(f"{server.root}/{name}" for name in names)))
    assert fetch("made").read_bytes() == GOOD and left(target) == [NAME]
    assert server.asked == {"gone": 1, "wrong": 2, "good": 1}


def test_no_network(manifest: Callable[..., Path]) -> None:
    root = f"127.0.0.1:{closed_port()}"
    target = manifest(one(f"http://{root}/a", f"http://{root}/b"))
    with pytest.raises(FetchError) as caught:
        fetch("made")
    message = str(caught.value)
    assert message.count(f"no connection to {root}; is there a network?") == 2
    assert f"Put it at {target}, or at made/{NAME}" in message and "AVREPRO_MIRROR" in message and left(target) == []


def test_a_cached_file_that_has_changed(manifest: Callable[..., Path]) -> None:
    target = manifest(one("http://a.org/a"))
    target.parent.mkdir(parents=True)
    target.write_bytes(b"changed")
    found = hashlib.sha256(b"changed").hexdigest()
    for call in (fetch, find):
        with pytest.raises(WrongHash, match=f"{NAME}: expected SHA-256 {SHA256}, found {found} .7 bytes"):
            call("made")
    checked = check("made")
    assert list(checked.corrupt) == [NAME] and checked.corrupt[NAME].expected.endswith(SHA256)
    assert target.read_bytes() == b"changed"  # what lies there is never removed


def test_no_such_source_or_file(manifest: Callable[..., Path]) -> None:
    manifest(one("http://a.org/a"), one("http://a.org/b", name="b"))
    with pytest.raises(ManifestError, match="there is no source 'nope', only made"):
        fetch("nope")
    with pytest.raises(ManifestError, match=rf"2 files \({NAME}, b\); which is meant by 'c'"):
        fetch("made", "c")
    with pytest.raises(ManifestError, match="which is meant by None"):
        find("made")


def test_all_files_of_a_source(server: Server, manifest: Callable[..., Path]) -> None:
    bodies = {f"folder {k}/{k}.bin": b"%d" % k * 100 for k in range(20)}
    server.answers = {f"{k}": [body] for k, body in enumerate(bodies.values())}
    files = [
        {"name": name, "addresses": [f"{server.root}/{k}"], "sha256": hashlib.sha256(body).hexdigest()}
        for k, (name, body) in enumerate(bodies.items())
    ]
    manifest(*files)
    paths = fetch_all("made", jobs=4)
    assert {name: path.read_bytes() for name, path in paths.items()} == bodies
    assert fetch_all("made") == paths and set(server.asked.values()) == {1}
    next(iter(paths.values())).unlink()
    assert whereabouts("made") == "partly" and check("made").missing == ["folder 0/0.bin"]


def test_files_without_an_address(server: Server, manifest: Callable[..., Path]) -> None:
    server.answers["a"] = [GOOD]
    files = [one(name="hand/1"), one(f"{server.root}/a"), one(name="hand/2")]
    target = manifest(*files, by_hand="Ask the author.")
    with pytest.raises(FetchError, match=r"hand/1 has no public address\. Ask the author\. Put it at .*hand/1"):
        fetch("made", "hand/1")
    with pytest.raises(FetchError, match=r"made/hand/1 \(of 2 such files the first\) has no public address"):
        fetch_all("made")
    assert find("made", NAME) is not None  # all others are there first
    target.parent.mkdir()
    shutil.copy(fetch("made", NAME), target)
    shutil.copy(target, target.with_name("2"))
    assert set(fetch_all("made")) == {"hand/1", NAME, "hand/2"}


def test_a_file_inside_an_archive(server: Server, manifest: Callable[..., Path]) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("top/data/a.bin", GOOD)
        archive.writestr("top/data/aa.bin", b"another")
    server.answers |= {"z.zip": [packed.getvalue()], "bad.zip": [b"no archive"]}
    asked = [(name, member) for name, member in (("bad.zip", "a.bin"), ("z.zip", "b.bin"), ("z.zip", "data/a.bin"))]
    target = manifest(
        *(
            one({"archive": f"{server.root}/{name}", "member": member}, name=f"{k}")
            for k, (name, member) in enumerate(asked)
        )
    )
    for k, expected in (("0", "not a zip archive"), ("1", "expected one b.bin")):
        with pytest.raises(FetchError, match=expected):
            fetch("made", k)
    assert fetch("made", "2").read_bytes() == GOOD and left(target) == ["2"]


def test_a_wheel_by_pip(manifest: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = tmp_path / "index" / "avrepro_made-1.2-py3-none-any.whl"
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in (
            ("METADATA", "Metadata-Version: 2.1\nName: avrepro-made\nVersion: 1.2\n"),
            ("WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"),
            ("RECORD", ""),
        ):
            archive.writestr(f"avrepro_made-1.2.dist-info/{name}", text)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    file = {"name": wheel.name, "addresses": [{"wheel": "avrepro-made==1.2", "file": wheel.name}], "sha256": digest}
    target = manifest(file)
    assert fetch("made") == target and target.read_bytes() == wheel.read_bytes() and left(target) == [wheel.name]
    target.unlink()
    wheel.unlink()
    with pytest.raises(FetchError, match=r"pip download avrepro-made==1.2: .*avrepro-made==1.2"):
        fetch("made")
    assert left(target) == []


def test_less_room_than_the_file_needs(server: Server, manifest: Callable[..., Path]) -> None:
    target = manifest(one(f"{server.root}/a", size=10**18))
    with pytest.raises(FetchError, match=r"no room for weights-0123.bin .*are free. Make room there.*AVREPRO_HOME"):
        fetch("made")
    assert not server.asked and left(target) == []


LIMITED = """
import resource, sys
from pathlib import Path
from avrepro import manifests
from avrepro.fetch import FetchError, fetch
manifests.FOLDER = Path(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    fetch("made")
except FetchError as error:
    print(error)
"""


def test_the_room_ends_on_the_way(server: Server, manifest: Callable[..., Path], tmp_path: Path) -> None:
    """The kernel refuses what is written past 10,000 bytes, as it does on a full disk."""
    server.answers["a"] = [GOOD]
    target = manifest(one(f"{server.root}/a"))
    words = [sys.executable, "-c", LIMITED, str(tmp_path / "data_manifests")]
    ran = subprocess.run(words, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert ran.stdout.startswith(f"no room for {NAME} (51.2 kB) in {target.parent}"), ran.stderr
    assert server.asked["a"] == 1 and left(target) == []


def test_a_cache_below_a_file(
    server: Server, manifest: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest(one(f"{server.root}/a"))
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("AVREPRO_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(FetchError, match=r"the cache cannot be written: .*file.home.*let AVREPRO_HOME name a folder"):
        fetch("made")
    assert not server.asked
