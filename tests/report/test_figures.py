"""Figures and diagrams: captions, alternative text, data, and whether they can be read in light and dark mode."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from itertools import pairwise, permutations
from typing import Any

import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from matplotlib import pyplot
from PIL import Image

from avrepro.report import code, diagram, figure, table
from avrepro.report.display import Cell
from avrepro.report.listings import source_of

NODES = {"a": "audio", "m": "log-mel\n<60>", "v": "video", "k": "key frames", "f": "fused", "x": "other"}
SIDES = (("x", "width"), ("y", "height"))
EDGES = [("a", "m"), ("m", "f"), ("v", "f", "0.2"), ("v", "k"), ("k", "f")]


def content(address: str) -> bytes:
    return base64.b64decode(address.partition("base64,")[2])


def test_a_figure_has_its_picture_caption_text_and_data(make: Callable, shown: Callable) -> None:
    results = make("demo", ("li2017/audio", "map", 0.5))
    data = pd.DataFrame({"title": ["Audio, only"], "value": [51.23456789]})
    fig, axes = pyplot.subplots(figsize=(3, 2))
    axes.plot([0, 1])
    (output,) = shown(figure, fig, "A <caption>.", 'Line "chart" <1>.', results, data, "front")
    page = BeautifulSoup(output.data["text/html"], "html.parser")
    assert page.img is not None and page.figcaption is not None and page.a is not None
    assert page.img["alt"] == 'Line "chart" <1>.' and page.figcaption.get_text().startswith("A <caption>.")
    picture = np.asarray(Image.open(io.BytesIO(content(str(page.img["src"])))).convert("RGB"))
    assert picture.shape[1] > 300 and (picture[0] == 255).all(), "a white ground of its own"
    assert content(str(page.a["href"])).decode() == 'title,value\n"Audio, only",51.2346\n'
    assert output.metadata == {"avrepro": {"runs": ["rundemo"]}, "scrapbook": {"name": "front", "mime_prefix": ""}}
    assert pyplot.get_fignums() == [], "closed"


def test_a_figure_without_alternative_text_is_refused_and_without_data_is_a_note(shown: Callable) -> None:
    with pytest.raises(ValueError, match=r"figure 'A caption\.': expected alternative text"):
        figure(pyplot.figure(), "A caption.", " ")
    with pytest.raises(ValueError, match="diagram 'D': expected alternative text"):
        diagram({"a": "x"}, [], "D", "")
    (note,) = shown(lambda: figure(pyplot.figure(), "A caption.", "Alt.", data=pd.DataFrame({"value": []})))
    assert note.data["text/plain"] == "A caption: not measured in this run." and "<img" not in note.data["text/html"]
    pyplot.close("all")


def test_arrows_of_a_diagram_go_down_from_box_to_box(open_page: Callable, shown: Callable) -> None:
    (output,) = shown(diagram, NODES, EDGES, "Two branches.", "Audio and video are fused.")
    page = open_page(output.data["text/html"])
    svg = page.get_by_role("img", name="Audio and video are fused.")
    boxes = [rect.bounding_box() for rect in svg.locator("rect").all()]
    texts = svg.locator("text:not([paint-order])").all()
    words = {text: element.bounding_box() for element in texts for text in [element.text_content()]}
    assert set(words) == {"audio", "log-mel", "<60>", "video", "key frames", "fused", "other"}, "as text"

    def inside(one: dict, box: dict) -> bool:
        return all(box[at] <= one[at] and one[at] + one[size] <= box[at] + box[size]
                   for at, size in SIDES)  # fmt: skip

    of = {name: next(k for k, box in enumerate(boxes) if inside(words[text.split("\n")[0]], box))
          for name, text in NODES.items()}  # fmt: skip
    assert sorted(of.values()) == [*range(6)], "a box each"
    for p, q in permutations(boxes, 2):
        assert any(p[at] + p[size] < q[at] or q[at] + q[size] < p[at] for at, size in SIDES), "no box on another"
    lines = [line.get_attribute("points") for line in svg.locator("polyline").all()]
    bends = [[tuple(map(float, point.split(","))) for point in line.split()] for line in lines]
    drawn = {name: [float(svg.locator("rect").nth(k).get_attribute(at)) for at in ("x", "y", "width", "height")]
             for name, k in of.items()}  # fmt: skip
    for (start, end, *_), line in zip(EDGES, bends, strict=True):
        x, y, width, height = drawn[start]
        assert line[0] == pytest.approx((x + width / 2, y + height), abs=0.2), "from the bottom of the first"
        x, y, width, _ = drawn[end]
        assert line[-1] == pytest.approx((x + width / 2, y - 5), abs=0.2), "to the top of the second, with its tip"
        assert all(a[1] < b[1] for a, b in pairwise(line)), "downwards"
    long = bends[2]
    x, y, width, height = drawn["k"]
    assert len(long) == 3 and not x <= long[1][0] <= x + width, "an arrow over two rows passes beside the box between"
    assert svg.locator("text[paint-order]").all_text_contents() == ["0.2"]


def test_wrong_diagrams_are_refused() -> None:
    with pytest.raises(ValueError, match=r"boxes that are not there: \['z'\]"):
        diagram({"a": "x"}, [("a", "z")], "D", "Alt.")
    for circle in ([("a", "b"), ("b", "a")], [("a", "a")], [("a", "b"), ("b", "c"), ("c", "b")]):
        with pytest.raises(ValueError, match="go in a circle"):
            diagram({"a": "x", "b": "y", "c": "z"}, circle, "D", "Alt.")


def luminance(colour: list[float]) -> float:
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in (part / 255 for part in colour[:3])]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


# Colour of an element's text, and what lies under it: the grounds of all elements around it, the outermost first.
COLOURS = """one => {
  const grounds = [];
  for (let at = one; at; at = at.parentElement) grounds.unshift(getComputedStyle(at).backgroundColor);
  const style = getComputedStyle(one);
  return [one instanceof SVGElement ? style.fill : style.color, ...grounds];
}"""


def contrast(element: Any) -> float:
    """WCAG 2.1: of an element's text against its ground."""
    text, *grounds = ([float(part) for part in re.findall(r"[\d.]+", one)] for one in element.evaluate(COLOURS))
    ground = [255.0, 255.0, 255.0]
    for red, green, blue, *alpha in grounds:
        share = alpha[0] if alpha else 1.0
        ground = [share * new + (1 - share) * old for new, old in zip((red, green, blue), ground, strict=True)]
    low, high = sorted([luminance(text), luminance(ground)])
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_texts_can_be_read_in_light_and_dark_mode(open_page: Callable, shown: Callable, mode: str) -> None:
    words = [
        Cell(word, None, f'<strong class="{word}">{word}</strong><small>where</small>') for word in ("holds", "fails")
    ]

    def show() -> None:
        table(["a", "b", "c"], [["x", *words]], "Caption.", sortable=True, footnote="The rule.")
        table(["a"], [["x"]], "Caption.", fold="Summary")
        figure(pyplot.figure(figsize=(1, 1)), "Caption.", "Alt.", data=pd.DataFrame({"value": [1]}))
        diagram(NODES, EDGES, "Caption.", "Alt.")
        code(source_of)

    page = open_page(
        "".join(f'</div><div class="output text_html">{one.data["text/html"]}' for one in shown(show)), mode
    )
    places = ["caption > div", "thead th", "tbody th", "td strong.holds", "td strong.fails", "small", "summary",
              "p small", "figcaption", "figcaption a", "svg text", "pre"]  # fmt: skip
    measured = {}
    for place in places:
        assert page.locator(f".avrepro {place}").count(), place
        measured[place] = min(contrast(one) for one in page.locator(f".avrepro {place}").all())
    assert {place: round(one, 1) for place, one in measured.items() if one < 4.5} == {}
    image = page.locator("img").evaluate("one => [getComputedStyle(one).backgroundColor, getComputedStyle(one).filter]")
    assert image == ["rgb(255, 255, 255)", "none"], "a picture keeps its ground and its colours"
