"""Clips of a list, fetched by the real yt-dlp from a real server on the loopback; runs that are killed or disturbed."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import video_server
from video_server import CLICKS, FPS, QUICK, RATE, Server, clip, numbers

from avrepro.corpora.base import CorpusError, ListedClip
from avrepro.corpora.download import collect, statuses
from avrepro.corpora.youtube import RateLimiter
from avrepro.media import read_audio, read_frames, stream_digest

server, videos = video_server.server, video_server.videos


def by_video(table: pd.DataFrame) -> dict[str, str]:
    return {row.id.split("_")[0]: row.status for row in table.itertuples()}


def test_what_becomes_of_each_clip_is_a_row(server: Server, tmp_path: Path) -> None:
    server.answers = {"forbidden": [403] * 99}
    listed = [clip(name) for name in ("good", "-good", "gone", "forbidden", "silent", "blind", "short", "torn")]
    listed[1] = ListedClip("-good_2.000_5.000", "good", 2.0, 5.0, "train", ())
    table = collect(listed, tmp_path / "clips", address=server.address, limiter=RateLimiter(**QUICK), jobs=3)
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
        assert numbers(read_frames(path, times=[0.0])[0]) == [int(start * FPS) % 26]


def test_sound_and_pictures_that_come_apart(server: Server, tmp_path: Path) -> None:
    listed = [clip("apart"), clip("mute")]
    table = collect(listed, tmp_path, address=server.address, limiter=RateLimiter(**QUICK))
    assert list(table["status"]) == ["ok", "no sound track"]
    path = tmp_path / table["file"][0]
    assert numbers(read_frames(path, times=[0.0])[0]) == [200 % 26]
    click = np.flatnonzero(np.abs(read_audio(path)) > 0.3)[0] / RATE
    assert click == pytest.approx(CLICKS[1] - 20.0, abs=0.002)


def test_a_rerun_does_what_is_not_final(server: Server, tmp_path: Path) -> None:
    listed = [clip(name) for name in ("good", "gone", "silent", "short", "later", "torn")]
    server.answers = {"later": [403] * 4}
    fetch = lambda **more: collect(listed, tmp_path, address=server.address, limiter=RateLimiter(**QUICK), **more)  # noqa: E731
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
    limiter = RateLimiter(first=0.1, longest=0.25, retries=6)
    began = time.monotonic()
    table = collect([clip("good")], tmp_path, address=server.address, limiter=limiter)
    assert list(table["status"]) == ["ok"]
    assert limiter.pauses == [0.1, 0.2, 0.25]  # twice as long each time, up to the cap
    assert time.monotonic() - began >= sum(limiter.pauses)
    assert server.asked.count("good") >= 4 + len(first)
    assert "limits the rate" in capsys.readouterr().err


def test_a_rate_limit_that_stays_is_an_error_in_the_end(server: Server, tmp_path: Path) -> None:
    server.answers = {"good": [429] * 99}
    limiter = RateLimiter(first=0.01, longest=0.02, retries=3)
    table = collect([clip("good")], tmp_path, address=server.address, limiter=limiter)
    assert list(table["status"]) == ["error"]
    assert "rate-limited" in table["reason"][0] and "429" in table["reason"][0]
    assert len(limiter.pauses) == 4
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
        collect(
            listed, tmp_path, address=address, limiter=RateLimiter(first=1000, longest=1000), jobs=2
        )  # ends nevertheless
    table = statuses(listed, tmp_path)
    assert by_video(table) == {"odd": "error", "good": "ok", "full": "not fetched", "short": "not fetched"}
    assert table["reason"][0] == "ValueError: no such thing"


SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from test_download import QUICK, clip, many
from avrepro.corpora.download import collect
from avrepro.corpora.youtube import RateLimiter
place = lambda one: f"http://127.0.0.1:{sys.argv[1]}/{one.video}/watch"
collect(many(), Path(sys.argv[2]), address=place, jobs=2, limiter=RateLimiter(**QUICK))
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
    collect(many(), tmp_path / "whole", address=server.address, jobs=2, limiter=RateLimiter(**QUICK))
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
