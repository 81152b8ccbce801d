"""Clips of a list: fetched by the real yt-dlp from a server on the loopback, or found in a folder; their corpus."""

from __future__ import annotations

import errno
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import video_server
from clip_files import film
from filelock import FileLock
from video_server import CLICKS, FPS, QUICK, RATE, Server, clip, numbers

from avrepro.corpora.base import CorpusError, ListedClip
from avrepro.corpora.download import collect, corpus_of, statuses
from avrepro.corpora.youtube import RateLimiter, status_of, watch_address
from avrepro.media import read_audio, read_frames

server, videos = video_server.server, video_server.videos


def by_video(table: pd.DataFrame) -> dict[str, str]:
    return {row.id.split("_")[0]: row.status for row in table.itertuples()}


def fetched(server: Server, folder: Path, *listed: ListedClip, **more: Any) -> pd.DataFrame:
    return collect(listed, folder, address=server.address, limiter=RateLimiter(**QUICK), **more)


def test_what_becomes_of_each_clip_is_a_row(server: Server, tmp_path: Path) -> None:
    server.answers = {"forbidden": [403] * 99}
    listed = [clip(name) for name in ("good", "-good", "gone", "forbidden", "silent", "blind", "short", "torn")]
    listed[1] = ListedClip("-good_2.000_5.000", "good", 2.0, 5.0, "train", ())
    cookies = tmp_path / "cookies.txt"
    text = "# Netscape HTTP Cookie File\n127.0.0.1\tFALSE\t/\tFALSE\t0\tsession\tsecret\n"
    cookies.write_text(text)
    table = fetched(server, tmp_path / "clips", *listed, jobs=3, cookies=cookies)
    assert list(table["id"]) == [one.id for one in listed]
    assert by_video(table) == {
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
    assert server.cookies == {"session=secret"} and cookies.read_text() == text  # yt-dlp would write to it


def test_sound_and_pictures_that_come_apart(server: Server, tmp_path: Path) -> None:
    table = fetched(server, tmp_path, clip("apart"), clip("mute"))
    assert list(table["status"]) == ["ok", "no sound track"]
    path = tmp_path / table["file"][0]
    assert numbers(read_frames(path, times=[0.0])[0]) == [200 % 26]
    click = np.flatnonzero(np.abs(read_audio(path)) > 0.3)[0] / RATE
    assert click == pytest.approx(CLICKS[1] - 20.0, abs=0.002)


def test_a_rerun_does_what_is_not_final(server: Server, tmp_path: Path) -> None:
    listed = [clip(name) for name in ("good", "gone", "silent", "short", "later", "torn")]
    server.answers = {"later": [403] * 4}
    assert by_video(fetched(server, tmp_path, *listed))["later"] == "error"
    for retry, asked in ((False, {"later", "torn"}), (True, {"gone", "silent", "short", "later", "torn"})):
        server.asked.clear()
        fetched(server, tmp_path, *listed, retry=retry)
        assert set(server.asked) == asked
    server.asked.clear()
    with (tmp_path / f"{listed[0].id}.mp4").open("ab") as file:  # another size than was recorded
        file.write(b"0")
    assert by_video(statuses(listed, tmp_path))["good"] == "not fetched"
    assert by_video(fetched(server, tmp_path, *listed))["good"] == "ok" and "good" in server.asked


def test_a_rate_limit_pauses_and_is_an_error_in_the_end(server: Server, tmp_path: Path) -> None:
    server.answers = {"good": [200, 429, 429, 429], "short": [429] * 99}
    limiter = RateLimiter(first=0.1, longest=0.25, retries=3)
    began = time.monotonic()
    table = collect([clip("good"), clip("short")], tmp_path, address=server.address, limiter=limiter, jobs=1)
    assert list(table["status"]) == ["ok", "error"] and "rate-limited" in table["reason"][1]
    assert limiter.pauses[:3] == [0.1, 0.2, 0.25]  # twice as long each time, up to the cap
    assert time.monotonic() - began >= sum(limiter.pauses[:3]) and server.asked.count("short") == 4


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
        collect(listed, tmp_path, address=address, limiter=RateLimiter(first=1000), jobs=2)  # no pause is sat out
    table = statuses(listed, tmp_path)
    assert by_video(table) == {"odd": "error", "good": "ok", "full": "not fetched", "short": "not fetched"}
    assert table["reason"][0] == "ValueError: no such thing"


def test_a_killed_run_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    listed = [clip(("good", "good", "gone", "silent")[index % 4], index, index + 2.0) for index in range(8)]
    whole = fetched(server, tmp_path, *listed).drop(columns=["time"])
    assert set(whole["status"]) == {"ok", "unavailable", "no sound track"}
    rows = (tmp_path / "status.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "status.jsonl").write_text("".join(rows[:5]) + rows[5][:30])  # in the middle of a row
    (tmp_path / ".source-old").mkdir()
    assert (statuses(listed, tmp_path)["status"] == "not fetched").sum() == 3
    pd.testing.assert_frame_equal(fetched(server, tmp_path, *listed).drop(columns=["time"]), whole)
    assert len((tmp_path / "status.jsonl").read_text().splitlines()) == 8 and not (tmp_path / ".source-old").exists()


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


MESSAGES = {  # yt-dlp's error texts, as its users report them
    "private": ["[youtube] x: Private video. Sign in if you've been granted access to this video"],
    "unavailable": [
        "[youtube] x: Video unavailable",
        "[youtube] x: This video is no longer available because the uploader has closed their YouTube account.",
        "[youtube] x: Sign in to confirm your age. This video may be inappropriate for some users.",
        "[youtube] x: The uploader has not made this video available in your country.",
        "[generic] Unable to download webpage: HTTP Error 404: Not Found (caused by <HTTPError 404: Not Found>)",
    ],
    "limited": [
        "[youtube] x: Video unavailable. The current session has been rate-limited by YouTube for up to an hour.",
        "[youtube] x: Sign in to confirm you\u2019re not a bot. Use --cookies-from-browser",
        "[youtube] Unable to download webpage: HTTP Error 429: Too Many Requests (caused by <HTTPError 429>)",
    ],
    "error": [
        "unable to download video data: HTTP Error 403: Forbidden",
        "[youtube] x: Requested format is not available. Use --list-formats for a list of available formats",
    ],
}


@pytest.mark.parametrize(("status", "text"), [(status, text) for status in MESSAGES for text in MESSAGES[status]])
def test_what_messages_of_yt_dlp_mean(status: str, text: str) -> None:
    assert status_of(f"ERROR: {text}") == status


def test_yt_dlp_reads_the_id_out_of_an_address() -> None:
    from yt_dlp.extractor.youtube import YoutubeIE

    assert YoutubeIE.extract_id(watch_address(clip("-5QrBL6MzLg"))) == "-5QrBL6MzLg"


# --- clips that are there already, and the corpus of what is there


@pytest.fixture
def media(tmp_path: Path) -> Path:
    (tmp_path / "clips there" / "train").mkdir(parents=True)
    return tmp_path / "clips there"


def test_clips_that_are_there_already(videos: Path, media: Path, tmp_path: Path) -> None:
    files = {  # video -> its name in the folder, its content (default: a good clip), its status
        "-aaaaaaaaaa": ("-aaaaaaaaaa_20.000_23.000.mp4", "", "ok"),
        "bbbbbbbbbbb": ("Ybbbbbbbbbbb_20.000.mp4", "", "ok"),
        "ccccccccccc": ("train/Yccccccccccc_20.000_23.000.MKV", "", "ok"),
        "ddddddddddd": ("ddddddddddd.mp4", "", "ok"),
        "eeeeeeeeeee": ("eeeeeeeeeee.mp4", "", "not fetched"),  # which of its two clips it is, nothing says
        "fffffffffff": ("fffffffffff_20.000_23.000.mp4", "silent.mp4", "no sound track"),
        "ggggggggggg": ("ggggggggggg.mp4", "good.mp4", "error"),  # the whole video
        "hhhhhhhhhhh": ("hhhhhhhhhhh_20.000_23.000.mp4", "torn.mp4", "error"),
    }
    good = film(tmp_path / "good.mp4", seconds=3)
    for name, source, _ in files.values():
        shutil.copy(videos / source if source else good, media / name)
    listed = [*map(clip, files), clip("eeeeeeeeeee", 0.0, 3.0)]
    before = {path: path.read_bytes() for path in media.rglob("*.*")}
    table = collect(listed, tmp_path / "status", media=media).set_index("id")
    assert list(table["status"])[:-1] == [status for _, _, status in files.values()]
    assert "whole video" in table.loc["ggggggggggg_20.000_23.000", "reason"]
    assert {path: path.read_bytes() for path in before} == before
    for video in list(files)[:4]:
        assert table.loc[f"{video}_20.000_23.000", "file"] == str(media / files[video][0])


def test_a_bad_file_of_ones_own_does_not_stop_the_download(
    videos: Path, media: Path, server: Server, tmp_path: Path
) -> None:
    """What is wrong with it is final for a downloaded clip, and says nothing of the original."""
    shutil.copy(videos / "silent.mp4", media / "good_20.000_23.000.mp4")
    assert list(collect([clip("good")], tmp_path / "clips", media=media)["status"]) == ["no sound track"]
    assert list(fetched(server, tmp_path / "clips", clip("good"))["status"]) == ["ok"]


CLASSES = ("Car", "Train")


def test_the_corpus_of_what_is_there(server: Server, tmp_path: Path) -> None:
    never = clip("other", 0.0, 3.0, "Car")
    listed = [
        clip("good", 20.0, 23.0, "Train"),
        clip("good", 2.0, 5.0, "Car", "Train", split="train"),
        clip("gone", 0.0, 3.0, "Car"),
    ]
    fetched(server, tmp_path, *listed)
    corpus = corpus_of("dcase2017", CLASSES, [*listed, never], tmp_path)
    assert {one.id for one in corpus.clips} == {listed[0].id, listed[1].id}
    np.testing.assert_array_equal(corpus.split("test").targets(), [[False, True]])
    reasons = {one.id: one.reason for one in corpus.missing}
    assert reasons[listed[2].id].startswith("unavailable: ") and "404" in reasons[listed[2].id]
    assert "avrepro data clips" in reasons[never.id]
    assert [one.sources for one in corpus.clips] == [("good",)] * 2

    held_out = [replace(one, split="validation") for one in listed]
    assert {one.split for one in corpus_of("dcase2017", CLASSES, held_out, tmp_path).clips} == {"validation"}
    assert corpus_of("dcase2017", CLASSES, listed[::-1], tmp_path).digest == corpus.digest  # never has no part in it
    (tmp_path / f"{listed[0].id}.mp4").unlink()
    poorer = corpus_of("dcase2017", CLASSES, [*listed, never], tmp_path)
    assert [one.id for one in poorer.clips] == [listed[1].id]
    assert "is gone" in {one.id: one.reason for one in poorer.missing}[listed[0].id]
