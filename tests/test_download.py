"""Clips of a list: fetched by the real yt-dlp from a server on the loopback, or found in a folder; their corpus."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import video_server
from filelock import FileLock
from video_server import CLICKS, FPS, LENGTH, QUICK, RATE, Server, clicking, clip, numbered, numbers

from avrepro.corpora.base import CorpusError, ListedClip
from avrepro.corpora.download import collect, corpus_of, statuses
from avrepro.corpora.youtube import RateLimiter, status_of, watch_address
from avrepro.encode import write_clip
from avrepro.media import read_audio, read_frames

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
    for number, words in ((2, "404"), (3, "403"), (6, "8.0 s"), (7, "truncated")):
        assert words in row.loc[listed[number].id, "reason"]
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


def test_a_rate_limit_pauses_and_is_an_error_in_the_end(server: Server, tmp_path: Path) -> None:
    server.answers = {"good": [200, 429, 429, 429], "short": [429] * 99}
    limiter = RateLimiter(first=0.1, longest=0.25, retries=3)
    began = time.monotonic()
    assert list(collect([clip("good")], tmp_path, address=server.address, limiter=limiter)["status"]) == ["ok"]
    assert limiter.pauses == [0.1, 0.2, 0.25]  # twice as long each time, up to the cap
    assert time.monotonic() - began >= sum(limiter.pauses)
    table = collect([clip("short")], tmp_path, address=server.address, limiter=limiter)
    assert list(table["status"]) == ["error"] and "rate-limited" in table["reason"][0]
    assert server.asked.count("short") == 4


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


def test_a_killed_run_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    listed = [clip(("good", "good", "gone", "silent")[index % 4], index, index + 2.0) for index in range(8)]
    fetch = lambda folder: collect(listed, folder, address=server.address, limiter=RateLimiter(**QUICK))  # noqa: E731
    whole = fetch(tmp_path / "whole").drop(columns=["time"])
    assert set(whole["status"]) == {"ok", "unavailable", "no sound track"}

    killed = tmp_path / "killed"
    fetch(killed)
    rows = (killed / "status.jsonl").read_text().splitlines(keepends=True)
    (killed / "status.jsonl").write_text("".join(rows[:5]) + rows[5][:30])  # in the middle of a row
    (killed / ".source-old").mkdir()
    assert (statuses(listed, killed)["status"] == "not fetched").sum() == 3
    server.asked.clear()
    pd.testing.assert_frame_equal(fetch(killed).drop(columns=["time"]), whole)
    assert len((killed / "status.jsonl").read_text().splitlines()) == 8 and not (killed / ".source-old").exists()


def test_folders_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("avrepro.corpora.download.find_spec", lambda name: None)
    with pytest.raises(CorpusError, match="yt-dlp is not installed"):
        collect([clip("good")], tmp_path)
    with FileLock(tmp_path / ".lock"), pytest.raises(CorpusError, match="another run"):
        collect([clip("good")], tmp_path)
    with pytest.raises(CorpusError, match="not a folder"):
        collect([clip("good")], tmp_path, media=tmp_path / "nowhere")
    (tmp_path / "status.jsonl").write_text('{"id": 1\n{"id": "a"}\n')
    with pytest.raises(CorpusError, match=r"status\.jsonl, line 1"):
        statuses([clip("good")], tmp_path)


# --- what yt-dlp is asked, how its messages are understood, and when the next request may come


def test_requests_under_way_when_the_limit_comes_pause_once() -> None:
    limiter = RateLimiter(first=0.05, longest=10, retries=1)
    asked = [limiter.wait() for _ in range(4)]  # four workers
    for moment in asked:
        limiter.limited(moment)
    assert limiter.pauses == [0.05]
    again = limiter.wait()
    limiter.limited(again)
    assert limiter.pauses == [0.05, 0.1]
    limiter.passed(asked[0])  # an answer from before the limit says nothing
    limiter.limited(limiter.wait())
    limiter.passed(limiter.wait())
    limiter.limited(limiter.wait())
    assert limiter.pauses == [0.05, 0.1, 0.2, 0.05]


def test_cookies_go_to_the_server_and_their_file_stays_as_it_is(server: Server, tmp_path: Path) -> None:
    cookies = tmp_path / "cookies.txt"
    text = "# Netscape HTTP Cookie File\n127.0.0.1\tFALSE\t/\tFALSE\t0\tsession\tsecret\n"
    cookies.write_text(text)
    folder = tmp_path / "clips"
    table = collect([clip("good")], folder, address=server.address, cookies=cookies, limiter=RateLimiter(**QUICK))
    assert list(table["status"]) == ["ok"]
    assert server.cookies == {"session=secret"}
    assert cookies.read_text() == text


MESSAGES = {  # yt-dlp's error texts, as its users report them
    "private": [
        "[youtube] x: Private video. Sign in if you've been granted access to this video",
        "[youtube] x: Video unavailable. This video is private",
    ],
    "unavailable": [
        "[youtube] x: Video unavailable",
        "[youtube] x: This video has been removed for violating YouTube's Terms of Service",
        "[youtube] x: This video is no longer available because the uploader has closed their YouTube account.",
        "[youtube] x: Sign in to confirm your age. This video may be inappropriate for some users.",
        "[youtube] x: The uploader has not made this video available in your country.",
        "[youtube] x: Join this channel to get access to members-only content like this video, and other perks.",
        "[youtube] x: This live stream recording is not available.",
        "[generic] Unable to download webpage: HTTP Error 404: Not Found (caused by <HTTPError 404: Not Found>)",
    ],
    "limited": [
        "[youtube] x: Video unavailable. The current session has been rate-limited by YouTube for up to an hour.",
        "[youtube] x: Sign in to confirm you\u2019re not a bot. Use --cookies-from-browser",
        "[youtube] Unable to download webpage: HTTP Error 429: Too Many Requests (caused by <HTTPError 429>)",
        "[youtube] x: Video unavailable. YouTube is requiring a captcha challenge before playback",
    ],
    "error": [
        "unable to download video data: HTTP Error 403: Forbidden",
        "[youtube] x: Requested format is not available. Use --list-formats for a list of available formats",
        "Unable to download webpage: <urlopen error [Errno 110] Connection timed out>",
    ],
}


@pytest.mark.parametrize(("status", "text"), [(status, text) for status in MESSAGES for text in MESSAGES[status]])
def test_what_messages_of_yt_dlp_mean(status: str, text: str) -> None:
    assert status_of(f"ERROR: {text}") == status


def test_addresses_are_safe() -> None:
    from yt_dlp.extractor.youtube import YoutubeIE

    assert watch_address(clip("-5QrBL6MzLg")) == "https://www.youtube.com/watch?v=-5QrBL6MzLg"
    assert YoutubeIE.extract_id(watch_address(clip("-5QrBL6MzLg"))) == "-5QrBL6MzLg"


# --- clips that are there already, and the corpus of what is there


@pytest.fixture
def on_disk(videos: Path, tmp_path: Path) -> Callable[[str, str], None]:
    """A clip, or a copy of a video, under a name in a folder of clips that are there already."""

    def make(name: str, source: str) -> None:
        path = tmp_path / "clips there" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_clip(path.with_suffix(".mp4"), numbered(3), FPS, clicking(LENGTH)[: 3 * RATE], RATE)
        path.with_suffix(".mp4").rename(path)
        if source:
            path.write_bytes((videos / source).read_bytes())

    return make


def test_clips_that_are_there_already(on_disk: Callable[[str, str], None], tmp_path: Path) -> None:
    files = {  # video -> its name in the folder, its content (default: a good clip), its status
        "-aaaaaaaaaa": ("-aaaaaaaaaa_20.000_23.000.mp4", "", "ok"),
        "bbbbbbbbbbb": ("Ybbbbbbbbbbb_20.000.mp4", "", "ok"),
        "ccccccccccc": ("train/Yccccccccccc_20.000_23.000.MKV", "", "ok"),
        "ddddddddddd": ("ddddddddddd.mp4", "", "ok"),
        "eeeeeeeeeee": ("eeeeeeeeeee.mp4", "", "not fetched"),  # which of its two clips it is, nothing says
        "fffffffffff": ("fffffffffff_20.000_23.000.mp4", "silent.mp4", "no sound track"),
        "ggggggggggg": ("ggggggggggg.mp4", "good.mp4", "error"),  # the whole video
        "hhhhhhhhhhh": ("hhhhhhhhhhh_20.000_23.000.mp4", "torn.mp4", "error"),
        "kkkkkkkkkkk": ("kkkkkkkkkkk.txt", "", "not fetched"),
    }
    for name, source, _ in files.values():
        on_disk(name, source)
    listed = [*map(clip, files), clip("eeeeeeeeeee", 0.0, 3.0)]
    before = {path: path.read_bytes() for path in (tmp_path / "clips there").rglob("*.*")}
    table = collect(listed, tmp_path / "status", media=tmp_path / "clips there").set_index("id")
    assert list(table["status"])[:-1] == [status for _, _, status in files.values()]
    assert "whole video" in table.loc["ggggggggggg_20.000_23.000", "reason"]
    assert {path: path.read_bytes() for path in before} == before
    for video in list(files)[:4]:
        assert table.loc[f"{video}_20.000_23.000", "file"] == str(tmp_path / "clips there" / files[video][0])


def test_a_bad_file_that_is_there_does_not_stop_the_download(
    on_disk: Callable[[str, str], None], server: Server, tmp_path: Path
) -> None:
    on_disk("good_20.000_23.000.mp4", "silent.mp4")
    table = collect([clip("good")], tmp_path / "clips", media=tmp_path / "clips there")
    assert list(table["status"]) == ["no sound track"]
    table = collect([clip("good")], tmp_path / "clips", address=server.address, limiter=RateLimiter(**QUICK))
    assert list(table["status"]) == ["ok"]


CLASSES = ("Car", "Train")


def test_the_corpus_of_what_is_there(server: Server, tmp_path: Path) -> None:
    listed = [
        clip("good", 20.0, 23.0, "Train"),
        clip("good", 2.0, 5.0, "Car", "Train", split="train"),
        clip("gone", 0.0, 3.0, "Car"),
    ]
    never = clip("other", 0.0, 3.0, "Car")
    collect(listed, tmp_path, address=server.address, limiter=RateLimiter(**QUICK))
    corpus = corpus_of("dcase2017", CLASSES, [*listed, never], tmp_path)
    assert {one.id for one in corpus.clips} == {listed[0].id, listed[1].id}
    np.testing.assert_array_equal(corpus.split("test").targets(), [[False, True]])
    reasons = {one.id: one.reason for one in corpus.missing}
    assert reasons[listed[2].id].startswith("unavailable: ") and "404" in reasons[listed[2].id]
    assert "avrepro data clips" in reasons[never.id]
    assert [one.sources for one in corpus.clips] == [("good",)] * 2

    held_out = [replace(one, split="validation") for one in listed]
    assert {one.split for one in corpus_of("dcase2017", CLASSES, held_out, tmp_path).clips} == {"validation"}
    assert corpus_of("dcase2017", CLASSES, listed, tmp_path).digest == corpus.digest  # of the clips that are there
    assert corpus_of("dcase2017", CLASSES, [never, *listed[::-1]], tmp_path).digest == corpus.digest
    (tmp_path / f"{listed[0].id}.mp4").unlink()
    poorer = corpus_of("dcase2017", CLASSES, [*listed, never], tmp_path)
    assert [one.id for one in poorer.clips] == [listed[1].id]
    assert "is gone" in {one.id: one.reason for one in poorer.missing}[listed[0].id]
