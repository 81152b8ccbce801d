"""Figures and block diagrams: one style, a caption and alternative text, readable in light and dark mode."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

import pandas as pd

from avrepro.report.display import Shown, note, send
from avrepro.report.wording import NOT_MEASURED

FONT, LINE, GAP = 13, 18, 34  # px: text of a box, its lines, and the space between rows of boxes
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


def diagram(nodes: Mapping[str, str], edges: Sequence[tuple[str, str]], caption: str, alt: str) -> None:
    """A block diagram from top to bottom.

    :param nodes: name -> text of the box, with line breaks; boxes of one row stand in this order.
    :param edges: arrows from a box to another, as names. An arrow over several rows is a straight line all the same.
    :raises ValueError: arrows go in a circle, or there is no alternative text.
    """
    if not alt.strip():
        raise ValueError(f"diagram {caption!r}: expected alternative text, found none")
    places, sizes = _layout(nodes, edges, caption)
    drawn, mark = [], f"tip-{uuid4().hex}"  # a page may hold several
    for start, end in edges:
        (x, y), (x2, y2) = places[start], places[end]
        y, y2 = y + sizes[start][1] / 2, y2 - sizes[end][1] / 2 - 5  # from edge to edge, less the tip
        drawn.append(
            f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="currentColor" '
            f'marker-end="url(#{mark})"/>'
        )
    for name, text in nodes.items():
        (x, y), (width, height), lines = places[name], sizes[name], text.split("\n")
        drawn.append(
            f'<rect x="{x - width / 2:.1f}" y="{y - height / 2:.1f}" width="{width:.1f}" height="{height:.1f}" rx="5" '
            'fill="var(--pst-color-surface, #f3f4f5)" stroke="currentColor"/>'
        )
        for number, line in enumerate(lines):
            baseline = y + LINE * (number - (len(lines) - 1) / 2) + FONT * 0.35
            drawn.append(
                f'<text x="{x:.1f}" y="{baseline:.1f}" text-anchor="middle" font-size="{FONT}" '
                f'font-family="sans-serif" fill="currentColor">{html.escape(line)}</text>'
            )
    left = min(places[name][0] - sizes[name][0] / 2 for name in nodes) - 4
    right = max(places[name][0] + sizes[name][0] / 2 for name in nodes) + 4
    bottom = max(places[name][1] + sizes[name][1] / 2 for name in nodes) + 4
    tip = f'<marker id="{mark}" viewBox="0 0 8 8" refX="3" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
    svg = (
        f'<svg role="img" aria-label="{html.escape(alt)}" viewBox="{left:.1f} 0 {right - left:.1f} {bottom:.1f}" '
        f'style="display:block;width:{right - left:.0f}px;max-width:100%;color:var(--pst-color-text-base, #222)">'
        f'<defs>{tip}<path d="M0 0L8 4L0 8z" fill="currentColor"/></marker></defs>{"".join(drawn)}</svg>'
    )
    send(f"<figure>{svg}<figcaption>{html.escape(caption)}</figcaption></figure>", f"{caption}\n{alt}")


def _layout(
    nodes: Mapping[str, str], edges: Sequence[tuple[str, str]], caption: str
) -> tuple[dict[str, tuple[float, float]], dict[str, tuple[float, float]]]:
    """Middles (x, y) and sizes (width, height) of all boxes, px: each as low as what it points at allows."""
    above_end = dict.fromkeys(nodes, 0)  # rows from the lowest one
    for _ in nodes:
        for start, end in edges:
            above_end[start] = max(above_end[start], above_end[end] + 1)
    last = max(above_end.values())
    if last >= len(nodes):
        raise ValueError(f"diagram {caption!r}: its arrows go in a circle")
    rows = [[name for name in nodes if above_end[name] == last - row] for row in range(last + 1)]
    lines = {name: text.split("\n") for name, text in nodes.items()}
    sizes = {
        name: (max(map(len, texts)) * FONT * LETTER + 22, LINE * len(texts) + 12.0) for name, texts in lines.items()
    }
    width = max(len(row) * (max(sizes[name][0] for name in row) + 20) for row in rows)
    across: dict[str, float] = {}
    for row in reversed(rows):
        below = [across[end] for start, end in edges if start == row[0]]
        if len(row) == 1 and below:
            across[row[0]] = sum(below) / len(below)
        else:
            across |= {name: width * (place + 0.5) / len(row) for place, name in enumerate(row)}
    places: dict[str, tuple[float, float]] = {}
    top = 4.0
    for row in rows:
        height = max(sizes[name][1] for name in row)
        places |= {name: (across[name], top + height / 2) for name in row}
        top += height + GAP
    return places, sizes
