"""Clips of a list: fetched by the real yt-dlp from a real server on the loopback, or found in a folder."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import av
import numpy as np
import pandas as pd
import pytest
from chapters import one_track

from avrepro.corpora.base import CorpusError, ListedClip
from avrepro.corpora.download import STATUSES, collect, corpus_of, missing_by_class, statuses
from avrepro.corpora.youtube import Pace, status_of, watch_address
from avrepro.cutting import Unusable, cut
from avrepro.encode import write_clip
from avrepro.media import packets_of, read_audio, read_frames, stream_digest

RATE = 16000  # Hz
FPS = 10
CLICKS = (3.25, 21.5)  # s
LENGTH = 30  # s, of the videos on the server
QUICK = {"first": 0.05, "longest": 0.2, "retries": 6}  # s


def _numbered(seconds: float, fps: int = FPS) -> np.ndarray:
    """Flat pictures, each with its number as a grey level, modulo 26 so that steps of 8 survive a codec."""
    levels = 20 + 8 * (np.arange(round(seconds * fps)) % 26)
    return np.broadcast_to(levels.astype(np.uint8)[:, None, None, None], (len(levels), 48, 64, 3)).copy()


def _numbers(frames: np.ndarray) -> np.ndarray:
    return np.rint((frames.mean(axis=(1, 2, 3)) - 20) / 8).astype(int)


def _clicking(seconds: float) -> np.ndarray:
    waveform = np.zeros(round(seconds * RATE), np.float32)
    for click in CLICKS:
        first = round(click * RATE)
        waveform[first : first + 16] = 0.9
    return waveform


def _streams_apart(kinds: tuple[str, ...]) -> str:
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
    write_clip(folder / "good.mp4", _numbered(LENGTH), FPS, _clicking(LENGTH), RATE)
    write_clip(folder / "short.mp4", _numbered(8), FPS, _clicking(LENGTH)[: 8 * RATE], RATE)
    one_track(folder / "good.mp4", "video", folder / "silent.mp4")
    one_track(folder / "good.mp4", "audio", folder / "blind.mp4")
    for name, kinds in (("apart", ("video", "audio")), ("mute", ("video",))):
        (folder / f"{name}.mpd").write_text(_streams_apart(kinds))
    whole = (folder / "good.mp4").read_bytes()
    (folder / "torn.mp4").write_bytes(whole[: len(whole) // 2])
    return folder


class Server:
    """A server on the loopback: /name gives name.mp4 (or .mpd) of a folder, or what ``answers`` says of the name."""

    def __init__(self, folder: Path) -> None:
        self.answers: dict[str, list[int]] = {}  # name -> statuses of the next answers; the file when used up
        self.asked: list[str] = []
        self.delay = 0.0  # s, before each answer
        self.cookies: set[str | None] = set()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.do_GET()

            def do_GET(self) -> None:
                name = self.path.strip("/").split("/")[0]
                server.asked.append(name)
                server.cookies.add(self.headers["Cookie"])
                time.sleep(server.delay)
                left = server.answers.get(name)
                code = left.pop(0) if left else 200
                path = next(folder.glob(f"{name}.m*"), folder / "none")
                if code == 200 and not path.is_file():
                    code = 404
                kind = "application/dash+xml" if path.suffix == ".mpd" else "video/mp4"
                body = path.read_bytes() if code == 200 else b"no"
                self.send_response(code)
                self.send_header("Content-Type", kind if code == 200 else "text/plain")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            def log_message(self, *words: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()

    def address(self, clip: ListedClip) -> str:
        return f"http://127.0.0.1:{self.http.server_port}/{clip.video}/watch"


@pytest.fixture
def server(videos: Path) -> Iterator[Server]:
    started = Server(videos)
    yield started
    started.http.shutdown()
    started.thread.join()
    started.http.server_close()


def clip(video: str, start: float = 20.0, end: float = 23.0, *labels: str, split: str = "test") -> ListedClip:
    return ListedClip(f"{video}_{start:.3f}_{end:.3f}", video, start, end, split, labels)


def by_video(table: pd.DataFrame) -> dict[str, str]:
    return {row.id.split("_")[0]: row.status for row in table.itertuples()}


@pytest.mark.parametrize(
    ("start", "end"), [(0.0, 10.0), (2.0, 5.0), (20.0, 30.0), (20.04, 27.96)], ids=["first", "early", "last", "between"]
)
def test_a_cut_has_the_listed_seconds(videos: Path, tmp_path: Path, start: float, end: float) -> None:
    cut(videos / "good.mp4", tmp_path / "cut.mp4", start, end)
    frames, times = read_frames(tmp_path / "cut.mp4", fps=FPS)
    # what was on show at start + k / fps is on show at k / fps
    expected = np.floor((start + np.arange(len(frames)) / FPS) * FPS + 1e-6).astype(int) % 26
    np.testing.assert_array_equal(_numbers(frames), expected)
    assert len(frames) == pytest.approx((end - start) * FPS, abs=1)
    assert times[0] == 0
    waveform = read_audio(tmp_path / "cut.mp4")
    assert len(waveform) / RATE == pytest.approx(end - start, abs=1024 / RATE)  # AAC's blocks
    heard = [click - start for click in CLICKS if start <= click < end]
    loud = np.flatnonzero(np.abs(waveform) > 0.3) / RATE
    assert len(heard) == (1 if end - start < 11 else 2)
    assert loud.min() == pytest.approx(heard[0], abs=0.002)
    assert loud.max() == pytest.approx(heard[-1], abs=0.002)


def test_what_lies_before_a_cut_is_not_read(videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = 0

    def counting(container: Any, *streams: Any) -> Iterator[Any]:
        nonlocal read
        for packet in packets_of(container, *streams):
            read += 1
            yield packet

    monkeypatch.setattr("avrepro.cutting.packets_of", counting)
    cut(videos / "good.mp4", tmp_path / "cut.mp4", 26.0, 28.0)  # there are key frames at 0 and 25 s
    assert 2 * FPS + 2 * RATE / 1024 <= read <= 5 * (FPS + RATE / 1024)


@pytest.mark.parametrize("name", ["-1hDIl9Udkw_30.000_40.000.mp4", "2j4m7JsNtNA_30.000_40.000.mp4"])
def test_a_cut_of_a_real_recording_is_heard_and_seen_as_it_was(mirror: Path, tmp_path: Path, name: str) -> None:
    source, start, seconds = mirror / "real_clips" / name, 3.2, 5.0
    cut(source, tmp_path / "cut.mp4", start, start + seconds)
    heard, whole = read_audio(tmp_path / "cut.mp4", duration=seconds), read_audio(source, 16000)
    there = whole[round(start * 16000) :][: len(heard)]
    assert np.corrcoef(heard, there)[0, 1] > 0.999
    times = np.arange(0.03, seconds - 0.1, 0.21)
    seen = read_frames(tmp_path / "cut.mp4", times)[0].astype(float)
    difference = seen - read_frames(source, times + start)[0]
    assert np.abs(difference).mean() < 4  # of 255; and no colour shifted
    assert np.abs(difference.mean(axis=(0, 1, 2))).max() < 1


@pytest.mark.parametrize(
    ("suffix", "video", "sound", "form", "rate", "layout", "fps"),
    [
        ("mp4", "libx264", "aac", "fltp", 44100, "stereo", Fraction(30000, 1001)),
        ("webm", "libvpx", "libopus", "flt", 48000, "stereo", Fraction(25)),
        ("mkv", "mpeg4", "pcm_s16le", "s16", 6000, "mono", Fraction(12)),
    ],
)
def test_cuts_of_other_formats(
    tmp_path: Path, suffix: str, video: str, sound: str, form: str, rate: int, layout: str, fps: Fraction
) -> None:
    source, start, end, click, flash = tmp_path / f"video.{suffix}", 11.3, 15.3, 12.4, 13.7
    with av.open(str(source), "w") as container:
        pictures: Any = container.add_stream(video, rate=fps)
        pictures.width, pictures.height, pictures.pix_fmt, pictures.bit_rate = 64, 48, "yuv420p", 500_000
        heard: Any = container.add_stream(sound, rate=rate, layout=layout, format=form)
        for index in range(int(20 * fps)):
            level = 235 if index / fps >= flash else 40
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), level, np.uint8), format="rgb24")
            frame.pts, frame.time_base = index, 1 / fps
            container.mux(pictures.encode(frame))
        waveform = np.zeros(20 * rate, np.float32)
        waveform[round(click * rate) :] = 0.5 * np.sin(np.arange(len(waveform) - round(click * rate)) * 0.9)
        channels = 2 if layout == "stereo" else 1
        values = np.tile(waveform, (channels, 1))
        samples = values if form == "fltp" else values.T.reshape(1, -1)
        samples = (samples * 32767).astype(np.int16) if form == "s16" else np.ascontiguousarray(samples)
        block = av.AudioFrame.from_ndarray(samples, form, layout)
        block.sample_rate, block.pts, block.time_base = rate, 0, Fraction(1, rate)
        fifo = av.AudioFifo()
        fifo.write(block)
        for piece in fifo.read_many(960 if sound == "libopus" else 1024, partial=True):
            container.mux(heard.encode(piece))
        container.mux(pictures.encode(None))
        container.mux(heard.encode(None))
    cut(source, tmp_path / "cut.mp4", start, end)
    sounding = np.abs(read_audio(tmp_path / "cut.mp4", duration=end - start)) > 0.1
    out_rate = len(sounding) / (end - start)
    assert np.flatnonzero(sounding)[0] / out_rate == pytest.approx(click - start, abs=0.01)
    assert sounding[-int(0.05 * out_rate) :].any()
    frames, times = read_frames(tmp_path / "cut.mp4", fps=50)
    bright = frames.mean(axis=(1, 2, 3)) > 130
    assert times[bright][0] == pytest.approx(flash - start, abs=float(1 / fps) + 0.002)
    assert len(frames) / 50 == pytest.approx(end - start, abs=0.04)


def test_what_becomes_of_each_clip_is_a_row(server: Server, tmp_path: Path) -> None:
    server.answers = {"forbidden": [403] * 99}
    listed = [clip(name) for name in ("good", "-good", "gone", "forbidden", "silent", "blind", "short", "torn")]
    listed[1] = ListedClip("-good_2.000_5.000", "good", 2.0, 5.0, "train", ())
    table = collect(listed, tmp_path / "clips", address=server.address, pace=Pace(**QUICK), jobs=3)
    assert list(table["id"]) == [one.id for one in listed]
    assert dict(zip(table["id"].str.split("_").str[0], table["status"], strict=True)) == {
        "good": "ok",
        "-good": "ok",
        "gone": "unavailable",
        "forbidden": "error",
        "silent": "no sound track",
        "blind": "no picture",
        "short": "too short",
        "torn": "error",
    }
    row = table.set_index("id")
    assert "404" in row.loc[listed[2].id, "reason"]
    assert "403" in row.loc[listed[3].id, "reason"]
    assert "8.0 s" in row.loc[listed[6].id, "reason"]
    assert "truncated" in row.loc[listed[7].id, "reason"]
    left = sorted(path.name for path in (tmp_path / "clips").iterdir() if path.name != ".lock")
    assert left == ["-good_2.000_5.000.mp4", "good_20.000_23.000.mp4", "status.jsonl"]  # no whole video stays
    for name, start in (("good_20.000_23.000", 20.0), ("-good_2.000_5.000", 2.0)):
        path = tmp_path / "clips" / row.loc[name, "file"]
        assert row.loc[name, "size"] == path.stat().st_size
        assert row.loc[name, "duration"] == pytest.approx(3.0, abs=0.1)
        assert _numbers(read_frames(path, times=[0.0])[0]) == [int(start * FPS) % 26]


def test_sound_and_pictures_that_come_apart(server: Server, tmp_path: Path) -> None:
    listed = [clip("apart"), clip("mute")]
    table = collect(listed, tmp_path, address=server.address, pace=Pace(**QUICK))
    assert list(table["status"]) == ["ok", "no sound track"]
    path = tmp_path / table["file"][0]
    assert _numbers(read_frames(path, times=[0.0])[0]) == [200 % 26]
    click = np.flatnonzero(np.abs(read_audio(path)) > 0.3)[0] / RATE
    assert click == pytest.approx(CLICKS[1] - 20.0, abs=0.002)


def test_a_rerun_does_what_is_not_final(server: Server, tmp_path: Path) -> None:
    listed = [clip(name) for name in ("good", "gone", "silent", "short", "later", "torn")]
    server.answers = {"later": [403] * 4}
    fetch = lambda **more: collect(listed, tmp_path, address=server.address, pace=Pace(**QUICK), **more)  # noqa: E731
    assert by_video(fetch())["later"] == "error"
    server.asked.clear()
    fetch()
    assert set(server.asked) == {"later", "torn"}
    server.asked.clear()
    fetch(retry=True)
    assert set(server.asked) == {"gone", "silent", "short", "later", "torn"}
    server.asked.clear()
    with (tmp_path / f"{listed[0].id}.mp4").open("ab") as file:  # another size than was recorded
        file.write(b"0")
    assert by_video(statuses(listed, tmp_path))["good"] == "not fetched"
    assert by_video(fetch())["good"] == "ok"
    assert "good" in server.asked


@pytest.mark.parametrize("first", [[], [200]], ids=["page", "download"])
def test_a_rate_limit_pauses_everybody_and_fails_no_clip(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], first: list[int]
) -> None:
    server.answers = {"good": [*first, 429, 429, 429]}
    pace = Pace(first=0.1, longest=0.25, retries=6)
    began = time.monotonic()
    table = collect([clip("good")], tmp_path, address=server.address, pace=pace)
    assert list(table["status"]) == ["ok"]
    assert pace.pauses == [0.1, 0.2, 0.25]  # twice as long each time, up to the cap
    assert time.monotonic() - began >= sum(pace.pauses)
    assert server.asked.count("good") >= 4 + len(first)
    assert "limits the rate" in capsys.readouterr().err


def test_a_rate_limit_that_stays_is_an_error_in_the_end(server: Server, tmp_path: Path) -> None:
    server.answers = {"good": [429] * 99}
    pace = Pace(first=0.01, longest=0.02, retries=3)
    table = collect([clip("good")], tmp_path, address=server.address, pace=pace)
    assert list(table["status"]) == ["error"]
    assert "rate-limited" in table["reason"][0] and "429" in table["reason"][0]
    assert len(pace.pauses) == 4
    assert server.asked == ["good"] * 4


def test_a_full_disk_ends_the_run_and_a_bad_clip_does_not(server: Server, tmp_path: Path) -> None:
    server.answers = {"short": [429] * 99}

    def address(one: ListedClip) -> str:
        if one.video == "odd":
            raise ValueError("no such thing")
        if one.video == "full":
            while "short" not in server.asked:
                time.sleep(0.01)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return server.address(one)

    listed = [clip("odd"), clip("good"), clip("full"), clip("short")]
    with pytest.raises(CorpusError, match=r"No space left on device; make room .* run the same command again"):
        collect(listed, tmp_path, address=address, pace=Pace(first=1000, longest=1000), jobs=2)  # ends nevertheless
    table = statuses(listed, tmp_path)
    assert by_video(table) == {"odd": "error", "good": "ok", "full": "not fetched", "short": "not fetched"}
    assert table["reason"][0] == "ValueError: no such thing"


def test_pictures_that_end_before_the_clip(tmp_path: Path) -> None:
    write_clip(tmp_path / "video.mp4", _numbered(8), FPS, _clicking(LENGTH), RATE)
    with pytest.raises(Unusable, match=r"pictures end after 0\.0 s"):
        cut(tmp_path / "video.mp4", tmp_path / "cut.mp4", 20.0, 23.0)
    with pytest.raises(Unusable, match=r"pictures end after 2\.0 s"):
        cut(tmp_path / "video.mp4", tmp_path / "cut.mp4", 6.0, 16.0)


def test_requests_under_way_when_the_limit_comes_pause_once() -> None:
    pace = Pace(first=0.05, longest=10, retries=1)
    asked = [pace.wait() for _ in range(4)]  # four workers
    for moment in asked:
        pace.limited(moment)
    assert pace.pauses == [0.05]
    again = pace.wait()
    pace.limited(again)
    assert pace.pauses == [0.05, 0.1]
    pace.passed(asked[0])  # an answer from before the limit says nothing
    pace.limited(pace.wait())
    pace.passed(pace.wait())
    pace.limited(pace.wait())
    assert pace.pauses == [0.05, 0.1, 0.2, 0.05]


SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from test_download import QUICK, clip, many
from avrepro.corpora.download import collect
from avrepro.corpora.youtube import Pace
place = lambda one: f"http://127.0.0.1:{sys.argv[1]}/{one.video}/watch"
collect(many(), Path(sys.argv[2]), address=place, jobs=2, pace=Pace(**QUICK))
"""


