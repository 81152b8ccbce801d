"""Plans of the demo world against what its description says, and its gap against a slow search."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom, spearmanr

from avrepro.corpora import CorpusError
from avrepro.corpora.demo.description import Gap, load_world_description
from avrepro.corpora.demo.planning import draw_scenes, moved
from avrepro.corpora.demo.scenes import Scene, Sight
from avrepro.corpora.demo.world import picture_donors, world_recipe
from avrepro.manifests import manifest_path

WORLD = load_world_description()
GAPS: tuple[Gap, ...] = (0.0, 1.5, 6.0, 100.0, "never")
Planned = tuple[dict[str, list[Scene]], dict[str, tuple[str, ...]]]


@pytest.fixture(scope="module")
def planned() -> Planned:
    return draw_scenes(WORLD, "demo")


def scenes_of(planned: Planned) -> list[Scene]:
    return [scene for scenes in planned[0].values() for scene in scenes]


def with_gap(gap: Gap | None, profile: str = "ci", asynchrony: float | None = None) -> list[Scene]:
    return scenes_of(draw_scenes(WORLD, profile, asynchrony=asynchrony, gap=gap))


def sources(scene: Scene) -> dict[str, Sight]:
    """The planned sights of what sounds, by class."""
    sounding = {event.label for event in scene.events}
    return {sight.label: sight for sight in scene.sights if sight.label in sounding and sight.label}


def within_binomial(hits: int, trials: int, chance: float) -> bool:
    """Not stranger than one in a million, so that dozens of checks stay quiet."""
    low, high = binom.interval(1 - 1e-6, trials, chance)
    return bool(low <= hits <= high)


def test_description_names_what_is_wrong(tmp_path: Path) -> None:
    text = manifest_path("demo_world.yaml").read_text("utf-8")
    wrong = tmp_path / "world.yaml"
    for old, new, named in (
        ("imbalance: 15.0", "imbalance: 15.0\n  loudness: 3", "events.loudness"),
        ("seed: 2017", "seed: two", "seed"),
        ("missing_labels: 0.10", "missing_labels: 1.10", "events.missing_labels"),
        ("count: [0.10, 0.50, 0.30, 0.10]", "count: [0.10, 0.50, 0.30, 0.20]", "events.count"),
        ("{seconds: [0.5, 10.0], visible", "{seconds: [0.5, 12.0], visible", "classes.Car.seconds"),
        ("occlusion: [0.0, 0.6]", "occlusion: [0.6, 0.0]", "sights.occlusion"),
        ("  Train:      ", "  Trolley:    ", "classes either described or rendered, not both: .*Train.*Trolley"),
    ):
        assert text.count(old) == 1
        wrong.write_text(text.replace(old, new), "utf-8")
        with pytest.raises(CorpusError, match=named.replace("s.", r"s\.")):
            draw_scenes(load_world_description(wrong), "ci")


def test_the_order_of_classes_is_in_the_recipe() -> None:
    """It says how common they are."""
    other = WORLD.model_copy(update={"classes": dict(reversed(WORLD.classes.items()))})
    assert world_recipe(other).key != world_recipe(WORLD).key


def test_plans_are_deterministic(planned: Planned) -> None:
    assert draw_scenes(WORLD, "demo") == planned
    other = draw_scenes(WORLD, "demo", seed=WORLD.seed + 1)
    assert not set(scene.seed for scene in scenes_of(planned)) & set(scene.seed for scene in scenes_of(other))


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
            assert 12 <= max(ordered) / min(ordered) <= 18
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
            assert 0 <= sound.onset < sound.offset <= scene.duration
            assert low <= sound.snr_db <= high
        for event in scene.events:
            shortest, longest = WORLD.classes[event.label].seconds
            assert shortest - 1e-9 <= event.offset - event.onset <= longest + 1e-9
        for sight in scene.sights:
            assert 0 <= sight.start < sight.end <= scene.duration
            assert 0 <= sight.occlusion <= WORLD.sights.occlusion[1]
        assert 1 <= len(scene.beds) <= 2
        assert sum(sight.label is None for sight in scene.sights) <= 4


def test_sources_are_seen_as_often_as_described(planned: Planned) -> None:
    scenes = scenes_of(planned)
    for label, described in WORLD.classes.items():
        for sounds, chance in ((True, described.visible), (False, described.visible_silent)):
            those = [s for s in scenes if (label in {event.label for event in s.events}) == sounds]
            seen = sum(label in {sight.label for sight in scene.sights} for scene in those)
            assert within_binomial(seen, len(those), chance), (label, sounds, seen, len(those))


def test_asynchrony_moves_sights_and_nothing_else() -> None:
    sounding, showing = [], []
    for near, far in zip(with_gap(None, "demo", 0.0), with_gap(None, "demo", 1.0), strict=True):
        assert replace(near, sights=()) == replace(far, sights=())
        events = {event.label: event for event in near.events}
        for sight, later in zip(near.sights, far.sights, strict=True):
            assert replace(later, start=sight.start, end=sight.end) == sight
            if sight.label and (event := events.get(sight.label)):
                assert (sight.start, sight.end) == (event.onset, event.offset)
                sounding.append(event.onset + event.offset)
                showing.append(later.start + later.end)
            else:
                assert sight == later
    assert len(sounding) > 500
    assert spearmanr(sounding, showing).pvalue > 1e-3


# --- demo-null


def test_no_clip_keeps_its_own_picture() -> None:
    sizes = (("train", 60), ("test", 2), ("validation", 7))
    clips = [(f"{split}-{k}", split) for split, size in sizes for k in range(size)]
    for seed in range(20):
        donors = picture_donors(clips, seed)
        assert sorted(donors) == sorted(donors.values()) == sorted(clip for clip, _ in clips)
        assert all(clip != donor and clip.split("-")[0] == donor.split("-")[0] for clip, donor in donors.items())
    assert picture_donors(clips, 1) == picture_donors(clips, 1) != picture_donors(clips, 2)


def test_even_a_perfect_eye_is_useless_in_demo_null(planned: Planned) -> None:
    """Seeing every planted source tells what sounds in demo; with another clip's pictures it tells nothing."""
    scenes = {scene.clip: scene for scene in planned[0]["test"] + planned[0]["train"]}
    donors = picture_donors([(clip, clip.split("-")[0]) for clip in scenes], WORLD.seed)
    seen = {clip: {sight.label for sight in scene.sights} for clip, scene in scenes.items()}
    vehicles = {label for label, described in WORLD.classes.items() if described.visible > 0.5}
    events = [(clip, e.label) for clip, scene in scenes.items() for e in scene.events if e.label in vehicles]
    share = {label: sum(label in labels for labels in seen.values()) / len(seen) for label in vehicles}
    assert sum(label in seen[clip] for clip, label in events) / len(events) > 0.8
    exchanged = sum(label in seen[donors[clip]] for clip, label in events)
    assert within_binomial(exchanged, len(events), sum(share[label] for _, label in events) / len(events))


