"""What the book shows of results: tables, figures and the numbers in its sentences, each with its passport."""

from __future__ import annotations

import base64
import html
import io
import json
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from avrepro.evaluation.intervals import Interval
from avrepro.manifests import manifest_path
from avrepro.results import PASSPORT, Results, ResultsError, check_shown, is_stale, read


def published(paper: str) -> dict[str, Any]:
    """A paper's own numbers, from ``data_manifests/published``."""
    return yaml.safe_load(manifest_path(f"published/{paper}.yaml").read_text(encoding="utf-8"))


def percent(number: Interval | float, signed: bool = False) -> str:
    """A fraction as percent, with its 95 % interval where it has one: ``51.2 [46.9, 55.4]``."""
    known = number if isinstance(number, Interval) else Interval(number, math.nan, math.nan, "")
    if math.isnan(known.value):
        return "–"
    sign = "+" if signed else ""
    text = f"{100 * known.value:{sign}.1f}"
    return text if math.isnan(known.low) else f"{text} [{100 * known.low:{sign}.1f}, {100 * known.high:{sign}.1f}]"


def origin(results: Results) -> str:
    """Corpus and profile, for the heads of columns and for captions; and that a number is stale, where it is."""
    passport = results.passport()
    stale = ", stale: measured with older code" if is_stale(results.table.iloc[0]) else ""
    return f"{passport['corpus']}, profile {passport['profile']}{stale}"


def show_table(
    head: Sequence[str], rows: Iterable[Sequence[Any]], caption: str, results: Results | None = None
) -> None:
    """An HTML table with its caption; the first cell of a row is its head."""
    texts = [[str(cell) for cell in row] for row in rows]
    cells = [[html.escape(text) for text in row] for row in texts]
    columns = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in head)
    body = "".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in rest)}</tr>' for first, *rest in cells
    )
    text = "\n".join("\t".join(map(str, row)) for row in [head, *texts])
    # A table wider than the page is scrolled; its caption stays within the page and does not move.
    fixed = f'<div style="position:sticky;left:0;max-width:100cqw">{html.escape(caption)}</div>'
    table = f'<table class="table"><caption>{fixed}</caption><thead><tr>{columns}</tr></thead>'
    scrolled = '<div style="overflow-x:auto;container-type:inline-size">'
    _display(f"{scrolled}{table}<tbody>{body}</tbody></table></div>", f"{caption}\n{text}", results)


def show_figure(figure: Any, caption: str, alt: str, results: Results | None = None) -> None:
    """A matplotlib figure as a picture with caption and alternative text."""
    from matplotlib import pyplot

    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=144, bbox_inches="tight", facecolor="white")
    pyplot.close(figure)
    picture = base64.b64encode(file.getvalue()).decode()
    image = f'<img style="max-width:100%" alt="{html.escape(alt, quote=True)}" src="data:image/png;base64,{picture}">'
    _display(f"<figure>{image}<figcaption>{html.escape(caption)}</figcaption></figure>", caption, results)


def show_player(markup: str, text: str, results: Results | None = None, name: str = "") -> None:
    """HTML, with what it shows in words for where no HTML is; named for ``{glue:any}`` on another page."""
    _display(markup, text, results, name)


def show_note(text: str) -> None:
    """A sentence in the place of what this run does not measure."""
    _display(f"<p><em>{html.escape(text)}</em></p>", text, None)


def show_passport(results: Results) -> None:
    """Where the numbers come from, folded away until a reader asks."""
    passport = results.passport()
    sizes = results.table[results.table["split"] != ""].groupby("split", sort=False)[["clips", "missing"]].first()
    counts = {f"clips, {split}": f"{row.clips} scored, {row.missing} missing" for split, row in sizes.iterrows()}
    rules = ", ".join(sorted({rule for rule in results.table["threshold_rule"] if rule}))
    methods = "; ".join(sorted({method for method in results.table["interval"] if method}))
    rows = {**passport, **counts, "threshold rule": rules or "none", "intervals": methods or "none"}
    body = "".join(
        f'<tr><th scope="row">{html.escape(str(name))}</th><td><code>{html.escape(str(value))}</code></td></tr>'
        for name, value in rows.items()
    )
    summary = f"Passport of run {passport['run']}: {origin(results)}, seed {passport['seed']}"
    text = "\n".join(f"{name}: {value}" for name, value in rows.items())
    table = f"<table class='table'><tbody>{body}</tbody></table>"
    _display(f"<details><summary>{html.escape(summary)}</summary>{table}</details>", f"{summary}\n{text}", results)


