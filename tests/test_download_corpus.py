"""Clips of a list that are there already, and the corpus of what is there."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import video_server
from video_server import FPS, LENGTH, QUICK, RATE, Server, clicking, clip, numbered

from avrepro.corpora.base import CorpusError, ListedClip
from avrepro.corpora.download import collect, corpus_of, statuses
from avrepro.corpora.youtube import RateLimiter
from avrepro.encode import write_clip

server, videos = video_server.server, video_server.videos


@pytest.fixture
def on_disk(videos: Path, tmp_path: Path) -> Callable[..., Path]:
    """A file of a number of seconds under a name, in a folder of clips that are there already."""

    def make(name: str, seconds: float = 3, source: str = "") -> Path:
        path = tmp_path / "clips there" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if source:
            path.write_bytes((videos / source).read_bytes())
        else:
            write_clip(path, numbered(seconds), FPS, clicking(LENGTH)[: round(seconds * RATE)], RATE)
        return path

    return make


def test_clips_that_are_there_already(on_disk: Callable[..., Path], tmp_path: Path) -> None:
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
        on_disk(name, 1.5 if video == "iiiiiiiiiii" else 3, source=wrong.get(video, ""))
    listed = [clip(video) for video in names] + [clip("lllllllllll"), clip("eeeeeeeeeee", 0.0, 3.0)]
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in (tmp_path / "clips there").rglob("*.*")}
    table = collect(listed, tmp_path / "status", media=tmp_path / "clips there").set_index("id")
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
        assert table.loc[f"{video}_20.000_23.000", "file"] == str(tmp_path / "clips there" / names[video])
    rows = (tmp_path / "status" / "status.jsonl").read_text().splitlines()
    collect(listed, tmp_path / "status", media=tmp_path / "clips there")
    again = (tmp_path / "status" / "status.jsonl").read_text().splitlines()[len(rows) :]
    assert sorted(json.loads(row)["status"] for row in again) == ["error", "error", "no sound track", "too short"]


def test_a_bad_file_that_is_there_does_not_stop_the_download(
    on_disk: Callable[..., Path], server: Server, tmp_path: Path
) -> None:
    on_disk("good_20.000_23.000.mp4", source="silent.mp4")
    table = collect([clip("good")], tmp_path / "clips", media=tmp_path / "clips there")
    assert list(table["status"]) == ["no sound track"]
    table = collect([clip("good")], tmp_path / "clips", address=server.address, limiter=RateLimiter(**QUICK))
    assert list(table["status"]) == ["ok"]


def test_real_recordings_by_name(mirror: Path, tmp_path: Path) -> None:
    names = pd.read_csv(mirror / "real_clips" / "labels.csv")["clip"].to_list()
    starts = [float(Path(name).stem[12:].split("_")[0]) for name in names]
    listed = [clip(name[:11], start, start + 10) for name, start in zip(names, starts, strict=True)]
    corpus = corpus_of("audioset", (), listed, tmp_path, media=mirror / "real_clips")
    assert sorted(one.path.name for one in corpus.clips) == sorted(names) and corpus.missing == ()


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
    assert all(one.path.is_file() for one in corpus.clips)
    reasons = {one.id: one.reason for one in corpus.missing}
    assert reasons[listed[2].id].startswith("unavailable: ") and "404" in reasons[listed[2].id]
    assert "avrepro data clips" in reasons[never.id]
    assert [one.sources for one in corpus.clips] == [("good",)] * 2

    held_out = [replace(one, split="validation") for one in listed]
    assert set(statuses(held_out, tmp_path)["split"]) == {"validation"}
    assert {one.split for one in corpus_of("dcase2017", CLASSES, held_out, tmp_path).clips} == {"validation"}
    digests = {
        corpus.digest,
        corpus_of("dcase2017", CLASSES[::-1], [*listed, never], tmp_path).digest,
        corpus_of("dcase2017", CLASSES, held_out, tmp_path).digest,
        corpus_of("dcase2017", CLASSES, [clip("good", 20.0, 23.0, "Car"), *listed[1:], never], tmp_path).digest,
    }
    assert len(digests) == 4
    assert corpus_of("dcase2017", CLASSES, listed, tmp_path).digest == corpus.digest  # of the clips that are there
    assert corpus_of("dcase2017", CLASSES, [never, *listed[::-1]], tmp_path).digest == corpus.digest
    (tmp_path / f"{listed[0].id}.mp4").unlink()
    poorer = corpus_of("dcase2017", CLASSES, [*listed, never], tmp_path)
    assert [one.id for one in poorer.clips] == [listed[1].id]
    assert "is gone" in {one.id: one.reason for one in poorer.missing}[listed[0].id]
    assert poorer.digest != corpus.digest


def test_lists_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="listed twice"):
        collect([clip("good"), clip("good")], tmp_path)
    with pytest.raises(CorpusError, match="name of a file"):
        collect([ListedClip("../etc", "good", 0.0, 1.0, "test", ())], tmp_path)
    with pytest.raises(CorpusError, match="not a folder"):
        collect([clip("good")], tmp_path, media=tmp_path / "nowhere")
