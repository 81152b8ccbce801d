"""Figures and diagrams: caption, alternative text and data, boxes apart, arrows from box to box."""

from __future__ import annotations

import base64
from collections.abc import Callable
from itertools import combinations
from typing import Any

import pandas as pd
import pytest
from bs4 import BeautifulSoup
from matplotlib import pyplot

from avrepro.report import diagram, figure

NODES = {"a": "audio", "v": "video", "m": "log-mel\n<60>", "k": "key frames", "l": "l", "r": "r", "f": "fused"}
EDGES = [("a", "m"), ("m", "l"), ("m", "r"), ("l", "f"), ("r", "f"), ("v", "k"), ("k", "f")]


def content(address: str) -> bytes:
    return base64.b64decode(address.partition("base64,")[2])


def corners(element: Any) -> tuple[float, float, float, float]:
    """Left, top, right and bottom, px."""
    box = element.bounding_box()
    return box["x"], box["y"], box["x"] + box["width"], box["y"] + box["height"]


def test_a_figure_has_its_picture_caption_text_and_data(make: Callable, shown: Callable) -> None:
    results = make("demo", ("li2017/audio", "map", 0.5))
    data = pd.DataFrame({"title": ["Audio, only"], "value": [51.23456789]})
    fig, axes = pyplot.subplots(figsize=(3, 2))
    axes.plot([0, 1])
    (output,) = shown(figure, fig, "A <caption>.", 'Line "chart" <1>.', results, data, "front")
    page = BeautifulSoup(output.data["text/html"], "html.parser")
    assert page.img is not None and page.figcaption is not None and page.a is not None
    assert page.img["alt"] == 'Line "chart" <1>.' and page.figcaption.get_text().startswith("A <caption>.")
    assert content(str(page.img["src"])).startswith(b"\x89PNG")
    assert content(str(page.a["href"])).decode() == 'title,value\n"Audio, only",51.2346\n'
    assert output.metadata == {"avrepro": {"runs": ["rundemo"]}, "scrapbook": {"name": "front", "mime_prefix": ""}}
    assert pyplot.get_fignums() == [], "closed"

    (note,) = shown(lambda: figure(pyplot.figure(), "A caption.", "Alt.", data=data.iloc[:0]))
    assert note.data["text/plain"] == "A caption: not measured in this run." and "<img" not in note.data["text/html"]


def test_arrows_of_a_diagram_go_down_from_box_to_box(open_page: Callable, shown: Callable) -> None:
    (output,) = shown(diagram, NODES, EDGES, "Two branches.", "Audio and video are fused.")
    svg = open_page(output.data["text/html"]).get_by_role("img", name="Audio and video are fused.")
    boxes = dict(zip(NODES, (corners(rect) for rect in svg.locator("rect").all()), strict=True))  # in this order
    for p, q in combinations(boxes.values(), 2):
        assert p[2] < q[0] or q[2] < p[0] or p[3] < q[1] or q[3] < p[1], "no box on another"
    lines = [(name, line) for name, text in NODES.items() for line in text.split("\n")]
    for (name, line), text in zip(lines, svg.locator("text").all(), strict=True):
        (left, top, right, bottom), inner = boxes[name], corners(text)
        assert text.text_content() == line
        assert left <= inner[0] and top <= inner[1] and inner[2] <= right and inner[3] <= bottom
    for (start, end), line in zip(EDGES, svg.locator("line").all(), strict=True):
        rect, other = (svg.locator("rect").nth(list(NODES).index(name)) for name in (start, end))
        x1, y1, x2, y2 = (float(line.get_attribute(name)) for name in ("x1", "y1", "x2", "y2"))
        x, y, width, height = (float(rect.get_attribute(name)) for name in ("x", "y", "width", "height"))
        assert (x1, y1) == pytest.approx((x + width / 2, y + height), abs=0.2), "from the bottom of the first"
        x, y, width = (float(other.get_attribute(name)) for name in ("x", "y", "width"))
        assert (x2, y2) == pytest.approx((x + width / 2, y - 5), abs=0.2) and y1 < y2, "to the top of the second"


def test_alternative_text_is_asked_for() -> None:
    with pytest.raises(ValueError, match=r"figure 'A caption\.': expected alternative text"):
        figure(pyplot.figure(), "A caption.", " ")
    with pytest.raises(ValueError, match="diagram 'D': expected alternative text"):
        diagram({"a": "x"}, [], "D", "")
    pyplot.close("all")
