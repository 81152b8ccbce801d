"""Figures and block diagrams: one style, a caption and alternative text, readable in light and dark mode."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any
from uuid import uuid4

import pandas as pd

from avrepro.report.display import Shown, note, send
from avrepro.report.wording import NOT_MEASURED

FONT, LINE, GAP = 13, 18, 34  # px: text of a box, its lines, and the space between rows of boxes
HALO = ' stroke="var(--pst-color-background, #fff)" stroke-width="4" paint-order="stroke"'
LETTER = 0.56  # width of a letter, of the size of the text


def style() -> None:
    """The one style of all figures: a light grid and colours that colour-blind readers tell apart."""
    import seaborn as sns

    sns.set_theme(style="whitegrid", palette="colorblind")


def figure(
    fig: Any, caption: str, alt: str, results: Shown = None, data: pd.DataFrame | None = None, name: str = ""
) -> None:
    """A matplotlib figure as a picture; it is closed.

    :param alt: what a reader who cannot see it has to know: kind of figure, and what it shows.
    :param data: the tidy table that it was drawn of, offered as CSV below it; where it is empty, nothing is drawn.
    :param name: under which another page can show it.
    :raises ValueError: without alternative text.
    """
    from matplotlib import pyplot

    if not alt.strip():
        raise ValueError(f"figure {caption!r}: expected alternative text, found none")
    if data is not None and data.empty:
        pyplot.close(fig)
        note(f"{caption.rstrip('.')}: {NOT_MEASURED}.")
        return
    file = io.BytesIO()
    fig.savefig(file, format="png", dpi=144, bbox_inches="tight", facecolor="white")
    pyplot.close(fig)
    # Class dark-light: the theme leaves the picture as it is in dark mode.
    image = f'<img class="dark-light" alt="{html.escape(alt)}" src="{embedded(file.getvalue(), "image/png")}">'
    link = ""
    if data is not None:
        table = embedded(data.to_csv(index=False, float_format="%.6g").encode(), "text/csv;charset=utf-8")
        link = f' <a download="figure.csv" href="{table}">The numbers as CSV</a>'
    markup = f"<figure>{image}<figcaption>{html.escape(caption)}{link}</figcaption></figure>"
    send(markup, f"{caption}\n{alt}", results, name)


def embedded(content: bytes, kind: str) -> str:
    """A file as an address that holds its content."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def diagram(
    nodes: Mapping[str, str], edges: Sequence[tuple[str, str] | tuple[str, str, str]], caption: str, alt: str
) -> None:
    """A block diagram from top to bottom.

    :param nodes: name -> text of the box, with line breaks.
    :param edges: arrows from a box to another, as names; a third text stands beside the arrow.
    :raises ValueError: an arrow's box is not there, arrows go in a circle, or there is no alternative text.
    """
    if not alt.strip():
        raise ValueError(f"diagram {caption!r}: expected alternative text, found none")
    if unknown := {name for edge in edges for name in edge[:2]} - set(nodes):
        raise ValueError(f"diagram {caption!r}: arrows of boxes that are not there: {sorted(unknown)}")
    sizes = {name: _size(text) for name, text in nodes.items()}
    rows = _rows(list(nodes), [edge[:2] for edge in edges], caption)
    # Long arrows pass each row between by a place of their own.
    paths: list[list[str]] = []
    for number, (start, end) in enumerate(edge[:2] for edge in edges):
        bends = [f"{number}\n{row}" for row in range(rows[start] + 1, rows[end])]
        for row, bend in enumerate(bends, start=rows[start] + 1):
            rows[bend], sizes[bend] = row, (16.0, 0.0)
        paths.append([start, *bends, end])
    heights = [max(sizes[name][1] for name in rows if rows[name] == row) for row in range(max(rows.values()) + 1)]
    across = _across(rows, sizes, paths)
    left = min(across[name] - sizes[name][0] / 2 for name in rows) - 4
    right = max(across[name] + sizes[name][0] / 2 for name in rows) + 4
    tops = [sum(heights[:row]) + GAP * row + 4 for row in range(len(heights))]
    middle = {name: tops[rows[name]] + heights[rows[name]] / 2 for name in rows}
    drawn, mark = [], f"tip-{uuid4().hex}"  # a page may hold several
    for edge, path in zip(edges, paths, strict=True):
        ends = middle[path[0]] + sizes[path[0]][1] / 2, middle[path[-1]] - sizes[path[-1]][1] / 2 - 5
        places = [
            (across[path[0]], ends[0]),
            *((across[n], middle[n]) for n in path[1:-1]),
            (across[path[-1]], ends[1]),
        ]
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        drawn.append(f'<polyline points="{points}" fill="none" stroke="currentColor" marker-end="url(#{mark})"/>')
        if len(edge) == 3:
            (x, y), (x2, y2) = places[-2:]
            drawn.append(_text((x + x2) / 2 + 6, (y + y2) / 2 + 4, edge[2], "start", 0.85))
    for name, text in nodes.items():
        (width, height), lines = sizes[name], text.split("\n")
        x, y = across[name], middle[name]
        drawn.append(
            f'<rect x="{x - width / 2:.1f}" y="{y - height / 2:.1f}" width="{width:.1f}" height="{height:.1f}" rx="5" '
            'fill="var(--pst-color-surface, #f3f4f5)" stroke="currentColor"/>'
        )
        first = y - LINE * (len(lines) - 1) / 2 + FONT * 0.35
        drawn += [_text(x, first + LINE * number, line) for number, line in enumerate(lines)]
    width, height = right - left, tops[-1] + heights[-1] + 4
    tip = f'<marker id="{mark}" viewBox="0 0 8 8" refX="3" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
    svg = (
        f'<svg role="img" aria-label="{html.escape(alt)}" viewBox="{left:.1f} 0 {width:.1f} {height:.1f}" '
        f'style="display:block;width:{width:.0f}px;max-width:100%;color:var(--pst-color-text-base, #222)">'
        f'<defs>{tip}<path d="M0 0L8 4L0 8z" fill="currentColor"/></marker></defs>{"".join(drawn)}</svg>'
    )
    send(f"<figure>{svg}<figcaption>{html.escape(caption)}</figcaption></figure>", f"{caption}\n{alt}")


