"""The demo world's files against its plans and against each other."""

from __future__ import annotations

import csv
import math
import os
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_demo_plans import WORLD, scenes_of, sources, with_gap

from avrepro import media
from avrepro.corpora import Corpus, CorpusError
from avrepro.corpora.demo import pictures, planning, sounds
from avrepro.corpora.demo.description import Gap, Sizes
from avrepro.corpora.demo.planning import draw_scenes
from avrepro.corpora.demo.scenes import Bed, Scene
from avrepro.corpora.demo.truth import planted_gaps, read_events, read_sights
from avrepro.corpora.demo.world import load_demo, render_clip, world_recipe

TINY = WORLD.model_copy(update={"profiles": {"tiny": Sizes(train=3, validation=2, test=4)}})
FEWER = WORLD.model_copy(update={"profiles": {"tiny": Sizes(train=2, validation=2, test=2)}})


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def tiny(home: Path) -> Corpus:
    return load(home)


def load(home: Path, gap: Gap | None = None, null: bool = False, jobs: int = 1) -> Corpus:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AVREPRO_HOME", str(home))
        return load_demo("tiny", gap=gap, null=null, jobs=jobs, world=TINY)


def truth_of(corpus: Corpus) -> Path:
    assert corpus.strong is not None
    return corpus.strong


def decoded(path: Path) -> tuple[bytes, bytes]:
    return media.read_audio(path).tobytes(), media.read_frames(path, fps=12)[0].tobytes()


def test_clips_decode_and_carry_their_weak_labels(tiny: Corpus) -> None:
    assert tiny.classes == sounds.SOUND_CLASSES
    assert Counter(clip.split for clip in tiny.clips) == {"train": 3, "validation": 2, "test": 4}
    _, weak_labels = draw_scenes(TINY, "tiny")
    for clip in tiny.clips:
        media.check_clip(clip.path)
        waveform = media.read_audio(clip.path, 32000, duration=10.0)
        frames, times = media.read_frames(clip.path, fps=12)
        assert waveform.shape == (320_000,)
        assert 0.01 < np.abs(waveform).max() <= 1.1  # AAC overshoots a little
        assert frames.shape == (120, 144, 192, 3)
        assert np.abs(times - np.arange(120) / 12).max() < 1e-3
        assert clip.labels == weak_labels[clip.id] and clip.sources == ()
    assert tiny.targets().sum() == sum(map(len, weak_labels.values()))
    with (truth_of(tiny).parent / "weak_labels.csv").open(encoding="utf-8", newline="") as handle:
        rows = [tuple(row.values()) for row in csv.DictReader(handle)]
    assert rows == [(clip.id, clip.split, "|".join(clip.labels)) for clip in tiny.clips]
    world = TINY.chosen("tiny", None, None, None)
    assert tiny.digest == tiny.sound_digest == world_recipe(world).key
    assert truth_of(tiny).parent.name == f"demo-{tiny.digest[:12]}"


def test_truth_is_what_was_planted(tiny: Corpus) -> None:
    planned, _ = draw_scenes(TINY, "tiny")
    for corpus, scenes in ((tiny, scenes_of((planned, {}))), (tiny.split("test"), planned["test"])):
        expected = [(s.clip, e.label, e.onset, e.offset, e.snr_db) for s in scenes for e in s.events]
        assert list(read_events(corpus).itertuples(index=False, name=None)) == expected
        assert set(read_sights(corpus)["clip"]) == {scene.clip for scene in scenes if scene.sights}
        assert len(planted_gaps(corpus)) == len(expected)
    sights = read_sights(tiny)
    assert list(sights.columns) == ["clip", "frame", "object", "label", "x", "y", "w", "h", "visible"]
    assert sights["visible"].between(0, 1).all() and sights["frame"].between(0, 119).all()
    spans_of = {s.clip: [(one.object, one.start, one.end) for one in s.sights] for s in scenes_of((planned, {}))}
    for (clip, thing), rows in sights.groupby(["clip", "object"]):
        spans = [(start, end) for name, start, end in spans_of[clip] if name == thing]
        near = [any(start - 0.1 <= frame / 12 <= end + 0.1 for start, end in spans) for frame in rows["frame"]]
        assert all(near), (clip, thing)


