"""Claims of the papers and what became of them: the table of verdicts, the forest plot, and the same in words.

A claim has one number a corpus, wherever it is shown: that of the committed measurement "protocol".
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from functools import cache

import pandas as pd

from avrepro.claims import Claim, load_claims, published_text, verdict
from avrepro.evaluation.intervals import Interval
from avrepro.report.display import Cell, note, table
from avrepro.report.figures import figure
from avrepro.report.wording import CORPORA, NBSP, PAPERS, is_identical, is_stale, measured, metric_name, percent, title
from avrepro.results import Results, committed

JUDGED = ("paired", "demo", "demo-null")  # corpora on which claims are judged
UNMEASURED = "not measured"
IDENTICAL = "identical"  # no verdict: the two systems give the same by construction
FRONT = (  # of each paper the claim that its title makes, and the baseline of the last
    "li2017_fusion_above_audio", "parekh2018_two_stream_above_audio_only", "fayek2020_attention_above_audio",
    "fayek2020_average_above_audio",
)  # fmt: skip
CLASSES = {"holds": "holds", "does not hold": "fails"}  # verdict -> its colour
VERDICTS = (*CLASSES, "undecided", UNMEASURED, IDENTICAL)


registry = cache(load_claims)  # the rule, and the claims by id


def protocol(corpus: str) -> Results:
    """The committed measurement of all systems on a corpus."""
    return committed("protocol", corpus)


def difference(results: Results | None, claim: Claim) -> Interval | None:
    """The quantity of a claim, None where it was not measured."""
    known = {"against": claim.against, "split": "test", "label": claim.id}
    return None if results is None else results.find(claim.system, "claim", **known)


def judged(interval: Interval | None) -> str:
    """The verdict; ``identical`` of a difference that is zero by construction."""
    return IDENTICAL if interval is not None and is_identical(interval) else verdict(interval, registry()[0])


def verdicts(paper: str | None = None, fold: str = "", name: str = "") -> None:
    """The claims of a paper, or of all, as published and as judged on each corpus.

    :param fold: the summary under which it is folded away. :param name: under which another page can show it.
    """
    rule, claims = registry()
    found = {corpus: protocol(corpus) for corpus in JUDGED}
    if not any(measured(results) for results in found.values()):
        note("Verdicts: not measured; no measurement of all systems is committed with this book.")
        return
    rows = []
    for claim in claims.values():
        if paper in (None, claim.paper):
            cells = [verdict_cell(results, claim) for results in found.values()]
            rows.append([_claim_cell(claim), _published_cell(claim), *cells])
    whose = f"Claims of {PAPERS[paper]}" if paper else "Claims of the three papers"
    stale = [CORPORA[corpus] for corpus, results in found.items() if not results.table.empty and is_stale(results)]
    caption = (
        f"{whose}, as published and as measured here: differences in percentage points with {100 * rule.level:g} % "
        "intervals. Corpora cannot be compared with each other: a verdict on the demo world reproduces no published "
        "number. 0 without a verdict: the same by construction."
    )
    if stale:
        caption += f" Stale: {', '.join(stale)}."
    heads = ["claim", "published", *(CORPORA[corpus] for corpus in JUDGED)]
    table(heads, rows, caption, found.values(), True, fold, name, f"The rule: {rule.words}")


def claims_text() -> str:
    """The verdicts for a terminal: a claim, and below it each corpus."""
    found = {corpus: protocol(corpus) for corpus in JUDGED}
    lines = []
    for claim in registry()[1].values():
        lines += [f"{claim.id}: {claim.sentence} ({comparison(claim)})", f"    published: {published_text(claim)}"]
        lines += [f"    {CORPORA[corpus]}: {verdict_cell(one, claim).text}" for corpus, one in found.items()]
    return "\n".join(lines).replace(NBSP, " ")


def comparison(claim: Claim) -> str:
    """The comparison that tests a claim, in words."""
    metric, ours, theirs = metric_name(claim.metric), title(claim.system), title(claim.against)
    if claim.expected is not None:
        return f"share of classes with a higher {metric} by {ours} than by {theirs}, minus {100 * claim.expected:.1f} %"
    on = f", on {_group(claim.classes)}" if claim.classes else ""
    minus = f", minus that on {_group(claim.other_classes)}" if claim.other_classes else ""
    return f"{metric}: {ours} minus {theirs}{on}{minus}"


def forest(claims: Sequence[str] = FRONT, name: str = "") -> None:
    """Claims as published and on each corpus in one plot, with intervals and the margin of the rule.

    :param claims: their ids. :param name: under which another page can show it.
    """
    from matplotlib import pyplot

    rule, known = registry()
    found = {corpus: protocol(corpus) for corpus in JUDGED}
    data, words = _forest_data([known[one] for one in claims], found)
    fig, axes = pyplot.subplots(figsize=(8, 0.85 * len(claims) + 1), layout="constrained")
    axes.axvline(0, color="0.3", linewidth=1)
    axes.axvline(100 * rule.margin, color="0.3", linewidth=1, linestyle="--")
    order = ["published", *(CORPORA[corpus] for corpus in JUDGED)]
    for place, (source, marker) in enumerate(zip(order, "Dos^", strict=True)):
        those = data[data["source"] == source]
        y = [list(claims).index(claim) + 0.19 * (place - 1.5) for claim in those["id"]]
        errors = [those["value"] - those["low"], those["high"] - those["value"]]
        bars = None if source == "published" else [one.fillna(0) for one in errors]
        axes.errorbar(those["value"], y, xerr=bars, fmt=marker, color=f"C{place}", label=source, capsize=3)
    axes.set_yticks(range(len(claims)), [_label(known[one]) for one in claims])
    axes.set(xlabel="difference, percentage points", ylim=(len(claims) - 0.4, -0.6))
    axes.grid(axis="y", visible=False)
    fig.legend(loc="outside lower center", ncols=4, frameon=False)
    caption = (
        "Does it get better with pictures? The difference that each paper claims: as published, on real recordings, on "
        f"the demo world, and on the control, where pictures are of no use. Bars: {100 * rule.level:g} % intervals; "
        f"dashed: the margin of {100 * rule.margin:g} points, the smallest difference that counts."
    )
    figure(fig, caption, f"Forest plot of {len(claims)} claims. {' '.join(words)}", found.values(), data, name)


def _forest_data(claims: Sequence[Claim], found: Mapping[str, Results]) -> tuple[pd.DataFrame, list[str]]:
    """What a forest plot shows: id, claim, source, value, low, high (points), verdict; and a sentence a claim."""
    rows, words = [], []
    for claim in claims:
        parts = []
        if claim.published.value is not None and claim.published.unit.startswith("points"):
            rows.append([claim.id, claim.sentence, "published", claim.published.value, math.nan, math.nan, ""])
            parts.append(f"published +{claim.published.value:g}")
        for corpus, results in found.items():
            parts.append(f"{CORPORA[corpus]} {verdict_cell(results, claim).text}")
            if (one := difference(results, claim)) is not None:
                numbers = [100 * part for part in (one.value, one.low, one.high)]
                rows.append([claim.id, claim.sentence, CORPORA[corpus], *numbers, judged(one)])
        words.append(f"{_label(claim)}: {'; '.join(parts)}.".replace("\n", " "))
    return pd.DataFrame(rows, columns=["id", "claim", "source", "value", "low", "high", "verdict"]), words


def _label(claim: Claim) -> str:
    return f"{PAPERS[claim.paper]}, {metric_name(claim.metric)}\n{title(claim.system)}\nminus {title(claim.against)}"


def _group(classes: Sequence[str]) -> str:
    return "; ".join(classes) if len(classes) < 3 else f"{len(classes)} classes"


def _claim_cell(claim: Claim) -> Cell:
    """A claim as a link to its paper's chapter; the comparison that tests it where the sentence alone is not it."""
    link = f'<a href="{html.escape(claim.chapter)}.html">{html.escape(claim.sentence)}</a>'
    more = f"<br><small>{html.escape(comparison(claim))}</small>" if claim.classes or claim.kind == "count" else ""
    return Cell(f"{claim.sentence} ({comparison(claim)})", None, link + more)


def _published_cell(claim: Claim) -> Cell:
    where = f"section {claim.where.section}, page {claim.where.page}"
    text = published_text(claim)
    return Cell(f"{text}, {where}", None, f"{html.escape(text)}<br><small>{html.escape(where)}</small>")


def verdict_cell(results: Results, claim: Claim) -> Cell:
    """``+4.2 [-1.4, +9.8] holds``; the verdict has a colour where it is one way or the other."""
    interval = difference(results, claim)
    word = judged(interval)
    if interval is None or word == UNMEASURED:
        return Cell(UNMEASURED, math.nan, UNMEASURED)
    number = percent(interval, signed=True)
    if word == IDENTICAL:
        return Cell(number, 0.0, f'<span class="number">{number}</span>')
    markup = f'<span class="number">{number}</span> <strong class="{CLASSES.get(word, "open")}">{word}</strong>'
    return Cell(f"{number} {word}", interval.value, markup)
