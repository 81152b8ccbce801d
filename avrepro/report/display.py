"""Outputs of cells: tables, notes and folded parts in HTML and in plain text, marked with the runs they show."""

from __future__ import annotations

import html
import math
import numbers
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from avrepro.evaluation.intervals import Interval
from avrepro.report.wording import MISSING, percent
from avrepro.results import Results

COLUMNS = 5  # of a table at most: a page shows no more side by side

Shown = Results | Iterable[Results | None] | None  # whose numbers an output shows

# Text has the theme's own colours in light and in dark mode, in which the theme would lay outputs on a light ground and
# captions in faint letters on it; pictures lie on white in both.
STYLE = """<style>.avrepro{margin:1em 0;font-size:.95em}
.avrepro,.avrepro caption,.avrepro figcaption,.avrepro small{color:var(--pst-color-text-base,inherit);text-align:left}
.text_html:has(>.avrepro){background:none!important;color:inherit!important;padding:0!important}
.avrepro .wide{overflow-x:auto;container-type:inline-size}.avrepro table{font-size:.9em;margin:0}
.avrepro .table>*>tr>*{padding:.4em .5em}.avrepro tbody th{min-width:8em}
.avrepro caption>div{position:sticky;left:0;max-width:100cqw}.avrepro figure{margin:0;max-width:100%}
.avrepro small{font-size:.9em}.avrepro figcaption{margin:.4em 0;font-size:.93em}
.avrepro tbody th,.avrepro figcaption{font-weight:normal}
.avrepro .number{white-space:nowrap;font-variant-numeric:tabular-nums}
.avrepro img{max-width:100%;background:#fff!important;padding:.6em;border-radius:.4em!important}
.avrepro .holds{background:#d1e7dd;color:#0a3622}.avrepro .fails{background:#f8d7da;color:#58151c}
.avrepro .holds,.avrepro .fails{padding:0 .3em;border-radius:.2em}
.avrepro th button{all:unset;cursor:pointer}.avrepro th button:focus-visible{outline:2px solid;outline-offset:2px}
.avrepro th button::after{content:"\\a0↕";content:"\\a0↕"/""}
.avrepro th[aria-sort=ascending] button::after{content:"\\a0▲";content:"\\a0▲"/""}
.avrepro th[aria-sort=descending] button::after{content:"\\a0▼";content:"\\a0▼"/""}</style>"""
# Heads become buttons: pressed once they sort upwards, then downwards, then rows lie as they were given. Numbers are
# sorted by size, texts by letters, what is missing comes last. Without scripts it is a plain table.
SORT = """<script>(() => {
  const table = document.getElementById("%s"), body = table.tBodies[0], given = [...body.rows];
  const heads = [...table.tHead.rows[0].cells], status = table.querySelector("[role=status]");
  const next = {"": "ascending", ascending: "descending", descending: ""};
  const key = (row, column) => row.cells[column].dataset.key ?? row.cells[column].textContent.trim();
  const compare = (one, other) => {
    const difference = Number(one) - Number(other);
    return Number.isNaN(difference) ? one.localeCompare(other, "en") : difference;
  };
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const order = next[head.getAttribute("aria-sort") ?? ""], sign = order === "descending" ? -1 : 1;
      for (const other of heads) other.removeAttribute("aria-sort");
      if (order) head.setAttribute("aria-sort", order);
      const there = given.filter((row) => key(row, column) !== "");
      there.sort((one, other) => sign * compare(key(one, column), key(other, column)));
      body.append(...(order ? [...there, ...given.filter((row) => key(row, column) === "")] : given));
      status.textContent = order ? `Sorted by ${head.textContent}, ${order}.` : "";
    });
  });
})();</script>"""


