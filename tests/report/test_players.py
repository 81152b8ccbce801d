"""Clips that play in the page, and figures 3 and 4 of Parekh et al. (2018): what is drawn is what was scored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import colormaps, pyplot
from matplotlib.colors import to_rgba
from matplotlib.patches import Rectangle

from avrepro.corpora.base import Clip
from avrepro.encode import write_clip
from avrepro.report import Localisation, localisation_figure, localisation_player, player
from avrepro.report.heat_strips import rows_of
from avrepro.report.players import EMBEDDED, spectrogram

SEGMENTS, SQUARE, SIZE = 20, 24, (96, 128)  # SQUARE: side of a box, SIZE: height and width of frames, px
PLACE = "rect => { const box = rect.getBoundingClientRect(); return [box.x, box.y, box.width, box.height] }"
SEEK = "(clip, time) => new Promise(done => { clip.onseeked = done; clip.currentTime = time })"


def corner(second: int) -> tuple[int, int]:
    """Left and top (px) of the box in each second of the clip."""
    return 8 + 9 * second, 60 - 6 * second


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """10 s of grey; a tone of 440 Hz, then one of 4 kHz."""
    path = tmp_path_factory.mktemp("video") / "grey.mp4"
    time = np.arange(160_000) / 16_000
    tone = 0.3 * np.sin(2 * np.pi * np.where(time < 5, 440, 4000) * time)
    write_clip(path, np.full((40, *SIZE, 3), 90, np.uint8), 4, tone.astype(np.float32), 16_000)
    return path


@pytest.fixture
def one(video: Path) -> Localisation:
    """A box that moves each second and scores higher each time, and another that stays."""
    boxes, scores = [], []
    for second in range(10):
        left, top = corner(second)
        boxes.append([left / 128, top / 96, (left + SQUARE) / 128, (top + SQUARE) / 96])
        boxes.append([0.02, 0.85, 0.3, 0.97])
        scores += [(second + 1) / 10, 0.35]
    starts = 0.48 * np.arange(SEGMENTS)
    clip = Clip("<script>window.hit=1</script>\"'&", video, "test", ("Car", "<b>Bus</b>"))
    return Localisation(
        clip, "Car", "parekh2018/two_stream", 1.234, 0.567, 10.0, np.repeat(np.arange(10) + 0.5, 2), np.array(boxes),
        np.array(scores), np.column_stack([starts, starts + 0.96]), np.linspace(0, 1, SEGMENTS) ** 2, ((1.25, 3.5),),
        ((4.0, 6.0),),
    )  # fmt: skip


def test_figures_draw_and_say_what_was_scored(
    one: Localisation, make: Callable, shown: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each row of the figure is that of the player; a frame has its boxes, whose opacity is the score."""
    plots: list[Any] = []
    monkeypatch.setattr(pyplot, "close", plots.append)
    results = make("demo", ("parekh2018/two_stream", "map", 0.5))
    outputs = shown(lambda: [localisation_figure(one, results, in_time) for in_time in (False, True)])
    monkeypatch.undo()
    for output, fig, times in zip(outputs, plots, ([7.5, 8.5, 9.5], [0.5, 3.5, 5.5, 7.5, 9.5]), strict=True):
        frames, rows = fig.axes[: len(times)], fig.axes[len(times) : -1]  # the last one is the scale
        assert [axes.get_title() for axes in frames] == [f"{time} s" for time in times]
        (left, top), boxes = corner(int(times[-1])), [p for p in frames[-1].patches if isinstance(p, Rectangle)]
        assert boxes[1].get_bbox().bounds == pytest.approx((left / 128, top / 96, SQUARE / 128, SQUARE / 96))
        assert [box.get_edgecolor()[3] for box in boxes] == pytest.approx([0.35, 1]), "the highest on top"
        for axes, row in zip(rows, rows_of(one), strict=True):
            drawn = [path.get_extents() for path in axes.collections[0].get_paths()]
            np.testing.assert_allclose([(box.x0, box.x1) for box in drawn], row.spans)
            np.testing.assert_allclose(axes.collections[0].get_facecolor(), [to_rgba(one) for one in row.colours])
        for words in (  # segment 19 begins at 9.12 s; 0.5 is first passed by segment 14, at 6.72 s
            one.clip.id, "class Car", "1.23 (threshold 0.57, reached)",
            "Highest region: upper right part of the frame at 9.5 s.",
            "Highest segment: 9.1 to 10.0 s; scores of 0.5 and more: 6.7 to 10.0 s.",
            "Planted: it sounds 1.2 to 3.5 s; its source is in view 4.0 to 6.0 s.",
        ):  # fmt: skip
            assert words in output.data["text/plain"]
        assert "<script>" not in output.data["text/html"] and output.metadata["avrepro"]["runs"] == ["rundemo"]
    pyplot.close("all")


