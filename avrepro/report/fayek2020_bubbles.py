"""Figure 2 of Fayek and Kumar (2020) to point at: a class's name and numbers under the pointer or the keyboard."""

from __future__ import annotations

import html
from uuid import uuid4

from avrepro.report import origin, show_player
from avrepro.report.fayek2020 import held_out
from avrepro.report.fayek2020_figures import BLUE, GREY, RED, OfClass, classes_of, drawn, in_words
from avrepro.results import Results

SIZE, LEFT, TOP, BOTTOM, RIGHT = 480, 64, 44, 56, 22  # px of the drawing's own scale: the square, and what is around it
WIDTH, HEIGHT = LEFT + SIZE + RIGHT, TOP + SIZE + BOTTOM
POINT = 2.4  # px of a bubble's diameter, a point of AP
REACH = 9  # px: so far from its middle a class is pointed at, however small its bubble
TICKS = range(0, 101, 20)

STYLE = """#{mark} .class {{cursor:pointer}} #{mark} .class:focus {{outline:none}}
#{mark} .class .ring {{stroke:none}}
#{mark} .class:hover .ring, #{mark} .class:focus .ring {{stroke:#000;stroke-width:2.5}}"""
SCRIPT = """(() => {
  const figure = document.getElementById("%s"), told = figure.querySelector("[data-told]"), first = told.textContent;
  let focused = null;
  const tell = (one) => { told.textContent = one ? one.getAttribute("aria-label") : first; };
  for (const one of figure.querySelectorAll("g.class")) {
    one.addEventListener("pointerenter", () => tell(one));
    one.addEventListener("pointerleave", () => tell(focused));
    one.addEventListener("focus", () => tell((focused = one)));
    one.addEventListener("blur", () => tell((focused = null)));
  }
})();"""


def bubbles(results: Results | None) -> None:
    """Bubbles of figure 2 that tell their class; in the page alone, without libraries and without the network."""
    if not drawn(results) or results is None:
        return
    classes = classes_of(results)
    mark = f"bubbles-{uuid4().hex}"  # a page may hold several
    title = f"Average precision of audio and of visual for {len(classes)} classes, {origin(results)}"
    caption = (
        f"Figure 2 to point at, {held_out(results)} clips ({origin(results)}): point at a bubble, or go from one to "
        "the next with the tab key. Its diameter is the change by attention fusion against the better of audio and "
        "visual: blue, improved; red and dashed, deteriorated."
    )
    markup = (
        f'<figure id="{mark}" style="max-width:{WIDTH + 80}px;margin:1rem 0"><style>{STYLE.format(mark=mark)}</style>'
        f"{drawing(classes, title)}"
        '<p data-told="" aria-hidden="true" style="min-height:3em;margin:0.3rem 0">Point at a class to read its '
        f"numbers.</p><figcaption>{html.escape(caption)}</figcaption><script>{SCRIPT % mark}</script></figure>"
    )
    show_player(markup, "\n".join([caption, *map(in_words, classes)]), results)


def drawing(classes: list[OfClass], title: str) -> str:
    """The drawing as SVG; one mark a class, each with its name, to be reached by the keyboard in the given order."""
    lines = []
    for tick in TICKS:
        x, y = place(tick, tick)
        lines.append(f'<path d="M{x:.1f} {TOP}V{TOP + SIZE}M{LEFT} {y:.1f}H{LEFT + SIZE}" stroke="#ddd"/>')
        lines.append(f'<text x="{x:.1f}" y="{TOP + SIZE + 18}" text-anchor="middle">{tick}</text>')
        lines.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick}</text>')
    middle = TOP + SIZE / 2
    lines += [
        f'<path d="M{LEFT} {TOP + SIZE}L{LEFT + SIZE} {TOP}" stroke="#999" stroke-dasharray="6 4"/>',
        f'<text x="{LEFT + SIZE / 2}" y="{HEIGHT - 12}" text-anchor="middle">average precision of audio, %</text>',
        f'<text transform="translate(18 {middle}) rotate(-90)" text-anchor="middle">average precision of visual, %'
        "</text>",
        *_legend(),
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="group" '
        f'aria-label="{html.escape(title)}" style="display:block;width:100%;height:auto" font-family="sans-serif" '
        f'font-size="13" fill="#333"><rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>'
        f'<g aria-hidden="true">{"".join(lines)}</g>{"".join(map(_bubble, classes))}</svg>'
    )


def place(audio: float, visual: float) -> tuple[float, float]:
    """Where two average precisions, in percent, lie in the drawing: right and down, px."""
    return LEFT + SIZE * audio / 100, TOP + SIZE * (1 - visual / 100)


def _bubble(one: OfClass) -> str:
    x, y = place(one.audio, one.visual)
    words, radius = html.escape(in_words(one)), POINT * abs(one.change) / 2
    at = f'cx="{x:.1f}" cy="{y:.1f}"'
    return (
        f'<g class="class" tabindex="0" role="img" aria-label="{words}"><title>{words}</title>'
        f'<circle class="ring" {at} r="{max(radius, REACH):.2f}" fill="transparent"/>'
        f'<circle class="bubble" {at} r="{radius:.2f}" {_paint(one.change, one.colour)}/>'
        f'<circle {at} r="1.8" fill="{one.colour}"/></g>'
    )


def _paint(change: float, colour: str) -> str:
    dashed = ' stroke-dasharray="4 3"' if change < 0 else ""
    return f'fill="{colour}" fill-opacity="0.35" stroke="{colour}"{dashed}'


def _legend() -> list[str]:
    """What colours and sizes mean, above the square: bubbles may lie anywhere in it."""
    lines = []
    keys = ((0, "improved", 7.0, BLUE), (110, "deteriorated", -7.0, RED), (250, "10 points", 10.0, GREY),
            (360, "1 point", 1.0, GREY))  # fmt: skip
    for right, text, points, colour in keys:
        lines += [
            f'<circle cx="{LEFT + 14 + right}" cy="20" r="{POINT * abs(points) / 2:.2f}" {_paint(points, colour)}/>',
            f'<text x="{LEFT + 32 + right}" y="24">{text}</text>',
        ]
    return lines