def test_same_seed_same_bytes_other_seed_others(tiny: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    again = load(tmp_path, jobs=2)  # in other processes, in another order
    assert again.digest == tiny.digest
    for one, other in zip(tiny.clips, again.clips, strict=True):
        assert one.path != other.path and decoded(one.path) == decoded(other.path)
    for name in ("sound.csv", "scenes.json"):
        assert (truth_of(tiny) / name).read_bytes() == (truth_of(again) / name).read_bytes()
    pd.testing.assert_frame_equal(read_sights(tiny), read_sights(again))
    monkeypatch.setenv("AVREPRO_HOME", str(tmp_path))
    different = load_demo("tiny", seed=5, jobs=2, world=FEWER)
    assert different.digest != tiny.digest
    assert not {decoded(clip.path) for clip in different.clips} & {decoded(clip.path) for clip in tiny.clips}


def test_lost_and_damaged_clips_are_rendered_again(tiny: Corpus, home: Path) -> None:
    folder = truth_of(tiny).parent

    def files() -> dict[Path, tuple[bytes, int]]:
        found = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
        return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in found}

    before = files()
    lost, damaged = tiny.clips[1].path, tiny.clips[4].path
    lost.unlink()
    damaged.write_bytes(before[damaged][0][:5000])
    assert load(home) == tiny
    after = files()
    assert {path: content for path, (content, _) in after.items()} == {p: content for p, (content, _) in before.items()}
    assert {p for p in after if p.suffix == ".mp4" and after[p][1] != before[p][1]} == {lost, damaged}
    start = time.monotonic()
    load(home)
    assert time.monotonic() - start < 1.0


def test_a_failing_clip_is_named_and_the_rest_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AVREPRO_HOME", str(tmp_path))

    def with_a_fault(*choices: object) -> tuple:
        scenes, weak_labels = draw_scenes(*choices)  # type: ignore[arg-type]
        first, second = scenes["train"]
        return {**scenes, "train": [first, replace(second, beds=(Bed("lava", 0.0),))]}, weak_labels

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "draw_scenes", with_a_fault)
        with pytest.raises(CorpusError, match=r"train-0001.*lava"):
            load_demo("tiny", jobs=1, world=FEWER)
    (made,) = tmp_path.rglob("*.mp4")
    written = made.stat().st_mtime_ns
    assert not list(tmp_path.rglob("corpus.json"))
    assert len(load_demo("tiny", jobs=1, world=FEWER).clips) == 6
    assert made.stat().st_mtime_ns == written


