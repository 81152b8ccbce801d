"""What a book must not be built with: numbers that are missing, stale or of profile ci."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from avrepro.report.sentences import HERE, THERE, prose_of
from avrepro.results import ResultsError, check_shown, read

ANY = re.compile(r"\{glue:any\} (\S+)\n:doc: (\w+)\.ipynb\n")  # a table or figure of a chapter, on another page


def runs_shown(notebook: dict[str, Any]) -> set[str]:
    """The runs whose numbers an executed notebook shows."""
    return {run for output in _outputs(notebook) for run in output.get("avrepro", {}).get("runs", [])}


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
    _check_named(chapter, set(HERE.findall(prose_of(notebook))), notebook)


def check_page(page: Path, executed: dict[str, Path]) -> None:
    """Stop a page of prose that names a number or a table which no executed chapter (name -> notebook) gives.

    :raises ResultsError: names the page and the numbers.
    """
    text = page.read_text(encoding="utf-8")
    named: dict[str, set[str]] = {}
    for chapter, name in [*THERE.findall(text), *((chapter, name) for name, chapter in ANY.findall(text))]:
        named.setdefault(chapter, set()).add(name)
    for chapter, names in named.items():
        if chapter not in executed:
            raise ResultsError(f"{page.name}: shows numbers of {chapter}, which is not in the book")
        _check_named(page.name, names, json.loads(executed[chapter].read_text(encoding="utf-8")))


def _check_named(place: str, named: set[str], notebook: dict[str, Any]) -> None:
    given = {output["scrapbook"]["name"] for output in _outputs(notebook) if "scrapbook" in output}
    if missing := named - given:
        raise ResultsError(f"{place}: numbers missing in the text: {', '.join(sorted(missing))}")


def _outputs(notebook: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Metadata of every output."""
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            yield output.get("metadata", {})