def test_rows_hold_the_scores_at_their_times(one: Localisation) -> None:
    _, regions, _, segments = rows_of(one)
    for row, scores in ((regions, one.region_scores), (segments, one.segment_scores)):
        np.testing.assert_allclose([to_rgba(c) for c in row.colours], colormaps["hot"](scores), atol=1 / 255)
    np.testing.assert_allclose(regions.spans, [(k / 2, k / 2 + 0.5) for k in range(20)])
    for time in np.arange(0.05, 10, 0.1):
        start, end = segments.spans[min(range(SEGMENTS), key=lambda k: abs(0.48 * k + 0.48 - time))]
        assert start <= time <= end, "each moment has the colour of the segment whose middle is nearest"
    few = replace(one, times=np.array([0.5, 0.5, 1.5]), boxes=np.zeros((3, 4)), region_scores=np.zeros(3))
    np.testing.assert_allclose(rows_of(few)[1].spans, [(0, 0.5), (0.5, 1), (1, 10)])  # the last frame stays on show


def test_a_clip_without_regions_or_sound(one: Localisation, shown: Callable) -> None:
    blind = replace(one, times=np.empty(0), boxes=np.empty((0, 4)), region_scores=np.empty(0))
    deaf = replace(one, segments=np.empty((0, 2)), segment_scores=np.empty(0), score=0.1)
    texts = [output.data["text/plain"] for output in shown(lambda: [localisation_figure(x) for x in (blind, deaf)])]
    assert "Frames at 1.7, 5.0, 8.3 s." in texts[0] and "Highest region" not in texts[0]
    assert "Highest segment" not in texts[1] and "Highest region" in texts[1] and "not reached" in texts[1]


def test_a_spectrogram_has_time_and_tone_in_their_places(video: Path) -> None:
    picture = spectrogram(video, 10.0).astype(int)
    assert picture.shape[0] == 64 and 500 < picture.shape[1] <= 1000
    brightest = picture[..., :3].sum(axis=2).argmax(axis=0)
    half = len(brightest) // 2
    assert (brightest[5 : half - 5] > 40).all(), "the low tone at the bottom"
    assert (brightest[half + 5 : -5] < 25).all(), "the high one above"


def test_a_clip_in_a_browser(open_page: Callable, video: Path, tmp_path: Path, shown: Callable) -> None:
    (output,) = shown(player, video, {"planted <b>": [(1.25, 3.5)]}, "A <b>clip</b>.")
    page = open_page(output.data["text/html"])
    clip, strips = page.locator("video"), page.locator("svg[role=img]")
    assert clip.get_attribute("aria-label") == "A <b>clip</b>.; planted <b>: 1.2 to 3.5 s"
    clip.evaluate(SEEK, 5.0)
    whole, line = strips.first.bounding_box(), page.locator("[data-cursor]").bounding_box()
    assert line["x"] + line["width"] / 2 == pytest.approx(whole["x"] + whole["width"] / 2, abs=1)
    x, _, width, _ = strips.nth(1).locator("rect").evaluate(PLACE)
    assert ((x - whole["x"]) / whole["width"], width / whole["width"]) == pytest.approx((0.125, 0.225), abs=0.005)
    assert "5.0 s" in page.locator("[data-status]").inner_text() and page.faults == []

    large = tmp_path / "large.mp4"
    large.write_bytes(video.read_bytes() + bytes(EMBEDDED))
    (note,) = shown(player, large, {}, "A clip.")
    assert "not embedded" in note.data["text/plain"] and "<video" not in note.data["text/html"]


def test_boxes_follow_the_clip_in_a_browser(open_page: Callable, one: Localisation, shown: Callable) -> None:
    markup = "".join(output.data["text/html"] for output in shown(lambda: [localisation_player(one) for _ in "ab"]))
    page = open_page(markup)
    assert page.evaluate("window.hit") is None and page.locator("figcaption b").count() == 0, "names are text"
    for clip in page.locator("video").all():
        clip.evaluate("clip => new Promise(done => clip.readyState > 1 ? done() : clip.oncanplay = done)")
    for width, number, time in ((900, 0, 2.3), (900, 1, 8.9), (320, 0, 9.0)):
        page.set_viewport_size({"width": width, "height": 1500})
        playing = page.locator("figure").nth(number)
        playing.locator("video").evaluate(SEEK, time)
        frame, second = playing.locator("video").bounding_box(), int(time)
        boxes = [rect for rect in playing.locator("g rect").all() if rect.is_visible()]
        assert len(boxes) == 2, "those of the current second alone"
        assert frame["height"] / frame["width"] == pytest.approx(96 / 128, abs=0.01), "no bars beside the picture"
        left, top = corner(second)
        wanted = [
            frame["x"] + left / 128 * frame["width"], frame["y"] + top / 96 * frame["height"],
            SQUARE / 128 * frame["width"], SQUARE / 96 * frame["height"],
        ]  # fmt: skip
        box = min(boxes, key=lambda rect: np.abs(np.subtract(rect.evaluate(PLACE), wanted)).sum())
        np.testing.assert_allclose(box.evaluate(PLACE), wanted, atol=0.5)
        assert float(box.get_attribute("stroke-opacity")) == pytest.approx((second + 1) / 10)
        assert f"{time:.1f} s; highest region of the frame: " in playing.locator("[data-status]").inner_text()
    assert page.locator("video").nth(1).evaluate("clip => clip.currentTime") == 8.9, "players do not move each other"
    assert page.faults == []
