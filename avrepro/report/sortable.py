"""Tables that a reader can sort: by pointer or keyboard, in the page alone, without libraries or the network."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from uuid import uuid4

from avrepro.report import show_player
from avrepro.results import Results

# Row heads stay in sight where the table is scrolled sideways and there is room beside them; numbers are not broken.
STYLE = """#{mark} {{font-size:0.85em}} #{mark} td[data-key] {{white-space:nowrap}} #{mark} td {{min-width:5em}}
#{mark} td.words {{min-width:11em}} #{mark} tbody th {{min-width:11em}}
#{mark} small {{font-size:0.9em;font-weight:normal}}
#{mark} th button {{all:unset;cursor:pointer;font:inherit}}
#{mark} th button:focus-visible {{outline:2px solid currentColor;outline-offset:2px}}
#{mark} th button::after {{content:" ↕";content:" ↕" / "";opacity:0.5}}
#{mark} th[aria-sort] button::after {{opacity:1}}
#{mark} th[aria-sort=ascending] button::after {{content:" ▲";content:" ▲" / ""}}
#{mark} th[aria-sort=descending] button::after {{content:" ▼";content:" ▼" / ""}}
@container (min-width: 600px) {{#{mark} tr > th:first-child {{position:sticky;left:0;z-index:1;
  background:var(--pst-color-background, Canvas)}} #{mark} tbody th {{min-width:12em}}}}"""
# The buttons are made by the script: without it the heads are plain text.
SCRIPT = """(() => {
  const table = document.getElementById("%s"), body = table.tBodies[0], given = [...body.rows];
  const heads = [...table.tHead.rows[0].cells], told = table.querySelector("[role=status]");
  const next = {"": "ascending", ascending: "descending", descending: ""};
  const hint = "Press a column's head to sort by it.";
  const key = (row, column) => row.cells[column].dataset.key ?? row.cells[column].textContent.trim();
  const compare = (one, other) => {
    const difference = Number(one) - Number(other);
    return Number.isNaN(difference) ? one.localeCompare(other, "en") : difference;
  };
  const sort = (head, column) => {
    const order = next[head.getAttribute("aria-sort") ?? ""], sign = order === "descending" ? -1 : 1;
    for (const other of heads) other.removeAttribute("aria-sort");
    let rows = given;
    if (order) {
      head.setAttribute("aria-sort", order);
      const there = given.filter((row) => key(row, column) !== "");
      there.sort((one, other) => sign * compare(key(one, column), key(other, column)));
      rows = [...there, ...given.filter((row) => key(row, column) === "")];  // what is missing is last either way
    }
    body.append(...rows);
    told.textContent = order ? `Sorted by ${head.textContent}, ${order}.` : hint;
  };
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => sort(head, column));
  });
  told.textContent = hint;
})();"""


WORDS = 30  # characters: from here on a text needs a wide column


@dataclass(frozen=True)
class Cell:
    """A cell of a table that can be sorted."""

    text: str
    key: float | str | None = None  # what it is sorted by; None: its text; NaN: nothing, always last
    markup: str = ""  # HTML in place of the text; the caller has escaped it

    def tag(self, name: str) -> str:
        """As HTML: ``name`` is ``td``, or ``th`` for the head of the row."""
        scope = ' scope="row"' if name == "th" else ""
        key = self.key
        missing = isinstance(key, float) and math.isnan(key)
        sorted_by = "" if key is None else f' data-key="{"" if missing else html.escape(str(key), quote=True)}"'
        words = ' class="words"' if len(self.text) > WORDS and key is None else ""
        text = html.escape(self.text)
        if isinstance(key, float):  # an interval stands below its number, so that more columns are on the page
            text = text.replace(" [", "<br>[")
        return f"<{name}{scope}{words}{sorted_by}>{self.markup or text}</{name}>"


MISSING = Cell("–", math.nan)


def show_sortable(
    head: Sequence[str],
    rows: Iterable[Sequence[Cell | str]],
    caption: str,
    results: Results | None = None,
    name: str = "",
) -> None:
    """An HTML table with caption as ``show_table`` makes it, whose heads sort its rows; named for another page.

    Pressed once a head sorts upwards, then downwards, then the rows lie as they were given. Numbers are sorted by
    size, texts by letters. Without scripts it is a plain table.
    """
    cells = [[one if isinstance(one, Cell) else Cell(one) for one in row] for row in rows]
    mark = f"sortable-{uuid4().hex}"  # a page may hold several
    columns = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in head)
    body = "".join(f"<tr>{first.tag('th')}{''.join(one.tag('td') for one in rest)}</tr>" for first, *rest in cells)
    # A table wider than the page is scrolled; its caption stays within the page and does not move.
    words = f'{html.escape(caption)} <span role="status"></span>'
    fixed = f'<div style="position:sticky;left:0;max-width:100cqw">{words}</div>'
    markup = (
        f'<div style="overflow-x:auto;container-type:inline-size"><style>{STYLE.format(mark=mark)}</style>'
        f'<table class="table" id="{mark}"><caption>{fixed}</caption><thead><tr>{columns}</tr></thead>'
        f"<tbody>{body}</tbody></table></div><script>{SCRIPT % mark}</script>"
    )
    lines = ["\t".join(row) for row in [head, *([one.text for one in row] for row in cells)]]
    show_player(markup, "\n".join([caption, *lines]), results, name)