@dataclass(frozen=True)
class Cell:
    """A cell of a table."""

    text: str
    key: float | None = None  # what it is sorted by, NaN for a missing number; None: its text
    markup: str = ""  # HTML in place of the text; whoever makes it has escaped it

    @classmethod
    def of(cls, value: Any) -> Cell:
        """Interval, float: a fraction, shown in percent; int: a count; anything else: its text."""
        if isinstance(value, Cell):
            return value
        if isinstance(value, Interval):
            return cls(percent(value), value.value)
        if isinstance(value, numbers.Integral) and not isinstance(value, bool):
            return cls(f"{int(value):,}", float(value))
        if isinstance(value, numbers.Real) and not isinstance(value, bool):
            return cls(percent(float(value)), float(value))
        return cls(str(value), math.nan if value == MISSING else None)

    def tag(self, name: str) -> str:
        """As HTML; ``name`` is ``td``, or ``th`` for the head of a row."""
        attributes = ' scope="row"' if name == "th" else ""
        if self.key is not None:
            plain = "" if self.markup else ' class="number"'
            attributes += f'{plain} data-key="{"" if math.isnan(self.key) else repr(float(self.key))}"'
        return f"<{name}{attributes}>{self.markup or html.escape(self.text)}</{name}>"


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[Any]],
    caption: str,
    results: Shown = None,
    sortable: bool = False,
    fold: str = "",
    name: str = "",
    footnote: str = "",
) -> None:
    """A table of at most five columns with its caption; the first cell of a row is its head.

    :param rows: of texts, counts, fractions (float, Interval; shown in percent) or cells.
    :param results: whose numbers it shows. :param sortable: whether its heads sort its rows.
    :param fold: the summary under which it is folded away; empty: it is open.
    :param name: under which another page can show it. :param footnote: a text below it.
    :raises ValueError: too many columns, or a row of another length; names the caption.
    """
    cells = [[Cell.of(value) for value in row] for row in rows]
    if len(head) > COLUMNS:
        raise ValueError(f"table {caption!r}: expected at most {COLUMNS} columns, found {len(head)}: {list(head)}")
    if wrong := next((row for row in cells if len(row) != len(head)), None):
        raise ValueError(f"table {caption!r}: expected rows of {len(head)} cells, found {[c.text for c in wrong]}")
    mark = f"table-{uuid4().hex}"  # a page may hold several
    heads = "".join(f'<th scope="col">{html.escape(text)}</th>' for text in head)
    body = "".join(f"<tr>{first.tag('th')}{''.join(one.tag('td') for one in rest)}</tr>" for first, *rest in cells)
    status = ' <span role="status"></span>' if sortable else ""
    markup = (
        f'<div class="wide"><table class="table" id="{mark}"><caption><div>{html.escape(caption)}{status}</div>'
        f"</caption><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>"
        f"{f'<p><small>{html.escape(footnote)}</small></p>' if footnote else ''}{SORT % mark if sortable else ''}"
    )
    lines = [caption, *("\t".join(row) for row in [head, *([one.text for one in row] for row in cells)])]
    send(folded(markup, fold), "\n".join([*lines, *([footnote] if footnote else [])]), results, name)


def note(text: str, results: Shown = None) -> None:
    """A sentence in the place of what is not shown."""
    send(f"<p><em>{html.escape(text)}</em></p>", text, results)


def folded(markup: str, summary: str) -> str:
    """HTML that opens when its summary is pressed; as it is where there is no summary."""
    return f"<details><summary>{html.escape(summary)}</summary>{markup}</details>" if summary else markup


def send(markup: str, text: str, results: Shown = None, name: str = "") -> None:
    """Display HTML, and text where no HTML is; named for ``{glue:any}`` on another page."""
    publish({"text/html": f'{STYLE}<div class="avrepro">{markup}</div>', "text/plain": text}, results, name)


def publish(data: dict[str, str], results: Shown, name: str) -> None:
    """Display data by MIME type, marked with the runs whose numbers it shows, and with a name where it has one."""
    from IPython.display import display

    named = {"scrapbook": {"name": name, "mime_prefix": ""}} if name else {}
    runs = runs_of(results)
    display(data, raw=True, metadata={**named, **({"avrepro": {"runs": runs}} if runs else {})})


def runs_of(results: Shown) -> list[str]:
    """Names of runs."""
    every = [results] if isinstance(results, Results) else [one for one in results or () if one is not None]
    return sorted({str(run) for one in every for run in one.table["run"].unique()})