def test_a_script_that_would_wait_for_itself_is_told(tmp_path: Path) -> None:
    """Workers import the script anew, and if it asks for the corpus, would wait for the lock that their parent has."""
    script = tmp_path / "unguarded.py"
    script.write_text('from avrepro import corpora\ncorpora.load("demo", profile="ci")\n')
    environment = os.environ | {"AVREPRO_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode and 'if __name__ == "__main__"' in done.stderr


def test_demo_null_has_the_same_sound_and_other_pictures(tiny: Corpus, home: Path) -> None:
    null = load(home, null=True)
    assert null.name == "demo-null" and null.digest != tiny.digest == null.sound_digest
    donors = dict(pd.read_csv(truth_of(null) / "pictures.csv").itertuples(index=False))
    paths = {clip.id: clip.path for clip in tiny.clips}
    sight, own_sight = read_sights(null), read_sights(tiny)
    for clip, own in zip(null.clips, tiny.clips, strict=True):
        assert (clip.id, clip.split, clip.labels) == (own.id, own.split, own.labels)
        assert media.stream_digest(clip.path, "audio") == media.stream_digest(own.path, "audio")
        shown = media.stream_digest(clip.path, "video")
        assert shown == media.stream_digest(paths[donors[clip.id]], "video")
        assert shown != media.stream_digest(own.path, "video")
        pd.testing.assert_frame_equal(
            sight[sight["clip"] == clip.id].drop(columns="clip").reset_index(drop=True),
            own_sight[own_sight["clip"] == donors[clip.id]].drop(columns="clip").reset_index(drop=True),
        )
    assert os.path.samefile(null.clips[0].path.parents[2], tiny.clips[0].path.parents[2])


# --- the gap


def test_sound_is_the_same_with_every_gap(tmp_path: Path) -> None:
    plans = [with_gap(gap) for gap in (None, 0.0, 1.5, 6.0, 100.0, "never")]
    chosen = next(index for index, scene in enumerate(plans[0]) if sources(scene))
    assert len({sounds.synthesise(scenes[chosen]).tobytes() for scenes in plans}) == 1
    digests: dict[media.Kind, set[str]] = {"audio": set(), "video": set()}
    for number in (0, 2, 5):  # None, 1.5 s, never
        scene = plans[number][chosen]
        render_clip(scene, tmp_path / str(number), WORLD.clip)
        for kind, found in digests.items():
            found.add(media.stream_digest(tmp_path / str(number) / "clips" / f"{scene.clip}.mp4", kind))
    assert (len(digests["audio"]), len(digests["video"])) == (1, 3)


def test_other_things_look_the_same_with_every_gap() -> None:
    """Their boxes stay: where and how large a thing is drawn does not hang on whether another is there."""
    plans = zip(*(with_gap(gap) for gap in (0.0, 6.0, "never")), strict=True)
    scenes = next(each for each in plans if sources(each[0]) and len(each[0].sights) > len(sources(each[0])) + 1)
    shown = []
    for scene in scenes:
        boxes = pd.DataFrame(pictures.draw(scene)[1])
        of_source = boxes["label"].isin(list(sources(scene)))
        shown.append(boxes[~of_source].drop(columns="visible").reset_index(drop=True))
        assert of_source.any() == (scene is not scenes[2])
    assert len(shown[0]) > 0
    for other in shown[1:]:
        pd.testing.assert_frame_equal(shown[0], other)


def test_planted_gaps_are_those_of_the_plans(home: Path) -> None:
    corpus = load(home, 3.0)
    table, sights = planted_gaps(corpus), read_sights(corpus)
    assert list(table.columns) == ["clip", "label", "onset", "first_seen", "gap"]
    events = [(scene, event) for scene in scenes_of(draw_scenes(TINY, "tiny", gap=3.0)) for event in scene.events]
    for row, (scene, event) in zip(table.itertuples(), events, strict=True):
        assert (row.clip, row.label, row.onset) == (scene.clip, event.label, event.onset)
        sight = sources(scene).get(event.label)
        frame = math.nan if sight is None else math.ceil(sight.start * 12)  # the first not before the sight's start
        assert row.first_seen == pytest.approx(frame / 12, nan_ok=True)
        assert row.gap == pytest.approx(abs(frame / 12 - event.onset), nan_ok=True)
    assert 0 < table["gap"].isna().sum() < len(table)
    for in_view in (0.9, 1.5):  # where enough of the source shows
        for row in planted_gaps(corpus, in_view).itertuples():
            of_source = (sights["clip"] == row.clip) & (sights["label"] == row.label) & (sights["visible"] >= in_view)
            assert row.first_seen == pytest.approx(sights["frame"][of_source].min() / 12, nan_ok=True)


def test_never_shows_no_source_of_a_sound(home: Path, tiny: Corpus) -> None:
    corpus = load(home, "never")
    assert corpus.digest != tiny.digest and corpus.identity(("audio",)) == tiny.digest
    assert planted_gaps(corpus, in_view=0.0)["first_seen"].isna().all()
    assert len(read_sights(corpus)) > 0  # other things are there
    assert read_events(corpus).equals(read_events(tiny))
    for one, other in zip(corpus.clips, tiny.clips, strict=True):
        assert (one.id, one.labels) == (other.id, other.labels)
        assert media.stream_digest(one.path, "audio") == media.stream_digest(other.path, "audio")


def test_gaps_of_demo_null_are_those_that_its_pictures_show(home: Path) -> None:
    null = load(home, 3.0, null=True)
    donors = dict(pd.read_csv(truth_of(null) / "pictures.csv").itertuples(index=False))
    scenes: dict[str, Scene] = {s.clip: s for s in scenes_of(draw_scenes(TINY, "tiny", gap=3.0))}
    table = planted_gaps(null)
    assert list(table["onset"]) == list(planted_gaps(load(home, 3.0))["onset"])
    assert table["gap"].notna().any()  # some clip has the pictures of another in which its class sounds too
    for row in table.itertuples():
        starts = [sight.start for sight in scenes[donors[row.clip]].sights if sight.label == row.label]
        assert row.first_seen == pytest.approx([*starts, math.nan][0], abs=1 / 12, nan_ok=True)


def test_truth_of_a_corpus_without_any(tmp_path: Path) -> None:
    for strong in (None, tmp_path):  # a folder of clips; real sounds and photographs, whose truth is of another kind
        with pytest.raises(CorpusError, match=r"'paired' has no planted truth \(sound\.csv\)"):
            read_events(Corpus("paired", (), (), (), "", strong=strong))