def many() -> list[ListedClip]:
    return [clip(("good", "good", "gone", "silent")[index % 4], index, index + 2.0) for index in range(20)]


def findings(folder: Path) -> pd.DataFrame:
    return statuses(many(), folder).drop(columns=["time"])


def test_killed_and_resumed_is_like_never_killed(server: Server, tmp_path: Path) -> None:
    server.delay = 0.02
    arguments = [str(server.http.server_port), str(tmp_path / "killed"), str(Path(__file__).parent)]
    status = tmp_path / "killed" / "status.jsonl"
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, *arguments], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not (status.is_file() and status.read_bytes().count(b"\n") >= 6):
            assert process.poll() is None and time.monotonic() < deadline, "the run ended before it could be killed"
            time.sleep(0.005)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = status.read_bytes().count(b"\n")
    assert 6 <= done < 20
    with status.open("ab") as file:  # a kill in the middle of a row
        file.write(b'{"id": "good_0.000_2.000", "spl')
    (tmp_path / "killed" / ".source-old").mkdir(exist_ok=True)
    assert (findings(tmp_path / "killed")["status"] == "not fetched").sum() == 20 - done

    server.asked.clear()
    settled = {one.id for one in many()} - set(findings(tmp_path / "killed").query("status == 'not fetched'")["id"])
    subprocess.run([sys.executable, "-c", SCRIPT, *arguments], check=True, capture_output=True)
    assert len(status.read_text().splitlines()) == 20  # each clip once: what was settled was not done again
    assert len(settled) == done
    collect(many(), tmp_path / "whole", address=server.address, jobs=2, pace=Pace(**QUICK))
    pd.testing.assert_frame_equal(findings(tmp_path / "killed"), findings(tmp_path / "whole"))
    assert set(findings(tmp_path / "whole")["status"]) == {"ok", "unavailable", "no sound track"}
    names = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert sorted(path.name for path in (tmp_path / "killed").iterdir()) == names
    for path in (tmp_path / "whole").glob("*.mp4"):
        for kind in ("audio", "video"):
            assert stream_digest(path, kind) == stream_digest(tmp_path / "killed" / path.name, kind)


