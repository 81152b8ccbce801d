"""Numbers in sentences: every ``{glue:text}`` of a page gets its text from the results, by the grammar of its name.

Parts of a name are separated by dots:

    run.SYSTEM.METRIC[.LABEL]     a number of this run on test clips: 51.2 [46.9, 55.4] %
    run.SYSTEM-OTHER.METRIC       a difference: +3.1 [-0.2, +6.4] points
    paired.…, demo.…, …           the same of the committed measurement "protocol" on a corpus
    claim.ID.CORPUS               quantity and verdict of a claim: +4.2 [-1.4, +9.8] points, undecided
    published.ID                  what the paper prints for a claim
    count.VERDICT.CORPUS[.PAPER]  how many claims have a verdict, for example count.does not hold.paired
    origin.run, origin.paired, …  the badge: demo world
    rule.margin, .level, .seeds   of the rule of verdicts
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from avrepro.checkout import ROOT
from avrepro.claims import Claim, published_text
from avrepro.report.display import publish
from avrepro.report.judgements import IDENTICAL, VERDICTS, difference, judged, protocol, registry
from avrepro.report.tables import number_of
from avrepro.report.wording import CORPORA, NBSP, NOT_MEASURED, measured, origin, with_unit
from avrepro.results import Results, ResultsError

BOOK = ROOT / "book"
HERE = re.compile(r"\{glue:text\}`([^`:]+)`")  # of the same page
THERE = re.compile(r"\{glue:text\}`(\w+)\.ipynb::([^`]+?)(?::s)?`")  # of a chapter's notebook, on another page


def glue(chapter: str, results: Results | Mapping[str, Results | None] | None = None) -> None:
    """Give every number in the chapter's sentences, and every one of its in the book's pages of prose, its text.

    :param results: of this run; or several by the names that stand in the place of ``run``.
    :raises ResultsError: a number that is not there, or a name outside the grammar; names it.
    """
    sources = {**results} if isinstance(results, Mapping) else {"run": results}
    notebook = json.loads((BOOK / f"{chapter}.ipynb").read_text(encoding="utf-8"))
    names = HERE.findall(prose_of(notebook))
    for page in sorted(BOOK.glob("*.md")):
        names += [name for place, name in THERE.findall(page.read_text(encoding="utf-8")) if place == chapter]
    for name in dict.fromkeys(names):
        text, shown = sentence(name, sources)
        publish({"text/plain": repr(text)}, shown, name)


def prose_of(notebook: Mapping[str, Any]) -> str:
    """The text of a notebook's cells of prose."""
    return "\n".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown")


def sentence(name: str, sources: dict[str, Results | None]) -> tuple[str, Results | None]:
    """The text of a name, and the results that it is of; committed measurements are added to ``sources``.

    :raises ResultsError: see :func:`glue`.
    """
    try:
        return _sentence(name, sources)
    except (ResultsError, KeyError) as error:
        raise ResultsError(f"{{glue:text}}`{name}`: {error.args[0]}") from error


def _sentence(name: str, sources: dict[str, Results | None]) -> tuple[str, Results | None]:
    rule, claims = registry()
    match name.split("."):
        case ["claim", claim, corpus]:
            shown = _source(corpus, sources)
            return _quantity(claims[claim], shown), shown
        case ["published", claim]:
            return published_text(claims[claim]), None
        case ["count", verdict, corpus, *paper] if len(paper) < 2:
            shown = _source(corpus, sources)
            return _count(verdict, shown, *paper), shown
        case ["origin", source]:
            shown = _source(source, sources)
            if source in CORPORA and not measured(shown):
                raise ResultsError(f"nothing was measured on {source}")
            return origin(shown), shown
        case ["rule", "margin"]:
            return f"{100 * rule.margin:g}{NBSP}points", None
        case ["rule", "level"]:
            return f"{100 * rule.level:g}{NBSP}%", None
        case ["rule", "seeds"]:
            return str(rule.seeds), None
        case [source, systems, metric, *label]:
            return _number(_source(source, sources), systems, metric, ".".join(label))
    raise ResultsError("expected a name of the grammar in avrepro/report/sentences.py")


def _quantity(claim: Claim, results: Results | None) -> str:
    found = difference(results, claim)
    if found is None or math.isnan(found.value):
        raise ResultsError(f"claim {claim.id} was not measured")
    word = judged(found)
    return f"{with_unit(found, signed=True)}, {'the same by construction' if word == IDENTICAL else word}"


def _count(verdict: str, results: Results | None, paper: str = "") -> str:
    those = [claim for claim in registry()[1].values() if paper in ("", claim.paper)]
    if verdict not in VERDICTS or not those:
        raise ResultsError(f"expected a verdict ({', '.join(VERDICTS)}) and a paper, found {verdict!r} and {paper!r}")
    if not measured(results):
        raise ResultsError("no claim was measured")
    return str(sum(judged(difference(results, claim)) == verdict for claim in those))


def _number(results: Results | None, systems: str, metric: str, label: str) -> tuple[str, Results | None]:
    system, _, against = systems.partition("-")
    if results is not None and systems in set(results.table["system"]):
        system, against = systems, ""  # a hyphen of its own name
    found = None if results is None else number_of(results, system, metric, against, label)
    is_there = found is not None and not math.isnan(found.value)
    # A run without numbers of systems has rows all the same; a committed measurement that is not there has none.
    unmeasured = results is None or (len(results.table) > 0 and not measured(results))
    if unmeasured and not (is_there and system == "corpus"):
        return NOT_MEASURED, None
    if found is None or not is_there:
        raise ResultsError(f"{metric} of {systems} was not measured. Run the chapter again.")
    return with_unit(found, metric, signed=bool(against)), results


def _source(name: str, sources: dict[str, Results | None]) -> Results | None:
    if name not in sources:
        if name not in CORPORA:
            raise ResultsError(f"expected one of {', '.join([*sources, *CORPORA])}, found {name!r}")
        sources[name] = protocol(name)
    return sources[name]
