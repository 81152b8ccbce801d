"""Files fetched by manifest: from the mirror, the cache, a real server; never a wrong file under its final name."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from video_server import Loopback

from avrepro import manifests
from avrepro.fetch import FetchError, WrongHash, at_hand, check, fetch, fetch_all, find, whereabouts
from avrepro.manifests import ManifestError

NAME = "weights-0123.bin"
GOOD = bytes(range(256)) * 200  # 51,200 bytes
SHA256 = hashlib.sha256(GOOD).hexdigest()


class Server(Loopback):
    """A path answers from its list, the last one again and again: bytes, an error's status, or half of the bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: dict[str, list[bytes | int | tuple[bytes]]] = {}

    def answer(self, name: str) -> tuple[int, str, bytes, int]:
        answers = self.answers.get(name, [404])
        answer = answers[min(self.asked.count(name), len(answers)) - 1]
        if isinstance(answer, int):
            return answer, "text/plain", b"no", 2
        body = answer[0] if isinstance(answer, tuple) else answer
        return 200, "application/octet-stream", body, len(body) // (2 if isinstance(answer, tuple) else 1)


@pytest.fixture
def server() -> Iterator[Server]:
    started = Server()
    yield started
    started.close()


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


def test_from_the_network_once_and_then_from_the_cache(server: Server, manifest: Callable[..., Path]) -> None:
    server.answers["a"] = [GOOD]
    target = manifest(one(f"{server.root}/a"))
    assert find("made") is None and not at_hand("made") and whereabouts("made") == "no"
    assert fetch("made") == target and target.read_bytes() == GOOD and left(target) == [NAME]
    assert fetch("made", NAME) == find("made", NAME) == target and server.asked.count("a") == 1
    for names, message in ((["nope"], "there is no source 'nope', only made"), (["made", "c"], "is meant by 'c'")):
        with pytest.raises(ManifestError, match=message):
            fetch(*names)
    assert at_hand("made") and whereabouts("made") == "cache"


@pytest.mark.parametrize(
    "known", [{"sha256_prefix": SHA256[:8]}, {"sha1": hashlib.sha1(GOOD).hexdigest()}, {"unverifiable": "nobody says"}]
)
def test_other_ways_to_check(known: dict[str, Any], server: Server, manifest: Callable[..., Path]) -> None:
    server.answers["a"] = [GOOD]
    target = manifest(one(f"{server.root}/a", **{"sha256": "", **known}))
    assert fetch("made").read_bytes() == GOOD and left(target) == [NAME]
    server.answers["a"] = [GOOD[:-1]]
    target.unlink()
    with pytest.raises(FetchError, match="wrong both times"):
        fetch("made")
    assert left(target) == []


def test_from_the_mirror_first(
    server: Server, manifest: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answers["a"] = [GOOD]
    target = manifest(one(f"{server.root}/a"), mirror="other/place")
    mirrored = tmp_path / "mirror" / "other" / "place" / NAME
    monkeypatch.setenv("AVREPRO_MIRROR", str(tmp_path / "mirror"))
    assert fetch("made") == target and server.asked.count("a") == 1  # it is not in the mirror
    mirrored.parent.mkdir(parents=True)
    mirrored.write_bytes(GOOD)
    assert fetch("made") == find("made") == mirrored and whereabouts("made") == "mirror"


def test_addresses_are_tried_in_order_and_what_is_wrong_twice(server: Server, manifest: Callable[..., Path]) -> None:
    server.answers |= {"wrong": [b"wrong"], "once": [b"X" + GOOD[1:], GOOD], "never": [GOOD]}
    target = manifest(one(*(f"{server.root}/{name}" for name in ("gone", "wrong", "once", "never"))))
    assert fetch("made").read_bytes() == GOOD and left(target) == [NAME]
    assert server.asked == ["gone", "wrong", "wrong", "once", "once"]


def test_no_file_comes(server: Server, manifest: Callable[..., Path]) -> None:
    server.answers |= {"half": [(GOOD,)], "wrong": [b"first", b"second", GOOD]}
    root = "http://127.0.0.1:1"  # nobody listens
    target = manifest(one(f"{root}/a", *(f"{server.root}/{name}" for name in ("half", "gone", "wrong"))))
    with pytest.raises(FetchError) as caught:
        fetch("made")
    message = str(caught.value)
    found = hashlib.sha256(b"second").hexdigest()
    for words in (f"{root}/a: ", f"{len(GOOD) // 2} bytes read", "404", f"{SHA256}, found {found}", "AVREPRO_MIRROR"):
        assert words in message
    assert f"Put it at {target}, or at made/{NAME}" in message and left(target) == [] and find("made") is None


def test_a_cached_file_that_has_changed(manifest: Callable[..., Path]) -> None:
    target = manifest(one("http://a.org/a"))
    target.parent.mkdir(parents=True)
    target.write_bytes(b"changed")
    found = hashlib.sha256(b"changed").hexdigest()
    for call in (fetch, find):
        with pytest.raises(WrongHash, match=f"{NAME}: expected SHA-256 {SHA256}, found {found} .7 bytes"):
            call("made")
    assert list(check("made").corrupt) == [NAME]
    assert target.read_bytes() == b"changed"  # what lies there is never removed


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
    assert fetch_all("made") == paths and len(server.asked) == 20
    next(iter(paths.values())).unlink()
    assert whereabouts("made") == "partly" and check("made").missing == ["folder 0/0.bin"]


def test_files_without_an_address(manifest: Callable[..., Path]) -> None:
    target = manifest(one(name="hand/1"), by_hand="Ask the author.")
    with pytest.raises(FetchError, match=r"hand/1 has no public address\. Ask the author\. Put it at .*hand/1"):
        fetch("made", "hand/1")
    target.parent.mkdir(parents=True)
    target.write_bytes(GOOD)
    assert fetch("made") == target


def test_a_file_inside_an_archive(server: Server, manifest: Callable[..., Path]) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("top/data/a.bin", GOOD)
        archive.writestr("top/data/aa.bin", b"another")
    server.answers |= {"z.zip": [packed.getvalue()], "bad.zip": [b"no archive"]}
    asked = (("bad.zip", "a.bin"), ("z.zip", "b.bin"), ("z.zip", "data/a.bin"))
    members = [{"archive": f"{server.root}/{name}", "member": member} for name, member in asked]
    target = manifest(*(one(member, name=f"{k}") for k, member in enumerate(members)))
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


def test_nothing_can_be_written(
    server: Server, manifest: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest(one(f"{server.root}/a", size=10**18))
    with pytest.raises(FetchError, match=r"cannot be written: .* are free\. Make room"):
        fetch("made")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("AVREPRO_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(FetchError, match=r"file.home.* cannot be written: .*let AVREPRO_HOME name a folder"):
        fetch("made")
    assert not server.asked