def test_two_runs_at_once(server: Server, tmp_path: Path) -> None:
    server.delay = 0.05
    command = [sys.executable, "-c", SCRIPT, str(server.http.server_port), str(tmp_path), str(Path(__file__).parent)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        while not (tmp_path / "status.jsonl").is_file():
            assert process.poll() is None
            time.sleep(0.01)
        with pytest.raises(CorpusError, match="another run"):
            collect(many(), tmp_path, address=server.address)
    finally:
        process.wait(120)
    assert len((tmp_path / "status.jsonl").read_text().splitlines()) == 20


def test_a_spoilt_row_is_named(tmp_path: Path) -> None:
    (tmp_path / "status.jsonl").write_text('{"id": 1\n{"id": "a"}\n')
    with pytest.raises(CorpusError, match=r"status\.jsonl, line 1"):
        statuses([clip("good")], tmp_path)


def test_cookies_go_to_the_server_and_their_file_stays_as_it_is(server: Server, tmp_path: Path) -> None:
    cookies = tmp_path / "cookies.txt"
    text = "# Netscape HTTP Cookie File\n127.0.0.1\tFALSE\t/\tFALSE\t0\tsession\tsecret\n"
    cookies.write_text(text)
    folder = tmp_path / "clips"
    table = collect([clip("good")], folder, address=server.address, cookies=cookies, pace=Pace(**QUICK))
    assert list(table["status"]) == ["ok"]
    assert server.cookies == {"session=secret"}
    assert cookies.read_text() == text


SAID = {  # yt-dlp's error texts, as its users report them
    "private": [
        "[youtube] M7mKMWjAxG8: Private video. Sign in if you've been granted access to this video",
        "[youtube] x: Video unavailable. This video is private",
    ],
    "unavailable": [
        "[youtube] x: Video unavailable",
        "[youtube] x: Video unavailable. This video is not available",
        "[youtube] x: Video unavailable. This video has been removed by the uploader",
        "[youtube] x: This video has been removed for violating YouTube's Terms of Service",
        "[youtube] x: Video unavailable. This video is no longer available because the YouTube account associated "
        "with this video has been terminated.",
        "[youtube] x: This video is no longer available because the uploader has closed their YouTube account.",
        "[youtube] x: Video unavailable. This video is no longer available due to a copyright claim by WMG.",
        "[youtube] x: Sign in to confirm your age. This video may be inappropriate for some users. Use "
        "--cookies-from-browser or --cookies for the authentication.",
        "[youtube] x: The uploader has not made this video available in your country. This video is available in CA. "
        "You might want to use a VPN or a proxy server (with --proxy) to workaround.",
        "[youtube] x: Video unavailable. This video contains content from SME, who has blocked it in your country on "
        "copyright grounds",
        "[youtube] x: Join this channel to get access to members-only content like this video, and other exclusive "
        "perks.",
        "[youtube] x: This live stream recording is not available.",
        "[generic] Unable to download webpage: HTTP Error 404: Not Found (caused by <HTTPError 404: Not Found>)",
    ],
    "limited": [
        "[youtube] x: Video unavailable. This content isn't available, try again later. The current session has been "
        "rate-limited by YouTube for up to an hour. It is recommended to use `-t sleep` to add a delay",
        "[youtube] x: Sign in to confirm you\u2019re not a bot. Use --cookies-from-browser or --cookies for the "
        "authentication.",
        "[youtube] x: Sign in to confirm you're not a bot",
        "[youtube] Unable to download webpage: HTTP Error 429: Too Many Requests (caused by <HTTPError 429>)",
        "[youtube] x: Video unavailable. YouTube is requiring a captcha challenge before playback",
    ],
    "error": [
        "unable to download video data: HTTP Error 403: Forbidden",
        "[youtube] x: Requested format is not available. Use --list-formats for a list of available formats",
        "[youtube] x: Failed to extract any player response; please report this issue",
        "[youtube] x: This live event will begin in 2 hours.",
        "Unable to download webpage: <urlopen error [Errno 110] Connection timed out>",
        "Unable to download webpage: The TLS connection was non-properly terminated.",
        "The downloaded file is empty",
    ],
}


@pytest.mark.parametrize(("status", "text"), [(status, text) for status in SAID for text in SAID[status]])
def test_what_yt_dlp_says(status: str, text: str) -> None:
    assert status_of(f"ERROR: {text}") == status


def test_addresses_are_safe() -> None:
    from yt_dlp.extractor.youtube import YoutubeIE

    assert watch_address(clip("-5QrBL6MzLg")) == "https://www.youtube.com/watch?v=-5QrBL6MzLg"
    assert YoutubeIE.extract_id(watch_address(clip("-5QrBL6MzLg"))) == "-5QrBL6MzLg"
    assert watch_address(clip("a&b=c d")).endswith("?v=a%26b%3Dc%20d")


def test_without_yt_dlp(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['yt_dlp'] = None; sys.path.insert(0, sys.argv[2])\n"
        "from pathlib import Path; from test_download import clip; from avrepro.corpora.download import collect\n"
        "collect([clip('good')], Path(sys.argv[1]))"
    )
    command = [sys.executable, "-c", code, str(tmp_path), str(Path(__file__).parent)]
    ended = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    assert "CorpusError: yt-dlp is not installed" in ended.stderr
    assert "pip install" in ended.stderr


@pytest.fixture
def held(videos: Path, tmp_path: Path) -> Callable[..., Path]:
    """A file of a number of seconds under a name, in a folder of clips that somebody holds."""

    def make(name: str, seconds: float = 3, source: str = "") -> Path:
        path = tmp_path / "held" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if source:
            path.write_bytes((videos / source).read_bytes())
        else:
            write_clip(path, _numbered(seconds), FPS, _clicking(LENGTH)[: round(seconds * RATE)], RATE)
        return path

    return make


def test_clips_that_somebody_holds(held: Callable[..., Path], tmp_path: Path) -> None:
    names = {
        "-aaaaaaaaaa": "-aaaaaaaaaa_20.000_23.000.mp4",
        "bbbbbbbbbbb": "Ybbbbbbbbbbb_20.000.mp4",
        "ccccccccccc": "train/Yccccccccccc_20.000_23.000.MKV",
        "ddddddddddd": "ddddddddddd.mp4",
        "eeeeeeeeeee": "eeeeeeeeeee.mp4",
        "fffffffffff": "fffffffffff_20.000_23.000.mp4",
        "ggggggggggg": "ggggggggggg.mp4",
        "hhhhhhhhhhh": "hhhhhhhhhhh_20.000_23.000.mp4",
        "iiiiiiiiiii": "iiiiiiiiiii_20.000_23.000.mp4",
        "kkkkkkkkkkk": "kkkkkkkkkkk.txt",
    }
    wrong = {"fffffffffff": "silent.mp4", "ggggggggggg": "good.mp4", "hhhhhhhhhhh": "torn.mp4"}
    for video, name in names.items():
        held(name, 1.5 if video == "iiiiiiiiiii" else 3, source=wrong.get(video, ""))
    listed = [clip(video) for video in names] + [clip("lllllllllll"), clip("eeeeeeeeeee", 0.0, 3.0)]
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in (tmp_path / "held").rglob("*.*")}
    table = collect(listed, tmp_path / "status", media=tmp_path / "held").set_index("id")
    assert list(table["status"]) == [
        *["ok"] * 4,
        "not fetched",  # which of the two clips of e it is, nothing says
        "no sound track",
        "error",  # the whole video
        "error",
        "too short",
        *["not fetched"] * 3,
    ]
    assert "whole video" in table.loc["ggggggggggg_20.000_23.000", "reason"]
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in before} == before
    for video in list(names)[:4]:
        assert table.loc[f"{video}_20.000_23.000", "file"] == str(tmp_path / "held" / names[video])
    rows = (tmp_path / "status" / "status.jsonl").read_text().splitlines()
    collect(listed, tmp_path / "status", media=tmp_path / "held")
    again = (tmp_path / "status" / "status.jsonl").read_text().splitlines()[len(rows) :]
    assert sorted(json.loads(row)["status"] for row in again) == ["error", "error", "no sound track", "too short"]


