"""Servers on the loopback, and one that gives videos with known pictures and clicks to yt-dlp."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from chapters import one_track
from clip_files import flat

from avrepro.corpora.base import ListedClip
from avrepro.encode import write_clip

RATE = 16000  # Hz
FPS = 10
CLICKS = (3.25, 21.5)  # s
LENGTH = 30  # s, of the videos on the server
QUICK = {"first": 0.05, "longest": 0.2, "retries": 6}  # s


def numbered(seconds: float, fps: int = FPS) -> np.ndarray:
    """Flat pictures, each with its number as a grey level, modulo 26 so that steps of 8 survive a codec."""
    return flat(20 + 8 * (np.arange(round(seconds * fps)) % 26))


def numbers(frames: np.ndarray) -> np.ndarray:
    return np.rint((frames.mean(axis=(1, 2, 3)) - 20) / 8).astype(int)


def clicking(seconds: float) -> np.ndarray:
    waveform = np.zeros(round(seconds * RATE), np.float32)
    for click in CLICKS:
        first = round(click * RATE)
        waveform[first : first + 16] = 0.9
    return waveform


def streams_apart(kinds: tuple[str, ...]) -> str:
    """A DASH manifest of a video whose pictures and sound are files apart, as YouTube has them."""
    about = {
        "video": ("silent", 'codecs="avc1.42c01e" width="64" height="48"'),
        "audio": ("blind", 'codecs="mp4a.40.2"'),
    }
    sets = "".join(
        f'<AdaptationSet mimeType="{kind}/mp4"><Representation id="{kind}" bandwidth="9000" {about[kind][1]}>'
        f"<BaseURL>/{about[kind][0]}/</BaseURL></Representation></AdaptationSet>"
        for kind in kinds
    )
    return (
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        f'mediaPresentationDuration="PT{LENGTH}S" profiles="urn:mpeg:dash:profile:isoff-on-demand:2011">'
        f"<Period>{sets}</Period></MPD>"
    )


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    write_clip(folder / "good.mp4", numbered(LENGTH), FPS, clicking(LENGTH), RATE)
    write_clip(folder / "short.mp4", numbered(8), FPS, clicking(LENGTH)[: 8 * RATE], RATE)
    for kind, name in (("video", "silent"), ("audio", "blind")):
        one_track(folder / "good.mp4", kind, folder / f"{name}.mp4")
    for name, kinds in (("apart", ("video", "audio")), ("mute", ("video",))):
        (folder / f"{name}.mpd").write_text(streams_apart(kinds))
    whole = (folder / "good.mp4").read_bytes()
    (folder / "torn.mp4").write_bytes(whole[: len(whole) // 2])
    return folder


class Loopback(ABC):
    """A server on the loopback: what :meth:`answer` says of /name/..."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.cookies: set[str | None] = set()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.do_GET()

            def do_GET(self) -> None:
                name = self.path.strip("/").split("/")[0]
                server.asked.append(name)
                server.cookies.add(self.headers["Cookie"])
                code, kind, body, sent = server.answer(name)
                self.send_response(code)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body[:sent])

            def log_message(self, *words: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.root = f"http://127.0.0.1:{self.http.server_port}"
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()

    @abstractmethod
    def answer(self, name: str) -> tuple[int, str, bytes, int]:
        """Status, type, body, and how many bytes of it are sent."""

    def close(self) -> None:
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()


class Server(Loopback):
    """/name gives name.mp4 (or .mpd) of a folder, or what ``answers`` says of the name."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.answers: dict[str, list[int]] = {}  # name -> statuses of the next answers; the file when used up

    def answer(self, name: str) -> tuple[int, str, bytes, int]:
        left = self.answers.get(name)
        code = left.pop(0) if left else 200
        path = next(self.folder.glob(f"{name}.m*"), None)
        if code != 200 or path is None:
            return 404 if code == 200 else code, "text/plain", b"no", 2
        body = path.read_bytes()
        return 200, "application/dash+xml" if path.suffix == ".mpd" else "video/mp4", body, len(body)

    def address(self, clip: ListedClip) -> str:
        return f"{self.root}/{clip.video}/watch"


@pytest.fixture
def server(videos: Path) -> Iterator[Server]:
    started = Server(videos)
    yield started
    started.close()


def clip(video: str, start: float = 20.0, end: float = 23.0, *labels: str, split: str = "test") -> ListedClip:
    return ListedClip(f"{video}_{start:.3f}_{end:.3f}", video, start, end, split, labels)
