"""The demo world's files against its plans and against each other."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_demo_plans import WORLD, scenes_of, sources

from avrepro import media
from avrepro.corpora import Corpus, CorpusError
from avrepro.corpora.demo import pictures, planning, sounds
from avrepro.corpora.demo.description import Gap, Sizes
from avrepro.corpora.demo.planning import draw_scenes
from avrepro.corpora.demo.scenes import Bed
from avrepro.corpora.demo.truth import planted_gaps, read_events, read_sights
from avrepro.corpora.demo.world import load_demo, world_recipe

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
    planned, weak_labels = draw_scenes(TINY)
    assert [clip.split for clip in tiny.clips] == 3 * ["train"] + 2 * ["validation"] + 4 * ["test"]
    assert [clip.id for clip in tiny.clips] == [scene.clip for scene in scenes_of((planned, weak_labels))]
    for clip in tiny.clips:
        waveform = media.read_audio(clip.path, 32000, duration=10.0)
        frames, times = media.read_frames(clip.path, fps=12)
        assert waveform.shape == (320_000,)
        assert 0.01 < np.abs(waveform).max() <= 1.1  # AAC overshoots a little
        assert frames.shape == (120, 144, 192, 3)
        assert np.abs(times - np.arange(120) / 12).max() < 1e-3
        assert clip.labels == weak_labels[clip.id] and clip.sources == ()
    written = pd.read_csv(truth_of(tiny).parent / "weak_labels.csv", keep_default_na=False)
    assert written["labels"].tolist() == ["|".join(clip.labels) for clip in tiny.clips]
    assert tiny.digest == tiny.sound_digest == world_recipe(TINY).key


def test_truth_is_what_was_planted(tiny: Corpus) -> None:
    planned, _ = draw_scenes(TINY)
    for corpus, scenes in ((tiny, scenes_of((planned, {}))), (tiny.split("test"), planned["test"])):
        events = [(s.clip, e.label, e.onset, e.offset, e.snr_db) for s in scenes for e in s.events]
        assert list(read_events(corpus).itertuples(index=False, name=None)) == events
        assert set(read_sights(corpus)["clip"]) == {scene.clip for scene in scenes if scene.sights}
    sights = read_sights(tiny).fillna({"label": ""})
    drawn = [{"clip": scene.clip, **box} for scene in scenes_of((planned, {})) for box in pictures.draw(scene)[1]]
    expected = pd.DataFrame(drawn)[sights.columns].fillna({"label": ""})
    pd.testing.assert_frame_equal(sights, expected, check_dtype=False)


def test_same_seed_same_bytes_other_seed_others(tiny: Corpus, tmp_path: Path) -> None:
    again = load(tmp_path, jobs=2)  # in other processes, in another order
    assert again.digest == tiny.digest
    for one, other in zip(tiny.clips, again.clips, strict=True):
        assert one.path != other.path and decoded(one.path) == decoded(other.path)
    for name in ("sound.csv", "scenes.json"):
        assert (truth_of(tiny) / name).read_bytes() == (truth_of(again) / name).read_bytes()
    pd.testing.assert_frame_equal(read_sights(tiny), read_sights(again))
    same, other = (scenes_of(draw_scenes(TINY.chosen("tiny", seed=seed))) for seed in (None, 5))
    assert not {scene.seed for scene in same} & {scene.seed for scene in other}


def test_lost_and_damaged_clips_are_rendered_again(tiny: Corpus, home: Path) -> None:
    folder = truth_of(tiny).parent
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    written = {clip.path: clip.path.stat().st_mtime_ns for clip in tiny.clips}
    lost, damaged = tiny.clips[1].path, tiny.clips[4].path
    lost.unlink()
    damaged.write_bytes(before[damaged][:5000])
    assert load(home) == tiny
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert {path for path, when in written.items() if path.stat().st_mtime_ns != when} == {lost, damaged}


def test_a_failing_clip_is_named_and_the_rest_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AVREPRO_HOME", str(tmp_path))
    scenes, weak_labels = draw_scenes(FEWER)
    first, second = scenes["train"]
    faulty = {**scenes, "train": [first, replace(second, beds=(Bed("lava", 0.0),))]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "draw_scenes", lambda world: (faulty, weak_labels))
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
    assert read_events(null).equals(read_events(tiny))


# --- the gap


def test_planted_gaps_are_those_of_the_plans(home: Path) -> None:
    corpus = load(home, 3.0)
    table, sights = planted_gaps(corpus, in_view=0.1), read_sights(corpus)
    planned = scenes_of(draw_scenes(TINY.chosen("tiny", gap=3.0)))
    for row, (scene, event) in zip(table.itertuples(), ((s, e) for s in planned for e in s.events), strict=True):
        assert (row.clip, row.label, row.onset) == (scene.clip, event.label, event.onset)
        sight = sources(scene).get(event.label)
        frame = math.nan if sight is None else math.ceil(sight.start * 12)  # the first not before the sight's start
        assert row.first_seen == pytest.approx(frame / 12, nan_ok=True)
        assert row.gap == pytest.approx(abs(frame / 12 - event.onset), nan_ok=True)
    assert 0 < table["gap"].isna().sum() < len(table)
    for row in planted_gaps(corpus, in_view=0.9).itertuples():  # where enough of the source shows
        of_source = (sights["clip"] == row.clip) & (sights["label"] == row.label) & (sights["visible"] >= 0.9)
        assert row.first_seen == pytest.approx(sights["frame"][of_source].min() / 12, nan_ok=True)


def test_never_shows_no_source_of_a_sound_and_all_else(home: Path, tiny: Corpus) -> None:
    corpus = load(home, "never")
    assert corpus.digest != tiny.digest and corpus.identity(("audio",)) == tiny.digest
    assert planted_gaps(corpus, in_view=0.0)["first_seen"].isna().all()
    assert read_events(corpus).equals(read_events(tiny))
    own = read_sights(tiny).merge(read_events(tiny)[["clip", "label"]], how="left", indicator=True)
    others = own[own["_merge"] == "left_only"].drop(columns=["visible", "_merge"]).reset_index(drop=True)
    pd.testing.assert_frame_equal(read_sights(corpus).drop(columns="visible"), others)  # each is drawn as it was
    for one, other in zip(corpus.clips, tiny.clips, strict=True):
        assert (one.id, one.labels) == (other.id, other.labels)
        assert media.stream_digest(one.path, "audio") == media.stream_digest(other.path, "audio")


def test_truth_of_a_corpus_without_any() -> None:
    with pytest.raises(CorpusError, match=r"'paired' has no planted truth \(sound\.csv\)"):
        read_events(Corpus("paired", (), (), (), ""))
