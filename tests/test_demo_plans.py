"""Plans of the demo world against what its description says, and its gap against a slow search."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom, spearmanr

from avrepro.corpora import CorpusError
from avrepro.corpora.demo.description import Gap, load_world_description
from avrepro.corpora.demo.planning import draw_scenes, moved
from avrepro.corpora.demo.scenes import Scene, Sight, SoundEvent
from avrepro.corpora.demo.sounds import SOUND_CLASSES
from avrepro.corpora.demo.sounds_background import BED_SOUNDS
from avrepro.corpora.demo.world import picture_donors, world_recipe
from avrepro.manifests import manifest_path

WORLD = load_world_description()
Planned = tuple[dict[str, list[Scene]], dict[str, tuple[str, ...]]]


@pytest.fixture(scope="module")
def planned() -> Planned:
    return draw_scenes(WORLD.chosen("demo"))


def scenes_of(planned: Planned) -> list[Scene]:
    return [scene for scenes in planned[0].values() for scene in scenes]


def with_gap(gap: Gap | None, profile: str = "ci") -> list[Scene]:
    return scenes_of(draw_scenes(WORLD.chosen(profile, gap=gap)))


def sources(scene: Scene) -> dict[str, Sight]:
    """The planned sights of what sounds, by class."""
    sounding = {event.label for event in scene.events}
    return {sight.label: sight for sight in scene.sights if sight.label in sounding and sight.label}


def within_binomial(hits: int, trials: int, chance: float) -> bool:
    """Not stranger than one in a million, so that dozens of checks stay quiet."""
    low, high = binom.interval(1 - 1e-6, trials, chance)
    return bool(low <= hits <= high)


def test_every_class_and_bed_is_described_and_rendered() -> None:
    assert set(WORLD.classes) == set(SOUND_CLASSES) and set(WORLD.beds.level_db) == set(BED_SOUNDS)


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("imbalance: 15.0", "imbalance: 15.0\n  loudness: 3", "events.loudness"),
        ("missing_labels: 0.10", "missing_labels: 1.10", "events.missing_labels"),
        ("count: [0.10, 0.50, 0.30, 0.10]", "count: [0.10, 0.50, 0.30, 0.20]", "events.count"),
        ("occlusion: [0.0, 0.6]", "occlusion: [0.6, 0.0]", "sights.occlusion"),
    ],
)
def test_description_names_what_is_wrong(tmp_path: Path, old: str, new: str, named: str) -> None:
    text = manifest_path("demo_world.yaml").read_text("utf-8")
    assert text.count(old) == 1
    wrong = tmp_path / "world.yaml"
    wrong.write_text(text.replace(old, new), "utf-8")
    with pytest.raises(CorpusError, match=f"world.yaml does not describe a demo world: (.*\n){named}\n"):
        load_world_description(wrong)


def test_the_order_of_classes_is_in_the_recipe() -> None:
    """It says how common they are."""
    other = WORLD.model_copy(update={"classes": dict(reversed(WORLD.classes.items()))})
    assert world_recipe(other).key != world_recipe(WORLD).key


def test_sizes_and_number_of_events(planned: Planned) -> None:
    assert {split: len(scenes) for split, scenes in planned[0].items()} == dict(WORLD.profiles["demo"])
    for scenes in planned[0].values():
        counts = Counter(len(scene.events) for scene in scenes)
        for number, share in enumerate(WORLD.events.count):
            assert abs(counts[number] - share * len(scenes)) < 1


def test_training_is_unbalanced_and_the_rest_is_balanced(planned: Planned) -> None:
    for split, scenes in planned[0].items():
        counts = Counter(event.label for scene in scenes for event in scene.events)
        assert all(len({event.label for event in scene.events}) == len(scene.events) for scene in scenes)
        ordered = [counts[label] for label in WORLD.classes]
        if split == "train":
            assert all(before >= after - 2 for before, after in pairwise(ordered))
            law = WORLD.events.imbalance ** -(np.arange(17) / 16)
            np.testing.assert_allclose(ordered, sum(ordered) * law / law.sum(), rtol=0.15, atol=2)
        else:
            assert max(ordered) - min(ordered) <= 1


def test_share_of_missing_labels(planned: Planned) -> None:
    scenes, weak_labels = planned
    for split, chance in (("train", WORLD.events.missing_labels), ("validation", 0.0), ("test", 0.0)):
        sounding = {scene.clip: {event.label for event in scene.events} for scene in scenes[split]}
        assert all(set(weak_labels[clip]) <= labels for clip, labels in sounding.items())
        missing = sum(len(labels - set(weak_labels[clip])) for clip, labels in sounding.items())
        assert within_binomial(missing, sum(map(len, sounding.values())), chance)


def test_everything_lies_inside_its_clip_and_range(planned: Planned) -> None:
    low, high = WORLD.events.snr_db
    for scene in scenes_of(planned):
        for sound in [*scene.events, *scene.distractions]:
            assert 0 <= sound.onset < sound.offset <= scene.duration and low <= sound.snr_db <= high
        for event in scene.events:
            shortest, longest = WORLD.classes[event.label].seconds
            assert shortest - 1e-9 <= event.offset - event.onset <= longest + 1e-9
        for sight in scene.sights:
            assert 0 <= sight.start < sight.end <= scene.duration
            assert 0 <= sight.occlusion <= WORLD.sights.occlusion[1]


def test_sources_are_seen_as_often_as_described(planned: Planned) -> None:
    scenes = scenes_of(planned)
    for label, described in WORLD.classes.items():
        for sounds, chance in ((True, described.visible), (False, described.visible_silent)):
            those = [s for s in scenes if (label in {event.label for event in s.events}) == sounds]
            seen = sum(label in {sight.label for sight in scene.sights} for scene in those)
            assert within_binomial(seen, len(those), chance), (label, sounds, seen, len(those))


def test_no_clip_of_demo_null_keeps_its_own_picture() -> None:
    sizes = (("train", 60), ("test", 2), ("validation", 7))
    clips = [(f"{split}-{k}", split) for split, size in sizes for k in range(size)]
    for seed in range(20):
        donors = picture_donors(clips, seed)
        assert sorted(donors) == sorted(donors.values()) == sorted(clip for clip, _ in clips)
        assert all(clip != donor and clip.split("-")[0] == donor.split("-")[0] for clip, donor in donors.items())
    assert picture_donors(clips, 1) == picture_donors(clips, 1) != picture_donors(clips, 2)


# --- asynchrony and gap


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


@pytest.mark.parametrize("gap", [0.0, 0.7, 3.0, 12.0])
@pytest.mark.parametrize("span", [(0.0, 10.0), (9.5, 10.0), (4.0, 6.0), (4.9, 5.4), (4.2, 5.2), (0.3, 8.0), (2.5, 9.9)])
def test_span_moves_to_the_roomier_side_and_stays_in_the_clip(span: tuple[float, float], gap: float) -> None:
    assert moved(*span, gap, 10.0) == pytest.approx(slowly_moved(*span, gap, 10.0), abs=1e-3)


def moved_sources(scenes: list[Scene], others: list[Scene]) -> Iterator[tuple[SoundEvent, Sight, Sight]]:
    """What sounds in view, and its sights in two plans that are the same but for when sources of sounds are seen."""
    for scene, other in zip(scenes, others, strict=True):
        assert replace(other, sights=()) == replace(scene, sights=())
        events = {event.label: event for event in scene.events}
        for sight, later in zip(scene.sights, other.sights, strict=True):
            assert replace(later, start=sight.start, end=sight.end) == sight
            if sight.label in events:
                yield events[sight.label], sight, later
            else:
                assert later == sight


def test_asynchrony_moves_sources_and_nothing_else() -> None:
    together, independent = (scenes_of(draw_scenes(WORLD.chosen("demo", asynchrony=dial))) for dial in (0.0, 1.0))
    found = list(moved_sources(together, independent))
    assert len(found) > 500
    assert all((near.start, near.end) == (event.onset, event.offset) for event, near, _ in found)
    sounding = [event.onset + event.offset for event, _, _ in found]
    assert spearmanr(sounding, [far.start + far.end for _, _, far in found]).pvalue > 1e-3
    assert with_gap(0.0, "demo") == together


@pytest.mark.parametrize("gap", [0.0, 1.5, 6.0, 100.0, "never"])
def test_gap_moves_sources_and_nothing_else(gap: Gap) -> None:
    found = list(moved_sources(with_gap(None), with_gap(gap)))
    assert len(found) > 30
    for event, _, sight in found:
        assert (sight.start, sight.end) == moved(event.onset, event.offset, gap, 10.0)
        assert 0 <= sight.start <= sight.end <= 10.0 and (sight.start < sight.end) == (gap != "never")
    assert draw_scenes(WORLD.chosen("ci", gap=gap))[1] == draw_scenes(WORLD.chosen("ci"))[1]  # weak labels