def test_a_bad_file_that_is_held_does_not_stop_the_download(
    held: Callable[..., Path], server: Server, tmp_path: Path
) -> None:
    held("good_20.000_23.000.mp4", source="silent.mp4")
    table = collect([clip("good")], tmp_path / "clips", media=tmp_path / "held")
    assert list(table["status"]) == ["no sound track"]
    table = collect([clip("good")], tmp_path / "clips", address=server.address, pace=Pace(**QUICK))
    assert list(table["status"]) == ["ok"]


def test_real_recordings_by_name(mirror: Path, tmp_path: Path) -> None:
    names = pd.read_csv(mirror / "real_clips" / "labels.csv")["clip"]
    listed = []
    for name in names:
        parts = Path(name).stem[12:].split("_")
        start = float(parts[0])
        listed.append(clip(name[:11], start, start + 10))
    table = collect(listed, tmp_path, media=mirror / "real_clips")
    assert list(table["status"]) == ["ok"] * len(names)
    assert [Path(file).name for file in table["file"]] == list(names)


CLASSES = ("Car", "Train")


def test_the_corpus_of_what_is_there(server: Server, tmp_path: Path) -> None:
    listed = [
        clip("good", 20.0, 23.0, "Train"),
        clip("good", 2.0, 5.0, "Car", "Train", split="train"),
        clip("gone", 0.0, 3.0, "Car"),
    ]
    never = clip("other", 0.0, 3.0, "Car")
    table = collect(listed, tmp_path, address=server.address, pace=Pace(**QUICK))
    corpus = corpus_of("dcase2017", CLASSES, [*listed, never], tmp_path)
    assert {one.id for one in corpus.clips} == {listed[0].id, listed[1].id}
    np.testing.assert_array_equal(corpus.split("test").targets(), [[False, True]])
    assert all(one.path.is_file() for one in corpus.clips)
    reasons = {one.id: one.reason for one in corpus.missing}
    assert reasons[listed[2].id].startswith("unavailable: ") and "404" in reasons[listed[2].id]
    assert "avrepro data clips" in reasons[never.id]
    counted = missing_by_class(CLASSES, [*listed, never], table)
    assert list(counted.columns) == ["listed", *STATUSES, "not fetched"]
    assert counted.loc["Car"].to_dict() == {
        **dict.fromkeys(STATUSES, 0), "listed": 3, "ok": 1, "unavailable": 1, "not fetched": 1,
    }  # fmt: skip
    assert counted.loc["Train", ["listed", "ok"]].to_list() == [2, 2]
    assert (counted.drop(columns="listed").sum(axis=1) == counted["listed"]).all()

    held_out = [replace(one, split="validation") for one in listed]
    assert set(statuses(held_out, tmp_path)["split"]) == {"validation"}
    assert {one.split for one in corpus_of("dcase2017", CLASSES, held_out, tmp_path).clips} == {"validation"}
    digests = {
        corpus.digest,
        corpus_of("dcase2017", CLASSES, listed, tmp_path).digest,
        corpus_of("dcase2017", CLASSES[::-1], [*listed, never], tmp_path).digest,
        corpus_of("dcase2017", CLASSES, [clip("good", 20.0, 23.0, "Car"), *listed[1:], never], tmp_path).digest,
    }
    assert len(digests) == 4
    assert corpus_of("dcase2017", CLASSES, [never, *listed[::-1]], tmp_path).digest == corpus.digest
    (tmp_path / f"{listed[0].id}.mp4").unlink()
    poorer = corpus_of("dcase2017", CLASSES, [*listed, never], tmp_path)
    assert [one.id for one in poorer.clips] == [listed[1].id]
    assert "is gone" in {one.id: one.reason for one in poorer.missing}[listed[0].id]
    assert poorer.digest != corpus.digest


def test_a_corpus_of_clips_that_somebody_holds(held: Callable[..., Path], tmp_path: Path) -> None:
    path = held("Yaaaaaaaaaaa_20.000_23.000.mp4")
    listed = [clip("aaaaaaaaaaa", 20.0, 23.0, "Car"), clip("bbbbbbbbbbb", 20.0, 23.0, "Car")]
    corpus = corpus_of("dcase2017", CLASSES, listed, tmp_path / "status", media=tmp_path / "held")
    assert [one.path for one in corpus.clips] == [path]
    assert [one.id for one in corpus.missing] == [listed[1].id]


def test_lists_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="listed twice"):
        collect([clip("good"), clip("good")], tmp_path)
    with pytest.raises(CorpusError, match="name of a file"):
        collect([ListedClip("../etc", "good", 0.0, 1.0, "test", ())], tmp_path)
    with pytest.raises(CorpusError, match="not a folder"):
        collect([clip("good")], tmp_path, media=tmp_path / "nowhere")
