"""The verdict table of the chapter ``side_by_side``: every claim of the three papers on each kind of data.

All numbers come from the results store; claims, and the rule of the verdict, from ``data_manifests/claims.yaml``.
"""

from __future__ import annotations

import html
import math
from collections import Counter
from collections.abc import Iterator

from avrepro.claims import SYSTEMS, Claim, Rule, check_null, published_text, verdict
from avrepro.evaluation.intervals import Interval
from avrepro.report import origin, published, show_note, show_passport, show_player, show_table
from avrepro.report.side_by_side_evidence import NOT_MEASURED, Evidence, measured_here, number, place
from avrepro.report.side_by_side_evidence import load as load  # where the chapter and the command line look for it
from avrepro.report.sortable import MISSING, Cell, show_sortable

DATA = {  # corpora on which claims are judged
    "paired": "real recordings",
    "demo": "demo world",
    "demo-null": "control: pictures of other clips",
}
PAPERS = {
    "li2017": "Li et al. (2017)",
    "parekh2018": "Parekh et al. (2018)",
    "fayek2020": "Fayek and Kumar (2020)",
    "beyond": "beyond the papers",
}
METRICS = {
    "micro_f1": "micro F1",
    "map": "mAP",
    "mauc": "mAUC",
    "class_f1": "class F1",
    "average_precision": "average precision",
}
KINDS = published("parekh2018")["table2"]["classes"]
VERDICTS = {"holds": "hold", "does not hold": "do not hold", "undecided": "undecided"}  # of one claim, of several
PAINT = {"holds": "background:#d1e7dd;color:#0a3622", "does not hold": "background:#f8d7da;color:#58151c"}


def points(one: Interval) -> str:
    """A difference of fractions: ``+5.1 points [+1.7, +8.5]``."""
    value, low, high = (f"{100 * part:+.1f}" for part in (one.value, one.low, one.high))
    return f"{value} points" if math.isnan(one.low) else f"{value} points [{low}, {high}]"


def judged(one: Interval | None, rule: Rule) -> str:
    """The verdict with its reason: ``holds: +5.1 points [+1.7, +8.5]``."""
    return NOT_MEASURED if one is None else f"{verdict(one, rule)}: {points(one)}"


def tally(evidence: Evidence, corpus: str) -> str:
    """How many claims have which verdict: ``12 hold, 9 do not hold, 15 undecided``."""
    results = evidence.run(corpus)
    if results is None:
        return NOT_MEASURED
    found = [number(results, claim, "difference") for claim in evidence.claims]
    counts = Counter(NOT_MEASURED if one is None else verdict(one, evidence.rule) for one in found)
    parts = [f"{counts[name]} {name if counts[name] == 1 else several}" for name, several in VERDICTS.items()]
    return ", ".join(parts + ([f"{counts[NOT_MEASURED]} {NOT_MEASURED}"] if counts[NOT_MEASURED] else []))


def tested(claim: Claim) -> str:
    """The comparison that tests a claim, in words."""
    metric, ours, theirs = METRICS[claim.metric], _bare(claim.system), _bare(claim.against)
    if claim.expected is not None:
        share = f"{100 * claim.expected:.1f} %"
        return f"share of the classes in which {metric} of {ours} is above that of {theirs}, less {share}"
    on = f", mean over {group(claim.classes)}" if claim.classes else ""
    if len(claim.classes) == 1:
        on = f", of {claim.classes[0]}"
    less = f", less that over {group(claim.other_classes)}" if claim.other_classes else ""
    return f"{metric}: {ours} less {theirs}{on}{less}"


def group(classes: tuple[str, ...]) -> str:
    """Classes in words: by the name of their kind, as all but a few others, or by their own names."""
    for kind, name in (("vehicle", "vehicles"), ("warning", "warning sounds")):
        if set(classes) == {label for label, one in KINDS.items() if one["kind"] == kind}:
            return f"the {len(classes)} {name}"
    return f"the {len(classes)} other classes" if len(classes) > len(KINDS) / 2 else "; ".join(classes)


def rule_table(evidence: Evidence) -> None:
    """The rule of the verdict, as it was written down before anything was measured."""
    rule = evidence.rule
    show_table(
        ["verdict", f"the {100 * rule.level:g} % interval of what the claim says is above zero"],
        [
            ["holds", "lies wholly above zero"],
            ["does not hold", f"does not, and lies wholly below {100 * rule.margin:g} points"],
            ["undecided", "neither"],
            [NOT_MEASURED, "there is no number"],
        ],
        f"The rule for all {len(evidence.claims)} claims. In the words of the registry: {rule.words}",
    )


def verdict_table(evidence: Evidence) -> None:
    """Each claim of each paper, as published and as judged on each kind of data: a table a paper."""
    if not any((corpus, "protocol") in evidence.runs for corpus in DATA):
        show_note("Not measured: no results of these comparisons are kept with this book.")
        return
    here = next((f"{origin(one)}, one seed" for one in evidence.live.values()), "not at hand")
    lacking = "" if evidence.live else " The chapters' own runs are not at hand here, so the last column is empty."
    for paper in evidence.papers:
        rows = [[*row, _here(evidence, claim)] for claim, row in _verdicts(evidence, paper)]
        caption = (
            f"{_caption(evidence, paper)} Last column: what the chapter itself measured when this book was built, "
            f"with one seed and so without a verdict; – where it does not compare the two.{lacking}"
        )
        show_sortable([*_heads(evidence), f"this build ({here})"], rows, caption, evidence.any)