# --- the gap


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


def test_gap_moves_sources_and_nothing_else() -> None:
    plain = with_gap(None)
    for gap in GAPS:
        found = 0
        for scene, other in zip(plain, with_gap(gap), strict=True):
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
    assert with_gap(None, "demo") == with_gap(None, "demo", asynchrony=WORLD.sights.asynchrony)
    assert with_gap(0.0, "demo") == with_gap(None, "demo", asynchrony=0.0)
    assert with_gap(6.0) != with_gap(None) != with_gap(0.0)
    chosen = WORLD.chosen("ci", None, None, 6.0)  # a description may hold a gap; given asynchrony takes its place
    assert scenes_of(draw_scenes(chosen, "ci")) == with_gap(6.0)
    assert scenes_of(draw_scenes(chosen, "ci", asynchrony=0.5)) == with_gap(None)


def test_larger_gaps_plant_more_time_between_sound_and_sight() -> None:
    means = []
    for gap in (0.0, 2.0, 4.0, 6.0):
        scenes = [(scene, sources(scene)) for scene in with_gap(gap, "demo")]
        apart = [
            abs(shown[e.label].start - e.onset) for scene, shown in scenes for e in scene.events if e.label in shown
        ]
        assert max(apart) <= gap + 1e-9
        means.append(np.mean(apart))
    assert means[0] == 0
    assert np.all(np.diff(means) > 1)


@pytest.mark.parametrize("gap", [-0.5, math.nan, math.inf, "6", "always"])
def test_refuses_what_is_no_gap(gap: Gap) -> None:
    with pytest.raises(CorpusError, match=f"'never'; found {gap!r}"):
        draw_scenes(WORLD, "ci", gap=gap)