def say(name: str, text: str, results: Results) -> None:
    """Name a text made of results, for ``{glue:text}`` in the book's sentences.

    :raises ResultsError: where a number in it is missing.
    """
    if "nan" in text or "–" in text:
        raise ResultsError(f"{name}: a number is missing in {text!r}")
    _send({"text/plain": repr(text)}, results, name)


def runs_shown(notebook: dict[str, Any]) -> set[str]:
    """The runs whose numbers an executed notebook shows."""
    metadata = [output.get("metadata", {}) for output in _outputs(notebook)]
    return {run for one in metadata if (run := one.get("avrepro", {}).get("run"))}


def check_executed(chapter: str, path: Path, allow_ci: bool = False) -> None:
    """Stop a book in which a chapter's number is missing, stale, or of profile ci.

    :raises ResultsError: names the chapter and what is wrong with its numbers.
    """
    notebook = json.loads(path.read_text(encoding="utf-8"))
    shown = runs_shown(notebook)
    if not shown:
        raise ResultsError(f"{chapter}: shows no results at all")
    for run in sorted(shown):
        table = read(run).table
        if table.empty:
            raise ResultsError(f"{chapter}: shows run {run}, which is not in the results store. Run the chapter again.")
        check_shown(table, allow_ci)
    prose = "\n".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown")
    _check_said(chapter, set(re.findall(r"\{glue:text\}`([^`:]+)`", prose)), notebook)


def check_page(page: Path, executed: dict[str, Path]) -> None:
    """Stop a page of prose that names a number or a table which no executed chapter (name -> notebook) says.

    :raises ResultsError: names the page and the numbers.
    """
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"\{glue:text\}`(\w+)\.ipynb::(\w+):s`", text)
    named += [(chapter, name) for name, chapter in re.findall(r"\{glue:any\} (\w+)\n:doc: (\w+)\.ipynb\n", text)]
    for chapter in dict.fromkeys(chapter for chapter, _ in named):
        if chapter not in executed:
            raise ResultsError(f"{page.name}: shows numbers of {chapter}, which is not in the book")
        notebook = json.loads(executed[chapter].read_text(encoding="utf-8"))
        _check_said(page.name, {name for one, name in named if one == chapter}, notebook)


def _check_said(place: str, named: set[str], notebook: dict[str, Any]) -> None:
    metadata = [output.get("metadata", {}) for output in _outputs(notebook)]
    missing = named - {one["scrapbook"]["name"] for one in metadata if "scrapbook" in one}
    if missing:
        raise ResultsError(f"{place}: numbers missing in the text: {', '.join(sorted(missing))}")


def _outputs(notebook: dict[str, Any]) -> Iterable[dict[str, Any]]:
    for cell in notebook["cells"]:
        yield from cell.get("outputs", [])


def _mark(results: Results | None) -> dict[str, Any]:
    if results is None:
        return {}
    passport = results.passport()
    return {"avrepro": {name: str(passport[name]) for name in PASSPORT[:5] if name in passport}}


def _display(markup: str, text: str, results: Results | None, name: str = "") -> None:
    _send({"text/html": markup, "text/plain": text}, results, name)


def _send(data: dict[str, str], results: Results | None, name: str) -> None:
    from IPython.display import display

    named = {"scrapbook": {"name": name, "mime_prefix": ""}} if name else {}
    display(data, raw=True, metadata={**named, **_mark(results)})