def front_page(evidence: Evidence) -> None:
    """The same for the front page: named tables, without what this build measured."""
    for paper in evidence.papers:
        rows = [row for _, row in _verdicts(evidence, paper)]
        show_sortable(_heads(evidence), rows, _caption(evidence, paper), evidence.any, f"verdicts_{paper}")


def _heads(evidence: Evidence) -> list[str]:
    return ["claim", "published", *(f"{name} ({place(evidence.run(corpus))})" for corpus, name in DATA.items())]


def _caption(evidence: Evidence, paper: str) -> str:
    return (
        f"Claims of {PAPERS[paper]}: as published, and what became of them on other data, which cannot be compared "
        "with the paper's nor with each other. Differences in percentage points of what stands below each claim, "
        f"with {100 * evidence.rule.level:g} % intervals. A verdict on the demo world is about that world and "
        "reproduces no published number."
    )


def _verdicts(evidence: Evidence, paper: str) -> Iterator[tuple[Claim, list[Cell | str]]]:
    for name, claim in evidence.claims.items():
        if claim.paper == paper:
            found = (number(evidence.run(corpus), name, "difference") for corpus in DATA)
            yield claim, [_sentence(claim), _published(claim), *(_judged(one, evidence.rule) for one in found)]


def check(evidence: Evidence) -> None:
    """Stop where looking helps although pictures tell nothing; else say that it was checked.

    :raises NullWorldError: names the claims that are not refuted on demo-null and must be.
    """
    null = evidence.run("demo-null")
    if null is None:
        show_note("Not measured: the control, in which pictures tell nothing.")
        return
    found = {name: number(null, name, "difference") for name in evidence.claims}
    check_null({name: one for name, one in found.items() if one is not None}, evidence.claims, evidence.rule)
    helped = sum(claim.vision_helps for claim in evidence.claims.values())
    text = (
        f"Checked in this build: of the {helped} claims that looking helps, none holds where the pictures are those of "
        f"other clips ({place(null)})."
    )
    show_player(f"<p>{html.escape(text)}</p>", text, null)


def claims_text(evidence: Evidence) -> str:
    """The verdicts for a terminal: a line a claim, and below what each name stands for."""
    columns = [
        ["claim", *evidence.claims],
        *(
            [f"{corpus} ({name})"]
            + [judged(number(evidence.run(corpus), claim, "difference"), evidence.rule) for claim in evidence.claims]
            for corpus, name in DATA.items()
        ),
    ]
    widths = [max(map(len, column)) for column in columns]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
             for row in zip(*columns, strict=True)]  # fmt: skip
    lines += ["", *(f"{corpus}: {place(evidence.run(corpus))}: {tally(evidence, corpus)}" for corpus in DATA), ""]
    for name, claim in evidence.claims.items():
        lines += [
            f"{name}: {claim.sentence}",
            f"    {PAPERS[claim.paper]}, {_published(claim)}",
            f"    {tested(claim)}",
        ]
    return "\n".join(lines)


def passports(evidence: Evidence) -> None:
    """Where all numbers of the chapter come from."""
    for one in [*evidence.runs.values(), *evidence.live.values()]:
        show_passport(one)


def system_name(system: str) -> str:
    """What a system is called where those of all papers stand together: ``fused tuned (Li et al.)``."""
    paper = PAPERS.get(system.partition("/")[0], "")
    return f"{_bare(system)} ({paper.partition(' (')[0]})"


def described(system: str) -> Cell:
    """A system's name with what it is, for the head of a row."""
    paper, _, name = system.partition("/")
    about = SYSTEMS.get(paper, {}).get(name, "")
    markup = f"{html.escape(_bare(system))}<br><small>{html.escape(about)}</small>"
    return Cell(f"{_bare(system)}: {about}" if about else _bare(system), _bare(system), markup)


def _bare(system: str) -> str:
    return system.partition("/")[2].replace("_", " ")


def _sentence(claim: Claim) -> Cell:
    """A claim with a link to the chapter on its paper, and the comparison that tests it."""
    test = tested(claim)
    link = f'<a href="{claim.chapter}.html" style="font-weight:normal">{html.escape(claim.sentence)}</a>'
    markup = f"{link}<br><small>{html.escape(test)}</small>"
    return Cell(f"{claim.sentence} ({test})", claim.sentence, markup)


def _published(claim: Claim) -> str:
    return f"{published_text(claim)}, section {claim.where.section}, page {claim.where.page}"


def _judged(one: Interval | None, rule: Rule) -> Cell:
    """A verdict in words, underlaid with a colour where it is one way or the other."""
    text = judged(one, rule)
    if one is None:
        return Cell(text, math.nan)
    word, _, reason = text.partition(": ")
    style = f"{PAINT.get(word, '')};padding:0 0.3em;border-radius:0.2em"
    reason = html.escape(reason).replace(" [", "<br>[")  # in few letters' width, so that all columns are on the page
    return Cell(text, one.value, f'<strong style="{style}">{word}</strong><br>{reason}')


def _here(evidence: Evidence, claim: Claim) -> Cell:
    one = measured_here(evidence, claim)
    return MISSING if one is None else Cell(points(one), one.value)
