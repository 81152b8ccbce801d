"""Figures 3 and 4 of Parekh et al. (2018) and the player: which clips, and that what is drawn is what was scored."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from matplotlib import colormaps, pyplot
from matplotlib.colors import to_rgba
from matplotlib.patches import Rectangle
from PIL import Image

from avrepro.corpora.base import Clip, Corpus
from avrepro.encode import write_clip
from avrepro.experiments.parekh2018 import Inputs, Systems
from avrepro.experiments.parekh2018_examples import FIGURE_3, OWN, Example, examples, unsynchronised
from avrepro.experiments.parekh2018_training import Trained
from avrepro.features.regions import Regions
from avrepro.models.parekh2018 import Bags, MILConfig, MILNetwork, System
from avrepro.parameters import UnsynchronizedMIL
from avrepro.report import localisation as figures
from avrepro.report.localisation_player import EMBEDDED, player, region_edges
from avrepro.results import Results, Run

CLASSES = ("Bus", "Bicycle", "Car", "Screaming", "Truck", "Motorcycle", "Train")
SEGMENTS = 20
PLACE = "rect => { const box = rect.getBoundingClientRect(); return [box.x, box.y, box.width, box.height] }"
SQUARE = 24  # px, side of the square that moves
SIZE = (96, 128)  # px, height and width


def corner(second: int) -> tuple[int, int]:
    """Left and top (px) of the square in each second of the clip."""
    return 8 + 9 * second, 60 - 6 * second


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """10 s of grey with a white square at another place each second."""
    path = tmp_path_factory.mktemp("video") / "square.mp4"
    frames = np.full((40, *SIZE, 3), 90, np.uint8)
    for k, frame in enumerate(frames):
        left, top = corner(k // 4)
        frame[top : top + SQUARE, left : left + SQUARE] = 255
    sound = np.random.default_rng(0).normal(0, 0.05, 160_000).astype(np.float32)
    write_clip(path, frames, 4, sound, 16_000)
    return path


@dataclass
class World:
    """A corpus whose scores are drawn at random, and whose truth was written down here."""

    inputs: Inputs
    systems: Systems
    events: pd.DataFrame
    sights: pd.DataFrame


def made(
    folder: Path, video: Path, seed: int = 0, clips: int = 90, name: str = "demo", system: System = "two_stream"
) -> World:
    rng = np.random.default_rng(seed)
    splits = ("train", "validation", "test")
    listed = []
    for row in range(clips):
        labels = tuple(label for label in CLASSES if rng.random() < 0.4)
        listed.append(Clip(f"clip-{row}", video, splits[row % 3] if name == "demo" else "train", labels))
    events, sights = [], []
    for clip in listed:
        for label in clip.labels:
            onset = rng.uniform(0, 6)
            events.append((clip.id, label, onset, onset + rng.uniform(0.5, 4), 6.0))
            if rng.random() < 0.6:
                first = int(rng.integers(0, 100))
                for frame in range(first, int(rng.integers(first, 120)) + 1):
                    visible = 1.0 if rng.random() < 0.9 else 0.05
                    sights.append((clip.id, frame, "thing", label, 1.0, 2.0, 3.0, 4.0, visible))
    folder.mkdir(parents=True, exist_ok=True)
    heard = pd.DataFrame(events, columns=["clip", "label", "onset", "offset", "snr_db"])
    heard.to_csv(folder / "sound.csv", index=False)
    seen = pd.DataFrame(sights, columns=["clip", "frame", "object", "label", "x", "y", "w", "h", "visible"])
    seen.to_parquet(folder / "sight.parquet")
    boxes: list[np.ndarray | None] = []
    for _ in listed:
        rows = np.full((10, 6, 5), np.nan)
        for on_frame in rows:
            count = int(rng.integers(1, 7))
            low = rng.uniform(0, 0.5, (count, 2))
            on_frame[:count] = np.column_stack([low, low + rng.uniform(0.2, 0.5, (count, 2)), rng.random(count)])
        boxes.append(rows if rng.random() < 0.8 else None)
    counts = [0 if rows is None else int((~np.isnan(rows[..., 4])).sum()) for rows in boxes]
    keys: dict[str, Any] = (
        {"corpus": "demo"} if name == "demo" else {"corpus": "folder", "clips": "c", "labels": "l.csv"}
    )
    corpus = Corpus(name, CLASSES, tuple(listed), (), f"{seed}", strong=folder if name == "demo" else None)
    inputs = Inputs(
        UnsynchronizedMIL(profile="ci", system=system, **keys), corpus, tuple(boxes),
        Bags.of([np.zeros((count, 4), np.float32) for count in counts]),
        Bags.of([np.zeros((SEGMENTS, 4), np.float32)] * clips), "edges", "image network", "audio network", 0.0,
    )  # fmt: skip
    located = {
        "regions": [rng.normal(size=(count, len(CLASSES))).astype(np.float32) for count in counts],
        "segments": [rng.normal(size=(SEGMENTS, len(CLASSES))).astype(np.float32) for _ in range(clips)],
    }
    if system == "audio_only":
        del located["regions"]
    network = MILNetwork(MILConfig(system=system, classes=len(CLASSES), region_features=4, segment_features=4,
                                   region_units=4, segment_units=4))  # fmt: skip
    trained = Trained(system, network, CLASSES, rng.uniform(-0.5, 0.5, len(CLASSES)), 0.0, folder)
    scores = rng.normal(size=(clips, len(CLASSES)))
    return World(inputs, Systems(CLASSES, {system: trained}, {system: scores}, {system: located}), heard, seen)


@pytest.fixture(scope="module")
def world(video: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    return made(tmp_path_factory.mktemp("world"), video)


@pytest.fixture(scope="module")
def results(world: World, tmp_path_factory: pytest.TempPathFactory) -> Results:
    run = Run("unsynchronized_mil", world.inputs.parameters.model_dump(), world.inputs.corpus)
    run.add("corpus", "", "clips", len(world.inputs.corpus.clips))
    return run.write(tmp_path_factory.mktemp("results"))


def right_decisions(world: World) -> list[tuple[float, int, str]]:
    """Score, row and class of each, by going through all clips and classes."""
    name = world.inputs.parameters.system
    found = []
    for row, clip in enumerate(world.inputs.corpus.clips):
        for k, label in enumerate(CLASSES):
            score = world.systems.scores[name][row, k]
            decided = score >= world.systems.trained[name].thresholds[k]
            if clip.split == "test" and label in clip.labels and decided and world.inputs.boxes[row] is not None:
                found.append((score, row, label))
    return sorted(found, reverse=True)


@pytest.mark.parametrize("seed", range(4))
def test_figure_3_shows_the_highest_right_decision_of_each_class(tmp_path: Path, video: Path, seed: int) -> None:
    world = made(tmp_path, video, seed)
    found = examples(world.inputs, world.systems)
    wanted = []
    for label in FIGURE_3:
        best = next(((score, row) for score, row, name in right_decisions(world) if name == label), None)
        if best is not None:
            wanted.append((f"clip-{best[1]}", label, best[0]))
    assert [(one.clip.id, one.label, one.score) for one in found] == wanted and len(wanted) >= 4
    for one in found:
        events = world.events[(world.events["clip"] == one.clip.id) & (world.events["label"] == one.label)]
        assert one.heard == tuple(sorted(zip(events["onset"], events["offset"], strict=True)))
        sights = world.sights[(world.sights["clip"] == one.clip.id) & (world.sights["label"] == one.label)]
        frames = {row.frame for row in sights.itertuples() if row.visible >= 0.1}
        in_view = {k for k in range(130) for start, end in one.seen if start - 1e-9 <= k / 12 < end - 1e-9}
        assert in_view == frames
        assert one.duration == pytest.approx(10, abs=0.05)


def test_a_class_without_a_right_decision_is_left_out_and_told(
    tmp_path: Path, video: Path, results: Results, shown: Callable
) -> None:
    world = made(tmp_path, video)
    world.systems.trained["two_stream"].thresholds[CLASSES.index("Truck")] = np.inf
    found = examples(world.inputs, world.systems)
    assert [one.label for one in found] == ["Train", "Bicycle", "Car", "Motorcycle"]
    captions = [output.data["text/plain"] for output in shown(figures.figure3, found, results)]
    assert ["Left out, for want of a right decision: Truck." in text for text in captions] == [False] * 3 + [True]


def test_a_corpus_with_other_classes_shows_its_first_five(tmp_path: Path, video: Path) -> None:
    world = made(tmp_path, video)
    others = tuple(name.replace("Truck", "Lorry") for name in CLASSES)
    clips = tuple(
        replace(clip, labels=tuple(label.replace("Truck", "Lorry") for label in clip.labels))
        for clip in world.inputs.corpus.clips
    )
    inputs = replace(world.inputs, corpus=replace(world.inputs.corpus, name="paired", classes=others, clips=clips))
    hits = {label.replace("Truck", "Lorry") for _, _, label in right_decisions(world)}
    found = examples(inputs, replace(world.systems, classes=others))
    assert [one.label for one in found] == [name for name in others if name in hits][:5]
    assert {one.heard for one in found} == {()}, "no planted truth"
    assert unsynchronised(inputs, replace(world.systems, classes=others)) == {}


def test_few_own_clips_are_all_shown_with_the_class_highest_above_its_threshold(tmp_path: Path, video: Path) -> None:
    world = made(tmp_path, video, clips=11, name="folder")
    found = examples(world.inputs, world.systems)
    assert [one.clip.id for one in found] == [f"clip-{row}" for row in range(OWN)]
    for row, one in enumerate(found):
        above = {
            name: world.systems.scores["two_stream"][row, k] - world.systems.trained["two_stream"].thresholds[k]
            for k, name in enumerate(CLASSES)
        }
        assert one.label == max(above, key=lambda name: above[name])
        assert one.score - one.threshold == pytest.approx(above[one.label])
        assert one.heard == one.seen == ()


@pytest.mark.parametrize("seed", range(6))
def test_figure_4_shows_what_was_planted_out_of_step(tmp_path: Path, video: Path, seed: int) -> None:
    world = made(tmp_path, video, seed)
    wanted: dict[str, tuple[str, str]] = {}
    for _, row, label in right_decisions(world):
        events = world.events[(world.events["clip"] == f"clip-{row}") & (world.events["label"] == label)]
        sights = world.sights[(world.sights["clip"] == f"clip-{row}") & (world.sights["label"] == label)]
        frames = sorted(k.frame for k in sights.itertuples() if k.visible >= 0.1)
        onset = events["onset"].min()
        if not frames:
            wanted.setdefault("heard, not seen", (f"clip-{row}", label))
        elif frames[0] / 12 - onset >= 1:
            wanted.setdefault("seen after heard", (f"clip-{row}", label))
    found = unsynchronised(world.inputs, world.systems)
    assert {kind: (one.clip.id, one.label) for kind, one in found.items()} == wanted
    assert len(wanted) == 2 and list(found) == ["seen after heard", "heard, not seen"]


def test_a_source_is_out_of_step_when_first_seen_a_second_after_it_is_first_heard(video: Path, tmp_path: Path) -> None:
    world = made(tmp_path, video)
    _, row, label = right_decisions(world)[0]
    clip = f"clip-{row}"

    def planted(events: list[tuple[float, float]], frame: int) -> bool:
        table = pd.DataFrame([(clip, label, *event, 0.0) for event in events], columns=world.events.columns)
        table.to_csv(tmp_path / "sound.csv", index=False)
        seen = pd.DataFrame([(clip, frame, "a", label, 0, 0, 9, 9, 1.0)], columns=world.sights.columns)
        seen.to_parquet(tmp_path / "sight.parquet")
        return "seen after heard" in unsynchronised(world.inputs, world.systems)

    assert planted([(0.0, 1.0)], 12) and not planted([(0.0, 1.0)], 11)
    assert not planted([(2.9, 4.0), (2.5, 3.0)], 36), "half a second after the first of both"


def test_scores_are_scaled_in_each_clip(world: World) -> None:
    for one in examples(world.inputs, world.systems):
        row, k = int(one.clip.id.removeprefix("clip-")), CLASSES.index(one.label)
        for name, scaled in (("regions", one.region_scores), ("segments", one.segment_scores)):
            raw = world.systems.located["two_stream"][name][row][:, k]
            low, high = min(raw), max(raw)
            np.testing.assert_allclose(scaled, [(value - low) / (high - low) for value in raw], atol=1e-6)
            assert scaled.min() == 0 and scaled.max() == 1
        assert len(one.regions.times) == len(one.region_scores)
        assert one.spans.tolist()[1] == pytest.approx([0.48, 1.44]) and len(one.spans) == SEGMENTS


@pytest.fixture
def one(video: Path) -> Example:
    """The moving square found: a box on it each second, and another that has the rest of the score."""
    boxes, times, scores = [], [], []
    for second in range(10):
        left, top = corner(second)
        width, height = SIZE[1], SIZE[0]
        boxes.append([left / width, top / height, (left + SQUARE) / width, (top + SQUARE) / height])
        boxes.append([0.02, 0.85, 0.3, 0.97])
        times += [second + 0.5] * 2
        scores += [(second + 1) / 10, 1 - (second + 1) / 10]
    regions = Regions(np.array(times), np.array(boxes, np.float32), np.ones(20, np.float32))
    starts = 0.48 * np.arange(SEGMENTS)
    clip = Clip("<script>window.hit=1</script>\"'&", video, "test", ("Car", "<b>Bus</b>"))
    return Example(
        clip, "Car", "two_stream", 1.234, 0.567, 10.0, regions, np.array(scores),
        np.column_stack([starts, starts + 0.96]), np.linspace(0, 1, SEGMENTS) ** 2, ((1.25, 3.5),), ((4.0, 6.0),),
    )  # fmt: skip


def test_opacity_is_the_score(one: Example) -> None:
    _, axes = pyplot.subplots()
    figures.draw_frame(axes, one, 3.5, np.zeros((*SIZE, 3), np.uint8), "lime")
    lower, upper = (
        patch for patch in axes.patches if isinstance(patch, Rectangle)
    )  # the highest score is drawn over the others: 0.4, then 0.6
    left, top = corner(3)
    assert lower.get_bbox().bounds == pytest.approx((left / 128, top / 96, SQUARE / 128, SQUARE / 96))
    assert lower.get_edgecolor() == pytest.approx((0, 1, 0, 0.4))
    assert upper.get_bbox().bounds == pytest.approx((0.02, 0.85, 0.28, 0.12))
    assert upper.get_edgecolor() == pytest.approx((0, 1, 0, 0.6))
    assert not lower.get_fill() and not upper.get_fill()
    assert axes.get_xlim() == (0, 1) and axes.get_ylim() == (1, 0), "fractions of the frame, from its upper left"
    pyplot.close("all")


def test_strips_hold_the_scores(one: Example) -> None:
    _, (top, bottom) = pyplot.subplots(2)
    regions, segments = figures.draw_regions(top, one), figures.draw_segments(bottom, one)
    for strip, scores in ((regions, one.region_scores), (segments, one.segment_scores)):
        assert strip.get_array().ravel().tolist() == scores.tolist()
        assert strip.get_cmap() == colormaps["hot"] and strip.get_clim() == (0, 1)
        assert strip.to_rgba(0.0) == pytest.approx(to_rgba("black"), abs=0.05)
        assert strip.to_rgba(1.0) == pytest.approx(to_rgba("white"))
    edges = segments.get_coordinates()[0, :, 0]
    for time in np.arange(0.05, 10, 0.1):
        nearest = min(range(SEGMENTS), key=lambda k: abs(0.48 * k + 0.48 - time))
        assert edges[nearest] <= time <= edges[nearest + 1]
    assert bottom.get_xlabel() == "time, s" and bottom.get_xlim() == (0, 10) and top.get_xlabel().endswith(", s")
    heard, seen = ([path.get_extents() for path in axes.collections[1].get_paths()] for axes in (bottom, top))
    assert [(box.x0, box.x1) for box in heard] == [(1.25, 3.5)]
    assert [(box.x0, box.x1) for box in seen] == [(8, 10), (10, 12)], "regions of the frames at 4.5 and 5.5 s"
    pyplot.close("all")


def test_frames_are_those_of_the_highest_regions(one: Example) -> None:
    highest = {second + 0.5: max((second + 1) / 10, 1 - (second + 1) / 10) for second in range(10)}
    wanted = sorted(sorted(highest, key=lambda time: -highest[time])[:3])
    assert figures.best_times(one) == wanted == [0.5, 8.5, 9.5]
    assert [figures.best_time(one, start, start + 2) for start in (0, 4, 8)] == [0.5, 5.5, 9.5]
    none = replace(one, regions=Regions(np.empty(0), np.empty((0, 4)), np.empty(0)), region_scores=np.empty(0))
    np.testing.assert_allclose(figures.best_times(none), [10 / 6, 5, 50 / 6])
    assert figures.best_time(none, 4, 6) == 5


def test_figures_say_what_they_show(one: Example, results: Results, shown: Callable) -> None:
    outputs = shown(figures.figure3, [one], results) + shown(figures.figure4, {"seen after heard": one}, results)
    third, fourth, note = (
        outputs[0], *sorted(outputs[1:], key=lambda output: "No example" in output.data["text/plain"])
    )  # fmt: skip
    for output in (third, fourth):
        page = BeautifulSoup(output.data["text/html"], "html.parser")
        image = page.img
        assert image is not None and page.figcaption is not None
        caption, alt = page.figcaption.get_text(), str(image["alt"])
        for text in (caption, alt):
            for words in (one.clip.id, "class Car", "two stream", "1.23", "threshold 0.57, reached"):
                assert words in text
            # segment 19 begins at 9.12 s; 0.5 is first passed by segment 14, at 6.72 s
            assert "Highest segment: 9.1 to 10.0 s; scores of 0.5 and more: 6.7 to 10.0 s." in text
            assert "Highest region: upper right part of the frame at 9.5 s." in text
            assert "Planted: heard 1.2 to 3.5 s; source in view 4.0 to 6.0 s." in text
        assert "demo, profile ci" in caption and len(page.find_all("script")) == 0
        assert output.metadata["avrepro"]["run"] == results.passport()["run"]
        picture = Image.open(io.BytesIO(base64.b64decode(str(image["src"]).partition(",")[2])))
        assert picture.width / 144 <= 10, "in"
    assert "Frames at 0.5, 8.5, 9.5 s" in third.data["text/plain"] and "Green" in third.data["text/plain"]
    assert fourth.data["text/plain"].startswith("Figure 4 A: seen after heard, Car.")
    assert "“heard, not seen”" in note.data["text/plain"]


def test_systems_of_one_modality_and_clips_without_pictures(
    tmp_path: Path, video: Path, one: Example, results: Results, shown: Callable
) -> None:
    world = made(tmp_path, video, system="audio_only")
    found = examples(world.inputs, world.systems)
    assert all(len(each.regions.times) == len(each.region_scores) == 0 for each in found)
    (text,) = (output.data["text/plain"] for output in shown(figures.figure3, found[:1], results))
    assert "ighest region" not in text and "Frames at 1.7, 5.0, 8.3 s" in text
    deaf = replace(one, spans=np.empty((0, 2)), segment_scores=np.empty(0))
    (text,) = (output.data["text/plain"] for output in shown(figures.figure3, [deaf], results))
    assert "Highest segment" not in text and "Highest region" in text
    nothing = replace(one, region_scores=np.zeros(20), segment_scores=np.zeros(SEGMENTS), heard=(), seen=())
    assert figures.in_words(nothing) == "No region and no segment stands out."
    assert "no test clip" in shown(figures.figure3, [], results)[0].data["text/plain"]


def test_the_players_strip_of_regions_gives_each_frame_its_second(one: Example) -> None:
    np.testing.assert_allclose(region_edges(one), np.arange(21) / 2)
    few = replace(one, regions=Regions(np.array([0.5, 0.5, 1.5]), np.zeros((3, 4)), np.zeros(3)))
    np.testing.assert_allclose(region_edges(few), [0, 0.5, 1, 10])  # the last frame stays on show


def test_a_large_clip_is_not_embedded(one: Example, results: Results, shown: Callable, tmp_path: Path) -> None:
    large = tmp_path / "large.mp4"
    large.write_bytes(bytes(EMBEDDED + 1))
    (note,) = shown(player, replace(one, clip=replace(one.clip, path=large)), results)
    assert "not embedded" in note.data["text/plain"] and "<video" not in note.data["text/html"]


def test_the_player_in_a_browser(browser: Any, one: Example, results: Results, shown: Callable, tmp_path: Path) -> None:
    outputs = shown(player, one, results) + shown(player, one, results)
    markup = "".join(output.data["text/html"] for output in outputs)
    file = tmp_path / "page.html"
    file.write_text(f'<!doctype html><meta charset="utf-8"><body style="margin:40px">{markup}', encoding="utf-8")
    page = browser.new_page(viewport={"width": 900, "height": 1500})
    faults: list[str] = []
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: faults.append(error.message))
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(file.as_uri())
    ids = page.locator("figure").evaluate_all("all => all.map(one => one.id)")
    assert len(ids) == len(set(ids)) == 2
    assert page.evaluate("window.hit") is None and page.locator("figcaption b").count() == 0, "names are text"
    for video in page.locator("video").all():
        video.evaluate("video => new Promise(done => video.readyState > 1 ? done() : video.oncanplay = done)")

    for width in (900, 320):
        page.set_viewport_size({"width": width, "height": 1500})
        for number, time in ((0, 2.3), (1, 8.9), (0, 9.0)):
            figure = page.locator("figure").nth(number)
            video = figure.locator("video")
            video.evaluate("(video, time) => new Promise(d => { video.onseeked = d; video.currentTime = time })", time)
            frame, second = video.bounding_box(), int(time)
            assert frame["width"] == min(480, width - 80) and frame["width"] / frame["height"] == pytest.approx(
                4 / 3, 0.01
            )
            boxes = [rect for rect in figure.locator("g rect").all() if rect.is_visible()]
            assert len(boxes) == 2, "those of the current second alone"
            left, top = corner(second)
            places = [rect.evaluate(PLACE) for rect in boxes]
            wanted = [
                frame["x"] + left / 128 * frame["width"], frame["y"] + top / 96 * frame["height"],
                SQUARE / 128 * frame["width"], SQUARE / 96 * frame["height"],
            ]  # fmt: skip
            at = min((0, 1), key=lambda k: np.abs(np.subtract(places[k], wanted)).sum())
            np.testing.assert_allclose(places[at], wanted, atol=0.5)
            score = (second + 1) / 10
            assert float(boxes[at].get_attribute("stroke-opacity")) == pytest.approx(score)
            assert float(boxes[1 - at].get_attribute("stroke-opacity")) == pytest.approx(1 - score)
            # and what is painted: white inside, where the video has its square, within a line as green as the score
            video.evaluate("video => { video.controls = false }")  # they darken the picture
            picture = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB")).astype(int)
            video.evaluate("video => { video.controls = true }")
            x, y, w, h = wanted
            assert picture[round(y + h / 2), round(x + w / 2)].min() > 200
            assert picture[round(y + h / 2), round(x - 8)].max() < 160, "grey beside the square"
            edge = picture[round(y + h / 2), round(x) - 1 : round(x) + 2]
            excess = (edge[:, 1] - edge[:, [0, 2]].max(axis=1)).max()
            assert excess == pytest.approx(score * 255, abs=60)
            for strip in figure.locator("svg[role=img]:has([data-cursor])").all():
                line, area = strip.locator("[data-cursor]").bounding_box(), strip.bounding_box()
                middle = line["x"] + line["width"] / 2 - area["x"]
                assert middle == pytest.approx(time / 10 * area["width"], abs=1)
            assert f"{time:.1f} s" in figure.locator("[data-told]").inner_text()
    assert page.locator("video").nth(1).evaluate("video => video.currentTime") == 8.9, "players do not move each other"

    for strip, scores in (("regions", one.region_scores), ("segments", one.segment_scores)):
        cells = page.locator("figure").first.locator(f'svg[aria-label$="{strip} over time"] rect')
        colours = [tuple(int(fill[k : k + 2], 16) for k in (1, 3, 5)) for fill in
                   cells.evaluate_all("all => all.map(one => one.getAttribute('fill'))")]  # fmt: skip
        np.testing.assert_allclose(colours, colormaps["hot"](scores)[:, :3] * 255, atol=1)

    first = page.locator("video").first
    first.evaluate("video => { video.muted = true; video.currentTime = 0 }")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement === document.querySelector('video')"), "reached from the keyboard"
    page.keyboard.press("Space")
    page.wait_for_function("document.querySelector('video').currentTime > 1.2", timeout=15_000)
    visible = (
        page.locator("figure")
        .first.locator("g[data-time]")
        .evaluate_all("all => all.filter(one => one.style.display !== 'none').map(one => Number(one.dataset.time))")
    )
    now = first.evaluate("video => { video.pause(); return video.currentTime }")
    assert len(visible) == 1 and 1.5 <= visible[0] <= np.floor(now) + 0.5, "boxes move while it plays"
    assert all(word in first.get_attribute("aria-label") for word in (one.clip.id, "class Car", "1.23"))
    assert faults == [] and all(url.startswith(("file:", "data:")) for url in asked)