def _size(text: str) -> tuple[float, float]:
    """Width and height of a box, px."""
    lines = text.split("\n")
    return max(map(len, lines)) * FONT * LETTER + 22, LINE * len(lines) + 12


def _rows(names: Sequence[str], edges: Sequence[Sequence[str]], caption: str) -> dict[str, int]:
    """The row of each box: below all that point at it; what nothing points at stands right above what it points at."""
    rows = dict.fromkeys(names, 0)
    for _ in names:
        for start, end in edges:
            rows[end] = max(rows[end], rows[start] + 1)
    if any(rows[end] <= rows[start] for start, end in edges) or max(rows.values()) >= len(names):
        raise ValueError(f"diagram {caption!r}: its arrows go in a circle")
    for name in names:
        if not any(end == name for _, end in edges):
            rows[name] = min((rows[end] for start, end in edges if start == name), default=1) - 1
    return rows


def _across(
    rows: Mapping[str, int], sizes: Mapping[str, tuple[float, float]], paths: Sequence[Sequence[str]]
) -> dict[str, float]:
    """Middle of each box from left to right, px. Boxes that follow each other alone stand in one line."""
    steps = [step for path in paths for step in pairwise(path)]
    before = {name: [one for one, other in steps if other == name] for name in rows}
    after = {name: [other for one, other in steps if one == name] for name in rows}
    places: dict[str, float] = {}
    for name in sorted(rows, key=lambda one: rows[one]):
        if name in places:
            continue
        line = [name]
        while len(after[line[-1]]) == 1 and len(before[after[line[-1]][0]]) == 1:
            line.append(after[line[-1]][0])
        above = [places[one] for one in before[name]]
        x = sum(above) / len(above) if above else max(places.values(), default=0.0)
        for other, place in sorted(places.items(), key=lambda one: one[1]):  # to the right of what stands in its way
            for one in line:
                free = (sizes[one][0] + sizes[other][0]) / 2 + 20
                if rows[one] == rows[other] and abs(x - place) < free:
                    x = place + free
        places |= dict.fromkeys(line, x)
    return places


def _text(x: float, y: float, text: str, anchor: str = "middle", size: float = 1.0) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{FONT * size:.0f}" '
        f'font-family="sans-serif" fill="currentColor"{HALO if anchor == "start" else ""}>{html.escape(text)}</text>'
    )
