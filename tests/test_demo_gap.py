"""The demo world's gap between hearing and seeing: plans against a slow search, files against plans."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from avrepro import media
from avrepro.corpora import Corpus, CorpusError, load
from avrepro.corpora.demo import pictures, sounds
from avrepro.corpora.demo.description import Sizes, load_world_description
from avrepro.corpora.demo.scenes import Gap, Scene, Sight, draw_scenes, moved
from avrepro.corpora.demo.truth import planted_gaps, read_events, read_sights
from avrepro.corpora.demo.world import load_demo, render_clip

WORLD = load_world_description()
TINY = WORLD.model_copy(update={"profiles": {"tiny": Sizes(train=2, validation=2, test=4)}})
GAPS: tuple[Gap, ...] = (0.0, 1.5, 6.0, 100.0, "never")


def scenes_with(gap: Gap | None, profile: str = "ci", asynchrony: float | None = None) -> list[Scene]:
    splits, _ = draw_scenes(WORLD, profile, asynchrony=asynchrony, gap=gap)
    return [scene for scenes in splits.values() for scene in scenes]


def sources(scene: Scene) -> dict[str, Sight]:
    """The planned sights of what sounds, by class."""
    sounding = {event.label for event in scene.events}
    return {sight.label: sight for sight in scene.sights if sight.label in sounding and sight.label}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


def tiny(home: Path, gap: Gap, null: bool = False) -> Corpus:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AVREPRO_HOME", str(home))
        return load_demo("tiny", gap=gap, null=null, jobs=1, world=TINY)


# --- the plans


def slowly_moved(onset: float, offset: float, gap: float, duration: float) -> tuple[float, float]:
    """Shift the span in whole milliseconds for as long as enough of it stays in the clip; count what stays."""
    side = 1 if duration - offset >= onset else -1
    inside = np.arange(0, round(duration * 1000)) + 0.5  # middles of the clip's milliseconds
    least = min(offset - onset, 1.0) * 1000
    stays = (0.0, 0.0)
    for shift in range(round(gap * 1000) + 1):
        there = inside[(inside > onset * 1000 + side * shift) & (inside < offset * 1000 + side * shift)]
        if len(there) < least - 1e-6:
            break
        stays = (there[0] - 0.5) / 1000, (there[-1] + 0.5) / 1000
    return stays


@pytest.mark.parametrize("gap", [0.0, 0.7, 3.0, 6.0, 12.0])
@pytest.mark.parametrize(
    "span",
    [(0.0, 10.0), (0.0, 0.5), (9.5, 10.0), (4.0, 6.0), (4.9, 5.4), (4.2, 5.2), (0.3, 8.0), (2.5, 9.9), (0.0, 9.3)],
)
def test_span_moves_to_the_roomier_side_and_stays_in_the_clip(span: tuple[float, float], gap: float) -> None:
    assert moved(*span, gap, 10.0) == pytest.approx(slowly_moved(*span, gap, 10.0), abs=1e-3)


def test_limits_at_the_border() -> None:
    assert moved(0.0, 10.0, 6.0, 10.0) == (6.0, 10.0)
    assert moved(0.0, 10.0, 9.5, 10.0) == (9.0, 10.0)  # a second stays
    assert moved(7.0, 9.0, 100.0, 10.0) == (0.0, 1.0)
    assert moved(9.25, 9.75, 100.0, 10.0) == (0.0, 0.5)  # all of a shorter one
    assert moved(4.0, 6.0, 1.0, 10.0) == (5.0, 7.0)  # as much room on both sides: later
    start, end = moved(3.0, 5.0, "never", 10.0)
    assert start == end


def test_gap_moves_sources_and_nothing_else() -> None:
    plain = scenes_with(None)
    for gap in GAPS:
        found = 0
        for scene, other in zip(plain, scenes_with(gap), strict=True):
            assert replace(other, sights=()) == replace(scene, sights=())
            spans = {event.label: moved(event.onset, event.offset, gap, scene.duration) for event in scene.events}
            for sight, later in zip(scene.sights, other.sights, strict=True):
                if sight.label in spans:
                    start, end = spans[sight.label]
                    assert later == replace(sight, start=start, end=end)
                    assert 0 <= start <= end <= scene.duration and (start < end) == (gap != "never")
                    found += 1
                else:
                    assert later == sight
        assert found > 30
    assert draw_scenes(WORLD, "ci", gap=6.0)[1] == draw_scenes(WORLD, "ci")[1]  # weak labels


def test_without_a_gap_the_world_is_as_described() -> None:
    assert scenes_with(None, "demo") == scenes_with(None, "demo", asynchrony=WORLD.sights.asynchrony)
    assert scenes_with(0.0, "demo") == scenes_with(None, "demo", asynchrony=0.0)
    assert scenes_with(6.0) != scenes_with(None) != scenes_with(0.0)


def test_larger_gaps_plant_more_time_between_hearing_and_seeing() -> None:
    means = []
    for gap in (0.0, 2.0, 4.0, 6.0):
        apart = [
            abs(shown[event.label].start - event.onset)
            for scene in scenes_with(gap, "demo")
            for shown in [sources(scene)]
            for event in scene.events
            if event.label in shown
        ]
        assert max(apart) <= gap + 1e-9
        means.append(np.mean(apart))
    assert means[0] == 0
    assert np.all(np.diff(means) > 1)


@pytest.mark.parametrize("gap", [-0.5, math.nan, math.inf, "6", "always"])
def test_refuses_what_is_no_gap(gap: Gap) -> None:
    with pytest.raises(CorpusError, match=f"'never'; found {gap!r}"):
        draw_scenes(WORLD, "ci", gap=gap)


def test_load_refuses_gaps_that_do_not_fit() -> None:
    for name in ("demo", "demo-null"):
        with pytest.raises(CorpusError, match="asynchrony or gap, not both"):
            load(name, profile="ci", asynchrony=0.5, gap=2.0)
    for name in ("folder", "paired", "esc10", "dcase2017"):
        with pytest.raises(CorpusError, match=f"gap is a dial of the demo world; corpus '{name}'"):
            load(name, gap="never")


# --- the files


def test_sound_is_the_same_with_every_gap(tmp_path: Path) -> None:
    planned = [scenes_with(gap) for gap in (None, *GAPS)]
    chosen = next(index for index, scene in enumerate(planned[0]) if sources(scene))
    waveforms = {sounds.synthesise(scenes[chosen], sample_rate=32000).tobytes() for scenes in planned}
    assert len(waveforms) == 1
    heard, seen = set(), set()
    for number in (0, 2, 5):  # None, 1.5 s, never
        folder = tmp_path / str(number)
        folder.mkdir()
        clip = render_clip(planned[number][chosen], folder, folder, WORLD.clip)
        heard.add(media.stream_digest(folder / f"{clip}.mp4", "audio"))
        seen.add(media.stream_digest(folder / f"{clip}.mp4", "video"))
    assert (len(heard), len(seen)) == (1, 3)


def test_other_things_look_the_same_with_every_gap() -> None:
    """Their boxes stay: where and how large a thing is drawn does not hang on whether another is there."""
    plans = zip(*(scenes_with(gap) for gap in (0.0, 6.0, "never")), strict=True)
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
    corpus = tiny(home, 3.0)
    table = planted_gaps(corpus)
    assert list(table.columns) == ["clip", "label", "onset", "first_seen", "gap"]
    splits, _ = draw_scenes(TINY, "tiny", gap=3.0)
    events = [(scene, event) for scenes in splits.values() for scene in scenes for event in scene.events]
    assert len(table) == len(events)
    for row, (scene, event) in zip(table.itertuples(), events, strict=True):
        assert (row.clip, row.label, row.onset) == (scene.clip, event.label, event.onset)
        sight = sources(scene).get(event.label)
        if sight is None:
            assert math.isnan(row.first_seen) and math.isnan(row.gap)
        else:
            frame = math.ceil(sight.start * 12)  # the first whose time is not before the sight's start
            assert row.first_seen == frame / 12
            assert row.gap == pytest.approx(abs(frame / 12 - event.onset))
    assert 0 < table["gap"].isna().sum() < len(table)


def test_first_seen_is_where_enough_of_the_source_shows(home: Path) -> None:
    corpus = tiny(home, 3.0)
    sights = read_sights(corpus)
    for in_view in (0.1, 0.9, 1.5):
        for row in planted_gaps(corpus, in_view).itertuples():
            frames = [
                box.frame
                for box in sights.itertuples()
                if (box.clip, box.label) == (row.clip, row.label) and box.visible >= in_view
            ]
            if frames:
                assert row.first_seen == min(frames) / 12
            else:
                assert math.isnan(row.first_seen)
    assert planted_gaps(corpus, 1.5)["gap"].isna().all()


def test_truth_is_that_of_the_corpus_clips(home: Path) -> None:
    corpus = tiny(home, 3.0)
    splits, _ = draw_scenes(TINY, "tiny", gap=3.0)
    for part, scenes in (
        (corpus, [scene for split in splits.values() for scene in split]),
        (corpus.split("test"), splits["test"]),
    ):
        expected = [(s.clip, e.label, e.onset, e.offset, e.snr_db) for s in scenes for e in s.events]
        assert list(read_events(part).itertuples(index=False, name=None)) == expected
        assert set(read_sights(part)["clip"]) == {scene.clip for scene in scenes if scene.sights}
        assert len(planted_gaps(part)) == len(expected)


def test_never_shows_no_source_of_a_sound(home: Path) -> None:
    corpus = tiny(home, "never")
    assert corpus.digest != tiny(home, 3.0).digest
    assert planted_gaps(corpus, in_view=0.0)["first_seen"].isna().all()
    assert len(read_sights(corpus)) > 0  # other things are there
    together = tiny(home, 3.0)
    assert read_events(corpus).equals(read_events(together))
    for one, other in zip(corpus.clips, together.clips, strict=True):
        assert (one.id, one.labels) == (other.id, other.labels)
        assert media.stream_digest(one.path, "audio") == media.stream_digest(other.path, "audio")


def test_demo_null_takes_a_gap_and_tells_what_its_pictures_show(home: Path) -> None:
    corpus, null = tiny(home, 3.0), tiny(home, 3.0, null=True)
    assert null.digest != corpus.digest
    donors = dict(pd.read_csv(null.strong / "pictures.csv").itertuples(index=False))  # type: ignore[operator]
    scenes = {s.clip: s for split in draw_scenes(TINY, "tiny", gap=3.0)[0].values() for s in split}
    table = planted_gaps(null)
    assert list(table["onset"]) == list(planted_gaps(corpus)["onset"])
    assert table["gap"].notna().any()  # some clip has the pictures of another in which its class sounds too
    for row in table.itertuples():
        starts = [sight.start for sight in scenes[donors[row.clip]].sights if sight.label == row.label]
        if starts:
            assert row.first_seen == pytest.approx(starts[0], abs=1 / 12)
        else:
            assert math.isnan(row.first_seen)


def test_truth_of_a_corpus_without_any(tmp_path: Path) -> None:
    for strong in (None, tmp_path):  # a folder of clips; real sounds and photographs, whose truth is of another kind
        with pytest.raises(CorpusError, match=r"'paired' has no planted truth \(sound\.csv\)"):
            read_events(Corpus("paired", (), (), (), "", strong=strong))
